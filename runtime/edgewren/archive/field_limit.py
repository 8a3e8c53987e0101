"""The longest field of a CSV file, whatever the host has set. csv's own limit belongs to the whole process: where it is
lower it is raised, only while we read; where it is higher it stays, and `check_fields` looks.
"""

from __future__ import annotations

import csv
import threading

from edgewren.lifetime import renew_after_fork

MAXIMUM_FIELD_CHARACTERS = 2**20


def check_fields(records: list[list[str]], start: int, characters: int) -> None:
    """Do what csv's own limit does, where it let a field over ours pass.

    Args:
        records: as csv gives them; a record with such a field and those behind it are taken out.
        start: of those that are new.
        characters: that these took in the file, line ends and quotes included.

    Raises:
        csv.Error: one was taken out.
    """
    if characters <= MAXIMUM_FIELD_CHARACTERS:
        return
    for place in range(start, len(records)):
        if max(map(len, records[place]), default=0) > MAXIMUM_FIELD_CHARACTERS:
            del records[place:]
            raise csv.Error(f"field larger than field limit ({MAXIMUM_FIELD_CHARACTERS})")


class _FieldLimit:
    """Held around each read; csv's limit, if it is lower, is ours as long as anybody holds it."""

    def __init__(self) -> None:
        self._holders = 0
        self._before = 0
        self._lock = threading.Lock()
        renew_after_fork(self)

    def renew(self) -> None:
        self._lock = threading.Lock()
        if self._holders:  # threads of the parent, which are not here to let go
            self._holders = 0
            self._restore()

    def __enter__(self) -> None:
        with self._lock:
            before = csv.field_size_limit()
            if before != MAXIMUM_FIELD_CHARACTERS or not self._holders:  # else it is ours already
                self._before = before
                csv.field_size_limit(max(before, MAXIMUM_FIELD_CHARACTERS))
            self._holders += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._restore()

    def _restore(self) -> None:
        if csv.field_size_limit() == MAXIMUM_FIELD_CHARACTERS:  # else it was set by others
            csv.field_size_limit(self._before)


FIELD_LIMIT = _FieldLimit()
