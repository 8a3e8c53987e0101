"""A file that appears whole or not at all, and standard output behind the same three methods. Knows bytes only."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from edgewren.errors import OutputError, UsageError


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
        path: the final name; packed if it ends in .gz. A link is followed, so that it stays a link.
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
            self.path = found if _mode(found) is not None or _mode(named) is None else named
            mode = _mode(self.path)
        if mode is not None:
            if stat.S_ISDIR(mode):
                raise OutputError(f"{path} is a folder, expected a file name.")
            self._direct = not stat.S_ISREG(mode)
            if not force and not self._direct:
                raise UsageError(f"{path} exists already. Use --force to replace it, or name another file.")
        # A name of its own: one that somebody else could have chosen would write over theirs.
        scratch = f"{self.path.name}.{secrets.token_hex(4)}.partial"
        self._partial = self.path if self._direct else self.path.with_name(scratch)
        with self._reported():
            self._raw: BinaryIO = self._partial.open("wb" if self._direct else "xb")
        # No name and no time in the gzip header: same input, same bytes.
        self._stream: BinaryIO = (
            cast("BinaryIO", gzip.GzipFile(filename="", fileobj=self._raw, mode="wb", compresslevel=6, mtime=0))
            if self.path.name.lower().endswith(".gz")
            else self._raw
        )

    def write(self, data: bytes) -> None:
        with self._reported():
            self._stream.write(data)

    def flush(self) -> None:
        with self._reported():
            self._raw.flush()

    def finish(self) -> None:
        with self._reported():
            if self._stream is not self._raw:
                self._stream.close()
            self._raw.flush()
            if not self._direct:
                os.fsync(self._raw.fileno())
            self._raw.close()
            if not self._direct:
                self._partial.replace(self.path)
            self._finished = True
            if not self._direct and os.name == "posix":
                folder = os.open(self.path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)

    def discard(self) -> None:
        if self._finished:
            return
        self._finished = True
        for stream in (self._stream, self._raw):
            with contextlib.suppress(OSError, ValueError):
                stream.close()
        if not self._direct:
            with contextlib.suppress(OSError):
                self._partial.unlink()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            untouched = "" if self._direct else " Nothing was changed there."
            raise OutputError(f"{self.name} cannot be written: {error.strerror or error}.{untouched}") from error


def _mode(path: Path) -> int | None:
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
