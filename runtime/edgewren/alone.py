"""A second session for one text at a time, with several threads inside one call; made when single texts keep coming.

Lists are fastest with one thread in each of several calls, a single text with several threads in its own. One session
cannot do both. On two idle cores a tweet through MiniLM int8 takes 1.9 instead of 2.9 ms in the median, 3.1 instead of
4.4 in the 99th percentile; the second session takes about 30 MB. Knows sessions, nothing of texts or bundles.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from edgewren.background import in_background
from edgewren.lifetime import keep_for_good, renew_after_fork
from edgewren.session import ModelSession
from edgewren.staged import StagedSession

logger = logging.getLogger(__name__)

MAXIMUM_THREADS = 4
"""More threads than this have nothing to share in one text."""

_WORTH_IT = 10
"""Single texts in a row before the session is made: whoever asks now and then between lists should not pay for it."""


class AloneSession:
    """Makes a session in the background after some calls. Safe to call from several threads, and in forked children.

    Args:
        make: returns the session; called in a thread of its own.
    """

    def __init__(self, make: Callable[[], ModelSession | StagedSession]) -> None:
        self._make = make
        self._closed = False
        self._making: Future[ModelSession | StagedSession] | None = None
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """In a forked child: begin anew. The parent's session puts itself aside, and has to be there for that."""
        self._lock = threading.Lock()
        self._calls = 0
        if self._making is not None:
            keep_for_good(self._making)
            self._making = None

    def ready(self) -> ModelSession | StagedSession | None:
        """Count one more single text; return the session, or None as long as there is none."""
        with self._lock:
            self._calls += 1
            if self._making is None and self._calls >= _WORTH_IT and not self._closed:
                self._making = in_background(self._make)
                self._making.add_done_callback(_tell)
            making = self._making
        if making is None or self._closed or not making.done() or making.exception() is not None:
            return None
        return making.result()

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


def _tell(made: Future[ModelSession | StagedSession]) -> None:
    if made.exception() is not None:  # the first session goes on without it
        logger.info("no second session for single texts: %s", made.exception())
