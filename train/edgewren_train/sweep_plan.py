"""What a sweep searches, and what one training in it gave. Trains nothing, chooses nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import UsageError
from edgewren_train.epoch_watch import EpochScore
from edgewren_train.folds import check_share
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.search_space import Axis, grid, recipe_of


@dataclass(frozen=True)
class SweepPlan:
    """What to search, on which parts of the rows.

    Attributes:
        axes: settings that vary.
        base: all other settings.
        seeds: each setting is trained once per seed.
        validation: share of the rows held out, another part for each seed.
        patience: epochs without a lower log loss after which a training ends; 0: never.
        trials: settings to try where an axis is a range; with lists alone, all combinations are tried.
        prune: give up settings that are worse than the median of the others at the same epoch.
        group_column: column whose equal values are held out together; None: only copies of a text are.
    """

    encoder: str
    axes: tuple[Axis, ...]
    base: LoraRecipe = dataclasses.field(default_factory=LoraRecipe)
    normaliser: str = "http"
    seeds: tuple[int, ...] = (0, 1, 2)
    validation: float = 0.2
    patience: int = 3
    trials: int = 20
    prune: bool = False
    group_column: str | None = None

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UsageError(f"seeds are {list(self.seeds)}, expected at least one, each once.")
        check_share(self.validation)
        if self.trials < 1:
            raise UsageError(f"trials is {self.trials}, expected at least 1.")
        for settings in grid([axis for axis in self.axes if not axis.is_range]):
            recipe_of(settings, self.base)  # refuses what is out of range before anything takes time
        for axis in self.axes:
            if axis.is_range:
                for end in (axis.low, axis.high):
                    recipe_of({axis.name: end}, self.base)

    @property
    def is_grid(self) -> bool:
        return not any(axis.is_range for axis in self.axes)

    def as_dict(self, data: LabelledTexts) -> dict[str, Any]:
        return {
            "data_sha256": data.sha256,
            "rows": len(data.texts),
            "labels": list(data.classes),
            "encoder": self.encoder,
            "normaliser": self.normaliser,
            "axes": {axis.name: axis.as_dict() for axis in self.axes},
            "base": dataclasses.asdict(self.base),
            "seeds": list(self.seeds),
            "validation": self.validation,
            "patience": self.patience,
            "prune": self.prune,
            **({} if self.group_column is None else {"group_column": self.group_column}),  # older folders go on
        }


@dataclass(frozen=True)
class Run:
    """One training of one setting with one seed.

    Attributes:
        best: of `scores`; where there are none, epoch 0 with figures that are not finite.
        pruned: it was given up early.
        failed: why it failed; empty where it did not.
    """

    settings: dict[str, Any]
    seed: int
    scores: tuple[EpochScore, ...]
    best: EpochScore
    seconds: float
    rows_trained: int
    rows_held_out: int
    pruned: bool = False
    failed: str = ""

    def as_dict(self) -> dict[str, Any]:
        scores = [score.as_dict() for score in self.scores]
        return {**dataclasses.asdict(self), "scores": scores, "best": self.best.as_dict()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Run:
        scores = tuple(EpochScore.from_dict(score) for score in record["scores"])
        return cls(**{**record, "scores": scores, "best": EpochScore.from_dict(record["best"])})
