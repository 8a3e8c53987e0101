"""Candidates on the same repeated cross-validation: quality, cost, and which differences are more than luck.

Each text is embedded once per encoder, depth and normaliser; what is finished is kept in the output folder's log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import EdgewrenError, InputError, OutputError
from edgewren.metrics import Estimate
from edgewren_train.candidate import Candidate, names
from edgewren_train.candidate_features import Features
from edgewren_train.candidate_records import Records
from edgewren_train.candidate_training import train_lora, train_ridge
from edgewren_train.folds import Fold, repeated_folds
from edgewren_train.paired_tests import Pair, all_pairs, mean_score
from edgewren_train.progress import Progress, unseen
from edgewren_train.run_log import RunLog
from edgewren_train.together import Together, among

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """What a candidate costs.

    Attributes:
        texts_per_s: embedded (ridge) or classified (lora) by torch on this machine, without overlap.
        parameters: of encoder and head.
        megabytes: of the fp32 weights, 10^6 bytes.
        train_s: seconds to fit once on a training part, embeddings at hand, on average.
    """

    texts_per_s: float
    parameters: int
    megabytes: float
    train_s: float


@dataclass(frozen=True)
class Judged:
    """A candidate with its scores, one per fold in the order of folds."""

    name: str
    candidate: Candidate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    balanced_accuracies: tuple[float, ...]
    macro_f1s: tuple[float, ...]
    cost: Cost


@dataclass(frozen=True)
class Comparison:
    """All candidates that could be judged, the best first; all pairs; and why the others failed, by name."""

    judged: tuple[Judged, ...]
    pairs: tuple[Pair, ...]
    failures: dict[str, str]
    rows: int
    folds: int
    repeats: int
    seed: int
    group_column: str | None

    def pair(self, a: str, b: str) -> Pair | None:
        return next((pair for pair in self.pairs if (pair.a, pair.b) == (a, b)), None)


@dataclass(frozen=True)
class Design:
    """How candidates are judged: `repeats` cross-validations of `folds` parts, shuffled by `seed`."""

    folds: int = 5
    repeats: int = 5
    seed: int = 0
    group_column: str | None = None


def compare(
    data: LabelledTexts,
    folder: Path,
    candidates: Sequence[Candidate],
    design: Design,
    *,
    groups: Sequence[str] | None = None,
    device: str = "cpu",
    cache: Path | None = None,
    force: bool = False,
    say: Callable[[str], None] = logger.info,
    on_fold: Callable[[str, int, int], None] | None = None,
    progress: Progress = unseen,
) -> Comparison:
    """Judge all candidates on the same folds; those that the folder's log holds are not trained again.

    Args:
        groups: of each row; rows of one group are never in both parts.
        cache: folder for embeddings; None: no cache.
        on_fold: told name, finished folds and all folds.
        progress: of embeddings and trainings within them.

    Raises:
        InputError: too few rows for these folds, or no candidate could be judged.
        ResumeError: the folder holds a comparison on other rows or folds.
    """
    together = among(data.texts, groups)
    folds = repeated_folds(
        data.labels,
        folds=design.folds,
        repeats=design.repeats,
        seed=design.seed,
        together=together,
    )
    plan = {
        "data_sha256": data.sha256,
        "rows": len(data.texts),
        "labels": list(data.classes),
        **design.__dict__,
    }
    if len(np.unique(together.units)) < len(data.texts):
        # Older versions chose alphas and depths by single rows: a folder of theirs would mix two kinds of scores.
        plan["left_out_together"] = "groups" if design.group_column else "copies"
    log = RunLog(folder, plan, force=force)
    named = dict(zip(candidates, names(candidates), strict=True))
    features = Features(data.texts, device, cache, say, progress)
    with log.locked():
        failures = _judge_all(data, together, folds, named, log, features, device, on_fold, progress)
    for name, reason in failures.items():
        say(f"{name}: failed: {reason}")
    judged = [
        _judged(named[candidate], candidate, Records(log, candidate), folds)
        for candidate in candidates
        if named[candidate] not in failures
    ]
    if not judged:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise InputError(f"No candidate could be judged. {reasons}")
    judged.sort(key=lambda item: -item.balanced_accuracy.value)
    return Comparison(
        judged=tuple(judged),
        pairs=all_pairs({item.name: item.balanced_accuracies for item in judged}, **_parts(folds)),
        failures=failures,
        rows=len(data.texts),
        folds=design.folds,
        repeats=design.repeats,
        seed=design.seed,
        group_column=design.group_column,
    )


def _judge_all(
    data: LabelledTexts,
    together: Together,
    folds: Sequence[Fold],
    named: dict[Candidate, str],
    log: RunLog,
    features: Features,
    device: str,
    on_fold: Callable[[str, int, int], None] | None,
    progress: Progress,
) -> dict[str, str]:
    """Fill the log with what it lacks; return why candidates failed, by name."""
    failures: dict[str, str] = {}
    # Candidates that share an encoder follow each other, so that one set of embeddings is in memory at a time.
    for candidate in sorted(named, key=lambda item: (item.encoder, item.normaliser, str(item.depth), item.recipe)):
        name = named[candidate]
        records = Records(log, candidate)

        def advance(done: int, name: str = name) -> None:
            if on_fold:
                on_fold(name, done, len(folds))

        try:
            missing = records.missing(folds)
            if not missing and records.cost:
                advance(len(folds))
            elif candidate.recipe == "ridge":
                train_ridge(data, together, missing, candidate, records, features, advance)
            else:
                train_lora(data, missing, candidate, records, device, advance, progress)
        except OutputError:
            raise
        except EdgewrenError as error:
            failures[name] = str(error)
        except (RuntimeError, ValueError, MemoryError, OSError, TypeError, AttributeError, KeyError) as error:
            # What torch and models raise has no common class; the other candidates must not be lost over it.
            logger.info("candidate %s failed", name, exc_info=True)
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return failures


def _judged(name: str, candidate: Candidate, records: Records, folds: Sequence[Fold]) -> Judged:
    ordered = [records.scores[key] for key in sorted(records.scores)]
    if len(ordered) != len(folds):
        raise InputError(f"{name} has {len(ordered)} of {len(folds)} folds. Run the same command again: it goes on.")
    accuracies = tuple(float(record["balanced_accuracy"]) for record in ordered)
    f1s = tuple(float(record["macro_f1"]) for record in ordered)
    return Judged(
        name=name,
        candidate=candidate,
        balanced_accuracy=mean_score(accuracies, **_parts(folds)),
        macro_f1=mean_score(f1s, **_parts(folds)),
        balanced_accuracies=accuracies,
        macro_f1s=f1s,
        cost=Cost(
            texts_per_s=float(records.cost["texts_per_s"]),
            parameters=int(records.cost["parameters"]),
            megabytes=float(records.cost["megabytes"]),
            train_s=float(np.mean([record["train_s"] for record in ordered])),
        ),
    )


def _parts(folds: Sequence[Fold]) -> dict[str, float]:
    """What the tests want to know of the folds."""
    parts = 1 + max(fold.number for fold in folds)
    return {"held_out_per_trained": 1 / (parts - 1), "rows_held_out": min(len(fold.held_out) for fold in folds)}


def pareto_front(judged: Sequence[Judged]) -> list[Judged]:
    """Return the candidates that no other beats in both speed and balanced accuracy, the fastest first."""
    front: list[Judged] = []
    for item in sorted(judged, key=lambda item: (-item.cost.texts_per_s, -item.balanced_accuracy.value)):
        if not front or item.balanced_accuracy.value > front[-1].balanced_accuracy.value:
            front.append(item)
    return front
