"""How far long work is: a bar for people who watch, a line each half minute for those who read a log later.

Bars are for terminals, and where tqdm is installed. Knows counts, nothing of what is counted.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgewren.display import say

SECONDS_PER_LINE = 30.0


@contextlib.contextmanager
def bar(unit: str, title: str, *, total: int | None = None) -> Iterator[Any]:
    """Show a bar; None where nobody watches. A bar within another goes away when it is full."""
    try:
        from tqdm import tqdm  # comes with tokenizers' own dependencies
    except ImportError:
        tqdm = None
    if tqdm is None or not sys.stderr.isatty():
        yield None
        return
    with tqdm(total=total, unit=unit, unit_scale=unit == "B", desc=title, leave=None, file=sys.stderr) as shown:
        yield shown


@contextlib.contextmanager
def counted(total: int, title: str, unit: str = "texts") -> Iterator[Callable[[int], object]]:
    """Show how far work of known size is. Gives a function to be told each number of units that was just finished."""
    with bar(f" {unit}", title, total=total) as shown:
        yield _Lines(total, title, unit) if shown is None else shown.update


class _Lines:
    def __init__(self, total: int, title: str, unit: str) -> None:
        self._total, self._title, self._unit = total, title, unit
        self._done, self._pace = 0, Pace()

    def __call__(self, count: int) -> None:
        self._done += count
        since = self._pace.due(self._done)
        if since is not None:
            left = minutes_left(self._total - self._done, *since)
            say(f"{self._title}: {self._done:,} of {self._total:,} {self._unit}{left}")


class Pace:
    """How fast work goes from the first call on: what was finished by then may be an earlier run's."""

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._first: tuple[int, float] | None = None

    def due(self, done: int) -> tuple[int, float] | None:
        """Return how much was done since the first call, and in how many seconds, where a line is due; else None."""
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
        first, began = self._first
        if now - self._told < SECONDS_PER_LINE or now == began:
            return None
        self._told = now
        return done - first, now - began


def minutes_left(left: int, done: int, seconds: float) -> str:
    """Return how long the rest takes, to stand behind what was done; nothing where that cannot be said."""
    if done <= 0:
        return ""
    minutes = left * seconds / done / 60
    return f", about {minutes:,.0f} min left" if minutes >= 1 else ", less than a minute left"


def bytes_of(files: Sequence[str]) -> int | None:
    """Return how many bytes some files have, which a bar over them ends with; None where one does not tell."""
    sizes = [Path(name).stat().st_size if Path(name).is_file() else 0 for name in files]
    return sum(sizes) if all(sizes) else None
