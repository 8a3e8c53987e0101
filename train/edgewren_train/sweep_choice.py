"""Which setting a sweep's runs speak for: the best mean over seeds, and the recipe to retrain with. Trains nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from edgewren.errors import InputError
from edgewren_train.epoch_watch import median_epoch
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.search_space import describe, recipe_of
from edgewren_train.sweep_plan import Run


def winner(runs: Sequence[Run], seeds: Sequence[int]) -> list[Run]:
    """Return the runs of the setting with the best mean score among those that finished all seeds.

    Raises:
        InputError: no setting did.
    """
    finished = complete(runs, seeds)
    if not finished:
        raise InputError("No setting finished all its seeds. Run the same command again: it goes on.")
    return max(finished, key=lambda group: sum(run.best.balanced_accuracy for run in group))


def complete(runs: Sequence[Run], seeds: Sequence[int]) -> list[list[Run]]:
    """Return the runs of each setting that has one of every seed, in the order of seeds."""
    by_setting: dict[str, dict[int, Run]] = {}
    for run in runs:
        if not run.pruned and not run.failed:
            by_setting.setdefault(json.dumps(run.settings, sort_keys=True), {})[run.seed] = run
    return [[group[seed] for seed in seeds] for group in by_setting.values() if set(seeds) <= set(group)]


def chosen_recipe(group: Sequence[Run], base: LoraRecipe) -> LoraRecipe:
    """Return the recipe to retrain on all rows: the setting, ended after the median epoch that its seeds chose."""
    recipe = recipe_of(group[0].settings, base)
    return dataclasses.replace(recipe, stop_after=median_epoch(run.best for run in group))


def name_of(group: Sequence[Run]) -> str:
    return describe(group[0].settings)
