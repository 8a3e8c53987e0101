"""Windows of texts through one model, in order: tokenised ahead, computed by several threads at once.

One piece of code for lists, streams and archives. Knows tokens, batches and a session; nothing of labels, bundles or
files. Neither the cutting into windows nor the number of threads changes a bit of any result:
batches hold rows of equal length, and a row's logits do not depend on its neighbours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edgewren.alone import AloneSession
from edgewren.errors import DeviceError, closed_classifier
from edgewren.lifetime import renew_after_fork
from edgewren.session import ModelSession
from edgewren.slots import Slots
from edgewren.staged import StagedSession
from edgewren.text import TextTokenizer
from edgewren.windows import Call, Scores, Window


class Scheduler:
    """Runs windows of texts. Calls may come from several threads at once; they share one pool of threads.

    Args:
        tokenizer: the bundle's.
        session: the model.
        width: labels.
        threads: batches computed at once, by all calls together. With 1, everything happens in the calling thread.
        tokens_per_batch: upper bound on the tokens of a batch.
        mixed: rows of different lengths may share a batch, padded: the model computes the same bits for them.
        helpers: pool threads beside the calling one, which works too while it waits; default: threads - 1. More where
            the processor is free while a batch is computed (CUDA).
        alone: the same model with threads inside, for single texts while nothing else is computed.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        session: ModelSession | StagedSession,
        *,
        width: int,
        threads: int,
        tokens_per_batch: int,
        mixed: bool = False,
        helpers: int | None = None,
        alone: AloneSession | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.width = width
        self.threads = threads
        self.tokens_per_batch = tokens_per_batch
        self.mixed = mixed
        self.helpers = threads - 1 if helpers is None else helpers
        self.closed = False
        self._session = session
        self._alone = alone
        self.staged = isinstance(session, StagedSession)
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Make new locks and a new pool: threads of the old ones do not exist in a process that was forked."""
        self.slots = Slots(self.threads)
        # Threads start with the first work for them, and end with the last reference to the pool.
        self.pool = ThreadPoolExecutor(self.helpers, thread_name_prefix="edgewren") if self.helpers else None
        self._callers = ThreadPoolExecutor(self.threads, thread_name_prefix="edgewren-call")

    def close(self) -> None:
        """End calls in flight and the threads; batches in hand are finished first. Twice is as good as once."""
        self.closed = True
        for pool in (self._callers, self.pool):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def run(
        self, input_ids: NDArray[np.int64], mask: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int16] | None]:
        """Run one batch when one of `threads` slots is free; return its logits and where its rows left."""
        if self._alone is not None and len(input_ids) > 1:
            self._alone.start_over()
        try:
            self.slots.take()
            return _answer(self._session, input_ids, mask)
        finally:
            self.slots.give_back()

    def run_alone(self, input_ids: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int16] | None]:
        """Run one text, with threads inside if nothing else is computed and that is faster. The bits are the same."""
        if self._alone is None:
            return self.run(input_ids)
        session = self._alone.ready()
        try:
            if self.slots.take_all():
                if session is None:  # others may compute beside it
                    self.slots.keep_one()
                start = time.perf_counter()
                logits, layers = _answer(session or self._session, input_ids)
                seconds = time.perf_counter() - start
                self._alone.note(input_ids.size, layers, seconds, inside=session is not None)
                return logits, layers
        finally:
            self.slots.give_back()
        return self.run(input_ids)

    def scores(self, windows: Iterable[Sequence[str]], stop: threading.Event | None = None) -> Iterator[Scores]:
        """Yield the scores of each window, in order. Closing the iterator early, or setting `stop`, drops the rest.

        Windows are taken from their iterator in the calling thread, at most `WINDOWS_AHEAD` before they are needed.
        One that fits into a single batch is computed at once, before the next is asked for. What the iterator raises
        comes out after the windows before it.
        """
        return Call(self, stop=stop).scores(iter(windows))

    def score(self, texts: Sequence[str], stop: threading.Event | None = None) -> Scores:
        """Return the scores of one window.

        Args:
            stop: set by another thread, it ends the call after the batches in hand.

        Raises:
            UsageError: stopped, or closed meanwhile.
        """
        if self.closed:
            raise closed_classifier()
        if len(texts) == 1:  # nothing to schedule
            tokens = self.tokenizer.encode(texts)
            ids = tokens.rows.ids.astype(np.int64)
            logits, layers = self.run_alone(ids[None])
            return Scores(logits, tokens.truncated, tokens.repaired, distinct=1, tokens=len(ids), layers=layers)
        window = Window(texts, self.tokenizer.texts_per_piece)
        if len(window.pieces) == 1:
            window.prepare(self)
        if len(window.batches) > 1 or window.pieces:
            return next(Call(self, window, stop).scores(iter(())))
        for batch in window.batches:
            window.compute(self, batch)
        return window.scores()

    def submit(self, call: Callable[[], Scores]) -> Future[Scores]:
        """Run a call in a thread of the scheduler's own; at most `threads` run at once, in order.

        Raises:
            UsageError: it is closed.
            DeviceError: no thread can be started; or the interpreter exits.
        """
        try:
            return self._callers.submit(call)
        except RuntimeError as error:
            if self.closed:
                raise closed_classifier() from error
            raise DeviceError(
                f"No thread computes what is awaited: {error}. Raise the limit on threads or processes (ulimit -u, or "
                "the container's), or call score, which needs none."
            ) from error


def _answer(
    session: ModelSession | StagedSession, input_ids: NDArray[np.int64], mask: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int16] | None]:
    if isinstance(session, StagedSession):
        return session.answer(input_ids)
    return session.run(input_ids) if mask is None else session.run(input_ids, mask), None
