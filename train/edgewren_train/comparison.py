"""Candidates on the same repeated cross-validation: quality, cost, and which differences are more than luck.

Each text is embedded once per encoder, depth and normaliser; what is finished is kept in the output folder's log.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import EdgewrenError, InputError, OutputError
from edgewren.metrics import Estimate
from edgewren_train import lora, ridge
from edgewren_train.candidate import Candidate, names
from edgewren_train.candidate_features import Embedded, Features
from edgewren_train.depth_run import shallowest_as_good
from edgewren_train.folds import Fold, repeated_folds
from edgewren_train.lora_model import load_base
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.paired_tests import Pair, all_pairs, mean_score
from edgewren_train.prediction import predict_logits
from edgewren_train.run_log import RunLog

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
) -> Comparison:
    """Judge all candidates on the same folds; those that the folder's log holds are not trained again.

    Args:
        groups: of each row; rows of one group are never in both parts.
        cache: folder for embeddings; None: no cache.
        on_fold: told name, finished folds and all folds.

    Raises:
        InputError: too few rows for these folds, or no candidate could be judged.
        ResumeError: the folder holds a comparison on other rows or folds.
    """
    folds = repeated_folds(data.labels, folds=design.folds, repeats=design.repeats, seed=design.seed, groups=groups)
    plan = {
        "data_sha256": data.sha256,
        "rows": len(data.texts),
        "labels": list(data.classes),
        **design.__dict__,
    }
    log = RunLog(folder, plan, force=force)
    named = dict(zip(candidates, names(candidates), strict=True))
    features = Features(data.texts, device, cache, say)
    with log.locked():
        failures = _judge_all(data, folds, named, log, features, device, on_fold)
    for name, reason in failures.items():
        say(f"{name}: failed: {reason}")
    judged = [
        _judged(named[candidate], candidate, _Records(log, candidate), folds)
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
    folds: Sequence[Fold],
    named: dict[Candidate, str],
    log: RunLog,
    features: Features,
    device: str,
    on_fold: Callable[[str, int, int], None] | None,
) -> dict[str, str]:
    """Fill the log with what it lacks; return why candidates failed, by name."""
    failures: dict[str, str] = {}
    # Candidates that share an encoder follow each other, so that one set of embeddings is in memory at a time.
    for candidate in sorted(named, key=lambda item: (item.encoder, item.normaliser, str(item.depth), item.recipe)):
        name = named[candidate]
        records = _Records(log, candidate)

        def advance(done: int, name: str = name) -> None:
            if on_fold:
                on_fold(name, done, len(folds))

        try:
            if candidate.recipe == "ridge":
                _judge_ridge(data, folds, candidate, records, features, advance)
            else:
                _judge_lora(data, folds, candidate, records, device, advance)
        except OutputError:
            raise
        except EdgewrenError as error:
            failures[name] = str(error)
        except (RuntimeError, ValueError, MemoryError, OSError, TypeError, AttributeError, KeyError) as error:
            # What torch and models raise has no common class; the other candidates must not be lost over it.
            logger.info("candidate %s failed", name, exc_info=True)
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return failures


class _Records:
    """What the log holds of one candidate: scores by (repeat, fold), and its size and speed."""

    def __init__(self, log: RunLog, candidate: Candidate) -> None:
        self._log = log
        self._key = json.loads(json.dumps(candidate.as_dict()))
        if self._key["depth"] is None:  # logs of whole encoders that are older than depths go on, too
            del self._key["depth"]
        self.scores: dict[tuple[int, int], dict[str, float]] = {}
        self.cost: dict[str, float] = {}
        for record in log:
            if record.get("candidate") == self._key:
                if "cost" in record:
                    self.cost = record["cost"]
                else:
                    self.scores[record["repeat"], record["fold"]] = record

    def add_cost(self, texts_per_s: float, parameters: int, parameter_bytes: int) -> None:
        self.cost = {
            "texts_per_s": round(texts_per_s, 2),
            "parameters": parameters,
            "megabytes": round(parameter_bytes / 1e6, 2),
        }
        self._log.append({"candidate": self._key, "cost": self.cost})

    def add_score(
        self, fold: Fold, true: Sequence[str], predicted: Sequence[str], train_s: float, **further: int
    ) -> None:
        from sklearn.metrics import balanced_accuracy_score, f1_score

        record = {
            "candidate": self._key,
            "repeat": fold.repeat,
            "fold": fold.number,
            "rows_trained": len(fold.train),
            "rows_held_out": len(fold.held_out),
            "balanced_accuracy": float(balanced_accuracy_score(true, predicted)),
            "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0.0)),
            "train_s": round(train_s, 4),
            **further,
        }
        self.scores[fold.repeat, fold.number] = record
        self._log.append(record)

    def missing(self, folds: Iterable[Fold]) -> list[Fold]:
        return [fold for fold in folds if (fold.repeat, fold.number) not in self.scores]


def _judge_ridge(
    data: LabelledTexts,
    folds: Sequence[Fold],
    candidate: Candidate,
    records: _Records,
    features: Features,
    advance: Callable[[int], None],
) -> None:
    missing = records.missing(folds)
    if not missing and records.cost:
        advance(len(folds))
        return
    if candidate.depth == "auto":
        _judge_chosen_depths(data, missing, candidate, records, features.at_each_depth(candidate), advance)
        return
    embedded = features.of(candidate)
    if not records.cost:
        _add_cost(records, embedded, len(data.classes))
    for fold in missing:
        start = time.perf_counter()
        head = _fit(embedded.values, data, fold, candidate)
        seconds = time.perf_counter() - start
        _add_score(records, head, embedded.values, data, fold, seconds)
        advance(len(records.scores))


def _judge_chosen_depths(
    data: LabelledTexts,
    missing: Sequence[Fold],
    candidate: Candidate,
    records: _Records,
    at_depth: dict[int, Embedded],
    advance: Callable[[int], None],
) -> None:
    """Choose the depth within each training part: held-out rows choose nothing. Its cost is that of the commonest."""
    grid, extend = candidate.alpha_grid()
    for fold in missing:
        start = time.perf_counter()
        choice = shallowest_as_good(
            {depth: embedded.values[fold.train] for depth, embedded in at_depth.items()},
            [data.labels[row] for row in fold.train.tolist()],
            alphas=grid,
            extend=extend,
        )
        values = at_depth[choice.depth].values
        head = _fit(values, data, fold, candidate)
        seconds = time.perf_counter() - start
        _add_score(records, head, values, data, fold, seconds, depth=choice.depth)
        advance(len(records.scores))
    if not records.cost:
        chosen = Counter(int(record["depth"]) for record in records.scores.values())
        _add_cost(records, at_depth[min(chosen, key=lambda depth: (-chosen[depth], depth))], len(data.classes))


def _fit(values: NDArray[np.float32], data: LabelledTexts, fold: Fold, candidate: Candidate) -> ridge.RidgeHead:
    grid, extend = candidate.alpha_grid()
    return ridge.fit(values[fold.train], [data.labels[row] for row in fold.train.tolist()], alphas=grid, extend=extend)


def _add_score(
    records: _Records,
    head: ridge.RidgeHead,
    values: NDArray[np.float32],
    data: LabelledTexts,
    fold: Fold,
    seconds: float,
    **further: int,
) -> None:
    true = [data.labels[row] for row in fold.held_out.tolist()]
    records.add_score(fold, true, head.predict(values[fold.held_out], data.classes), seconds, **further)


def _add_cost(records: _Records, embedded: Embedded, classes: int) -> None:
    head = (embedded.values.shape[1] + 1) * (1 if classes == 2 else classes)
    records.add_cost(embedded.texts_per_s, embedded.parameters + head, embedded.parameter_bytes + 4 * head)


def _judge_lora(
    data: LabelledTexts,
    folds: Sequence[Fold],
    candidate: Candidate,
    records: _Records,
    device: str,
    advance: Callable[[int], None],
) -> None:
    """Train on every training part for all epochs of the recipe: held-out rows choose nothing."""
    missing = records.missing(folds)
    if not missing and records.cost:
        advance(len(folds))
        return
    recipe = candidate.lora or LoraRecipe()
    base = load_base(
        candidate.encoder,
        data.classes,
        max_length=recipe.max_length,
        normaliser=candidate.normaliser,
        seed=recipe.seed,
        depth=candidate.depth if isinstance(candidate.depth, int) else None,
    )
    ids = base.tokenizer.encode(data.texts).ids
    labels = data.class_indices.tolist()
    for fold in missing:
        start = time.perf_counter()
        rows = fold.train.tolist()
        fitted = lora.fit(base, [ids[row] for row in rows], [labels[row] for row in rows], recipe, device=device)
        seconds = time.perf_counter() - start
        held_out = fold.held_out.tolist()
        start = time.perf_counter()
        logits = predict_logits(fitted.model, [ids[row] for row in held_out])
        predicting = time.perf_counter() - start
        if not records.cost:
            records.add_cost(len(held_out) / max(predicting, 1e-9), fitted.total, 4 * fitted.total)
        predicted = [data.classes[index] for index in logits.argmax(axis=1)]
        records.add_score(fold, [data.labels[row] for row in held_out], predicted, seconds)
        advance(len(records.scores))


def _judged(name: str, candidate: Candidate, records: _Records, folds: Sequence[Fold]) -> Judged:
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
