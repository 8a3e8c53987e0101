"""Folders of this process in the system's temporary folder. What killed processes left is removed by those after them.

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


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder, and remove it afterwards."""
    folder = _made()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def kept() -> Path:
    """Return an empty folder that is there until this process ends, for its forked children too."""
    folder = _made()
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child that ends has inherited the call, not the folder
        shutil.rmtree(folder, ignore_errors=True)


def _made() -> Path:
    host = socket.gethostname()
    own = f"{host}-{os.getpid()}-"
    root = Path(tempfile.gettempdir()) / f"edgewren-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    if not _ours_alone(root):
        return Path(tempfile.mkdtemp(prefix=f"edgewren-{own}"))
    for left in root.glob(f"{host}-*"):
        process = left.name.removeprefix(f"{host}-").partition("-")[0]
        if process.isdigit() and Path("/proc/self").exists() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=own, dir=root))


def _ours_alone(folder: Path) -> bool:
    status = folder.lstat()
    if not hasattr(os, "getuid"):  # Windows has a temporary folder for each user
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
