"""Heads of early exits within a run, of any recipe: fitted fold by fold on what that fold's full model decides, asked
about the rows held out, and fitted once more for the model that is saved.

What a model decides needs no label, so heads learn from the halves of training texts, too: three times the examples for
twice the tokens. Thresholds are proved on whole texts, on the very models and rows of the full model's out-of-fold
logits. Knows features and logits, not how they were computed; what is decided on numbers alone stands in `exits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import UsageError
from edgewren_train import exits as early
from edgewren_train import ridge
from edgewren_train.depth import check_layout, layers_of
from edgewren_train.exit_plan import ExitPlan
from edgewren_train.out_of_fold import OutOfFold
from edgewren_train.ridge import RidgeHead
from edgewren_train.run_summary import Say
from edgewren_train.together import Together


class FitHead(Protocol):
    """Features, labels and what belongs together (as of `ridge.fit`) to the full model's ridge head."""

    def __call__(
        self, features: NDArray[np.float32], labels: Sequence[str], *, together: Together | None
    ) -> RidgeHead: ...


def check_exits(plan: ExitPlan, folds: int | None, rows: int, *, remedy: str) -> None:
    """Refuse early exits that could not be proved, before anything takes time.

    Args:
        folds: in which rows are held out.
        remedy: the option that holds rows out.

    Raises:
        UsageError: no rows are held out, or too few for the share that may differ.
    """
    if not folds or folds < 2:
        raise UsageError(f"early exits are proved on rows out of fold: give {remedy}, or leave --exits out.")
    early.check_rows(rows, allowed=plan.allowed, confidence=plan.confidence)


class ExitHeads:
    """Collects what heads say of rows held out, in folds, so of each row once; then fits them for the final model.

    Args:
        transformer: the transformers model of which texts may leave early.
        together: which of the rows belong together; None: none.

    Attributes:
        layers: after which they may, ascending.
        halves: of the rows' texts. Wherever features or logits are asked for, theirs follow those of the rows.

    Raises:
        InputError: a layout that an exported graph cannot be cut in.
        UsageError: a layer that the model does not have.
    """

    def __init__(self, plan: ExitPlan, transformer: Any, data: LabelledTexts, together: Together | None = None) -> None:
        check_layout(transformer)
        self._plan, self._depth, self._data = plan, len(layers_of(transformer)), data
        self.layers = early.checked_layers(plan.layers or early.default_layers(self._depth), self._depth)
        rows = len(data.texts)
        halved = [(half, row, place) for row, text in enumerate(data.texts) for place, half in enumerate(halves(text))]
        self.halves = tuple(half for half, _, _ in halved)
        self._row_of = np.array([*range(rows), *(row for _, row, _ in halved)])
        self.together = together
        self._examples = None if together is None else _with_halves(together, self._row_of, [at for _, _, at in halved])
        self._logits = {layer: np.full((rows, len(data.classes)), np.nan) for layer in self.layers}
        self._errors = {layer: np.full(rows, np.nan) for layer in self.layers}

    def hold_out(
        self,
        features: Mapping[int, NDArray[np.float32]],
        full: NDArray[np.floating[Any]],
        training: NDArray[np.integer[Any]],
        held_out: NDArray[np.integer[Any]],
    ) -> None:
        """Fit heads on the rows that a fold's full model was trained on, and keep what they say of those held out.

        Args:
            features: of all rows and `halves`, by layer.
            full: their logits by the fold's full model.
            training, held_out: places of rows.
        """
        taught = np.isin(self._row_of, training)
        together = None if self._examples is None else self._examples.of(np.flatnonzero(taught))
        for layer in self.layers:
            head = ridge.fit_values(features[layer][taught], _decisions(full[taught]), together=together)
            self._logits[layer][held_out] = head.logits(features[layer][held_out])
            self._errors[layer][held_out] = head.error

    def predicted(self, held_out: OutOfFold) -> list[str]:
        """Return what the model with exits answers to each row held out."""
        found = early.find_threshold(
            self._logits, self._errors, held_out.logits, allowed=self._plan.allowed, confidence=self._plan.confidence
        )
        routes = np.stack([*(self._logits[layer] for layer in self.layers), held_out.logits])
        chosen = routes[found.left, np.arange(len(held_out.rows))].argmax(axis=1)
        return [self._data.classes[index] for index in chosen]

    def finish(
        self,
        features: Mapping[int, NDArray[np.float32]],
        full: NDArray[np.floating[Any]],
        held_out: OutOfFold,
        *,
        calibrated: bool = True,
        say: Say,
    ) -> early.Exits | None:
        """Return the final model's exits: heads fitted on all rows and `halves`, thresholds proved on rows held out.

        None, and a word to `say`, where no threshold is proved at which any text leaves.
        """
        found = early.fit_exits(
            {
                layer: ridge.fit_values(features[layer], _decisions(full), together=self._examples)
                for layer in self.layers
            },
            self._logits,
            self._errors,
            held_out.logits,
            self._data.class_indices,
            self._depth,
            allowed=self._plan.allowed,
            confidence=self._plan.confidence,
            calibrated=calibrated,
        )
        say(early.as_text(found))
        return found


def hold_out_ridge(
    heads: ExitHeads,
    features: Mapping[int, NDArray[np.float32]],
    whole: NDArray[np.float32],
    fit: FitHead,
    held_out: OutOfFold,
    labels: Sequence[str],
) -> None:
    """Hold rows out for a ridge model's exits, in the parts in which they were held out for the full model.

    Args:
        features: of all rows and the heads' halves, by layer.
        whole: of the same, by the whole encoder.
        fit: fits the full model's head.
    """
    for part in np.unique(held_out.folds):
        rows = held_out.rows[held_out.folds == part]
        training = np.setdiff1d(np.arange(len(labels)), rows)
        together = None if heads.together is None else heads.together.of(training)
        full = fit(whole[training], [labels[row] for row in training], together=together).logits(whole)
        heads.hold_out(features, full, training, rows)


def halves(text: str) -> tuple[str, ...]:
    """Cut a text in two between words; one without spaces between characters. Nothing of one character or none."""
    words = text.split()
    if len(words) > 1:
        middle = len(words) // 2
        return " ".join(words[:middle]), " ".join(words[middle:])
    word = "".join(words)
    return (word[: len(word) // 2], word[len(word) // 2 :]) if len(word) > 1 else ()


def _with_halves(together: Together, row_of: NDArray[np.int64], places: Sequence[int]) -> Together:
    """Return what belongs together of rows and the halves that follow them: first halves of copies are copies, too."""
    rows = len(together.copies)
    halved = rows + 2 * together.copies[row_of[rows:]] + np.array(places, dtype=np.int64)
    return Together(
        np.concatenate([together.copies, halved]), None if together.groups is None else together.groups[row_of]
    )


def _decisions(logits: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return decision values as scikit-learn's: [n] for two classes, otherwise [n, classes], around one mean for all.

    What a row's values have in common says nothing of its label (a softmax leaves it out), so heads need not learn it.
    The mean itself is kept: a ridge model's one-against-the-rest values are positive where a class is answered yes.
    """
    if logits.shape[1] == 2:
        return logits[:, 1] - logits[:, 0]
    common = logits.mean(axis=1, keepdims=True)
    decisions: NDArray[np.floating[Any]] = logits - common + common.mean()
    return decisions
