"""Embeddings for the candidates of a comparison: one set at a time, each timed; an encoder that fails is tried once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import EdgewrenError
from edgewren_train import depth as depths
from edgewren_train import embedding
from edgewren_train.candidate import Candidate
from edgewren_train.depth_run import Depth
from edgewren_train.encoders import load_encoder
from edgewren_train.progress import Progress, unseen
from edgewren_train.run_summary import tell_prompts

_TIMED_TEXTS = 128
"""Where all embeddings but fewer come from the cache, this many texts are embedded anew to time the encoder."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings, float32 [n, dimension], with what they cost: texts embedded per second, and the encoder's size."""

    values: NDArray[np.float32]
    texts_per_s: float
    parameters: int
    parameter_bytes: int


class Features:
    """Embeddings of all texts, of the encoder asked for last."""

    def __init__(
        self,
        texts: Sequence[str],
        device: str,
        cache: Path | None,
        say: Callable[[str], None],
        progress: Progress = unseen,
    ) -> None:
        self._texts, self._device, self._cache, self._say, self._progress = texts, device, cache, say, progress
        self._key: tuple[str, str, Depth] | None = None
        self._embedded: Embedded | None = None
        self._failed: dict[tuple[str, str, Depth], EdgewrenError] = {}

    def of(self, candidate: Candidate) -> Embedded:
        """Return a candidate's embeddings; raises EdgewrenError where its encoder cannot be loaded or cut."""
        key = (candidate.encoder, candidate.normaliser, candidate.depth)
        if key in self._failed:  # a hub that cannot be reached takes minutes to say so
            raise self._failed[key]
        if self._embedded is None or key != self._key:
            self._embedded = None  # before the next encoder takes memory
            try:
                self._embedded, self._key = self._embed(candidate), key
            except EdgewrenError as error:
                self._failed[key] = error
                raise
        return self._embedded

    def at_each_depth(self, candidate: Candidate) -> dict[int, Embedded]:
        """Return the embeddings after each of the encoder's layers, by number of layers."""
        layers = depths.depth_of(load_encoder(candidate.encoder, normaliser=candidate.normaliser))
        return {depth: self.of(replace(candidate, depth=depth)) for depth in range(1, layers + 1)}

    def _embed(self, candidate: Candidate) -> Embedded:
        encoder = load_encoder(candidate.encoder, normaliser=candidate.normaliser)
        depth = ""
        if isinstance(candidate.depth, int):
            encoder = depths.cut(encoder, candidate.depth)
            depth = f", depth {candidate.depth}"
        self._say(f"encoder {encoder.id}{depth}, normaliser {candidate.normaliser}: {len(self._texts):,} texts")
        tell_prompts(encoder.prompts, self._say)
        timed = len(self._texts)
        if self._cache is not None:
            timed -= embedding.count_cached(encoder, self._texts, self._cache, device=self._device)
        start = time.perf_counter()
        with self._progress(len(self._texts), "embedding") as advance:
            values = embedding.embed(encoder, self._texts, device=self._device, cache=self._cache, progress=advance)
        seconds = time.perf_counter() - start
        if timed < min(_TIMED_TEXTS, len(self._texts)):
            sample = list(self._texts[:: max(1, len(self._texts) // _TIMED_TEXTS)])[:_TIMED_TEXTS]
            start = time.perf_counter()
            embedding.embed(encoder, sample, device=self._device)
            seconds, timed = time.perf_counter() - start, len(sample)
        parameters = list(encoder.model.parameters())
        return Embedded(
            values,
            timed / max(seconds, 1e-9),
            sum(parameter.numel() for parameter in parameters),
            sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        )
