"""How long work tells how far it is. The library shows nothing by itself: verbs hand in what does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Given a total, a title and what is counted, gives a context with the function to tell each finished number."""

    def __call__(
        self, total: int, title: str, unit: str = ..., /
    ) -> AbstractContextManager[Callable[[int], object]]: ...


@contextlib.contextmanager
def unseen(_total: int, _title: str, _unit: str = "texts", /) -> Iterator[Callable[[int], object]]:
    """Show nothing."""
    yield lambda _count: None
