"""Trains a candidate on folds, judges it on the rows held out, and writes both into its records."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import LabelledTexts
from edgewren_train import lora, ridge
from edgewren_train.candidate import Candidate
from edgewren_train.candidate_features import Embedded, Features
from edgewren_train.candidate_records import Records
from edgewren_train.depth_run import shallowest_as_good
from edgewren_train.folds import Fold
from edgewren_train.lora_model import load_base
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.prediction import predict_logits
from edgewren_train.progress import Progress, unseen
from edgewren_train.together import Together


def train_ridge(
    data: LabelledTexts,
    together: Together,
    missing: Sequence[Fold],
    candidate: Candidate,
    records: Records,
    features: Features,
    advance: Callable[[int], None],
) -> None:
    """Fit a head on each training part; `advance` is told how many parts the records hold.

    Rows that belong together are left out together where an alpha or a depth is chosen.
    """
    if candidate.depth == "auto":
        _train_chosen_depths(data, together, missing, candidate, records, features.at_each_depth(candidate), advance)
        return
    embedded = features.of(candidate)
    if not records.cost:
        _add_cost(records, embedded, len(data.classes))
    for fold in missing:
        start = time.perf_counter()
        head = _fit(embedded.values, data, together, fold, candidate)
        seconds = time.perf_counter() - start
        _add_score(records, head, embedded.values, data, fold, seconds)
        advance(len(records.scores))


def _train_chosen_depths(
    data: LabelledTexts,
    together: Together,
    missing: Sequence[Fold],
    candidate: Candidate,
    records: Records,
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
            together.of(fold.train),
            alphas=grid,
            extend=extend,
        )
        values = at_depth[choice.depth].values
        head = _fit(values, data, together, fold, candidate)
        seconds = time.perf_counter() - start
        _add_score(records, head, values, data, fold, seconds, depth=choice.depth)
        advance(len(records.scores))
    if not records.cost:
        chosen = Counter(int(record["depth"]) for record in records.scores.values())
        _add_cost(records, at_depth[min(chosen, key=lambda depth: (-chosen[depth], depth))], len(data.classes))


def _fit(
    values: NDArray[np.float32], data: LabelledTexts, together: Together, fold: Fold, candidate: Candidate
) -> ridge.RidgeHead:
    grid, extend = candidate.alpha_grid()
    labels = [data.labels[row] for row in fold.train.tolist()]
    return ridge.fit(values[fold.train], labels, alphas=grid, extend=extend, together=together.of(fold.train))


def _add_score(
    records: Records,
    head: ridge.RidgeHead,
    values: NDArray[np.float32],
    data: LabelledTexts,
    fold: Fold,
    seconds: float,
    **further: int,
) -> None:
    true = [data.labels[row] for row in fold.held_out.tolist()]
    records.add_score(fold, true, head.predict(values[fold.held_out], data.classes), seconds, **further)


def _add_cost(records: Records, embedded: Embedded, classes: int) -> None:
    head = (embedded.values.shape[1] + 1) * (1 if classes == 2 else classes)
    records.add_cost(embedded.texts_per_s, embedded.parameters + head, embedded.parameter_bytes + 4 * head)


def train_lora(
    data: LabelledTexts,
    missing: Sequence[Fold],
    candidate: Candidate,
    records: Records,
    device: str,
    advance: Callable[[int], None],
    progress: Progress = unseen,
) -> None:
    """Train on each training part, for all epochs of the recipe: held-out rows choose nothing."""
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
        fitted = lora.fit(
            base, [ids[row] for row in rows], [labels[row] for row in rows], recipe, device=device, progress=progress
        )
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
