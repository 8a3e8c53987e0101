"""Watching a validation part while a LoRA model trains: a score after each epoch, early stopping, best weights kept.

Pure but for `EpochWatch.best_weights`, which holds tensors; how logits are computed is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import UsageError


@dataclass(frozen=True)
class EpochScore:
    """How a model did on the validation part after `epoch` epochs; `loss` is the log loss in nats per row.

    Where training ran away, the loss is not finite: worse than any other.
    """

    epoch: int
    loss: float
    balanced_accuracy: float

    @property
    def ran_away(self) -> bool:
        return not math.isfinite(self.loss)

    def as_dict(self) -> dict[str, float | None]:
        """Return what JSON can hold: None for what is not finite."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> EpochScore:
        figures: dict[str, Any] = {name: math.nan if value is None else value for name, value in record.items()}
        return cls(**figures)


@dataclass
class EpochWatch:
    """State of one training.

    The best epoch is the one with the lowest log loss: it moves smoothly, while the accuracy of 180 rows jumps by more
    than epochs differ, and choosing its highest would report luck.

    Attributes:
        ids, labels: token rows and class indices of the validation part.
        patience: end after so many epochs without a lower loss; 0: never.
        on_epoch: called with each score; returning True ends the training (how a sweep prunes).
        scores: of the epochs so far.
        best_weights: of the best epoch.
    """

    ids: Sequence[Sequence[int]]
    labels: Sequence[int]
    patience: int = 0
    on_epoch: Callable[[EpochScore], bool] | None = None
    scores: list[EpochScore] = field(default_factory=list)
    best_weights: Any = None

    def __post_init__(self) -> None:
        if self.patience < 0:
            raise UsageError(f"early-stopping is {self.patience}, expected 0 (off) or a number of epochs.")

    @property
    def best(self) -> EpochScore:
        return min(self.scores, key=lambda score: (math.inf if score.ran_away else score.loss, score.epoch))

    def see(self, logits: NDArray[np.floating[Any]], weights: Callable[[], Any]) -> bool:
        """Take the logits of the validation part after one more epoch; return whether to end.

        `weights` is called where this is the best epoch so far, and must return copies.
        """
        score = epoch_score(logits, self.labels, epoch=len(self.scores) + 1)
        self.scores.append(score)
        if self.best is score:
            self.best_weights = weights()
        stop = self.on_epoch(score) if self.on_epoch else False
        return stop or (self.patience > 0 and score.epoch - self.best.epoch >= self.patience)


def median_epoch(best: Iterable[EpochScore]) -> int:
    """Return after how many epochs to end, from the best ones of several trainings: their median, the later of two."""
    epochs = sorted(score.epoch for score in best)
    return epochs[len(epochs) // 2]


def epoch_score(logits: NDArray[np.floating[Any]], labels: Sequence[int], *, epoch: int) -> EpochScore:
    """Return log loss and balanced accuracy of logits [n, classes]."""
    values = np.asarray(logits, dtype=np.float64)
    true = np.asarray(labels, dtype=np.intp)
    with np.errstate(invalid="ignore"):  # infinite logits of a training that ran away
        shifted = values - values.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    right = values.argmax(axis=1) == true
    recalls = [right[true == label].mean() for label in np.unique(true)]
    return EpochScore(epoch, float(-log_probabilities[np.arange(len(true)), true].mean()), float(np.mean(recalls)))
