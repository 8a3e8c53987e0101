"""A file that appears whole or not at all, and standard output behind the same three methods. Knows bytes only."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from edgewren.archive.disk import Disk, File, set_mode
from edgewren.errors import OutputError, UsageError

_DISK = Disk()


class Sink(Protocol):
    """Where finished bytes go."""

    def write(self, data: bytes) -> None:
        """Take bytes. Raises OutputError."""

    def flush(self) -> None:
        """Hand on what was taken. Raises OutputError."""

    def finish(self) -> None:
        """Make everything final and close. Raises OutputError."""

    def discard(self) -> None:
        """Close, and leave nothing behind that is not whole. Never raises; does nothing after `finish`."""


class WholeFile:
    """Writes OUT.<random>.partial beside OUT, and makes it OUT when all of it is safely on disk.

    A name that stands for a device or a pipe is written to directly: there is nothing to replace.

    Args:
        path: the final name. A link is followed, so that it stays a link. A file that is replaced leaves its
            permissions to the new one.
        force: whether an existing file may be replaced.

    Raises:
        UsageError: the file exists and force is not set.
        OutputError: it cannot be opened for writing.
    """

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        self.name = str(path)
        named, found = Path(path), Path(os.path.realpath(path))
        self._finished = False
        self._direct = False
        with self._reported():
            # /dev/stdout leads to a pipe without name.
            self.path = found if mode_of(found) is not None or mode_of(named) is None else named
            mode = mode_of(self.path)
        check_place(self.path, self.name)
        if mode is not None:
            self._direct = not stat.S_ISREG(mode)
            if not force and not self._direct:
                raise UsageError(f"{path} exists already. Use --force to replace it, or name another file.")
        # A name of its own: one that somebody else could have chosen would write over theirs.
        scratch = f"{self.path.name}.{secrets.token_hex(4)}.partial"
        self._partial = self.path if self._direct else self.path.with_name(scratch)
        with self._reported():
            self._raw: BinaryIO = self._partial.open("wb") if self._direct else self._made(mode)

    def write(self, data: bytes) -> None:
        with self._reported():
            self._raw.write(data)

    def flush(self) -> None:
        with self._reported():
            self._raw.flush()

    def finish(self) -> None:
        with self._reported():
            self._raw.flush()
            if not self._direct:
                _DISK.fsync(File(self._partial, self._raw.fileno()))
            self._raw.close()
            if not self._direct:
                self._partial.replace(self.path)
            self._finished = True
            if not self._direct:
                _DISK.sync_folder(self.path.parent)

    def discard(self) -> None:
        if self._finished:
            return
        self._finished = True
        with contextlib.suppress(OSError):
            self._raw.close()
        if not self._direct:
            with contextlib.suppress(OSError):
                self._partial.unlink()

    def _made(self, mode: int | None) -> BinaryIO:
        permissions = 0o666 if mode is None else permissions_of(mode)
        made = open(  # noqa: SIM115  Path.open gives no permissions
            self._partial, "xb", opener=lambda name, flags: os.open(name, flags, permissions)
        )
        if mode is not None:
            set_mode(made.fileno(), permissions)
        return made

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            how = " The new file is there, but a power cut may bring the old one back." if self._finished else ""
            how = how or ("" if self._direct else " Nothing was changed there.")
            raise OutputError(f"{self.name} cannot be written: {error.strerror or error}.{how}") from error


def check_place(path: Path, name: str) -> None:
    """Raise OutputError, which says `name`, where no file can have a path: it is a folder, or in none."""
    if os.path.isdir(path):  # noqa: PTH112  a name that is too long is none's
        raise OutputError(f"{name} is a folder, expected a file name.")
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise OutputError(f"{name} cannot be written: there is no folder {path.parent}. Make it first.")


def permissions_of(mode: int) -> int:
    """Return the permissions in a file's mode, for a file that takes its place: who it runs as is not taken over."""
    return stat.S_IMODE(mode) & 0o777


def mode_of(path: Path) -> int | None:
    """Return what kind of file has a name, None where none has it. Raises OSError where none can."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


class StandardOutput:
    """Standard output. When its reader goes away (`| head`), the OutputError is caused by a BrokenPipeError."""

    name = "standard output"

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        with self._reported():
            if not hasattr(sys.stdout, "buffer"):  # a host's, which takes text alone, as in notebooks
                sys.stdout.write(data.decode("utf-8", "backslashreplace"))
                return
            while left:
                # Unbuffered, as with PYTHONUNBUFFERED, it may take a part only; None: it is full and does not wait.
                taken = sys.stdout.buffer.write(left)
                if taken is None:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                left = left[taken:]

    def flush(self) -> None:
        with self._reported():
            sys.stdout.flush()

    def finish(self) -> None:
        self.flush()

    def discard(self) -> None:
        """Nothing can be taken back."""

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"Standard output cannot be written: {error.strerror or error}.") from error
