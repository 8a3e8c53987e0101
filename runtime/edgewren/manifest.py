"""manifest.json: what a bundle holds and what it was made of, as data; and the check of every field that is read.

Knows the format and one file's bytes; opens nothing, and trusts nothing that the bytes say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgewren import strict_json
from edgewren.bundle_folder import MAXIMUM_FILES, SUFFIXES, plain_name
from edgewren.device import Device
from edgewren.errors import BundleManifestError
from edgewren.strict_json import JsonError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAXIMUM_LABELS = 100
MAXIMUM_LENGTH = 32_768
KINDS = ("ridge", "lora", "static", "ensemble")
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
_MAXIMUM_VARIANTS = 16
_MAXIMUM_STAGES = 16
_MAXIMUM_OTHER_BYTES = 64 * 2**20
_MAXIMUM_MODEL_BYTES = 2**31 - 1
"""No reader of Protocol Buffers takes more, and a sparse file of a terabyte costs nothing to send."""

_MAXIMUM_VARIANT_BYTES = 2**32
"""Of all stages: they are in memory together before the first is made."""

_SIGNED_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class File:
    """Size in bytes and SHA-256 (hexadecimal) of one file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class StageFile:
    """One stage of a variant that computes in stages.

    Attributes:
        file: its ONNX file.
        layer: it ends after this layer of the encoder.
        threshold: a text leaves where its two largest logits are further apart; None for the last stage.
    """

    file: str
    layer: int
    threshold: float | None


@dataclass(frozen=True)
class Variant:
    """One ONNX file: the same model in one precision, meant for one device ("cpu", "cuda" or "any").

    One that computes in stages has several: `file` is the first of `stages`, the others stand among the bundle's files.
    """

    file: str
    bytes: int
    sha256: str
    precision: str
    device: str
    stages: tuple[StageFile, ...] = ()

    @property
    def loaded(self) -> tuple[str, ...]:
        """The ONNX files that make it up, in the order of its stages."""
        return tuple(stage.file for stage in self.stages) or (self.file,)

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

    def variant_bytes(self, name: str) -> int:
        """Return the bytes of all ONNX files that a variant loads: the sum of its stages, where it has some."""
        variant = self.variants[name]
        return variant.bytes + sum(self.files[stage.file].bytes for stage in variant.stages[1:])

    def to_json(self) -> bytes:
        """Return the manifest as the bytes of manifest.json."""
        return (json.dumps(asdict(self), ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes, where: Path) -> Manifest:
        """Return the manifest that these bytes hold; `where` is named in messages. Raises BundleError."""
        return _parse(raw, where)


def _parse(raw: bytes, path: Path) -> Manifest:
    try:
        data = strict_json.parse(raw)
        strict_json.check_small(data, depth=24, values=200_000, characters=65_536)
    except JsonError as error:
        raise BundleManifestError(f"{path} is refused: {error}. The bundle is damaged: get it again.") from error
    if not isinstance(data, dict):
        raise BundleManifestError(f"{path} holds a {type(data).__name__}, expected an object.")
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleManifestError(
            f"{path} has format version {version!r}; this edgewren reads version {FORMAT_VERSION}. "
            "Export the bundle again, or install the edgewren release that wrote it."
        )
    check = _Checker(path)
    labels = check.labels(data.get("labels"))
    variants = {
        check.name(name, "variants"): Variant(
            file=check.file(entry.get("file")),
            bytes=check.integer(entry.get("bytes"), f"variants.{name}.bytes", 1, _MAXIMUM_MODEL_BYTES),
            sha256=check.sha256(entry.get("sha256"), f"variants.{name}.sha256"),
            precision=check.name(entry.get("precision"), f"variants.{name}.precision"),
            device=check.choice(entry.get("device"), f"variants.{name}.device", ("cpu", "cuda", "any")),
            stages=check.stages(entry.get("stages", []), f"variants.{name}.stages"),
        )
        for name, entry in check.objects(data.get("variants"), "variants").items()
    }
    files = {
        check.file(name): File(
            bytes=check.integer(
                entry.get("bytes"),
                f"files.{name}.bytes",
                0,
                _MAXIMUM_MODEL_BYTES if name.endswith(".onnx") else _MAXIMUM_OTHER_BYTES,
            ),
            sha256=check.sha256(entry.get("sha256"), f"files.{name}.sha256"),
        )
        for name, entry in check.objects(data.get("files"), "files").items()
    }
    if not 1 <= len(variants) <= _MAXIMUM_VARIANTS:
        raise check.refusal("variants", list(variants), f"1 to {_MAXIMUM_VARIANTS} variants")
    for variant in variants.values():
        if not variant.file.endswith(".onnx"):
            raise check.refusal("a variant's file", variant.file, "a name ending in .onnx")
        if variant.stages and (
            variant.stages[0].file != variant.file
            or not {stage.file for stage in variant.stages[1:]} <= {name for name in files if name.endswith(".onnx")}
        ):
            raise check.refusal("stages", [stage.file for stage in variant.stages], "the variant's file, then others")
        together = variant.bytes + sum(files[stage.file].bytes for stage in variant.stages[1:])
        if together > _MAXIMUM_VARIANT_BYTES:
            raise check.refusal("the bytes of all stages", together, f"at most {_MAXIMUM_VARIANT_BYTES}")
    check.distinct_files([*files, *(variant.file for variant in variants.values())])
    for needed in (TOKENIZER, CONFIG):
        if needed not in files:
            raise check.refusal("files", list(files), f"an entry for {needed}")
    temperature = data.get("temperature")
    if not isinstance(temperature, int | float) or isinstance(temperature, bool) or not 0 < temperature < 1e6:
        raise check.refusal("temperature", temperature, "a positive number")
    return Manifest(
        labels=labels,
        kind=check.choice(data.get("kind"), "kind", KINDS),
        max_length=check.integer(data.get("max_length"), "max_length", 3, MAXIMUM_LENGTH),
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


def is_formula(label: str) -> bool:
    """Whether a spreadsheet would take a label for a formula; numbers may have signs."""
    return label[0] in "=@+-" and not _SIGNED_NUMBER.fullmatch(label)


class _Checker:
    """Checks of single manifest fields, with one form of message."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def refusal(self, key: str, value: object, expected: str) -> BundleManifestError:
        return BundleManifestError(f"{self._path}: {key} is {str(value)[:200]!r}, expected {expected}.")

    def labels(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not 2 <= len(value) <= MAXIMUM_LABELS:
            raise self.refusal("labels", value, f"a list of 2 to {MAXIMUM_LABELS} names")
        for label in value:
            if not isinstance(label, str) or not 1 <= len(label) <= 128 or not label.isprintable():
                raise self.refusal("labels", label, "names of 1 to 128 printable characters")
            if is_formula(label):
                raise self.refusal(
                    "labels", label, "names that no spreadsheet takes for a formula (numbers may have signs)"
                )
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

    def integer(self, value: object, key: str, minimum: int, maximum: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.refusal(key, value, f"an integer from {minimum} to {maximum}")
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
        if not isinstance(value, str) or not plain_name(value) or value == MANIFEST:
            raise self.refusal(
                "a file name", value, f"a plain name in the bundle, or onnx/NAME, ending in {', '.join(SUFFIXES)}"
            )
        return value

    def stages(self, value: object, key: str) -> tuple[StageFile, ...]:
        if not isinstance(value, list) or len(value) > _MAXIMUM_STAGES:
            raise self.refusal(key, value, f"a list of at most {_MAXIMUM_STAGES} stages")
        stages: list[StageFile] = []
        for index, entry in enumerate(value):
            if not isinstance(entry, dict):
                raise self.refusal(key, entry, "objects")
            threshold = entry.get("threshold")
            last = index == len(value) - 1
            if (threshold is None) != last or (
                threshold is not None
                and (not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 <= threshold < 1e9)
            ):
                raise self.refusal(f"{key}[{index}].threshold", threshold, "a positive number, null for the last stage")
            layer = self.integer(entry.get("layer"), f"{key}[{index}].layer", 0, 1000)
            if stages and layer <= stages[-1].layer:
                raise self.refusal(f"{key}[{index}].layer", layer, "layers in ascending order")
            stages.append(
                StageFile(self.file(entry.get("file")), layer, None if threshold is None else float(threshold))
            )
        return tuple(stages)

    def distinct_files(self, names: Sequence[str]) -> None:
        if len(names) > MAXIMUM_FILES:
            raise self.refusal("files", f"{len(names)} names", f"at most {MAXIMUM_FILES}")
        folded = [name.casefold() for name in names]  # one file on systems that ignore case
        for name, key in zip(names, folded, strict=True):
            if folded.count(key) > 1:
                raise self.refusal("a file name", name, "a name that occurs once")
