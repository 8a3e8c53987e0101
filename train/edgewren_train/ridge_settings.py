"""What every recipe with a ridge head is told, and the cross-validation that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import LabelledTexts
from edgewren_train import ridge
from edgewren_train.out_of_fold import OutOfFold
from edgewren_train.run_summary import tell_copies
from edgewren_train.together import Together, belonging


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
        group_column: column whose equal values are held out together; None: copies of a text alone are.
        seed: of every split and resampling.
    """

    encoder_spec: str
    max_length: int | None = None
    normaliser: str = "http"
    alphas: tuple[float, ...] = ridge.WIDE_GRID
    extend: bool = True
    folds: int = 10
    calibrated: bool = True
    group_column: str | None = None
    seed: int = 0

    def fit(
        self, features: NDArray[np.float32], labels: Sequence[str], *, together: Together | None = None
    ) -> ridge.RidgeHead:
        """Fit the head; `together` as of `ridge.fit`."""
        return ridge.fit(features, labels, alphas=self.alphas, extend=self.extend, together=together)

    def folded(self, data: LabelledTexts) -> partial[OutOfFold]:
        """Return a function: features, a number of folds and what belongs together to out-of-fold logits."""
        return partial(ridge.cross_validate, labels=data.labels, seed=self.seed, alphas=self.alphas, extend=self.extend)

    def cross_validate(
        self,
        features: NDArray[np.float32],
        data: LabelledTexts,
        say: Callable[[str], None],
        *,
        together: Together | None = None,
    ) -> OutOfFold | None:
        """Cross-validate with as many folds as the rarest class allows; None where that is fewer than two.

        Args:
            together: which of the rows belong together, where that is known already.
        """
        if not self.folds:
            return None
        together = together or belonging(data, self.group_column)
        tell_copies(together, say)
        counted = min(self.folds, together.fewest(data.labels))
        if counted < self.folds:
            say(
                f"cross-validation with {counted} folds instead of {self.folds}: the rarest class has {counted} "
                f"{together.what}"
            )
        return self.folded(data)(features, folds=counted, together=together) if counted >= 2 else None
