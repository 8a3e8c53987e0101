"""How many epochs a LoRA model should train: tried on a held-out part of the rows, perhaps with several seeds."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import UsageError
from edgewren_train import lora
from edgewren_train.epoch_watch import EpochScore, EpochWatch, median_epoch
from edgewren_train.folds import one_split
from edgewren_train.lora_model import Fitted, LoraBase
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.prediction import predict_logits
from edgewren_train.progress import Progress, unseen
from edgewren_train.together import Together, belonging


@dataclass(frozen=True)
class Choosing:
    """How to choose.

    Attributes:
        share: of the rows held out, stratified.
        patience: epochs without a lower log loss after which a training ends; 0: never.
        seeds: one training each, with its own held-out part, head and order.
        refit: train again on all rows for the chosen number of epochs; else the first seed's model is kept.
    """

    share: float = 0.15
    patience: int = 3
    seeds: tuple[int, ...] = (0,)
    refit: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UsageError(f"--validation is {self.share}, expected a share between 0 and 1, for example 0.15.")
        if self.patience < 0:
            raise UsageError(f"--early-stopping is {self.patience}, expected 0 (off) or a number of epochs.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UsageError(f"--seeds are {list(self.seeds)}, expected at least one, each once.")


@dataclass(frozen=True)
class Tried:
    """One seed's training on the training part.

    Attributes:
        best: the epoch with the lowest log loss on the held-out rows.
        held_out: their row indices; predicted: class index of each, by the model of the best epoch.
    """

    seed: int
    best: EpochScore
    scores: tuple[EpochScore, ...]
    held_out: tuple[int, ...]
    predicted: tuple[int, ...]
    rows_trained: int


@dataclass(frozen=True)
class EpochChoice:
    """What was tried, and what follows: train for `epochs` epochs."""

    tried: tuple[Tried, ...]
    epochs: int

    def as_dict(self) -> dict[str, Any]:
        """Return what model.json keeps."""
        return {
            "epochs": self.epochs,
            "rows_held_out": [len(one.held_out) for one in self.tried],
            "seeds": [
                {
                    "seed": one.seed,
                    "best": one.best.as_dict(),
                    "epochs": [score.as_dict() for score in one.scores],
                }
                for one in self.tried
            ],
            "spread": self.spread(),
        }

    def spread(self) -> dict[str, float] | None:
        """Return mean, standard deviation, lowest and highest balanced accuracy over seeds, or None for one seed."""
        if len(self.tried) < 2:
            return None
        values = [one.best.balanced_accuracy for one in self.tried]
        return {
            "mean": statistics.mean(values),
            "standard_deviation": statistics.stdev(values),
            "lowest": min(values),
            "highest": max(values),
        }


def choose_epochs(
    base_of: Callable[[int], LoraBase],
    data: LabelledTexts,
    recipe: LoraRecipe,
    choosing: Choosing,
    *,
    together: Together | None = None,
    device: str = "cpu",
    progress: Progress = unseen,
    say: Callable[[str], None],
) -> tuple[EpochChoice, Fitted]:
    """Train on a part of the rows, once per seed, and watch the rest; return the choice and the first seed's model.

    Args:
        base_of: returns the pretrained model with the head of a seed.
        together: rows that stay in one part together; None: copies of a text do.

    Raises:
        InputError: a class has too few rows to be in both parts.
        UsageError: training ran away from its first epoch on.
    """
    labels = data.class_indices.tolist()
    together = together or belonging(data)
    tried: list[Tried] = []
    first: Fitted | None = None
    for seed in choosing.seeds:
        train, held_out = one_split(data.labels, share=choosing.share, seed=seed, together=together)
        base = base_of(seed)
        ids = base.tokenizer.encode(data.texts).ids
        watch = EpochWatch(
            [ids[row] for row in held_out], [labels[row] for row in held_out], patience=choosing.patience
        )
        fitted = lora.fit(
            base,
            [ids[row] for row in train],
            [labels[row] for row in train],
            dataclasses.replace(recipe, seed=seed),
            device=device,
            progress=progress,
            watch=watch,
        )
        if watch.best.ran_away:
            raise UsageError(
                f"Training with seed {seed} ran away: after no epoch was the validation loss finite. Choose a lower "
                "--learning-rate (default: 0.0002). Nothing was saved."
            )
        predicted = predict_logits(fitted.model, watch.ids).argmax(axis=1)
        one = Tried(
            seed, watch.best, tuple(watch.scores), tuple(held_out.tolist()), tuple(predicted.tolist()), len(train)
        )
        tried.append(one)
        first = first or fitted
        say(_report(one, recipe))
    choice = EpochChoice(tuple(tried), median_epoch(one.best for one in tried))
    spread = choice.spread()
    if spread:
        say(
            f"spread over {len(tried)} seeds: balanced accuracy {spread['mean']:.3f} ± "
            f"{spread['standard_deviation']:.3f} ({spread['lowest']:.3f} to {spread['highest']:.3f}), epochs "
            f"{', '.join(str(one.best.epoch) for one in tried)}"
        )
    if first is None:
        raise UsageError("no seed to train with")
    return choice, first


def _report(one: Tried, recipe: LoraRecipe) -> str:
    stopped = f", stopped after {len(one.scores)} of {recipe.epochs}" if len(one.scores) < recipe.epochs else ""
    edge = " (the last one: more --epochs may be better)" if one.best.epoch == recipe.epochs else ""
    return (
        f"validation, seed {one.seed}: best after epoch {one.best.epoch}{edge}{stopped}; on {len(one.held_out):,} rows "
        f"log loss {one.best.loss:.4f}, balanced accuracy {one.best.balanced_accuracy:.3f}"
    )
