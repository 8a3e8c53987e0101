"""Early exits of a fine-tuned model: ridge heads on the mean over its tokens after earlier layers.

In each fold the heads are fitted on what that fold's model makes of its training rows and asked about the rows held
out, so that thresholds are proved on the very models and rows of the full model's out-of-fold logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import UsageError
from edgewren_train import exits as early
from edgewren_train import ridge
from edgewren_train.depth_run import ExitPlan, class_indices
from edgewren_train.out_of_fold import OutOfFold, Split
from edgewren_train.prediction import layer_means
from edgewren_train.run_summary import Say


def check_exits(plan: ExitPlan, split: Split | None, rows: int) -> None:
    """Refuse early exits that could not be proved, before anything takes time.

    Raises:
        UsageError: no rows are held out, or a single part of them, or too few for the share that may differ.
    """
    if split is None or split.folds is None:
        raise UsageError(
            "early exits of a fine-tuned model are proved on rows out of fold: give --calibrate folds:5, or leave "
            "--exits out."
        )
    early.check_rows(rows, allowed=plan.allowed, confidence=plan.confidence)


class LoraExits:
    """Collects the exits' answers fold by fold, then fits them for the final model.

    Args:
        depth: number of layers of the encoder.
        ids: token row of each text.

    Raises:
        UsageError: a layer that the encoder does not have.
    """

    def __init__(self, plan: ExitPlan, depth: int, data: LabelledTexts, ids: Sequence[Sequence[int]]) -> None:
        self._plan, self._depth, self._data, self._ids = plan, depth, data, ids
        self._layers = early.checked_layers(plan.layers or early.default_layers(depth), depth)
        self._logits = {layer: np.full((len(ids), len(data.classes)), np.nan) for layer in self._layers}

    def hold_out(self, model: Any, training: NDArray[np.intp], held_out: NDArray[np.intp]) -> None:
        """Fit heads on the rows that a fold's model was trained on, and keep their logits of those held out."""
        features = layer_means(model, self._ids, self._layers)
        for layer, head in self._fit(features, training).items():
            self._logits[layer][held_out] = head.logits(features[layer][held_out])

    def finish(self, model: Any, held_out: OutOfFold, *, say: Say) -> early.Exits | None:
        """Return the final model's exits: heads fitted on all rows, thresholds proved on those held out.

        None, and a word to `say`, where no threshold is proved at which any text leaves.
        """
        everything = np.arange(len(self._ids))
        found = early.fit_exits(
            self._fit(layer_means(model, self._ids, self._layers), everything),
            {layer: logits[held_out.rows] for layer, logits in self._logits.items()},
            held_out.logits,
            class_indices(self._data)[held_out.rows],
            self._depth,
            allowed=self._plan.allowed,
            confidence=self._plan.confidence,
        )
        say(early.as_text(found))
        return found

    def _fit(self, features: dict[int, NDArray[np.float32]], rows: NDArray[np.intp]) -> dict[int, ridge.RidgeHead]:
        labels = [self._data.labels[row] for row in rows]
        return {layer: ridge.fit(values[rows], labels) for layer, values in features.items()}
