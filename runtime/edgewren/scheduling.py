"""Windows of texts through one model, in order: tokenised ahead, computed by several threads at once.

One piece of code for lists, streams and archives. Knows tokens, batches and a session; nothing of labels, bundles or
files. Neither the cutting into windows nor the number of threads changes a bit of any result:
batches hold rows of equal length, and a row's logits do not depend on its neighbours.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren.alone import AloneSession
from edgewren.errors import UsageError
from edgewren.lifetime import renew_after_fork
from edgewren.session import ModelSession
from edgewren.staged import StagedSession
from edgewren.text import TextTokenizer, Tokens

WINDOWS_AHEAD = 2
"""Windows read and tokenised while an earlier one is computed: one in work, one in reserve for a slow reader."""

_PIECES_PAY_FROM = 2048
"""Up to so many texts are tokenised in one go: handing pieces over costs more than it brings."""

_HELP_S = 0.05
"""A pool thread works this long for one call, then queues up again: calls share the pool fairly, and an interpreter
that exits (it refuses new work to pools) waits no longer than this for one that was left in the middle."""


@dataclass(frozen=True)
class Scores:
    """Everything known about a list of scored texts, in their order.

    Attributes:
        logits: float32 [n, labels].
        truncated: bool [n], texts of which tokens were cut at max_length.
        repaired: bool [n], texts that were not valid Unicode (lone surrogates) and were mended.
        distinct: number of distinct token rows that were computed.
        tokens: number of tokens that were computed.
        layers: int16 [n], the layer after which each text left, where the model computes in stages; else None.
    """

    logits: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    repaired: NDArray[np.bool_]
    distinct: int
    tokens: int
    layers: NDArray[np.int16] | None = None


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
        self._slots = threading.Semaphore(self.threads)
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
        with self._slots:
            return _answer(self._session, input_ids, mask)

    def run_alone(self, input_ids: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int16] | None]:
        """Run one text, with threads inside if nothing else is computed and that is faster. The bits are the same."""
        if self._alone is None:
            return self.run(input_ids)
        session = self._alone.ready()
        taken = 0
        try:
            while taken < self.threads and self._slots.acquire(blocking=False):
                taken += 1
            if taken == self.threads:
                if session is None:  # others may compute beside it
                    self._slots.release(taken - 1)
                    taken = 1
                start = time.perf_counter()
                logits, layers = _answer(session or self._session, input_ids)
                seconds = time.perf_counter() - start
                self._alone.note(input_ids.size, layers, seconds, inside=session is not None)
                return logits, layers
        finally:
            if taken:
                self._slots.release(taken)
        return self.run(input_ids)

    def scores(self, windows: Iterable[Sequence[str]], stop: threading.Event | None = None) -> Iterator[Scores]:
        """Yield the scores of each window, in order. Closing the iterator early, or setting `stop`, drops the rest.

        Windows are taken from their iterator in the calling thread, at most `WINDOWS_AHEAD` before they are needed.
        One that fits into a single batch is computed at once, before the next is asked for. What the iterator raises
        comes out after the windows before it.
        """
        return _Call(self, stop=stop).scores(iter(windows))

    def score(self, texts: Sequence[str], stop: threading.Event | None = None) -> Scores:
        """Return the scores of one window.

        Args:
            stop: set by another thread, it ends the call after the batches in hand.

        Raises:
            UsageError: stopped, or closed meanwhile.
        """
        if self.closed:
            raise UsageError("The classifier is closed. Load it again with Classifier.load.")
        if len(texts) == 1:  # nothing to schedule
            tokens = self.tokenizer.encode(texts)
            ids = tokens.rows.ids.astype(np.int64)
            logits, layers = self.run_alone(ids[None])
            return Scores(logits, tokens.truncated, tokens.repaired, distinct=1, tokens=len(ids), layers=layers)
        window = _Window(texts, self.tokenizer.texts_per_piece)
        if len(window.pieces) == 1:
            window.prepare(self)
        if len(window.batches) > 1 or window.pieces:
            return next(_Call(self, window, stop).scores(iter(())))
        for batch in window.batches:
            window.compute(self, batch)
        return window.scores()

    def submit(self, call: Callable[[], Scores]) -> Future[Scores]:
        """Run a call in a thread of the scheduler's own; at most `threads` run at once, in order."""
        try:
            return self._callers.submit(call)
        except RuntimeError as error:  # the pool is shut down, or the interpreter exits
            raise UsageError("The classifier is closed. Load it again with Classifier.load.") from error


def _answer(
    session: ModelSession | StagedSession, input_ids: NDArray[np.int64], mask: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int16] | None]:
    if isinstance(session, StagedSession):
        return session.answer(input_ids)
    return session.run(input_ids) if mask is None else session.run(input_ids, mask), None


class _Window:
    """A window on its way: texts, then tokens piece by piece, then batches, then logits. Each step is taken once.

    Attributes:
        pieces: texts that nobody tokenises yet, as ranges of the distinct ones.
        batches: rows that nobody computes yet; empty until the window is planned.
        missing: batches that are not computed yet.
        planned: all pieces are tokenised, and the batches are known.
    """

    def __init__(self, texts: Sequence[str], texts_per_piece: int) -> None:
        known: dict[str, int] = {}
        self._twins = [known.setdefault(text, len(known)) for text in texts]  # equal texts are tokenised once
        self._distinct: Sequence[str] = list(known)
        self._step = texts_per_piece if len(known) > _PIECES_PAY_FROM else max(1, len(known))
        starts = range(0, len(known), self._step)
        self.pieces = [range(start, min(start + self._step, len(known))) for start in starts] or [range(0)]
        self._tokens: list[Tokens | None] = [None] * len(self.pieces)
        self._untokenised = len(self.pieces)
        self.planned = False
        self.error: BaseException | None = None
        self.batches: list[NDArray[np.intp]] = []
        self.missing = 0

    @property
    def finished(self) -> bool:
        return self.error is not None or (self.planned and self.missing == 0)

    def tokenise(self, scheduler: Scheduler, piece: range) -> None:
        self._tokens[piece.start // self._step] = scheduler.tokenizer.encode(self._distinct[piece.start : piece.stop])

    def ends_with_piece(self) -> bool:
        """Note, under the caller's lock, that one more piece is tokenised; tell whether it was the last."""
        self._untokenised -= 1
        return self._untokenised == 0

    def plan(self, scheduler: Scheduler) -> None:
        """Turn the pieces into batches. Equal token rows are planned once."""
        tokens = Tokens.joined([piece for piece in self._tokens if piece is not None])
        first, inverse = tokens.rows.distinct()
        if len(self._distinct) < len(self._twins):
            self.inverse = inverse[self._twins]
            self.truncated, self.repaired = tokens.truncated[self._twins], tokens.repaired[self._twins]
        else:
            self.inverse, self.truncated, self.repaired = inverse, tokens.truncated, tokens.repaired
        self._distinct, self._twins, self._tokens = (), [], []
        self.rows, self.first = tokens.rows, first
        lengths = tokens.rows.lengths[first]
        self.tokens = int(lengths.sum())
        self.logits = np.empty((len(first), scheduler.width), dtype=np.float32)
        self.layers = np.empty(len(first), dtype=np.int16) if scheduler.staged else None
        batches = batching.plan(lengths, scheduler.tokens_per_batch, mixed=scheduler.mixed)
        self.missing = len(batches)
        self.planned = True
        self.batches = batches  # last: from here on, other threads take them

    def prepare(self, scheduler: Scheduler) -> None:
        """Tokenise and plan, all in this thread."""
        while self.pieces:
            self.tokenise(scheduler, self.pieces.pop(0))
        self.plan(scheduler)

    def compute(self, scheduler: Scheduler, batch: NDArray[np.intp]) -> None:
        rows = self.first[batch]
        if scheduler.mixed:
            self.logits[batch], layers = scheduler.run(*self.rows.padded(rows))
        else:
            run = scheduler.run_alone if len(self.first) == 1 else scheduler.run
            self.logits[batch], layers = run(self.rows.matrix(rows))
        if layers is not None and self.layers is not None:
            self.layers[batch] = layers

    def scores(self) -> Scores:
        return Scores(
            self.logits[self.inverse],
            self.truncated,
            self.repaired,
            distinct=len(self.first),
            tokens=self.tokens,
            layers=None if self.layers is None else self.layers[self.inverse],
        )


_Task = tuple[_Window, NDArray[np.intp] | range]  # a batch to compute, or a piece to tokenise


class _Call:
    """One call's windows in flight. Calling thread and helpers take tasks from here under one lock."""

    def __init__(
        self, scheduler: Scheduler, window: _Window | None = None, stop: threading.Event | None = None
    ) -> None:
        self._scheduler = scheduler
        self._stop = stop
        self._ahead = WINDOWS_AHEAD if scheduler.helpers else 0
        self._process = os.getpid()
        self._changed = threading.Condition(threading.Lock())
        self._windows: deque[_Window] = deque([window] if window else [])
        self._helping = 0
        self._computing = 0
        self._tokenising = 0
        self._to_spare = max(1, scheduler.helpers + 1 - scheduler.threads)
        self._stopped = False

    def scores(self, source: Iterator[Sequence[str]]) -> Iterator[Scores]:
        failure: Exception | None = None
        is_open = True
        try:
            while self._windows or is_open:
                self._check()
                if is_open and len(self._windows) <= (self._ahead if self._windows else 0):
                    try:
                        window = _Window(next(source), self._scheduler.tokenizer.texts_per_piece)
                    except StopIteration:
                        is_open = False
                    except Exception as error:  # noqa: BLE001  raised below, after the windows before it
                        failure, is_open = error, False
                    else:
                        if not self._windows and self._at_once(window):
                            yield window.scores()
                        else:
                            self._add(window)
                    continue
                head = self._windows[0]
                self._finish(head)
                if head.error is not None:
                    raise head.error
                self._windows.popleft()
                yield head.scores()
            if failure is not None:
                raise failure
        finally:
            self._stopped = True
            if self._process == os.getpid():  # else a thread of the parent may hold this lock for good
                with self._changed:
                    self._windows.clear()

    def _check(self) -> None:
        if self._scheduler.closed:
            raise UsageError("The classifier is closed. Load it again with Classifier.load.")
        if self._stop is not None and self._stop.is_set():
            raise UsageError("Nobody waits for this call any more.")
        if self._process != os.getpid():
            raise UsageError("These results belong to the process that was forked. Score the texts again in this one.")

    def _at_once(self, window: _Window) -> bool:
        """Tokenise a small window, the only one in flight, here and now; compute it too where it is a single batch."""
        if len(window.pieces) > 1:
            return False
        window.prepare(self._scheduler)
        if len(window.batches) > 1:
            return False
        for batch in window.batches:
            window.compute(self._scheduler, batch)
        return True

    def _add(self, window: _Window) -> None:
        with self._changed:
            self._windows.append(window)
            self._recruit()

    def _finish(self, head: _Window) -> None:
        """Work until this window is finished; wait only where others have all there is to do."""
        if self._helping == 0:
            with self._changed:
                self._recruit()
        while True:
            self._check()
            with self._changed:
                if head.finished:
                    return
                task = self._take()
                if task is None:
                    self._changed.wait()
                    continue
            self._do(task)

    def _take(self) -> _Task | None:
        """Return something to do, or None. What is due first is tokenised by all; later windows by those to spare, so
        that there is always something to compute, and always somebody who does.
        """
        pieces = next((window for window in self._windows if window.pieces and window.error is None), None)
        due = next((window for window in self._windows if not window.finished), None)
        if pieces is not None and (pieces is due or self._tokenising < self._to_spare):
            return self._piece(pieces)
        if self._computing < self._scheduler.threads:
            for window in self._windows:
                if window.batches and window.error is None:
                    self._computing += 1
                    return window, window.batches.pop(0)
        return None if pieces is None else self._piece(pieces)

    def _piece(self, window: _Window) -> _Task:
        self._tokenising += 1
        return window, window.pieces.pop(0)

    def _do(self, task: _Task) -> None:
        window, work = task
        error: BaseException | None = None
        try:
            if isinstance(work, range):
                window.tokenise(self._scheduler, work)
                with self._changed:
                    complete = window.ends_with_piece()
                if complete:
                    window.plan(self._scheduler)
            else:
                window.compute(self._scheduler, work)
        except BaseException as raised:  # noqa: BLE001  Rust panics are no Exceptions; raised where its scores are due
            error = raised
        with self._changed:
            if isinstance(work, range):
                self._tokenising -= 1
            else:
                self._computing -= 1
                window.missing -= 1
            window.error = window.error or error
            self._recruit()
            self._changed.notify_all()
        if isinstance(error, KeyboardInterrupt):
            raise error

    def _recruit(self) -> None:
        """Call helpers for what can be done now. Under the lock."""
        pool = self._scheduler.pool
        if pool is None or self._stopped:
            return
        tasks = sum(len(window.batches) + len(window.pieces) for window in self._windows)
        try:
            while self._helping < min(self._scheduler.helpers, tasks):
                pool.submit(self._help)
                self._helping += 1
        except RuntimeError:  # the pool is closed or the interpreter exits: the calling thread finishes alone
            return

    def _help(self) -> None:
        end = time.monotonic() + _HELP_S
        while True:
            with self._changed:
                task = None if self._stopped or self._scheduler.closed else self._take()
                if task is None:
                    self._helping -= 1
                    return
            self._do(task)
            if time.monotonic() > end:
                with self._changed:
                    self._helping -= 1
                    self._recruit()
                return
