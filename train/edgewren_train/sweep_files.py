"""A sweep's results as text for people, and as CSV, JSON and PNG files; and its choice, read back. Trains nothing."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewren.errors import InputError, OutputError
from edgewren_train import sweep_plots
from edgewren_train.comparison_files import csv_text
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.paired_tests import Pair, PairedTest, all_pairs
from edgewren_train.sweep_choice import chosen_recipe, complete, name_of, winner
from edgewren_train.sweep_plan import Run, SweepPlan

_FILE = "sweep.json"


@dataclass(frozen=True)
class Choice:
    """What to train on all rows: a finished sweep's best settings and median number of epochs."""

    recipe: LoraRecipe
    encoder: str
    normaliser: str


@dataclass(frozen=True)
class Setting:
    """One setting with its runs, in the order of seeds; `behind` is the best setting minus this one, None for the best.

    Its p-value is adjusted for all pairs of settings. With one seed there is no noise to judge by, and no test.
    """

    name: str
    runs: tuple[Run, ...]
    mean: float
    deviation: float
    behind: PairedTest | None
    p_holm: float | None


def settings(runs: Sequence[Run], plan: SweepPlan) -> list[Setting]:
    """Return every setting that finished all seeds, the best first, tested against the best on the same parts."""
    groups = sorted(complete(runs, plan.seeds), key=lambda group: -_mean(group))
    if not groups:
        return []
    best = winner(runs, plan.seeds)
    groups = [best, *(group for group in groups if group is not best and group[0].settings != best[0].settings)]
    with_the_best: list[Pair | None] = [None] * len(groups)
    if len(plan.seeds) > 1:
        pairs = all_pairs(
            {str(place): _scores(group) for place, group in enumerate(groups)},
            held_out_per_trained=best[0].rows_held_out / best[0].rows_trained,
            rows_held_out=best[0].rows_held_out,
        )
        with_the_best[1:] = pairs[: len(groups) - 1]
    return [
        Setting(
            name_of(group),
            tuple(group),
            _mean(group),
            statistics.stdev(_scores(group)) if len(group) > 1 else 0.0,
            pair.test if pair else None,
            pair.p_holm if pair else None,
        )
        for group, pair in zip(groups, with_the_best, strict=True)
    ]


def as_text(found: Sequence[Setting], runs: Sequence[Run], plan: SweepPlan) -> str:
    """Return the table for a terminal."""
    pruned = [run for run in runs if run.pruned]
    width = max(7, *(len(setting.name) for setting in found))
    seeds = ", ".join(map(str, plan.seeds))
    parts = f"{found[0].runs[0].rows_trained:,} rows trained, {found[0].runs[0].rows_held_out:,} held out"
    lines = [
        f"{len(found)} settings, each with {len(plan.seeds)} seed(s) ({seeds}), {parts}.",
        "Balanced accuracy of the epoch with the lowest log loss, mean ± standard deviation over seeds; how far behind",
        "the best on the same parts: 95 % interval, and p after Holm for all pairs of settings (corrected resampled t,",
        "Nadeau & Bengio 2003).",
        "",
        f"{'setting':<{width}}  {'score':<15}  {'log loss':>8}  {'epochs':<9}  {'s':>6}  behind the best",
    ]
    for setting in found:
        loss = statistics.mean(run.best.loss for run in setting.runs)
        epochs = ",".join(str(run.best.epoch) for run in setting.runs)
        seconds = sum(run.seconds for run in setting.runs)
        behind = ""
        if setting.behind is not None and setting.p_holm is not None:
            behind = f"{setting.behind.difference.as_text(signed=True)}  p = {setting.p_holm:.3f}"
        lines.append(
            f"{setting.name:<{width}}  {setting.mean:.3f} ± {setting.deviation:.3f}    {loss:>8.4f}  {epochs:<9}  "
            f"{seconds:>6.0f}  {behind}".rstrip()
        )
    lines += ["", noise_verdict(found)]
    if pruned:
        lines.append(f"{len(pruned)} setting(s) were given up early: " + "; ".join(name_of([run]) for run in pruned))
    if failed := [run for run in runs if run.failed]:
        lines += [f"{len(failed)} setting(s) failed:", *(f"  {_failure(run)}" for run in failed)]
    return "\n".join(lines)


def why_nothing_finished(runs: Sequence[Run]) -> str:
    """Return what to tell where no setting has a score."""
    failed = [run for run in runs if run.failed]
    if not failed:
        return "No setting finished all its seeds: all were given up early. Leave out --prune."
    return (
        f"No setting finished all its seeds: {len(failed)} failed, the first was {_failure(failed[0])} Choose other "
        "settings, or start anew with --force."
    )


def _failure(run: Run) -> str:
    return f"{name_of([run])}, seed {run.seed}: {run.failed.rstrip('.')}."


def noise_verdict(found: Sequence[Setting]) -> str:
    """Return a sentence: does the best differ from the others by more than noise?"""
    tested = [setting for setting in found if setting.p_holm is not None]
    if not tested:
        return "One seed, or one setting: nothing tells noise from difference. Add --seeds 0,1,2."
    worse = [setting.name for setting in tested if setting.p_holm is not None and setting.p_holm < 0.05]
    if not worse:
        return (
            f"No setting differs from the best ({found[0].name}) by more than the noise between seeds: take the "
            "cheapest or the default one with as good a conscience."
        )
    return f"Worse than the best ({found[0].name}) beyond noise: {'; '.join(worse)}. The others cannot be told apart."


def write(found: Sequence[Setting], runs: Sequence[Run], plan: SweepPlan, folder: Path) -> list[str]:
    """Write sweep.csv, sweep.json and a picture into the folder; returns the names of what was written.

    Raises:
        OutputError: one of them cannot be written.
    """
    axes = [axis.name for axis in plan.axes]
    told = ("seed", "best_epoch", "epochs_seen", "balanced_accuracy", "log_loss", "seconds", "pruned", "failed")
    table = [[*axes, *told]] + [
        [
            *(run.settings[name] for name in axes), run.seed, run.best.epoch, len(run.scores),
            *(run.best.as_dict()[name] for name in ("balanced_accuracy", "loss")), run.seconds, run.pruned, run.failed,
        ]
        for run in runs
    ]  # fmt: skip
    recipe = chosen_recipe(found[0].runs, plan.base)
    document = {
        "encoder": plan.encoder,
        "normaliser": plan.normaliser,
        "seeds": list(plan.seeds),
        "best": {"settings": found[0].runs[0].settings, "recipe": dataclasses.asdict(recipe)},
        "settings": [as_dict(setting) for setting in found],
        "pruned": [run.as_dict() for run in runs if run.pruned],
        "failed": [run.as_dict() for run in runs if run.failed],
        "verdict": noise_verdict(found),
    }
    try:
        (folder / "sweep.csv").write_text(csv_text(table), encoding="utf-8", newline="")
        text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
        (folder / _FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}. Free space, run again.") from error
    return ["sweep.csv", _FILE, *_draw(found, plan, folder)]


def as_dict(setting: Setting) -> dict[str, Any]:
    return {
        "name": setting.name,
        "settings": setting.runs[0].settings,
        "balanced_accuracy": setting.mean,
        "standard_deviation": setting.deviation,
        "behind": setting.behind.as_dict() if setting.behind else None,
        "p_holm": setting.p_holm,
        "runs": [run.as_dict() for run in setting.runs],
    }


def read_choice(folder: Path) -> Choice:
    """Read what a finished sweep chose.

    Raises:
        InputError: the folder holds no result of a sweep.
    """
    try:
        document = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        fields = dict(document["best"]["recipe"])
        fields["target_modules"] = tuple(fields["target_modules"])
        return Choice(LoraRecipe(**fields), str(document["encoder"]), str(document["normaliser"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} holds no finished sweep ({error}). Expected a folder written by 'edgewren sweep lora'; an "
            "interrupted sweep goes on with the same command."
        ) from error


def _draw(found: Sequence[Setting], plan: SweepPlan, folder: Path) -> list[str]:
    """Draw a heat map over the first two settings with several values (best over the others), else points."""
    varied = [axis.name for axis in plan.axes if len({setting.runs[0].settings[axis.name] for setting in found}) > 1]
    if plan.is_grid and len(varied) >= 2:
        row, column = varied[:2]
        cells: dict[tuple[Any, Any], tuple[float, float]] = {}
        for setting in found:  # the best first
            values = setting.runs[0].settings
            cells.setdefault((values[row], values[column]), (setting.mean, setting.deviation))
        best = found[0].runs[0].settings
        sweep_plots.heat_map(
            cells,
            row_name=row.replace("_", " "),
            column_name=column.replace("_", " "),
            path=folder / "heatmap.png",
            best=(best[row], best[column]),
        )
        return ["heatmap.png"]
    if not varied:
        return []
    sweep_plots.scatter(
        {name: [setting.runs[0].settings[name] for setting in found] for name in varied},
        [setting.mean for setting in found],
        folder / "sweep.png",
        logarithmic={axis.name for axis in plan.axes if axis.log},
    )
    return ["sweep.png"]


def _scores(group: Sequence[Run]) -> list[float]:
    return [run.best.balanced_accuracy for run in group]


def _mean(group: Sequence[Run]) -> float:
    return statistics.mean(_scores(group))
