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
from edgewren_train.out_of_fold import Split
from edgewren_train.together import Together, apart

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
_SMALLEST = 20


def learning_curve(
    features: NDArray[np.float32],
    labels: Sequence[str],
    *,
    alphas: Sequence[float] = ridge.WIDE_GRID,
    together: Together | None = None,
    folds: int = 5,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return points {"rows", "balanced_accuracy": {"value", "low", "high"}}, ascending.

    In each fold, heads are fitted on growing parts of its training rows, the smaller within the larger, stratified by
    label; all answers for held-out rows of one size together give its figure.

    Args:
        together: rows that are held out together; copies of a text come together where parts grow, too: otherwise the
            last parts would bring no text that the earlier ones lack, and more labels would seem to help no more.
        advance: called with 1 for each finished fit.
    """
    names = np.asarray(labels)
    classes = sorted(set(labels))
    together = together or apart(len(names))
    folds = min(folds, together.fewest(labels))
    if folds < 2:
        return []
    answers: dict[float, list[str]] = {share: [""] * len(names) for share in SHARES}
    sizes: dict[float, list[int]] = {share: [] for share in SHARES}
    for training, held_out in Split(folds=folds).parts(labels, seed, together):
        _, firsts, texts = np.unique(together.copies[training], return_index=True, return_inverse=True)
        order = _interleaved(names[training[firsts]], np.random.default_rng(seed))
        when = np.argsort(order)[texts]  # when the text of each row comes
        growing = training[np.argsort(when, kind="stable")]
        for share in SHARES:
            count = round(share * len(firsts))
            part = growing[: int((when < count).sum())]
            if count < max(_SMALLEST, 2 * len(classes)) or len(set(names[part])) < len(classes):
                continue
            kept = together.of(part)
            head = ridge.fit(features[part], names[part].tolist(), alphas=alphas, extend=False, together=kept)
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
