"""Several trained models as one: the mean of their calibrated logits. Built where it beats each member, and proved.

Judged on out-of-fold logits over the same folds, so no row's members or temperatures have seen it. Two tests are made
on the same rows: of balanced accuracy (`edgewren.paired_comparison`'s stratified bootstrap), which decides, and of
log loss. The result is a trained model of kind "ensemble" that holds its members' folders; export makes one graph of
it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.calibration import Sharpness, cross_fitted, cross_fitted_mean, fit_temperature, judge
from edgewren.errors import InputError, UsageError
from edgewren.folders import written_whole
from edgewren.metrics import Estimate, Evaluation, evaluate
from edgewren.paired_comparison import Comparison, compare
from edgewren_train.calibration import calibrate
from edgewren_train.duplicates import copies
from edgewren_train.model import TRAINED_MODEL, Description
from edgewren_train.out_of_fold import FILE, OutOfFold
from edgewren_train.trained import Trained, read_trained

SIGNIFICANCE = 0.05
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class Verdict:
    """Whether an ensemble is worth its cost.

    Attributes:
        members: names of the members.
        evaluations: of each member, in their order, then of the ensemble; all out of fold.
        best: place of the best member by balanced accuracy.
        comparison: the ensemble (A) minus the best member (B).
        log_loss: the ensemble's log loss minus the best member's; below 0 favours the ensemble.
        wins: higher balanced accuracy than the best member, and p below 0.05.
    """

    members: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    best: int
    comparison: Comparison
    log_loss: Estimate
    wins: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "members": list(self.members),
            "balanced_accuracy": [entry.balanced_accuracy.as_dict() for entry in self.evaluations],
            "best_member": self.members[self.best],
            "comparison": self.comparison.as_dict(),
            "log_loss_difference": self.log_loss.as_dict(),
            "wins": self.wins,
        }

    def as_text(self) -> str:
        names = [*self.members, "ensemble"]
        width = max(map(len, names))
        lines = [f"balanced accuracy, {self.evaluations[0].rows:,} rows out of fold:"]
        lines += [
            f"  {name:<{width}}  {entry.balanced_accuracy.as_text()}"
            for name, entry in zip(names, self.evaluations, strict=True)
        ]
        gain, best = self.comparison, self.members[self.best]
        lines.append(
            f"ensemble minus {best} (paired): balanced accuracy {gain.balanced_accuracy.as_text(signed=True)}, p = "
            f"{gain.p_balanced_accuracy:.3f}; log loss {self.log_loss.as_text(signed=True)} (below 0 is better)"
        )
        lines.append(
            f"only the ensemble right {gain.only_a_right} rows, only {best} right {gain.only_b_right}; McNemar's exact "
            f"test p = {gain.mcnemar_p:.3f}"
        )
        return "\n".join(lines)


def run_ensemble(
    folders: Sequence[str | Path],
    output: Path,
    *,
    force: bool = False,
    seed: int = 0,
    say: Callable[[str], None],
) -> Verdict:
    """Judge an ensemble of trained models, and write it where it wins.

    Args:
        folders: at least two trained models with the same labels, rows, tokenizer and folds.
        output: folder of the ensemble, a trained model.
        force: write it even if it does not win.
        seed: of the bootstraps.
        say: told the figures.

    Raises:
        UsageError: the models do not fit together, or the ensemble does not win and `force` is not set.
        InputError: a model has no out-of-fold logits.
    """
    members = [read_trained(folder) for folder in folders]
    parts = _held_out_alike(members)
    names = _names(members)
    classes = members[0].labels
    labels = members[0].text_labels
    index_of = {label: index for index, label in enumerate(classes)}
    true = np.array([index_of[labels[row]] for row in parts[0].rows])
    folds = parts[0].folds
    same = copies([members[0].texts[row] for row in parts[0].rows])
    honest = [cross_fitted(part.logits, true, folds, same) for part in parts]
    mean = cross_fitted_mean([part.logits for part in parts], true, folds, same)
    verdict = _judged(names, honest, mean, true, classes, seed)
    say(verdict.as_text())
    if not verdict.wins and not force:
        raise UsageError(
            f"The ensemble does not beat {names[verdict.best]} alone: balanced accuracy "
            f"{verdict.comparison.balanced_accuracy.as_text(signed=True)}, p = "
            f"{verdict.comparison.p_balanced_accuracy:.3f} (needed: above 0 with p below {SIGNIFICANCE}). Export "
            f"{folders[verdict.best]} instead, or build the ensemble all the same with --force-ensemble."
        )
    # What is kept and told of a row comes from factors that other folds gave, those of the members included.
    combined = OutOfFold(
        rows=parts[0].rows, folds=folds, logits=np.mean(honest, axis=0), name=parts[0].name, seed=parts[0].seed
    )
    # The members' own temperatures are built into their logits; what is left to fit is the mean's.
    finished = np.mean([fit_temperature(part.logits, true) * part.logits for part in parts], axis=0)
    temperature, account = calibrate(combined, labels, classes, finished=finished, after=mean, seed=seed, say=say)
    _write(output, members, names, combined, temperature, account, verdict)
    return verdict


def _judged(
    names: Sequence[str],
    honest: Sequence[NDArray[np.float64]],
    mean: NDArray[np.float64],
    true: NDArray[np.int64],
    classes: Sequence[str],
    seed: int,
) -> Verdict:
    """Test the ensemble, `mean`, against the best member."""
    wanted = [classes[index] for index in true]
    predicted = [[classes[index] for index in logits.argmax(axis=1)] for logits in (*honest, mean)]
    evaluations = tuple(evaluate(wanted, given, classes, seed=seed) for given in predicted)
    figures = [entry.balanced_accuracy.value for entry in evaluations[:-1]]
    best = int(np.argmax(figures))
    comparison = compare(wanted, predicted[-1], predicted[best], classes, seed=seed)
    sharper: Sharpness = judge(mean, true, against=honest[best], seed=seed)
    wins = comparison.balanced_accuracy.value > 0 and comparison.p_balanced_accuracy < SIGNIFICANCE
    return Verdict(tuple(names), evaluations, best, comparison, sharper.log_loss, wins)


def _held_out_alike(members: Sequence[Trained]) -> list[OutOfFold]:
    """Return each member's out-of-fold logits, once everything fits together."""
    if len(members) < 2:
        raise UsageError(f"{len(members)} trained model was given, expected at least two.")
    first = members[0]
    parts = []
    for member in members:
        if member.kind == "ensemble":
            raise UsageError(f"{member.folder} is an ensemble already. Give its members.")
        if member.kind == "static":
            raise UsageError(f"{member.folder} is static: it has no encoder to build into one graph. Leave it out.")
        if member.held_out is None:
            raise InputError(
                f"{member.folder} has no {FILE}. Train it again with folds: ridge --folds 5, lora --calibrate folds:5."
            )
        if not member.training.get("calibration"):
            raise InputError(f"{member.folder} is not calibrated. Train it again without --no-calibration.")
        if member.labels != first.labels or (member.texts, member.text_labels) != (first.texts, first.text_labels):
            raise UsageError(f"{member.folder} was trained on other rows or labels than {first.folder}.")
        if (member.folder / _TOKENIZER_FILES[0]).read_bytes() != (first.folder / _TOKENIZER_FILES[0]).read_bytes():
            raise UsageError(
                f"{member.folder} has another tokenizer or normaliser than {first.folder}; a bundle has one. "
                "Train both on one encoder with the same --normaliser."
            )
        lengths = [int(one.description["max_length"]) for one in (member, first)]
        if lengths[0] != lengths[1]:
            raise UsageError(
                f"{member.folder} keeps {lengths[0]} tokens of a text, {first.folder} {lengths[1]}. Train both with "
                f"the same --max-length, for example {min(lengths)}."
            )
        parts.append(member.held_out)
    for member, part in zip(members, parts, strict=True):
        if not (np.array_equal(part.rows, parts[0].rows) and np.array_equal(part.folds, parts[0].folds)):
            raise UsageError(
                f"{member.folder} ({part.name}, seed {part.seed}) held out other rows than {first.folder} "
                f"({parts[0].name}, seed {parts[0].seed}). Train both with the same folds and --seed: ridge --folds 5, "
                "lora --calibrate folds:5."
            )
    return parts


def _names(members: Sequence[Trained]) -> list[str]:
    """Return the kinds as names, numbered where they are not distinct."""
    kinds = [member.kind for member in members]
    if len(set(kinds)) == len(kinds):
        return kinds
    return [f"{kind} {number}" for number, kind in enumerate(kinds, 1)]


def _write(
    output: Path,
    members: Sequence[Trained],
    names: Sequence[str],
    combined: OutOfFold,
    temperature: float,
    account: dict[str, Any],
    verdict: Verdict,
) -> None:
    first = members[0]
    shared = ("data", "texts_sha256", "rows_per_label", "group_column", "seed", "libraries")
    description = Description(
        kind="ensemble",
        labels=first.labels,
        max_length=first.description["max_length"],
        normaliser=first.description["normaliser"],
        encoder={
            "id": " + ".join(dict.fromkeys(str(member.description["encoder"]["id"]) for member in members)),
            "sha256": first.description["encoder"]["sha256"],
            "members": [dict(member.description["encoder"]) for member in members],
        },
        training={
            **{name: first.training[name] for name in shared if name in first.training},
            "recipe": "ensemble",
            "members": [
                {"kind": member.kind, "temperature": member.temperature, "training": dict(member.training)}
                for member in members
            ],
            "ensemble": verdict.as_dict(),
            "calibration": account,
        },
        evaluation={combined.name: verdict.evaluations[-1].as_dict()},
        temperature=temperature,
    )
    with written_whole(output, **TRAINED_MODEL) as scratch:
        for number, (member, name) in enumerate(zip(members, names, strict=True), 1):
            shutil.copytree(member.folder, scratch / "members" / f"{number}-{name.replace(' ', '-')}")
        for name in (*_TOKENIZER_FILES, "train.jsonl"):
            shutil.copyfile(first.folder / name, scratch / name)
        combined.write(scratch)
        (scratch / "model.json").write_text(description.to_json(), encoding="utf-8")
