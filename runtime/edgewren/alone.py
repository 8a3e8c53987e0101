"""A second session for one text at a time, with several threads inside one call; made when single texts keep coming.

Lists are fastest with one thread in each of several calls, a single text with several threads in its own. One session
cannot do both. On two idle cores a tweet through MiniLM int8 takes 1.9 instead of 2.9 ms in the median, 3.1 instead of
4.4 in the 99th percentile; the second session takes about 30 MB. (What is free is returned before and after it is made:
a process with ridge's whole int8 then takes at most 224 MB instead of 276.) Where cores share no cache, or others have
work for them, threads inside are slower than one: so both ways are timed, and the faster one taken. Knows sessions,
nothing of texts or bundles.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from edgewren.background import in_background
from edgewren.device import return_free_memory
from edgewren.lifetime import keep_for_good, renew_after_fork
from edgewren.session import ModelSession
from edgewren.staged import StagedSession

logger = logging.getLogger(__name__)

MAXIMUM_THREADS = 4
"""More threads than this have nothing to share in one text."""

_WORTH_IT = 10
"""Single texts in a row before the session is made: whoever asks now and then between lists should not pay for it."""


_RECENT = 9
"""Calls of each way that are compared, by their medians."""

_LOOK_AGAIN = {True: 256, False: 128}
"""With threads inside, or without: of so many calls one goes the other way, to see whether that is faster by now. Less
than one in a hundred, since these calls are among the slowest."""

_CLEARLY = 0.9
"""So much of the other's time takes the way that is changed to."""


class Race:
    """Which way is faster just now: threads inside or none. Safe to call from several threads."""

    def __init__(self) -> None:
        self._recent: dict[bool, deque[float]] = {way: deque(maxlen=_RECENT) for way in (True, False)}
        self._calls = 0
        self._inside = True

    def inside(self) -> bool:
        """Tell which way to take, for one call."""
        self._calls += 1
        return self._inside != (self._calls % _LOOK_AGAIN[self._inside] == 0)

    def note(self, inside: bool, pace: float) -> None:
        """Note how a call went: seconds for a unit of work."""
        self._recent[inside].append(pace)
        recent = {way: sorted(paces) for way, paces in self._recent.items()}
        if min(map(len, recent.values())) > _RECENT // 2:
            ours, other = (recent[way][len(recent[way]) // 2] for way in (self._inside, not self._inside))
            if other < _CLEARLY * ours:
                self._inside = not self._inside


class AloneSession:
    """Makes a session in the background after some calls. Safe to call from several threads, and in forked children.

    Args:
        make: returns the session; called in a thread of its own.
    """

    def __init__(self, make: Callable[[], ModelSession | StagedSession]) -> None:
        self._make = make
        self._closed = False
        self._race = Race()
        self._making: Future[ModelSession | StagedSession] | None = None
        self.renew()
        renew_after_fork(self)

    def note(self, tokens: int, layers: NDArray[np.int16] | None, seconds: float, *, inside: bool) -> None:
        """Note how long one text took while nothing else was computed, with threads inside or without.

        Args:
            tokens: of the text.
            layers: int16 [1], after which layer it left, where the model computes in stages.
        """
        work = tokens * (1 if layers is None else int(layers[0]))
        if work:  # a text that leaves after the embeddings says nothing of threads
            self._race.note(inside, seconds / work)

    def renew(self) -> None:
        """In a forked child: begin anew. The parent's session puts itself aside, and has to be there for that."""
        self._lock = threading.Lock()
        self._calls = 0
        if self._making is not None:
            keep_for_good(self._making)
            self._making = None

    def ready(self) -> ModelSession | StagedSession | None:
        """Count one more single text; return the session if this text should take it, and if there is one."""
        with self._lock:
            self._calls += 1
            if self._making is None and self._calls >= _WORTH_IT and not self._closed:
                self._making = in_background(self._made)
            making = self._making
        if making is None or self._closed or not making.done() or making.exception() is not None:
            return None
        return making.result() if self._race.inside() else None

    def _made(self) -> ModelSession | StagedSession:
        return_free_memory()  # of the batches before
        try:
            session = self._make()
        except Exception as error:  # the first session goes on without it
            logger.info("no second session for single texts: %s", error)
            raise
        return_free_memory()  # of the making itself, which this thread's part of the heap would keep
        return session

    def start_over(self) -> None:
        """Count single texts anew: something else was computed."""
        self._calls = 0

    def close(self) -> None:
        """Give the session's memory back, if there is one, or as soon as it is made."""
        with self._lock:
            self._closed = True
            making = self._making
        if making is not None:
            making.add_done_callback(_close)


def _close(made: Future[ModelSession | StagedSession]) -> None:
    if made.exception() is None:
        made.result().close()
