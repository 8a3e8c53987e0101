"""A bundle on its way to other machines: its checked bytes, and one classifier per process where they arrive.

Knows no cluster. Whatever way the bytes take, the manifest's SHA-256 travels beside them and is compared on arrival, so
no machine can score with another bundle.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewren.bundle import Bundle
from edgewren.classifier import Classifier
from edgewren.errors import BundleHashError
from edgewren.integrations.scratch import kept
from edgewren.lifetime import RenewedLock
from edgewren.manifest import MANIFEST


@dataclass(frozen=True)
class Placement:
    """Where and with what each worker computes; arguments of `Classifier.load`.

    Attributes:
        device: "auto", "cpu" or "cuda".
        variant: name of a variant in the bundle; None: the best for the device.
        threads: of one worker. 1: as many workers as cores is how a cluster uses them.
    """

    device: str = "cpu"
    variant: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class Packed:
    """A bundle's files as bytes, and the SHA-256 of its manifest."""

    sha256: str
    files: Mapping[str, bytes]


def pack(bundle: str | os.PathLike[str], expected_sha256: str | None = None) -> Packed:
    """Read a bundle; every byte is compared with its manifest.

    Raises:
        BundleError: the folder is not a complete, undamaged bundle, or not the one that is expected.
    """
    opened = Bundle.open(bundle, expected_sha256)
    manifest = (opened.path / MANIFEST).read_bytes()
    if hashlib.sha256(manifest).hexdigest() != opened.sha256:
        raise BundleHashError(f"{opened.path / MANIFEST} was changed while it was read. Try again.")
    return Packed(opened.sha256, {MANIFEST: manifest} | {name: opened.read(name) for name in opened.names()})


def write(packed: Packed, folder: Path) -> None:
    """Write a bundle's files into an empty folder."""
    for name, data in packed.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


_loaded: dict[tuple[str, Placement], Classifier] = {}
_loading = RenewedLock()


def classifier_of(packed: Packed, placement: Placement) -> Classifier:
    """Return this process's classifier of a packed bundle, loaded when it is asked for first.

    Its files lie in a temporary folder until the process ends: second sessions and forked children read them again.

    Raises:
        BundleError, DeviceError: as `Classifier.load`.
    """
    with _loading.lock():
        known = already_loaded(packed.sha256, placement)
        if known is not None:
            return known
        folder = kept()
        try:
            write(packed, folder)
            return _load(folder, packed.sha256, placement)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def classifier_at(path: str | os.PathLike[str], sha256: str, placement: Placement) -> Classifier:
    """Return this process's classifier of the bundle with this hash, loaded from a folder when asked for first.

    Raises:
        BundleError, DeviceError: as `Classifier.load`; BundleHashError where the folder holds another bundle.
    """
    with _loading.lock():
        return already_loaded(sha256, placement) or _load(path, sha256, placement)


def already_loaded(sha256: str, placement: Placement) -> Classifier | None:
    """Return this process's classifier of the bundle with this hash, if it has one."""
    return _loaded.get((sha256, placement))


def _load(path: str | os.PathLike[str], sha256: str, placement: Placement) -> Classifier:
    loaded = Classifier.load(path, **vars(placement), expected_sha256=sha256)
    return _loaded.setdefault((sha256, placement), loaded)
