"""Files here or far away, by pyarrow's file systems and fsspec: fetch one, list some, put one whole or not at all.

Knows addresses and bytes, nothing of what they mean. An address without scheme (`://`) is a path of this machine, or of
a folder that all machines mount.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgewren.archive.disk import Disk
from edgewren.errors import InputError, MissingDependencyError, OutputError

try:
    import pyarrow as pa
    from pyarrow import fs as arrow_fs
except ImportError as error:
    raise MissingDependencyError(
        f"Scoring on a cluster needs pyarrow, which cannot be imported ({error}). Run: pip install 'edgewren[cpu,ray]'."
    ) from error

_CHUNK_BYTES = 1 << 20
_DISK = Disk()
_UNFINISHED = "_unfinished"
_PATTERN = frozenset("*?[")
_TRIES = 8
_FAILURES = (OSError, pa.ArrowException, UnicodeError)


@dataclass(frozen=True)
class Found:
    """An input: its address, size in bytes, and time of change (nanoseconds; None where a store keeps none)."""

    address: str
    bytes: int
    changed_ns: int | None

    @property
    def name(self) -> str:
        """Its name without folders."""
        return PurePosixPath(self.address.partition("?")[0]).name


def find(address: str) -> list[Found]:
    """Return the file at an address, or the files that a pattern in its last part matches, sorted; paths absolute.

    Raises:
        InputError: there is none, or the store cannot be asked.
    """
    address = absolute(address)
    system, path = _resolve(address)
    parent, _, last = path.rpartition("/")
    try:
        infos = [system.get_file_info(path)]
        if infos[0].type == arrow_fs.FileType.NotFound and _PATTERN & set(last):
            selector = arrow_fs.FileSelector(parent or ".", allow_not_found=True)
            infos = [info for info in system.get_file_info(selector) if fnmatch.fnmatchcase(info.base_name, last)]
    except _FAILURES as error:
        raise InputError(
            f"{address} cannot be found: {_reason(error)}. Check the address and the access to it."
        ) from error
    files = sorted((info for info in infos if info.type == arrow_fs.FileType.File), key=lambda info: info.path)
    if not files:
        raise InputError(f"{address} is not a file. Name a file, or a pattern that files match.")
    base = address[: len(address) - len(last)]
    return [
        Found(address if info.path == path else base + info.base_name, info.size or 0, info.mtime_ns) for info in files
    ]


def is_remote(address: str) -> bool:
    """Whether an address has a scheme, so that it has to be fetched."""
    return "://" in address


def absolute(address: str) -> str:
    """Return an address that means the same in every working directory."""
    return address if is_remote(address) else os.path.abspath(address)  # noqa: PTH100  no link is followed


def _reason(error: Exception) -> str:
    return f"its name, or one beside it, is no UTF-8 ({error})" if isinstance(error, UnicodeError) else str(error)


def fetch(address: str, folder: Path) -> Path:
    """Copy a file to this machine's disk, and return the copy, which has the same name.

    Raises:
        InputError: it cannot be read, or fewer bytes came than its store announced.
    """
    system, path = _resolve(address)
    target = folder / PurePosixPath(path).name
    try:
        expected = system.get_file_info(path).size
        with system.open_input_stream(path, compression=None) as source, target.open("wb") as copy:
            while chunk := source.read(_CHUNK_BYTES):
                copy.write(chunk)
    except _FAILURES as error:
        raise InputError(
            f"{address} cannot be fetched: {_reason(error)}. Check the address and the access to it."
        ) from error
    if expected is not None and target.stat().st_size != expected:
        raise InputError(f"{address} has {expected:,} bytes, but {target.stat().st_size:,} came. Try again.")
    return target


class Folder:
    """A folder that results go to.

    A file appears in it whole or not at all: it is written under a name of its own below `_unfinished`, brought to
    disk, and renamed. Writing the same name again replaces it.

    Raises:
        OutputError: (every method) the store refuses.
    """

    def __init__(self, address: str) -> None:
        self.address = absolute(address).rstrip("/") or "/"
        self._system, self._path = _resolve(self.address)
        self._local = Path(self._path) if isinstance(self._system, arrow_fs.LocalFileSystem) else None

    def put(self, name: str, content: Path | bytes) -> tuple[int, str]:
        """Write a file from a local one or from bytes, and return its size and SHA-256."""
        unfinished = f"{_UNFINISHED}/{uuid.uuid4().hex}"
        digest, size = hashlib.sha256(), 0
        try:
            for folder in (self._at(_UNFINISHED), self._at(name).rpartition("/")[0]):
                self._system.create_dir(folder, recursive=True)
            with self._system.open_output_stream(self._at(unfinished), compression=None) as target:
                for chunk in _chunks(content):
                    target.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
            if self._local is not None:
                _sync(self._local / unfinished)
            self._move(self._at(unfinished), self._at(name))
            if self._local is not None:
                _DISK.sync_folder((self._local / name).parent)
        except _FAILURES as error:
            raise OutputError(
                f"{self.address}/{name} cannot be written: {_reason(error)}. Go on with --resume."
            ) from error
        return size, digest.hexdigest()

    def _move(self, source: str, target: str) -> None:
        """Rename a file, over another one of that name. HDFS refuses this, so the other is removed before."""
        for tries_left in reversed(range(_TRIES)):  # somebody may put the same part at the same time
            try:
                self._system.move(source, target)
            except OSError:
                infos = self._system.get_file_info([source, target])
                both_there = all(info.type == arrow_fs.FileType.File for info in infos)
                if self._system.type_name != "hdfs" or not both_there or not tries_left:
                    raise
            else:
                return
            with contextlib.suppress(OSError):
                self._system.delete_file(target)

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where there is none."""
        try:
            with self._system.open_input_stream(self._at(name), compression=None) as source:
                data: bytes = source.read()
        except FileNotFoundError:
            return None
        except _FAILURES as error:
            raise OutputError(f"{self.address}/{name} cannot be read: {_reason(error)}.") from error
        return data

    def sizes(self, below: str = "") -> dict[str, int]:
        """Return the files directly in the folder, or in one below it: names to bytes."""
        try:
            selector = arrow_fs.FileSelector(self._at(below), allow_not_found=True)
            infos = self._system.get_file_info(selector)
            return {info.base_name: info.size for info in infos if info.type == arrow_fs.FileType.File}
        except _FAILURES as error:
            raise OutputError(f"{self.address} cannot be read: {_reason(error)}.") from error

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            if self._system.get_file_info(self._at(name)).type == arrow_fs.FileType.File:
                self._system.delete_file(self._at(name))
        except _FAILURES as error:
            raise OutputError(f"{self.address}/{name} cannot be removed: {_reason(error)}.") from error

    def tidy(self) -> None:
        """Remove what killed workers left unfinished."""
        try:
            if self._system.get_file_info(self._at(_UNFINISHED)).type == arrow_fs.FileType.Directory:
                self._system.delete_dir(self._at(_UNFINISHED))
        except _FAILURES as error:
            raise OutputError(f"{self.address}/{_UNFINISHED} cannot be removed: {_reason(error)}.") from error

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}" if name else self._path


def _resolve(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    if not is_remote(address):
        return arrow_fs.LocalFileSystem(), absolute(address)
    try:
        system, path = arrow_fs.FileSystem.from_uri(address)
    except (pa.ArrowException, ValueError):
        return _by_fsspec(address)
    return system, path


def _by_fsspec(address: str) -> tuple[Any, str]:
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{address}: nothing here knows this kind of address ({error}). Expected a path, file://, s3://, gs://, "
            "hdfs://, or what an installed fsspec package knows."
        ) from error
    return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(system)), path


def _chunks(content: Path | bytes) -> Any:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _sync(path: Path) -> None:
    file = _DISK.open(path)
    try:
        _DISK.fsync(file)
    finally:
        _DISK.close(file)
