"""Every change that a run makes to a disk, one method each. Knows paths and bytes, nothing of what they mean.

There is no buffer between `write` and the operating system, so what was written is either on its way to the disk or an
error here and now. Nothing is tried twice: after a failed fsync the kernel may have dropped the pages and call the next
one a success (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). Tests put a `Disk` of
their own in this one's place, which fails, dies or loses power at any operation.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no lock between runs there, as docs/archives.md says
    fcntl = None  # type: ignore[assignment]

_CHUNK_BYTES = 1 << 20
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""The file system does not do this. Whatever else goes wrong (EIO, ENOSPC) is an error."""

_log = logging.getLogger(__name__)


class File:
    """An open file: its path and descriptor."""

    __slots__ = ("descriptor", "path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor


class Disk:
    """The file system. Every method raises OSError where the system does."""

    _told_of_no_lock = False

    def open(self, path: Path, mode: int | None = None) -> File:
        """Open for reading and writing; made empty if it is not there. The position is at the start.

        Args:
            path: no link, which could lead to somebody else's file.
            mode: permissions that the file then has; None: those of any new file, or the ones that it has.
        """
        flags = os.O_RDWR | os.O_CREAT
        for flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY"):  # not every system has each
            flags |= getattr(os, flag, 0)
        file = File(path, os.open(path, flags, 0o666 if mode is None else mode))
        if mode is not None:
            set_mode(file.descriptor, mode)
        return file

    def read(self, file: File) -> bytes:
        """Return the whole content."""
        size = os.fstat(file.descriptor).st_size
        os.lseek(file.descriptor, 0, os.SEEK_SET)
        parts = []
        while size > 0 and (data := os.read(file.descriptor, size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def chunks(self, path: Path) -> Iterator[bytes]:
        """Yield the content of a file by its name, a megabyte at a time."""
        with path.open("rb", buffering=0) as stream:
            while data := stream.read(_CHUNK_BYTES):
                yield data

    def end(self, path: Path, size: int) -> bytes:
        """Return the last bytes of a file by its name: so many, or all that it has."""
        with path.open("rb") as stream:
            stream.seek(max(stream.seek(0, os.SEEK_END) - size, 0))
            return stream.read(size)

    def size(self, path: Path) -> int | None:
        """Return a file's bytes, or None where there is no such file."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def write(self, file: File, data: bytes) -> None:
        """Write all of it at the position."""
        view = memoryview(data)
        while view:
            view = view[os.write(file.descriptor, view) :]

    def fsync(self, file: File) -> None:
        """Return when the file's content is on the disk itself."""
        full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: plain fsync stops at the drive's cache
        if full is not None:
            try:
                fcntl.fcntl(file.descriptor, full)
            except OSError as error:
                if error.errno not in (*_UNSUPPORTED, errno.ENOTTY):
                    raise
            else:
                return
        os.fsync(file.descriptor)

    def truncate(self, file: File, size: int) -> None:
        """Cut the file to a size and put the position there."""
        os.ftruncate(file.descriptor, size)
        os.lseek(file.descriptor, size, os.SEEK_SET)

    def close(self, file: File) -> None:
        """Close, once."""
        os.close(file.descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file its name, in place of whatever had it."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def sync_folder(self, path: Path) -> None:
        """Return when the names in a folder are on the disk itself, where its file system can be asked for that."""
        if os.name != "posix":
            return
        try:
            folder = os.open(path, os.O_RDONLY)
        except PermissionError:  # files may be put into it, but it may not be read
            return
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        finally:
            os.close(folder)

    def lock(self, file: File) -> bool:
        """Take the file's lock if nobody has it, until it is closed; return whether we have it.

        A lock on a file that meanwhile lost its name protects nothing, and counts as not taken. Where the file system
        has no locks, everybody has it, and a warning says so once.
        """
        if fcntl is None:
            return True
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (*_UNSUPPORTED, errno.ENOLCK):
                raise
            if not self._told_of_no_lock:
                self._told_of_no_lock = True
                _log.warning("%s: no locks on this file system. Let no second run write this output.", file.path.parent)
            return True
        try:
            return os.path.samestat(os.fstat(file.descriptor), file.path.stat())
        except FileNotFoundError:
            return False


def set_mode(descriptor: int, mode: int) -> None:
    """Give an open file the permissions `mode`, where its file system keeps any."""
    if os.name == "posix" and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        try:
            os.fchmod(descriptor, mode)
        except OSError as error:
            if error.errno not in (*_UNSUPPORTED, errno.EPERM):
                raise
