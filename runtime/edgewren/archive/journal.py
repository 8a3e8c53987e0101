r"""The journal of a run: a header, then one record per committed window, in a file that is only appended to.

Each line is "<sha256 of (the line before's hash, the payload)> <payload as JSON>\n". So a record that was torn by a
crash is recognised and dropped, a byte changed anywhere before it is recognised and refused, and the last record alone
says where the run stands. The file is also the lock: whoever holds its flock owns the output.

Written by hand and not SQLite, because each write, fsync and rename of a run goes through `Disk`, where the tests fail
it and cut the power; SQLite's would not. See docs/archives.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewren.archive.disk import Disk, File
from edgewren.errors import LockedError

SUFFIX = ".journal"
VERSION = 2
_HASH_CHARACTERS = 64
_OURS = re.compile(rb"[0-9a-f]{0,63}\Z|[0-9a-f]{64}( |\Z)|\0*\Z")
"""The beginning of a journal's bytes, torn or not; zeros are what a power cut can leave of it."""


@dataclass(frozen=True)
class Content:
    """What a journal says.

    Attributes:
        header: of the run, None where there is no sound one.
        state: of the last committed window, None where none was committed. Records list under "finished" what has been
            finished since the one before, by number, so that they stay small; the state has all of it.
        damaged: whether something before the last record is not as it was written.
        empty: whether there is nothing at all.
        ours: whether it begins as journals do, as far as it goes.
    """

    header: dict[str, Any] | None
    state: dict[str, Any] | None
    damaged: bool
    empty: bool
    ours: bool


def parse(data: bytes) -> Content:
    """Read a journal's bytes. Never fails: what is wrong with them is part of the answer."""
    lines = data.split(b"\n")
    torn = lines.pop()
    previous = ""
    payloads: list[dict[str, Any]] = []
    damaged = False
    for number, line in enumerate(lines):
        payload = _payload(line, previous)
        if payload is None:
            # The last line alone may be a write that a crash tore; one with others behind it was whole once.
            damaged = number < len(lines) - 1 or bool(torn)
            break
        payloads.append(payload)
        previous = line[:_HASH_CHARACTERS].decode()
    header = payloads[0] if payloads else None
    if header is not None and header.get("journal") != VERSION:
        header, damaged = None, True
    state: dict[str, Any] | None = None
    if len(payloads) > 1:
        finished: dict[str, Any] = {}
        for payload in payloads[1:]:
            finished.update(payload.get("finished", {}))
        state = {**payloads[-1], "finished": finished}
    return Content(header, state, damaged, not data, _OURS.match(data[: _HASH_CHARACTERS + 1]) is not None)


def _payload(line: bytes, previous: str) -> dict[str, Any] | None:
    found, space, payload = line[:_HASH_CHARACTERS], line[_HASH_CHARACTERS : _HASH_CHARACTERS + 1], line[65:]
    if space != b" " or found != _hash(previous, payload).encode():
        return None
    try:
        value = json.loads(payload)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _hash(previous: str, payload: bytes) -> str:
    return hashlib.sha256(previous.encode() + payload).hexdigest()


class Journal:
    """An opened and locked journal. `content` is what it said when it was opened.

    Raises:
        LockedError: another run has it.
        OSError: it cannot be opened or read.
    """

    def __init__(self, disk: Disk, path: Path, mode: int | None = None) -> None:
        self.path = path
        self._mode = mode
        self._disk = disk
        self._previous = ""
        self._file: File | None = disk.open(path, mode)
        try:
            if not disk.lock(self._file):
                raise LockedError(
                    f"{path.with_suffix('')} is being written by another run. Wait for it, or name another output."
                )
            self.content = parse(disk.read(self._file))
        except BaseException:
            self.close()
            raise

    def restart(self, header: Mapping[str, Any], state: Mapping[str, Any] | None) -> None:
        """Begin anew with a header and at most one record, as a new file that takes the old one's place at once.

        A resumed run does so too: pages that a failed fsync left behind are then not relied on.
        """
        new = self.path.with_name(self.path.name + ".new")
        old, self._file = self._file, None
        try:
            file = self._disk.open(new, self._mode)
            self._file = File(self.path, file.descriptor)
            self._disk.lock(file)
            self._disk.truncate(file, 0)
            self._previous = ""
            lines = self._line({"journal": VERSION, **header})
            if state is not None:
                lines += self._line(state)
            self._disk.write(file, lines)
            self._disk.fsync(file)
            self._disk.replace(new, self.path)
            self._disk.sync_folder(self.path.parent)
        finally:
            if old is not None:
                self._disk.close(old)

    def append(self, state: Mapping[str, Any]) -> None:
        """Add a record; it is on the disk itself when this returns."""
        file = self._file
        if file is None:
            raise OSError(f"{self.path} is closed")
        self._disk.write(file, self._line(state))
        self._disk.fsync(file)

    def remove(self, *, begun: bool = True) -> None:
        """Remove the file, and what `restart` may have left of a new one if it was called; give up the lock."""
        if begun:
            self._disk.remove(self.path.with_name(self.path.name + ".new"))
        self._disk.remove(self.path)
        self.close()

    def close(self) -> None:
        """Give up the lock."""
        file, self._file = self._file, None
        if file is not None:
            self._disk.close(file)

    def _line(self, payload: Mapping[str, Any]) -> bytes:
        data = json.dumps(payload, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
        self._previous = _hash(self._previous, data)
        return f"{self._previous} ".encode() + data + b"\n"
