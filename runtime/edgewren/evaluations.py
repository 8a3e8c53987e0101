"""The names of a model's evaluations, and what they say: of which model, on which rows.

Training writes them, manifests keep them; cards, reports and corrected shares choose among them.
"""

from __future__ import annotations

from collections.abc import Iterable

TEST = "test file"
TRAINING = "training rows (optimistic)"
_TRAINING_ROWS = "training rows"
_BEFORE = "before "
BEFORE_TRAINING = f", {_BEFORE}training"
BEFORE_DISTILLATION = f" ({_BEFORE}distillation)"
"""Endings of what was found of an earlier state of the model."""
CHOSE_EPOCHS = " (chose the epochs: a little optimistic)"
BY_GROUP = " by group"
"""Ending where no group of rows, such as an author's, was both trained on and judged; the training names the column."""
_OPTIMISTIC = "optimistic"


def held_out_by(column: object, evaluations: Iterable[str]) -> object:
    """Return the column of a training by whose groups an evaluation held rows out; None where none of these did."""
    return column if any(BY_GROUP in name for name in evaluations) else None


def of_new_texts(name: str) -> bool:
    """Whether an evaluation is of the finished recipe, on rows that it was not trained on."""
    lower = name.lower()
    return not lower.startswith(_TRAINING_ROWS) and _BEFORE not in lower


def unbiased(name: str) -> bool:
    """Whether, besides, nothing was chosen on its rows."""
    return of_new_texts(name) and _OPTIMISTIC not in name.lower()
