"""A bounded queue of texts, and the threads that score them. Knows a scoring function, nothing of HTTP or JSON.

Batching is what happens while everybody is busy: an idle worker takes whatever waits, at once, so a lone request never
waits for company; under load the texts that arrived meanwhile are scored together, sorted into equal lengths.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.classifier import Scores
from edgewren.errors import EdgewrenError

logger = logging.getLogger(__name__)

PART_TOKENS = 4096
"""Tokens that a worker takes at once: about a hundred tweets, enough to fill batches of equal length, and a fraction of
a second of work on one core, so that a large request doesn't hold up the small ones behind it for long."""

_WATCH_AFTER_S = 0.25
"""Callers are watched whose answers take longer than those of a server that is busy and not overloaded: a task for each
took 7 % more of the processor with a static model; after 25 ms, 64 clients got a tenth fewer answers."""

_LEAST_SPEED = 0.1
_SMOOTHING = 0.1
"""Share of the newest batch in the running means."""

_CHARACTERS_PER_TOKEN = 4
_SPECIAL_TOKENS = 2


class QueueFullError(EdgewrenError, RuntimeError):
    """Too many tokens wait already.

    Attributes:
        retry_after_s: whole seconds after which there should be room, at least 1.
    """

    exit_code = 9

    def __init__(self, waiting: int, capacity: int, retry_after_s: int) -> None:
        super().__init__(
            f"The queue is full: {waiting:,} tokens wait, {capacity:,} are allowed. Try again in {retry_after_s} s."
        )
        self.retry_after_s = retry_after_s


class DeadlineError(EdgewrenError, TimeoutError):
    """The answer was not ready in time; what had not been started was dropped."""

    exit_code = 9


class GoneError(EdgewrenError, ConnectionError):
    """Whoever asked has gone away; what had not been started was dropped."""

    exit_code = 9


class ClosedError(EdgewrenError, RuntimeError):
    """The queue takes nothing any more: the server is stopping."""

    exit_code = 9


@dataclass(frozen=True)
class Answer:
    """Scores of one request's texts, in their order.

    Attributes:
        logits: float32 [n, labels].
        truncated: bool [n], texts of which tokens were cut off.
        tokens: tokens computed.
        waited_s: seconds from the call until the last part was taken by a worker.
    """

    logits: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    tokens: int
    waited_s: float


def estimated_tokens(text: str, max_length: int) -> int:
    """Return about how many tokens a text has: characters / 4 and two special ones, at most max_length.

    Tokenising is work of the workers; to bound the queue an estimate is enough (English tweets: 38 tokens are 130
    characters).
    """
    return min(max_length, len(text) // _CHARACTERS_PER_TOKEN + _SPECIAL_TOKENS)


@dataclass(eq=False)
class _Request:
    """One call of `score`: its parts come back one by one, from any worker."""

    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    texts: Sequence[str]
    deadline: float
    logits: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    missing: int = 0
    tokens: int = 0
    waited_s: float = 0.0
    dropped: bool = False


class _Waiting:
    """Ends a caller's wait with an error: at the deadline, or when it has gone away."""

    def __init__(
        self, request: _Request, timeout_s: float, gone: Callable[[], Coroutine[Any, Any, None]] | None
    ) -> None:
        self._request = request
        self._timeout_s = timeout_s
        self._gone = gone
        self._watching: asyncio.Task[None] | None = None
        self._timer = request.loop.call_later(min(_WATCH_AFTER_S, self._left_s()), self._begin_to_watch)

    def end(self) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _left_s(self) -> float:
        return self._request.deadline - time.monotonic()

    def _begin_to_watch(self) -> None:
        self._timer = self._request.loop.call_later(self._left_s(), self._late)
        if self._gone is not None:
            self._watching = self._request.loop.create_task(self._watch(self._gone))

    async def _watch(self, gone: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await gone()
        _fail(self._request.done, GoneError("Whoever asked has gone away."))

    def _late(self) -> None:
        what = f"The answer was not ready after {self._timeout_s:g} s. Send fewer texts at once, or try again later."
        _fail(self._request.done, DeadlineError(what))


@dataclass(eq=False)
class _Part:
    """Some texts of a request, by index."""

    request: _Request
    rows: NDArray[np.intp]
    tokens: int
    since: float = field(default_factory=time.monotonic)


class WorkQueue:
    """Texts wait here, first come, first served, until a worker thread scores them.

    Args:
        scorers: score a list of texts; each is called from a worker thread of its own.
        labels: number of labels.
        max_length: of the model, in tokens.
        capacity_tokens: estimated tokens that may wait at full speed. A request that is larger than this is taken when
            nothing waits.
        tokens_per_s: full speed. When other work takes the processor, fewer tokens may wait, so that they don't wait
            longer.
    """

    def __init__(
        self,
        scorers: Sequence[Callable[[list[str]], Scores]],
        *,
        labels: int,
        max_length: int,
        capacity_tokens: int,
        tokens_per_s: float,
    ) -> None:
        self._labels = labels
        self._max_length = max_length
        self._full_capacity = capacity_tokens
        self._full_speed = max(tokens_per_s, 1.0)
        # Of a batch, running means. (The mean of batches' own speeds would count small, fast ones for too much.)
        self._recent_tokens, self._recent_s = float(PART_TOKENS), PART_TOKENS * len(scorers) / self._full_speed
        self._parts: deque[_Part] = deque()
        self._waiting_tokens = 0
        self._computing = 0
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(score,), name=f"edgewren-serve-{number}", daemon=True)
            for number, score in enumerate(scorers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_tokens(self) -> int:
        """Estimated tokens that wait, without those that are being computed."""
        return self._waiting_tokens

    @property
    def _tokens_per_s(self) -> float:
        return len(self._threads) * self._recent_tokens / max(self._recent_s, 1e-6)

    @property
    def capacity_tokens(self) -> int:
        """Estimated tokens that may wait, at the present speed."""
        share = min(1.0, max(_LEAST_SPEED, self._tokens_per_s / self._full_speed))
        return int(self._full_capacity * share)

    @property
    def full(self) -> bool:
        """Whether every request would be refused now."""
        return bool(self._parts) and self._waiting_tokens >= self.capacity_tokens

    def refusal(self) -> QueueFullError:
        """Return what a refused request is told."""
        seconds = math.ceil(self._waiting_tokens / self._tokens_per_s)
        return QueueFullError(self._waiting_tokens, self.capacity_tokens, max(1, seconds))

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is computed."""
        with self._changed:
            return not self._parts and not self._computing

    async def score(
        self,
        texts: Sequence[str],
        *,
        timeout_s: float,
        begun: float | None = None,
        gone: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> Answer:
        """Return the scores of some texts. A caller that is cancelled leaves no work behind that was not begun.

        Args:
            begun: by `time.monotonic`, from when on `timeout_s` counts; default: now.
            gone: returns when nobody wants the answer any more; awaited beside answers that take long.

        Raises:
            QueueFullError: too much waits; nothing of this request was kept.
            DeadlineError: not ready after `timeout_s` seconds.
            GoneError: `gone` returned.
            ClosedError: `close` was called.
        """
        loop = asyncio.get_running_loop()
        request = _Request(
            loop=loop,
            done=loop.create_future(),
            texts=texts,
            deadline=(time.monotonic() if begun is None else begun) + timeout_s,
            logits=np.empty((len(texts), self._labels), dtype=np.float32),
            truncated=np.zeros(len(texts), dtype=np.bool_),
        )
        if not texts:
            return self._answer(request)
        self._put(request)
        waiting = _Waiting(request, timeout_s, gone)
        try:
            await request.done
        finally:
            request.dropped = True  # what waits still is thrown away by the worker that meets it
            waiting.end()
        return self._answer(request)

    def close(self, timeout_s: float | None = None) -> None:
        """Take nothing new, let the workers finish what waits, and end them."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def _answer(self, request: _Request) -> Answer:
        return Answer(request.logits, request.truncated, request.tokens, request.waited_s)

    def _put(self, request: _Request) -> None:
        sizes = [estimated_tokens(text, self._max_length) for text in request.texts]
        parts = list(_cut(request, sizes))
        total = sum(sizes)
        with self._changed:
            if self._closed:
                raise ClosedError("The server is stopping. Send the request to another one.")
            if self._parts and self._waiting_tokens + total > self.capacity_tokens:
                raise self.refusal()
            request.missing = len(parts)
            self._parts.extend(parts)
            self._waiting_tokens += total
            self._changed.notify(min(len(parts), len(self._threads)))

    def _take(self) -> list[_Part] | None:
        """Return what to score next, or None when the queue is closed and empty."""
        with self._changed:
            while True:
                while not self._parts and not self._closed:
                    self._changed.wait()
                if not self._parts:
                    return None
                # Leave the others their share, or one core would idle while another works through everything.
                share = min(PART_TOKENS, -(-self._waiting_tokens // len(self._threads)))
                taken: list[_Part] = []
                tokens = 0
                now = time.monotonic()
                while self._parts and (not taken or tokens + self._parts[0].tokens <= share):
                    part = self._parts.popleft()
                    self._waiting_tokens -= part.tokens
                    request = part.request
                    if request.dropped or now > request.deadline:
                        continue
                    request.waited_s = max(request.waited_s, now - part.since)
                    tokens += part.tokens
                    taken.append(part)
                if taken:
                    self._computing += 1
                    return taken

    def _work(self, score: Callable[[list[str]], Scores]) -> None:
        while (parts := self._take()) is not None:
            start = time.monotonic()
            try:
                self._compute_or_fail(score, parts)
                self._recent_tokens += _SMOOTHING * (sum(part.tokens for part in parts) - self._recent_tokens)
                self._recent_s += _SMOOTHING * (time.monotonic() - start - self._recent_s)
            finally:
                with self._changed:
                    self._computing -= 1

    def _compute_or_fail(self, score: Callable[[list[str]], Scores], parts: Sequence[_Part]) -> None:
        try:
            self._compute(score, parts)
        except BaseException as error:  # noqa: BLE001  a panic of a Rust extension is one; the worker must live on
            if len(parts) > 1:  # the others of the batch may be innocent
                for part in parts:
                    self._compute_or_fail(score, [part])
                return
            # No traceback: it could show texts.
            logger.error("scoring %d texts failed: %s", len(parts[0].rows), type(error).__name__)  # noqa: TRY400
            _settle(parts[0].request, error)

    def _compute(self, score: Callable[[list[str]], Scores], parts: Sequence[_Part]) -> None:
        scores = score([part.request.texts[row] for part in parts for row in part.rows])
        start = 0
        for part in parts:
            end = start + len(part.rows)
            request = part.request
            request.logits[part.rows] = scores.logits[start:end]
            request.truncated[part.rows] = scores.truncated[start:end]
            start = end
            with self._changed:
                request.tokens += part.tokens
                request.missing -= 1
                finished = not request.missing
            if finished:
                _settle(request, None)


def _cut(request: _Request, sizes: Sequence[int]) -> list[_Part]:
    """Cut a request into parts of about `PART_TOKENS`, similar lengths together."""
    order = np.argsort(np.asarray(sizes), kind="stable")
    parts: list[_Part] = []
    rows: list[int] = []
    tokens = 0
    for row in order.tolist():
        if rows and tokens + sizes[row] > PART_TOKENS:
            parts.append(_Part(request, np.array(rows, dtype=np.intp), tokens))
            rows, tokens = [], 0
        rows.append(row)
        tokens += sizes[row]
    parts.append(_Part(request, np.array(rows, dtype=np.intp), tokens))
    return parts


def _fail(done: asyncio.Future[None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def _settle(request: _Request, error: BaseException | None) -> None:
    """Wake the caller, on its own event loop; harmless if it went away or was woken before."""

    def settle() -> None:
        if isinstance(error, Exception):
            _fail(request.done, error)
        elif error is not None:
            _fail(request.done, RuntimeError(f"{type(error).__name__} in a worker"))
        elif not request.done.done():
            request.done.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
        request.loop.call_soon_threadsafe(settle)
