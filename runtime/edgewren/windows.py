"""Windows of texts on their way through a scheduler: tokenised ahead, cut into batches, computed by several threads.

A window holds what is known of its texts so far; a call holds the windows in flight, in order, and hands tasks to the
calling thread and to helpers, under one lock.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren.errors import UsageError, closed_classifier
from edgewren.text import Tokens

if TYPE_CHECKING:
    from edgewren.scheduling import Scheduler

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


class Window:
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


_Task = tuple[Window, NDArray[np.intp] | range]  # a batch to compute, or a piece to tokenise


class Call:
    """One call's windows in flight. Calling thread and helpers take tasks from here under one lock."""

    def __init__(self, scheduler: Scheduler, window: Window | None = None, stop: threading.Event | None = None) -> None:
        self._scheduler = scheduler
        self._stop = stop
        self._ahead = WINDOWS_AHEAD if scheduler.helpers else 0
        self._process = os.getpid()
        self._lock = threading.Lock()  # entered by name: an interrupt can fall into the condition's own __enter__
        self._changed = threading.Condition(self._lock)
        self._windows: deque[Window] = deque([window] if window else [])
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
                        window = Window(next(source), self._scheduler.tokenizer.texts_per_piece)
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
            # Not waited for: garbage is collected anywhere, so that its holder may be this very thread; or, in a forked
            # child, a thread of the parent. Whoever holds it sees that we have stopped.
            if self._process == os.getpid() and self._lock.acquire(blocking=False):
                try:
                    self._windows.clear()
                finally:
                    self._lock.release()

    def _check(self) -> None:
        if self._scheduler.closed:
            raise closed_classifier()
        if self._stop is not None and self._stop.is_set():
            raise UsageError("Nobody waits for this call any more.")
        if self._process != os.getpid():
            raise UsageError("These results belong to the process that was forked. Score the texts again in this one.")

    def _at_once(self, window: Window) -> bool:
        """Tokenise a small window, the only one in flight, here and now; compute it too where it is a single batch."""
        if len(window.pieces) > 1:
            return False
        window.prepare(self._scheduler)
        if len(window.batches) > 1:
            return False
        for batch in window.batches:
            window.compute(self._scheduler, batch)
        return True

    def _add(self, window: Window) -> None:
        with self._lock:
            self._windows.append(window)
            self._recruit()

    def _finish(self, head: Window) -> None:
        """Work until this window is finished; wait only where others have all there is to do."""
        if self._helping == 0:
            with self._lock:
                self._recruit()
        while True:
            self._check()
            with self._lock:
                if head.finished:
                    return
                task = self._take()
                if task is None:
                    self._changed.wait()
                    continue
            error = self._do(task)
            if error is not None and not isinstance(error, Exception):
                raise error  # Ctrl-C, or what a signal's handler raised here: it waits for no scores

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

    def _piece(self, window: Window) -> _Task:
        self._tokenising += 1
        return window, window.pieces.pop(0)

    def _do(self, task: _Task) -> BaseException | None:
        """Do a task; return what went wrong, which is raised where its window's scores are due."""
        window, work = task
        error: BaseException | None = None
        try:
            if isinstance(work, range):
                window.tokenise(self._scheduler, work)
                with self._lock:
                    complete = window.ends_with_piece()
                if complete:
                    window.plan(self._scheduler)
            else:
                window.compute(self._scheduler, work)
        except BaseException as raised:  # noqa: BLE001  the caller decides
            error = raised
        with self._lock:
            if isinstance(work, range):
                self._tokenising -= 1
            else:
                self._computing -= 1
                window.missing -= 1
            window.error = window.error or error
            self._recruit()
            self._changed.notify_all()
        return error

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
            with self._lock:
                task = None if self._stopped or self._scheduler.closed else self._take()
                if task is None:
                    self._helping -= 1
                    return
            self._do(task)
            if time.monotonic() > end:
                with self._lock:
                    self._helping -= 1
                    self._recruit()
                return
