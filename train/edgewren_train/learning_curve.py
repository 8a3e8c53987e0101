"""Would more labels help? Held-out quality of the ridge recipe against the number of training rows.

Knows features and labels. LoRA has none: every point of it would be trainings of minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.metrics import evaluate
from edgewren_train import ridge

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
_SMALLEST = 20


def learning_curve(
    features: NDArray[np.float32],
    labels: Sequence[str],
    *,
    alphas: Sequence[float] = ridge.WIDE_GRID,
    folds: int = 5,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return points {"rows", "balanced_accuracy": {"value", "low", "high"}}, ascending.

    In each fold, heads are fitted on growing parts of its training rows, the smaller within the larger, stratified by
    label; all answers for held-out rows of one size together give its figure.

    Args:
        advance: called with 1 for each finished fit.
    """
    from sklearn.model_selection import StratifiedKFold

    names = np.asarray(labels)
    classes = sorted(set(labels))
    folds = min(folds, *(int((names == name).sum()) for name in classes))
    if folds < 2:
        return []
    answers: dict[float, list[str]] = {share: [""] * len(names) for share in SHARES}
    sizes: dict[float, list[int]] = {share: [] for share in SHARES}
    for training, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, names):
        order = _interleaved(names[training], np.random.default_rng(seed))
        for share in SHARES:
            part = training[order[: round(share * len(training))]]
            if len(part) < max(_SMALLEST, 2 * len(classes)) or len(set(names[part])) < len(classes):
                continue
            head = ridge.fit(features[part], names[part].tolist(), alphas=alphas, extend=False)
            sizes[share].append(len(part))
            for row, label in zip(held_out, head.predict(features[held_out], classes), strict=True):
                answers[share][row] = label
            if advance is not None:
                advance(1)
    points = []
    for share in SHARES:
        if len(sizes[share]) == folds:
            figure = evaluate(labels, answers[share], classes, seed=seed).balanced_accuracy
            points.append({"rows": int(np.mean(sizes[share])), "balanced_accuracy": figure.as_dict()})
    return points


def _interleaved(labels: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return places so that every beginning of them holds the labels in about their shares."""
    when = np.empty(len(labels))
    for name in np.unique(labels):
        places = np.flatnonzero(labels == name)
        when[rng.permutation(places)] = (np.arange(len(places)) + rng.random()) / len(places)
    return np.argsort(when, kind="stable")
