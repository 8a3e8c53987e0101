"""The bundle's folder on disk: which files lie in it, and their bytes. Follows no link, waits for no pipe.

Knows names and sizes, nothing of what is inside.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edgewren.errors import BundleFileError, BundleMissingError

SUFFIXES = (".json", ".jsonl", ".md", ".onnx", ".txt")
"""What a bundle's files may be called: data and words, nothing that any program runs or unpickles."""

MAXIMUM_FILES = 256
_MAXIMUM_NAME = 128


def plain_name(value: object) -> bool:
    """Whether a name is that of a file in the bundle's folder itself, or of onnx/NAME, on every system."""
    if not isinstance(value, str) or len(value) > _MAXIMUM_NAME or not value.isascii():
        return False
    name = value.removeprefix("onnx/")
    stem = name.replace(".", "").replace("_", "").replace("-", "")
    return stem.isalnum() and name[0].isalnum() and name.endswith(SUFFIXES)


def check_listing(folder: Path, sizes: Mapping[str, int | None]) -> None:
    """Compare the folder with the names and sizes in bytes (None: any) that it should hold.

    Raises:
        BundleMissingError: a file is missing.
        BundleFileError: one too many, a link, not a regular file, or of another size.
    """
    folders = {str(parent) for name in sizes for parent in PurePosixPath(name).parents if str(parent) != "."}
    missing = dict(sizes)
    for name, entry in _entries(folder, folders):
        path = folder / name
        if entry.is_symlink():
            raise BundleFileError(f"{path} is a link. A bundle holds regular files only.")
        if name in folders and entry.is_dir(follow_symlinks=False):
            continue
        if name not in sizes:
            raise BundleFileError(f"{path} does not belong to the bundle (manifest.json does not name it). Remove it.")
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise BundleFileError(f"{path} is not a regular file.")
        expected = missing.pop(name)
        if expected is not None and status.st_size != expected:
            raise BundleFileError(
                f"{path} has {status.st_size} bytes, but manifest.json says {expected}. "
                "The bundle is damaged or was changed: get it again."
            )
    if missing:
        raise BundleMissingError(
            f"{folder} lacks {', '.join(sorted(missing))}. The bundle is incomplete: get it again."
        )


def _entries(folder: Path, folders: set[str]) -> list[tuple[str, os.DirEntry[str]]]:
    """Return all entries by their names in the bundle; looks into no folder but the expected ones."""
    found: list[tuple[str, os.DirEntry[str]]] = []
    pending = [""]
    try:
        while pending:
            inside = pending.pop()
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    found.append((name, entry))
                    if len(found) > 4 * MAXIMUM_FILES:
                        raise BundleFileError(f"{folder} holds more than {4 * MAXIMUM_FILES} files. It is no bundle.")
                    if name in folders and entry.is_dir(follow_symlinks=False):
                        pending.append(name)
    except OSError as error:
        raise _unreadable(folder / inside, error) from error
    return sorted(found, key=lambda pair: pair[0])


def read_regular(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

    Raises:
        BundleMissingError: there is none.
        BundleFileError: a link, a pipe, a folder, too large, or unreadable.
    """
    flags = os.O_RDONLY
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):  # not every system has each
        flags |= getattr(os, flag, 0)
    try:
        descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BundleFileError(f"{path} is not a regular file.")
            if status.st_size > limit:
                raise BundleFileError(f"{path} has {status.st_size} bytes, more than the {limit} expected.")
            data: bytes = stream.readall()
    except FileNotFoundError as error:
        raise BundleMissingError(f"{path} is not there. The bundle is incomplete: get it again.") from error
    except BundleFileError:
        raise
    except MemoryError as error:
        raise BundleFileError(f"{path} cannot be read: there is not enough memory for it.") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > limit:
        raise BundleFileError(f"{path} grew while it was read: more than the {limit} bytes expected.")
    return data


def _unreadable(path: Path, error: OSError) -> BundleFileError:
    return BundleFileError(
        f"{path} cannot be read: {error.strerror or error}. Is it a link, or are permissions missing?"
    )
