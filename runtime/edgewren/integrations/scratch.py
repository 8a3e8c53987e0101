"""Folders of this process in the system's temporary folder. What killed processes left is removed by those after them.

A folder's lock is its owner's sign of life: the system lets go of it when the owner and its forked children have ended,
however they did, and it is seen by processes of other containers, whose numbers mean nothing here. Folders of other
hosts are left alone, since not every shared file system shows their locks.

Others can write to the system's temporary folder too: where somebody else made what has our name, it is not used.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder, and remove it afterwards."""
    folder, lock = _made()
    process = os.getpid()
    try:
        yield folder
    finally:
        _remove(folder, lock, process)


def kept() -> Path:
    """Return an empty folder that is there until this process ends, for its forked children too."""
    folder, lock = _made()
    atexit.register(_remove, folder, lock, os.getpid())
    return folder


def _remove(folder: Path, lock: int | None, process: int) -> None:
    if os.getpid() == process:  # a forked child that ends has inherited the call, not the folder
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _made() -> tuple[Path, int | None]:
    """Return a new folder, and what holds its lock, where there are locks."""
    host = socket.gethostname()
    own = f"{host}-{os.getpid()}-"
    root = Path(tempfile.gettempdir()) / f"edgewren-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    if not _ours_alone(root):
        return Path(tempfile.mkdtemp(prefix=f"edgewren-{own}")), None
    for left in root.iterdir():
        if left.name.rsplit("-", 2)[0] == host:
            _remove_if_left(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=own, dir=root))
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # another process removes it before it is locked
            return folder, _locked(folder)


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError):
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """Take a folder's lock and return the descriptor that holds it, None where the file system has no locks.

    Raises:
        BlockingIOError: somebody has it.
        FileNotFoundError: the folder is gone.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, (BlockingIOError, FileNotFoundError)):
            raise
        return None
    os.close(descriptor)
    raise FileNotFoundError(folder)


def _ours_alone(folder: Path) -> bool:
    status = folder.lstat()
    if not hasattr(os, "getuid"):  # Windows has a temporary folder for each user
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
