"""What every recipe with a ridge head is told, and the cross-validation that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import LabelledTexts
from edgewren_train import ridge
from edgewren_train.duplicates import fewest_texts
from edgewren_train.out_of_fold import OutOfFold
from edgewren_train.run_summary import tell_copies


@dataclass(frozen=True)
class RidgeSettings:
    """How to embed texts and fit a ridge head.

    Attributes:
        encoder_spec: hub id, folder, or "minilm".
        max_length: tokens kept of a text; None: the encoder's own.
        normaliser: name of the text normaliser.
        alphas: regularisation strengths to try.
        extend: beyond them, while the best lies on an edge.
        folds: of the cross-validation; 0: none.
        calibrated: fit a temperature on the folds.
        seed: of every split and resampling.
    """

    encoder_spec: str
    max_length: int | None = None
    normaliser: str = "http"
    alphas: tuple[float, ...] = ridge.WIDE_GRID
    extend: bool = True
    folds: int = 10
    calibrated: bool = True
    seed: int = 0

    def fit(self, features: NDArray[np.float32], labels: Sequence[str]) -> ridge.RidgeHead:
        """Fit the head."""
        return ridge.fit(features, labels, alphas=self.alphas, extend=self.extend)

    def folded(self, data: LabelledTexts) -> partial[OutOfFold]:
        """Return a function: features, a number of folds and `duplicates.copies` to out-of-fold logits."""
        return partial(ridge.cross_validate, labels=data.labels, seed=self.seed, alphas=self.alphas, extend=self.extend)

    def cross_validate(
        self, features: NDArray[np.float32], data: LabelledTexts, say: Callable[[str], None]
    ) -> OutOfFold | None:
        """Cross-validate with as many folds as the rarest class allows; None where that is fewer than two."""
        if not self.folds:
            return None
        same = tell_copies(data.texts, say)
        counted = min(self.folds, fewest_texts(data.labels, same))
        if counted < self.folds:
            what = "texts that differ" if len(np.unique(same)) < len(same) else "rows"
            say(f"cross-validation with {counted} folds instead of {self.folds}: the rarest class has {counted} {what}")
        return self.folded(data)(features, folds=counted, copies=same) if counted >= 2 else None
