"""A file that grows by committed pieces, with the hash of all of them. Knows bytes only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewren.archive.disk import Disk, File
from edgewren.errors import ResumeError

NOTHING: Mapping[str, Any] = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
"""What is committed of a file that is not begun."""


class Appended:
    """A file that grows by committed pieces.

    Args:
        disk: the file system.
        path: the file; it need not be there where nothing was committed.
        mode: its permissions, None for those of any new file.
        committed: what an earlier run committed of it: "bytes" and "sha256". What lies behind is cut off.

    Attributes:
        bytes: committed so far.

    Raises:
        ResumeError: what was committed is not there, or not the same.
        OSError: it cannot be read.
    """

    def __init__(self, disk: Disk, path: Path, mode: int | None, committed: Mapping[str, Any]) -> None:
        self.path = path
        self._disk = disk
        self._mode = mode
        self._digest = hashlib.sha256()
        self.bytes = 0
        self._file: File | None = None
        self._open_at(committed)

    @property
    def committed(self) -> dict[str, Any]:
        """Size and hash of what is committed, as JSON knows them."""
        return {"bytes": self.bytes, "sha256": self._digest.hexdigest()}

    def append(self, data: bytes) -> None:
        """Add bytes; they are on the disk itself when this returns. Raises OSError."""
        if not data:
            return
        if self._file is None:
            new = self._disk.size(self.path) is None
            self._file = self._disk.open(self.path, self._mode)
            self._disk.truncate(self._file, self.bytes)
            if new:
                self._disk.sync_folder(self.path.parent)
        self._disk.write(self._file, data)
        self._disk.fsync(self._file)
        self._digest.update(data)
        self.bytes += len(data)

    def close(self) -> None:
        """Close the file, once. Raises OSError."""
        file, self._file = self._file, None
        if file is not None:
            self._disk.close(file)

    def _open_at(self, committed: Mapping[str, Any]) -> None:
        size: int = committed["bytes"]
        left = size
        if size and self._disk.size(self.path) is not None:
            for chunk in self._disk.chunks(self.path):
                piece = chunk[:left]
                self._digest.update(piece)
                left -= len(piece)
                if not left:
                    break
        if left or (size and self._digest.hexdigest() != committed["sha256"]):
            raise ResumeError(
                f"{self.path} is not what the journal says was written ({size:,} bytes). Start over with --force."
            )
        self.bytes = size
