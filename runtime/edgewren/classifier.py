"""`Classifier`: the only public class. Texts in; labels, scores or logits out, in input order.

The way of a text: `predict` -> `score` -> `ModelSession.run`. Everything else here is bookkeeping around it.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren.bundle import Bundle
from edgewren.device import choose_device, granted_cores
from edgewren.errors import BundleError, UsageError
from edgewren.probabilities import softmax
from edgewren.session import ModelSession
from edgewren.text import TextTokenizer

logger = logging.getLogger(__name__)

WINDOW_ROWS = 8192
"""Texts tokenised, de-duplicated and scheduled together: enough to fill every length bucket, small in memory."""

_CUDA_WINDOW_ROWS = 131_072
"""The same for one call on CUDA, whose batches are a hundred times as large."""


class Prediction(NamedTuple):
    """One text's result: its label, that label's probability, and all probabilities in the order of `labels`."""

    label: str
    score: float
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Scores:
    """Everything known about a list of scored texts, in their order.

    Attributes:
        logits: float32 [n, labels].
        truncated: bool [n], texts of which tokens were cut at max_length.
        repaired: bool [n], texts that were not valid Unicode (lone surrogates) and were mended.
        distinct: number of distinct token rows that were computed.
        tokens: number of tokens that were computed.
    """

    logits: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    repaired: NDArray[np.bool_]
    distinct: int
    tokens: int


class Classifier:
    """A text classifier loaded from a bundle. Make one with `Classifier.load`.

    Threads may share it; pickling stores the bundle's path and hash and loads it again where it is unpickled.

    Attributes:
        labels: label names, in the order of all score columns.
        device: "cpu" or "cuda", as used.
        variant: name of the ONNX file in use ("fp32", "int8", "fp16").
        threads: texts are computed by this many threads at once.
        bundle: the opened bundle, with its manifest.
    """

    def __init__(self, bundle: Bundle, session: ModelSession, *, device: str, variant: str, threads: int) -> None:
        self.bundle = bundle
        self.labels: tuple[str, ...] = bundle.manifest.labels
        self.device = device
        self.variant = variant
        self.threads = threads
        self._session = session
        self._tokenizer = TextTokenizer(bundle.read("tokenizer.json"), bundle.manifest.max_length)
        self._tokens_per_batch = batching.CUDA_TOKENS_PER_BATCH if device == "cuda" else batching.CPU_TOKENS_PER_BATCH

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        threads: int | None = None,
        variant: str | None = None,
        expected_sha256: str | None = None,
    ) -> Classifier:
        """Load a bundle from a local folder. Never uses the network.

        Args:
            path: folder written by `edgewren export`.
            device: "auto" (CUDA where it works, else CPU; logs its choice), "cpu" or "cuda".
            threads: parallel computations; default: all CPU cores granted to this process.
            variant: name of a variant in the bundle; default: the best for the device.
            expected_sha256: SHA-256 that the bundle's manifest.json must have: pins all of it.

        Raises:
            BundleError: the folder is not a complete, undamaged bundle.
            DeviceError: CUDA was asked for and is not there.
            MissingDependencyError: onnxruntime is not installed.
            UsageError: threads is below 1.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}, expected at least 1, or None for all granted cores.")
        bundle = Bundle.open(path, expected_sha256)
        chosen_device = choose_device(device)
        if device == "auto" and variant is None and not bundle.runs_on(chosen_device):
            logger.info("device='auto' fell back to cpu: %s has no variant for %s", bundle.path, chosen_device)
            chosen_device = "cpu"
        chosen_variant, entry = bundle.variant(variant, chosen_device)
        session = ModelSession(bundle.read(entry.file), device=chosen_device)
        if session.outputs is not None and session.outputs != len(bundle.manifest.labels):
            raise BundleError(
                f"{bundle.path / entry.file} has {session.outputs} outputs, but the manifest names "
                f"{len(bundle.manifest.labels)} labels. Export the bundle again."
            )
        workers = 1 if chosen_device == "cuda" else threads or granted_cores()
        logger.info("loaded %s: variant %s on %s, %d threads", bundle.path, chosen_variant, chosen_device, workers)
        return cls(bundle, session, device=chosen_device, variant=chosen_variant, threads=workers)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """Return the most probable label of each text, in input order."""
        return [self.labels[index] for index in self.score(texts).logits.argmax(axis=1)]

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return probabilities, float32 [n, labels], columns in the order of `labels`."""
        return softmax(self.score(texts).logits)

    def decision_function(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return decision values as scikit-learn does: float32 [n] for two labels (positive means the second label),
        [n, labels] otherwise. A ridge model's values are those of the fitted RidgeClassifier.
        """
        logits = self.score(texts).logits / np.float32(self.bundle.manifest.temperature)
        return logits[:, 1] - logits[:, 0] if len(self.labels) == 2 else logits

    def stream(self, texts: Iterable[str], *, window: int = WINDOW_ROWS) -> Iterator[Prediction]:
        """Yield one `Prediction` per text, in order, in constant memory: `window` texts are read ahead at a time."""
        if isinstance(texts, str):
            raise TypeError("texts is a single str; pass an iterable of texts, for example [text].")
        if window < 1:
            raise UsageError(f"window is {window}, expected at least 1.")
        source = iter(texts)
        while chunk := list(itertools.islice(source, window)):
            logits = self.score(chunk).logits
            for row, best in zip(softmax(logits).tolist(), logits.argmax(axis=1).tolist(), strict=True):
                yield Prediction(self.labels[best], row[best], tuple(row))

    def score(self, texts: Sequence[str]) -> Scores:
        """Return logits and per-text facts; `predict` and its sisters are views of this.

        Args:
            texts: any sequence of str (list, tuple, array, pandas column). Any content is scored: empty, emoji,
                megabytes (cut at max_length tokens).

        Raises:
            TypeError: `texts` is a single str, or an item is not a str (its index is named).
        """
        if isinstance(texts, str):
            raise TypeError("texts is a single str; pass a list of texts, for example [text].")
        rows = list(texts)
        for index, text in enumerate(rows):
            if not isinstance(text, str):
                raise TypeError(f"texts[{index}] is {type(text).__name__} ({text!r:.80}), expected str.")
        window = _CUDA_WINDOW_ROWS if self.device == "cuda" else WINDOW_ROWS
        parts = [self._score_window(rows[start : start + window]) for start in range(0, len(rows), window)]
        if len(parts) == 1:
            return parts[0]
        return Scores(
            logits=_joined([part.logits for part in parts], np.empty((0, len(self.labels)), np.float32)),
            truncated=_joined([part.truncated for part in parts], np.empty(0, np.bool_)),
            repaired=_joined([part.repaired for part in parts], np.empty(0, np.bool_)),
            distinct=sum(part.distinct for part in parts),
            tokens=sum(part.tokens for part in parts),
        )

    def _score_window(self, texts: list[str]) -> Scores:
        tokens = self._tokenizer.encode(texts)
        rows, inverse = batching.distinct(tokens.ids)
        lengths = [len(row) for row in rows]
        logits = np.empty((len(rows), len(self.labels)), dtype=np.float32)

        def compute(batch: NDArray[np.intp]) -> None:
            logits[batch] = self._session.run(np.array([rows[index] for index in batch], dtype=np.int64))

        batches = batching.plan(lengths, self._tokens_per_batch)
        if self.threads == 1 or len(batches) == 1:
            for batch in batches:
                compute(batch)
        else:
            with ThreadPoolExecutor(min(self.threads, len(batches)), thread_name_prefix="edgewren") as pool:
                for _ in pool.map(compute, batches):
                    pass
        return Scores(logits[inverse], tokens.truncated, tokens.repaired, distinct=len(rows), tokens=sum(lengths))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reload, (str(self.bundle.path.absolute()), self.bundle.sha256, self.device, self.threads, self.variant)

    def __repr__(self) -> str:
        return (
            f"Classifier({str(self.bundle.path)!r}, labels={list(self.labels)}, variant={self.variant!r}, "
            f"device={self.device!r}, threads={self.threads})"
        )


def _joined(parts: list[NDArray[Any]], empty: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else empty


def _reload(path: str, sha256: str, device: str, threads: int, variant: str) -> Classifier:
    classifier = Classifier.load(path, device=device, threads=threads, variant=variant)
    if classifier.bundle.sha256 != sha256:
        raise BundleError(
            f"{path} is not the bundle that was pickled (manifest SHA-256 {classifier.bundle.sha256[:12]}…, expected "
            f"{sha256[:12]}…). Pickle the classifier again."
        )
    return classifier
