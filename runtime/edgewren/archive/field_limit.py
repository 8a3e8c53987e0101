"""The longest field of a CSV file. csv's own limit belongs to the whole process: it is raised only while we read."""

from __future__ import annotations

import csv
import threading

from edgewren.lifetime import renew_after_fork

MAXIMUM_FIELD_CHARACTERS = 2**20


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
            if not self._holders:
                self._before = csv.field_size_limit()
                csv.field_size_limit(max(self._before, MAXIMUM_FIELD_CHARACTERS))
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
