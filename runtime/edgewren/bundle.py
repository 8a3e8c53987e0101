"""The bundle: sole owner of the exported folder's format. Reads, checks, and hands out bytes and settings.

A bundle is data. Nothing in it is executed, nothing outside it is opened, and every byte that is used has been hashed
and compared with the manifest first: each file is read once, and what was hashed is what is parsed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgewren.device import Device
from edgewren.errors import BundleError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
KINDS = ("ridge", "lora", "static", "ensemble")
MAXIMUM_LABELS = 100
_MAXIMUM_MANIFEST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class File:
    """Size in bytes and SHA-256 (hexadecimal) of one file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Variant:
    """One ONNX file: the same model in one precision, meant for one device ("cpu", "cuda" or "any")."""

    file: str
    bytes: int
    sha256: str
    precision: str
    device: str

    def runs_on(self, device: Device) -> bool:
        """Whether it is meant for this device."""
        return self.device in (device, "any")


@dataclass(frozen=True)
class Manifest:
    """manifest.json: the contract between export and runtime.

    Attributes:
        labels: label names in the order of the model's outputs.
        kind: one of `KINDS`.
        max_length: tokens kept of a text, special tokens included.
        normaliser: name of the text normaliser inside tokenizer.json ("none", "http").
        temperature: factor by which logits were multiplied at export (1.0: none).
        variants: precision name to ONNX file.
        files: every other file of the bundle except the manifest itself.
        encoder, training, parity, evaluation: provenance, for people and tools; scoring does not read them.
    """

    labels: tuple[str, ...]
    kind: str
    max_length: int
    normaliser: str
    temperature: float
    variants: Mapping[str, Variant]
    files: Mapping[str, File]
    encoder: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    created: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """Return the manifest as the bytes of manifest.json."""
        return (json.dumps(asdict(self), ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()


class Bundle:
    """An opened bundle. Use `Bundle.open`; each file is read when it is asked for, and checked against the manifest."""

    def __init__(self, path: Path, manifest: Manifest, sha256: str) -> None:
        self.path = path
        self.manifest = manifest
        self.sha256 = sha256
        """SHA-256 of manifest.json: pins the whole bundle, since the manifest pins every other file."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle folder and check its manifest and its list of files.

        Raises:
            BundleError: no such folder, no manifest, an unknown format version, a bad field, or files that the
                manifest does not name.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(f"{folder} is not a folder. Expected a bundle written by 'edgewren export'.")
        if (folder / "model.json").is_file() and not (folder / MANIFEST).exists():
            raise BundleError(
                f"{folder} is a trained model, not a bundle. Run: edgewren export {folder} --output BUNDLE"
            )
        if not (folder / MANIFEST).exists():
            raise BundleError(f"{folder} has no {MANIFEST}. Expected a folder written by 'edgewren export'.")
        raw = _read_regular(folder, MANIFEST, _MAXIMUM_MANIFEST_BYTES)
        bundle = cls(folder, _parse(raw, folder / MANIFEST), hashlib.sha256(raw).hexdigest())
        bundle._check_listing()
        return bundle

    def runs_on(self, device: Device) -> bool:
        """Whether a variant is meant for this device."""
        return any(entry.runs_on(device) for entry in self.manifest.variants.values())

    def variant(self, name: str | None, device: Device) -> tuple[str, Variant]:
        """Return name and entry of the variant to run: the named one, or the best for the device.

        Raises:
            BundleError: no such variant.
        """
        variants = self.manifest.variants
        if name is not None:
            if name not in variants:
                raise BundleError(f"{self.path} has no variant {name!r}. It has: {', '.join(variants)}.")
            return name, variants[name]
        preference = ("fp16", "fp32") if device == "cuda" else ("int8", "fp32")
        for candidate in (*preference, *variants):
            if candidate in variants and variants[candidate].runs_on(device):
                return candidate, variants[candidate]
        raise BundleError(
            f"{self.path} has no variant for device {device!r}; it has: {', '.join(variants)}. "
            "Name one with variant=, or export another precision."
        )

    def read(self, name: str) -> bytes:
        """Return the bytes of one file of the bundle, after comparing size and SHA-256 with the manifest.

        Raises:
            BundleError: the file is missing, not a regular file, or not the one that the manifest describes.
        """
        by_file: dict[str, File | Variant] = {v.file: v for v in self.manifest.variants.values()}
        by_file.update(self.manifest.files)
        expected = by_file.get(name)
        if expected is None:
            raise BundleError(f"{self.path / name} is not named in {MANIFEST}.")
        data = _read_regular(self.path, name, expected.bytes)
        digest = hashlib.sha256(data).hexdigest()
        if len(data) != expected.bytes or digest != expected.sha256:
            raise BundleError(
                f"{self.path / name} is not the file that {MANIFEST} describes: {len(data)} bytes with SHA-256 "
                f"{digest[:12]}…, expected {expected.bytes} bytes with {expected.sha256[:12]}…. "
                "The bundle is damaged or was changed: get it again."
            )
        return data

    def names(self) -> list[str]:
        """Return all files of the bundle except the manifest, variants last."""
        return [*self.manifest.files, *(v.file for v in self.manifest.variants.values())]

    def _check_listing(self) -> None:
        expected = {MANIFEST, *self.names()}
        folders = {str(parent) for name in expected for parent in PurePosixPath(name).parents if str(parent) != "."}
        present = set()
        for entry in sorted(self.path.rglob("*")):
            name = entry.relative_to(self.path).as_posix()
            if entry.is_symlink():
                raise BundleError(f"{entry} is a link. A bundle holds regular files only.")
            if entry.is_dir():
                if name not in folders:
                    raise BundleError(
                        f"{entry} does not belong to the bundle ({MANIFEST} does not name it). Remove it."
                    )
                continue
            if name not in expected:
                raise BundleError(f"{entry} does not belong to the bundle ({MANIFEST} does not name it). Remove it.")
            present.add(name)
        missing = sorted(expected - present)
        if missing:
            raise BundleError(f"{self.path} lacks {', '.join(missing)}. The bundle is incomplete: get it again.")


def _read_regular(folder: Path, name: str, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes, following no link and waiting for no writer of a named pipe."""
    path = folder / name
    flags = os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # not every system has each
        flags |= getattr(os, flag, 0)
    try:
        descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path} is not a regular file.")
            if status.st_size > limit:
                raise BundleError(f"{path} has {status.st_size} bytes, more than the {limit} expected.")
            return stream.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}. The bundle is incomplete.") from error


def _parse(raw: bytes, path: Path) -> Manifest:
    try:
        data = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}. The bundle is damaged: get it again.") from error
    if not isinstance(data, dict):
        raise BundleError(f"{path} holds a {type(data).__name__}, expected an object.")
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {version!r}; this edgewren reads version {FORMAT_VERSION}. "
            "Export the bundle again, or install the edgewren release that wrote it."
        )
    check = _Checker(path)
    labels = check.labels(data.get("labels"))
    variants = {
        check.name(name, "variants"): Variant(
            file=check.file(entry.get("file")),
            bytes=check.integer(entry.get("bytes"), f"variants.{name}.bytes", 1),
            sha256=check.sha256(entry.get("sha256"), f"variants.{name}.sha256"),
            precision=check.name(entry.get("precision"), f"variants.{name}.precision"),
            device=check.choice(entry.get("device"), f"variants.{name}.device", ("cpu", "cuda", "any")),
        )
        for name, entry in check.objects(data.get("variants"), "variants").items()
    }
    files = {
        check.file(name): File(
            bytes=check.integer(entry.get("bytes"), f"files.{name}.bytes", 0),
            sha256=check.sha256(entry.get("sha256"), f"files.{name}.sha256"),
        )
        for name, entry in check.objects(data.get("files"), "files").items()
    }
    if not variants:
        raise check.refusal("variants", {}, "at least one variant")
    for needed in ("tokenizer.json", "config.json"):
        if needed not in files:
            raise check.refusal("files", list(files), f"an entry for {needed}")
    temperature = data.get("temperature")
    if not isinstance(temperature, int | float) or isinstance(temperature, bool) or not 0 < temperature < 1e6:
        raise check.refusal("temperature", temperature, "a positive number")
    return Manifest(
        labels=labels,
        kind=check.choice(data.get("kind"), "kind", KINDS),
        max_length=check.integer(data.get("max_length"), "max_length", 3),
        normaliser=check.name(data.get("normaliser"), "normaliser"),
        temperature=float(temperature),
        variants=variants,
        files=files,
        encoder=check.plain_object(data.get("encoder", {}), "encoder"),
        training=check.plain_object(data.get("training", {}), "training"),
        parity=check.plain_object(data.get("parity", {}), "parity"),
        evaluation=check.plain_object(data.get("evaluation", {}), "evaluation"),
        created=check.plain_object(data.get("created", {}), "created"),
    )


class _Checker:
    """Checks of single manifest fields, with one form of message."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def refusal(self, key: str, value: object, expected: str) -> BundleError:
        return BundleError(f"{self._path}: {key} is {str(value)[:200]!r}, expected {expected}.")

    def labels(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not 2 <= len(value) <= MAXIMUM_LABELS:
            raise self.refusal("labels", value, f"a list of 2 to {MAXIMUM_LABELS} names")
        for label in value:
            if not isinstance(label, str) or not 1 <= len(label) <= 128 or not label.isprintable():
                raise self.refusal("labels", label, "names of 1 to 128 printable characters")
        if len(set(value)) != len(value):
            raise self.refusal("labels", value, "distinct names")
        return tuple(value)

    def objects(self, value: object, key: str) -> dict[str, dict[str, Any]]:
        if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
            raise self.refusal(key, value, "an object of objects")
        return value

    def plain_object(self, value: object, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.refusal(key, value, "an object")
        return value

    def integer(self, value: object, key: str, minimum: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value < 2**40:
            raise self.refusal(key, value, f"an integer of at least {minimum}")
        return value

    def sha256(self, value: object, key: str) -> str:
        if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise self.refusal(key, value, "a SHA-256 in lower-case hexadecimal")
        return value

    def name(self, value: object, key: str) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= 64 or not value.replace("_", "a").isalnum():
            raise self.refusal(key, value, "a short name of letters, digits and underscores")
        return value

    def choice(self, value: object, key: str, allowed: tuple[str, ...]) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise self.refusal(key, value, f"one of {', '.join(allowed)}")
        return value

    def file(self, value: object) -> str:
        pieces = value.split("/") if isinstance(value, str) else []
        flat = pieces[1:] if pieces[:1] == ["onnx"] else pieces
        if (
            not isinstance(value, str)
            or len(flat) != 1
            or not flat[0].replace(".", "").replace("_", "").isalnum()
            or flat[0].startswith(".")
            or not value.isascii()
            or value == MANIFEST
        ):
            raise self.refusal("a file name", value, "a plain name in the bundle, or onnx/NAME")
        return value
