"""The bundle: an exported folder, opened. Reads and checks its files, and hands out bytes; `manifest` describes them.

A bundle is data. Nothing in it is executed, nothing outside it is opened, and every byte that is used has been hashed
and compared with the manifest first: each file is read once, and what was hashed is what is parsed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from edgewren import bundle_settings, names, onnx_scan, tokenizer_scan
from edgewren.bundle_folder import check_listing, read_regular
from edgewren.device import Device
from edgewren.errors import (
    BundleError,
    BundleFileError,
    BundleHashError,
    BundleMissingError,
    BundleModelError,
    UsageError,
)
from edgewren.manifest import MANIFEST, TOKENIZER, File, Manifest, Variant

_MAXIMUM_MANIFEST_BYTES = 16 * 2**20


class Bundle:
    """An opened bundle. Use `Bundle.open`; each file is read when it is asked for, and checked against the manifest."""

    def __init__(self, path: Path, manifest: Manifest, sha256: str) -> None:
        self.path = path
        """As it was named: so words and reports name it."""
        self.folder = path.absolute()
        """Where it is read: second sessions and forked children read later, maybe in another working directory."""
        self.manifest = manifest
        self.sha256 = sha256
        """SHA-256 of manifest.json: pins the whole bundle, since the manifest pins every other file."""

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] | None = None, expected_sha256: str | None = None, *, check_files: bool = True
    ) -> Bundle:
        """Open a bundle folder; check its manifest, its list of files, and all files but tokenizer and models.

        Args:
            path: the folder, or a bundle's name (see `names.resolve`); None: the default inside the package.
            expected_sha256: SHA-256 that manifest.json must have; pins the whole bundle from outside.
            check_files: look into files; without, only names and sizes are compared, and `read` does the rest.

        Raises:
            BundleError: one of its subclasses: no such folder, no manifest, not the expected one, an unknown format
                version, a bad field, files missing, damaged, linked, or not named by the manifest.
            UsageError: expected_sha256 is no SHA-256.
        """
        folder = names.resolve(path)
        wanted = None if expected_sha256 is None else _wanted(expected_sha256)
        try:
            is_folder = stat.S_ISDIR(folder.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            is_folder = False
        except OSError as error:
            raise BundleMissingError(f"{folder} cannot be read: {error.strerror}.") from error
        except ValueError as error:  # a NUL, or half a surrogate pair
            raise BundleMissingError(f"{str(folder)!r} is a name that no folder can have.") from error
        if not is_folder:
            raise BundleMissingError(f"{folder} is not a folder. Expected a bundle written by 'edgewren export'.")
        if (folder / "model.json").is_file() and not (folder / MANIFEST).exists():
            raise BundleMissingError(
                f"{folder} is a trained model, not a bundle. Run: edgewren export {folder} --output BUNDLE"
            )
        if not os.path.lexists(folder / MANIFEST):
            raise BundleMissingError(f"{folder} has no {MANIFEST}. Expected a folder written by 'edgewren export'.")
        raw = read_regular(folder / MANIFEST, _MAXIMUM_MANIFEST_BYTES)
        digest = hashlib.sha256(raw).hexdigest()
        if wanted is not None and digest != wanted:
            raise BundleHashError(
                f"{folder} is another bundle than required: its {MANIFEST} has SHA-256 {digest}, expected {wanted}. "
                "Get the bundle that was meant."
            )
        bundle = cls(folder, Manifest.from_json(raw, folder / MANIFEST), digest)
        expected = bundle._expected()
        check_listing(folder, {MANIFEST: None, **{name: entry.bytes for name, entry in expected.items()}})
        for name in bundle.manifest.files if check_files else ():
            if not name.endswith((TOKENIZER, ".onnx")):
                bundle.read(name)
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
        preference = ("fp16", "fp32") if device == "cuda" else ("int8_exit", "int8", "fp32_exit", "fp32")
        for candidate in (*preference, *variants):
            if candidate in variants and variants[candidate].runs_on(device):
                return candidate, variants[candidate]
        raise BundleError(
            f"{self.path} has no variant for device {device!r}; it has: {', '.join(variants)}. "
            "Name one with variant=, or export another precision."
        )

    def read(self, name: str) -> bytes:
        """Return the bytes of one file of the bundle, after comparing size and SHA-256 with the manifest and looking
        for anything in them that `edgewren export` does not write. These bytes are what may be used: the file is not
        opened a second time.

        Raises:
            BundleError: one of its subclasses: the file is missing, not a regular file, not the one that the manifest
                describes, or it holds what no exported file holds.
        """
        data = self.unchecked(name)
        self.compare(name, data)
        self.check(name, data)
        return data

    def unchecked(self, name: str) -> bytes:
        """Do the first third of `read`. Nothing may be done with the bytes before `compare` and `check` have passed."""
        expected = self._expected().get(name)
        if expected is None:
            raise BundleFileError(f"{self.path / name} is not named in {MANIFEST}.")
        return read_regular(self.folder / name, expected.bytes)

    def compare(self, name: str, data: bytes) -> None:
        """Do the second third of `read`: compare size and SHA-256. Needs next to nothing of the interpreter's lock."""
        expected = self._expected()[name]
        digest = hashlib.sha256(data).hexdigest()
        if len(data) != expected.bytes or digest != expected.sha256:
            raise BundleHashError(
                f"{self.path / name} is not the file that {MANIFEST} describes: {len(data)} bytes with SHA-256 "
                f"{digest[:12]}…, expected {expected.bytes} bytes with {expected.sha256[:12]}…. "
                "The bundle is damaged or was changed: get it again."
            )

    def check(self, name: str, data: bytes) -> None:
        """Do the last third of `read`: look for what `edgewren export` does not write."""
        check_content(name, data, self.manifest.labels, str(self.path / name))

    def names(self) -> list[str]:
        """Return all files of the bundle except the manifest, variants last."""
        return [*self.manifest.files, *(v.file for v in self.manifest.variants.values())]

    def _expected(self) -> dict[str, File | Variant]:
        return {**self.manifest.files, **{v.file: v for v in self.manifest.variants.values()}}


def check_content(name: str, data: bytes, labels: Sequence[str], where: str) -> None:
    """Refuse whatever `edgewren export` does not write into a file of this name.

    Args:
        name: the file's name in the bundle.
        data: its bytes.
        labels: the bundle's.
        where: what messages call it.

    Raises:
        BundleModelError, BundleTokenizerError, BundleSettingsError: something foreign is inside.
    """
    if name.endswith(".onnx"):
        logits = onnx_scan.scan(data, where).outputs.get("logits")
        if logits is not None and (logits.data_type != onnx_scan.FLOAT or (logits.shape or ())[1:] != (len(labels),)):
            raise BundleModelError(
                f"{where} is refused: its logits have type {logits.data_type} and shape {logits.shape}, expected "
                f"float32 of [batch, {len(labels)}], one for each of the manifest's labels. Export the bundle again."
            )
    elif name.endswith(TOKENIZER):
        tokenizer_scan.scan(data, where)
    elif name in bundle_settings.NAMES:
        bundle_settings.check(name, data, labels, where)


def _wanted(sha256: str) -> str:
    wanted = sha256.strip().lower() if isinstance(sha256, str) else ""
    if len(wanted) != 64 or not set(wanted) <= set("0123456789abcdef"):
        raise UsageError(f"The required SHA-256 is {sha256!r}, expected 64 hexadecimal digits.")
    return wanted
