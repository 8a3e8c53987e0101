"""`Classifier`: the only public class. Texts in; labels, scores or logits out, in input order.

The way of a text: `predict` -> `score` -> `ModelSession.run`. Everything else here is bookkeeping around it.
"""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

from edgewren import batching, loading
from edgewren.alone import MAXIMUM_THREADS, AloneSession
from edgewren.bundle import Bundle
from edgewren.device import choose_device, granted_cores
from edgewren.errors import BundleError, UsageError, closed_classifier
from edgewren.probabilities import softmax
from edgewren.scheduling import Scheduler
from edgewren.session import ModelSession
from edgewren.staged import StagedSession
from edgewren.text import TextTokenizer
from edgewren.windows import Scores

logger = logging.getLogger(__name__)

WINDOW_ROWS = 8192
"""Texts tokenised, de-duplicated and scheduled together: enough to fill every length bucket, small in memory."""

CUDA_WINDOW_ROWS = 131_072
"""The same on CUDA, whose batches are a hundred times as large."""

_CUDA_HELPERS = 2
"""Threads beside the calling one on CUDA: two feed the device, the third tokenises ahead, reads and hands out. More
only take Python's lock from each other: with a device that takes as long as an H200, 2 made 196,000 tweets/s here and 4
175,000; a device that takes no time got 161,000 with 1 and 74,000 with 4 on a GPU's machine of 16 cores."""

_CUDA_CALLERS = 2
"""Batches in flight on CUDA: while one is computed, the next is on its way. On an H100 8 to 15 % faster than one."""

__all__ = ["CUDA_WINDOW_ROWS", "WINDOW_ROWS", "Classifier", "Prediction", "Scores"]


class Prediction(NamedTuple):
    """One text's result: its label, that label's probability, and all probabilities in the order of `labels`."""

    label: str
    score: float
    scores: tuple[float, ...]


class Classifier:
    """A text classifier loaded from a bundle. Make one with `Classifier.load`.

    Threads may share it. It works in forked children, where it loads the bundle again on first use. Pickling stores the
    bundle's path and hash, and loads it again where it is unpickled. `with` and `close` give its memory back; what is
    asked of it afterwards is a UsageError.

    A model whose logits are not finite for some text (a damaged one; export refuses such models) spoils no other text:
    `score`, `predict_proba` and `decision_function` have NaN in that row, and what must name a label raises.

    Attributes:
        labels: label names, in the order of all score columns.
        device: "cpu" or "cuda", as used.
        variant: name of the ONNX file in use ("fp32", "int8", "fp16").
        exits: layers after which texts leave, the whole encoder's last; empty where the model has no early exits.
        threads: texts are computed by this many threads at once.
        bundle: the opened bundle, with its manifest.
    """

    def __init__(
        self,
        bundle: Bundle,
        session: ModelSession | StagedSession,
        tokenizer: TextTokenizer,
        *,
        device: str,
        variant: str,
        threads: int,
        alone: AloneSession | None = None,
    ) -> None:
        self.bundle = bundle
        self.labels: tuple[str, ...] = bundle.manifest.labels
        self.device = device
        self.variant = variant
        self.threads = threads
        self.exits: tuple[int, ...] = session.layers if isinstance(session, StagedSession) else ()
        self._session = session
        self._alone = alone
        on_cuda = device == "cuda"
        table = bundle.manifest.kind == "static"
        self._scheduler = Scheduler(
            tokenizer,
            session,
            width=len(self.labels),
            threads=threads,
            tokens_per_batch=batching.tokens_per_batch(device, table=table, staged=isinstance(session, StagedSession)),
            mixed=table and isinstance(session, ModelSession) and "attention_mask" in session.inputs,
            helpers=_CUDA_HELPERS if on_cuda else None,
            alone=alone if threads > 1 else None,
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        variant: str | None = None,
        expected_sha256: str | None = None,
    ) -> Classifier:
        """Load a bundle from a local folder. Never uses the network.

        Args:
            path: folder written by `edgewren export`, or a bundle's name (see `names.resolve`); None: the default
                inside the package, a static model of neutral and partisan tweets.
            device: "auto" (CUDA where it works, else CPU; logs its choice), "cpu" or "cuda".
            threads: parallel computations; default: all CPU cores granted to this process.
            variant: name of a variant in the bundle; default: the best for the device.
            expected_sha256: SHA-256 of manifest.json, which pins every file; `edgewren info` tells it.

        Raises:
            BundleError: the folder is not a complete, undamaged bundle, or not the expected one.
            DeviceError: CUDA was asked for and is not there.
            MissingDependencyError: onnxruntime is not installed.
            UsageError: threads is below 1.
            TypeError: threads is no whole number.
        """
        if threads is not None and _whole_number("threads", threads) < 1:
            raise UsageError(f"threads is {threads}, expected at least 1, or None for all granted cores.")
        bundle = Bundle.open(path, expected_sha256)
        chosen_device = choose_device(device)
        if device == "auto" and variant is None and not bundle.runs_on(chosen_device):
            logger.info("device='auto' fell back to cpu: %s has no variant for %s", bundle.path, chosen_device)
            chosen_device = "cpu"
        chosen_variant, entry = bundle.variant(variant, chosen_device)
        session, tokenizer = loading.load(bundle, entry, chosen_device)
        if session.outputs is not None and session.outputs != len(bundle.manifest.labels):
            raise BundleError(
                f"{bundle.path / entry.file} has {session.outputs} outputs, but the manifest names "
                f"{len(bundle.manifest.labels)} labels. Export the bundle again."
            )
        workers = _CUDA_CALLERS if chosen_device == "cuda" else threads or granted_cores()
        logger.info("loaded %s: variant %s on %s, %d threads", bundle.path, chosen_variant, chosen_device, workers)
        alone = None
        if chosen_device == "cpu" and workers > 1 and bundle.manifest.kind != "static":
            inside = min(workers, MAXIMUM_THREADS)
            alone = AloneSession(functools.partial(loading.with_threads_inside, bundle, entry, inside))
        return cls(
            bundle, session, tokenizer, device=chosen_device, variant=chosen_variant, threads=workers, alone=alone
        )

    def predict(self, texts: Sequence[str]) -> list[str]:
        """Return the most probable label of each text, in input order.

        Raises:
            TypeError: `texts` is a single str, or an item is not a str.
            BundleError: the model gave no finite logits for a text.
        """
        return [self.labels[index] for index in self._best(self.score(texts).logits)]

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return probabilities, float32 [n, labels], columns in the order of `labels`."""
        return softmax(self.score(texts).logits)

    @overload
    def __call__(self, texts: Sequence[str]) -> list[dict[str, Any]]: ...
    @overload
    def __call__(self, texts: Sequence[str], top_k: int | None) -> list[list[dict[str, Any]]]: ...
    def __call__(
        self, texts: Sequence[str], top_k: int | EllipsisType | None = ...
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Answer like the text-classification pipeline of transformers.

        Args:
            texts: as for `score`.
            top_k: not given: one {"label", "score"} per text, the best; a number or None (all): a list of that many
                per text, the best first.

        Raises:
            TypeError: `texts` is a single str, an item is not a str, or top_k is no whole number.
            UsageError: top_k is below 1.
            BundleError: the model gave no finite logits for a text.
        """
        if top_k is not ... and top_k is not None and _whole_number("top_k", top_k) < 1:
            raise UsageError(f"top_k is {top_k}, expected at least 1, or None for all labels.")
        logits = self.score(texts).logits
        self._best(logits)
        order = np.argsort(-logits, axis=1, kind="stable").tolist()
        ranked = [
            [{"label": self.labels[index], "score": row[index]} for index in indices]
            for row, indices in zip(softmax(logits).tolist(), order, strict=True)
        ]
        return [row[0] for row in ranked] if top_k is ... else [row[:top_k] for row in ranked]

    async def ascore(self, texts: Sequence[str]) -> Scores:
        """Return what `score` does, without blocking the event loop: texts are computed in a thread of the classifier.

        At most `threads` such calls are in work at once; the others wait in order. When the waiting task is cancelled
        (by hand, `asyncio.timeout`, `asyncio.wait_for`), its work is dropped: at once if it has not begun, else after
        the batch in hand.

        Raises:
            DeviceError: no thread can be started (a limit of the system or the container).
        """
        import asyncio  # whoever awaits has it already; others need not pay for it

        rows = _checked(texts)
        stop = threading.Event()
        try:
            future = self._scheduler.submit(functools.partial(self._score, rows, stop))
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() and task is not None and not task.cancelling():  # by `close`, while it waited
                raise closed_classifier() from None
            raise
        finally:
            stop.set()

    async def apredict_proba(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return what `predict_proba` does, without blocking the event loop; cancelled as `ascore` is."""
        return softmax((await self.ascore(texts)).logits)

    def decision_function(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return decision values as scikit-learn does: float32 [n] for two labels (positive means the second label),
        [n, labels] otherwise. A ridge model's values are those of the fitted RidgeClassifier; those of a text that left
        early (see `Scores.layers`) are its exit's, times that exit's temperature over the model's.
        """
        logits = self.score(texts).logits / np.float32(self.bundle.manifest.temperature)
        return logits[:, 1] - logits[:, 0] if len(self.labels) == 2 else logits

    def stream(self, texts: Iterable[str], *, window: int | None = None) -> Iterator[Prediction]:
        """Yield one `Prediction` per text, in order, in constant memory.

        Args:
            texts: any iterable of str, endless ones too; it is read in the thread that asks for predictions.
            window: texts taken together; default 8,192 (131,072 on CUDA). The next two windows are read while one is
                computed. One that fits into a single batch (a few texts) is answered before more is read: `window=1`
                suits a conversation.

        Raises:
            TypeError: `texts` is a single str, an item is not a str (its index is named), or window is no whole number.
            UsageError: window is below 1.
        """
        _refuse_no_list(texts, "texts")
        if window is not None and _whole_number("window", window) < 1:
            raise UsageError(f"window is {window}, expected at least 1.")
        return self._predictions(_cut(texts, min(window or self.window_rows, sys.maxsize)))

    def _predictions(self, windows: Iterator[list[str]]) -> Iterator[Prediction]:
        for scores in self._scheduler.scores(windows):
            best = self._best(scores.logits)
            for row, index in zip(softmax(scores.logits).tolist(), best, strict=True):
                yield Prediction(self.labels[index], row[index], tuple(row))

    def score_windows(self, windows: Iterable[Sequence[str]]) -> Iterator[Scores]:
        """Yield one `Scores` per window of texts, in order: `score` for those who have their texts in pieces.

        While one window is computed, the next two are taken from `windows` (in the calling thread) and tokenised.
        Windows of `window_rows` texts fill every batch; a window's size changes no result. What `windows` raises comes
        out after the results of the windows before it; closing the iterator drops the rest.

        Raises:
            TypeError: a window is a single str, or an item is not a str (its place is named).
        """
        return self._scheduler.scores(_checked_windows(windows))

    def score(self, texts: Sequence[str]) -> Scores:
        """Return logits and per-text facts; `predict` and its sisters are views of this.

        Args:
            texts: any sequence of str (list, tuple, array, pandas column). Any content is scored: empty, emoji,
                megabytes (cut at max_length tokens).

        Raises:
            TypeError: `texts` is a single str, or an item is not a str (its index is named).
        """
        return self._score(_checked(texts))

    def _score(self, rows: list[str], stop: threading.Event | None = None) -> Scores:
        if len(rows) <= self.window_rows:
            return self._scheduler.score(rows, stop)
        parts = list(self._scheduler.scores(_cut(rows, self.window_rows), stop))
        return Scores(
            logits=np.concatenate([part.logits for part in parts]),
            truncated=np.concatenate([part.truncated for part in parts]),
            repaired=np.concatenate([part.repaired for part in parts]),
            distinct=sum(part.distinct for part in parts),
            tokens=sum(part.tokens for part in parts),
            layers=None
            if parts[0].layers is None
            else np.concatenate([p.layers for p in parts if p.layers is not None]),
        )

    def _best(self, logits: NDArray[np.float32]) -> list[int]:
        """Return the index of each row's best label."""
        if not np.isfinite(logits).all():
            row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise BundleError(
                f"The model of {self.bundle.path} ({self.variant}) gave no finite logits for text {row} (counted from "
                "0) of its window: it is damaged, or overflows. Run 'edgewren verify', or leave such texts out: "
                "predict_proba has NaN there."
            )
        best: list[int] = logits.argmax(axis=1).tolist()
        return best

    @property
    def window_rows(self) -> int:
        """Texts that are best tokenised, de-duplicated and scheduled together on this device."""
        return CUDA_WINDOW_ROWS if self.device == "cuda" else WINDOW_ROWS

    def with_threads(self, threads: int) -> Classifier:
        """Return the same loaded model, in the same memory, computing with another number of threads.

        For programs that have threads of their own: one such classifier with `threads=1` in each computes without
        handing work over. Closing one closes the model for all.

        Raises:
            UsageError: threads is below 1.
            TypeError: threads is no whole number.
        """
        if _whole_number("threads", threads) < 1:
            raise UsageError(f"threads is {threads}, expected at least 1.")
        return Classifier(
            self.bundle,
            self._session,
            self._scheduler.tokenizer,
            device=self.device,
            variant=self.variant,
            threads=threads,
            alone=self._alone,
        )

    def close(self) -> None:
        """Give memory and threads back. Calls in flight in other threads end with a UsageError after the batches in
        hand; so does every later call. Closing twice is no error.
        """
        self._scheduler.close()
        self._session.close()
        if self._alone is not None:
            self._alone.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reload, (str(self.bundle.folder), self.bundle.sha256, self.device, self.threads, self.variant)

    def __repr__(self) -> str:
        return (
            f"Classifier({str(self.bundle.path)!r}, labels={list(self.labels)}, variant={self.variant!r}, "
            f"device={self.device!r}, threads={self.threads})"
        )


def _whole_number(name: str, value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError as error:
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), expected a whole number or None.") from error


def _refuse_no_list(texts: Iterable[str], place: str) -> None:
    """Refuse what is no list of texts, and what can be iterated over, but gives something else than its texts."""
    if isinstance(texts, str):
        raise TypeError(f"{place} is a single str; pass a list of texts, for example [text].")
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):  # a table gives its columns' names
        raise TypeError(f"{place} is a {type(texts).__name__}; pass one column of it, for example table['text'].")
    try:
        iter(texts)
    except TypeError as error:  # arrays of no dimension only say so when asked
        raise TypeError(f"{place} is {type(texts).__name__} ({texts!r:.80}), expected a list of texts.") from error


def _checked(texts: Sequence[str], place: str = "texts", start: int = 0) -> list[str]:
    """Return a list of these texts, after making sure that they are texts."""
    _refuse_no_list(texts, place)
    rows = list(texts)
    if not set(map(type, rows)) <= {str}:
        for index, text in enumerate(rows, start):
            if not isinstance(text, str):
                raise TypeError(f"{place}[{index}] is {type(text).__name__} ({text!r:.80}), expected str.")
    return rows


def _cut(texts: Iterable[str], window: int) -> Iterator[list[str]]:
    source = iter(texts)
    start = 0
    while chunk := list(itertools.islice(source, window)):
        yield _checked(chunk, start=start)
        start += len(chunk)


def _checked_windows(windows: Iterable[Sequence[str]]) -> Iterator[list[str]]:
    for index, window in enumerate(windows):
        yield _checked(window, f"windows[{index}]")


def _reload(path: str, sha256: str, device: str, threads: int, variant: str) -> Classifier:
    try:
        return Classifier.load(path, device=device, threads=threads, variant=variant, expected_sha256=sha256)
    except BundleError as error:
        raise BundleError(f"This is not the bundle that was pickled. {error}") from error
