"""The bootstrap of metrics: confusion matrices drawn anew within each true class, of one model or of several together.

Knows class indices, and of each draw the figures that follow from it; what intervals and p-values are made of them is
`metrics`' and `paired_comparison`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import UsageError

_CELLS_AT_ONCE = 2_000_000
"""Counts drawn in one call: 16 MB as int64, and as fast as any larger block."""

RESAMPLES = 2000
"""The usual number of draws."""

_MOST_CELLS = 20_000_000
"""Resamples (more than the usual number) times the values that are kept of each: about a gigabyte."""


def check_bootstrap(resamples: int, seed: int, confidence: float, *, cells: int) -> None:
    """Check a bootstrap's options.

    Args:
        cells: values that are kept of each resample, all in memory, since quantiles need them all.

    Raises:
        UsageError: one of them is out of range.
    """
    if resamples < 1:
        raise UsageError(f"resamples is {resamples}, expected at least 1; {RESAMPLES} is the default.")
    most = max(RESAMPLES, _MOST_CELLS // cells)
    if resamples > most:
        raise UsageError(
            f"resamples is {resamples:,}, expected at most {most:,} here, for memory; {RESAMPLES} is the default."
        )
    if seed < 0:
        raise UsageError(f"seed is {seed}, expected 0 or more.")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}, expected between 0 and 1, for example 0.95.")


class Figures(NamedTuple):
    """Figures of the observed data (first) and of each resample: [1 + resamples, C] or [1 + resamples]."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    balanced_accuracy: NDArray[np.float64]
    macro_f1: NDArray[np.float64]


class Draws(NamedTuple):
    """The margins of confusion matrices that all figures need. Row 0 of axis 1 is the observed data.

    `hits` (right per class) and `predicted` (given per class) are [models, 1 + resamples, C]; `support` is [C], the
    same in every draw because the bootstrap is stratified. `occurs`, of `predicted`'s shape, tells the classes that
    count for macro-F1.
    """

    hits: NDArray[np.float64]
    predicted: NDArray[np.float64]
    support: NDArray[np.float64]
    occurs: NDArray[np.bool_]

    def figures(self, model: int) -> Figures:
        hits, predicted = self.hits[model], self.predicted[model]
        recall = _ratio(hits, self.support)
        f1 = _ratio(2 * hits, self.support + predicted)
        return Figures(
            precision=_ratio(hits, predicted),
            recall=recall,
            f1=f1,
            accuracy=hits.sum(axis=1) / self.support.sum(),
            balanced_accuracy=recall[:, self.support > 0].mean(axis=1),
            macro_f1=f1.sum(axis=1) / self.occurs[model].sum(axis=1),
        )


def draw(
    true: NDArray[np.int64],
    predictions: NDArray[np.int64],
    classes: int,
    *,
    resamples: int,
    seed: int,
    confidence: float,
) -> Draws:
    """Draw from true [rows] and predictions [models, rows], all models together: rows anew within each true class.

    Drawing rows with replacement within a true class and counting their predictions is exactly a multinomial draw over
    that class's row of the confusion matrix, so whole matrices are drawn, at a cost that does not grow with the rows.
    """
    check_bootstrap(resamples, seed, confidence, cells=len(predictions) * classes)
    shape = (classes,) * len(predictions)
    codes = np.ravel_multi_index(tuple(predictions), shape)
    hits = np.zeros((len(predictions), 1 + resamples, classes))
    predicted = np.zeros_like(hits)
    rng = np.random.Generator(np.random.PCG64(seed))
    for true_class in np.unique(true):
        # Only cells that occur can be drawn; of C² pairs of predictions, few do.
        cells, counts = np.unique(codes[true == true_class], return_counts=True)
        for resample, drawn in _draw_counts(counts, resamples, rng):
            for model, given in enumerate(np.unravel_index(cells, shape)):
                # Sums of cells by predicted class; as floats because these stay exact and have a fast product.
                row = drawn.astype(np.float64) @ (given[:, None] == np.arange(classes)).astype(np.float64)
                predicted[model, resample] += row
                hits[model, resample, true_class] = row[:, true_class]
    support = np.bincount(true, minlength=classes).astype(np.float64)
    return Draws(hits, predicted, support, support + predicted > 0)


def draw_possible(confusion: NDArray[np.int64], *, resamples: int, seed: int, confidence: float) -> Draws:
    """Draw confusion matrices of one model around counts [C, C]; `metrics.evaluate` says why so.

    What a true class's rows are given is drawn from a Dirichlet distribution around its counts with one imagined row
    more: half of it is right, half spread over the other classes. So a class's recall follows Jeffreys' posterior.
    """
    classes = len(confusion)
    check_bootstrap(resamples, seed, confidence, cells=classes)
    counts = confusion.astype(np.float64)
    hits, predicted = np.zeros((1, 1 + resamples, classes)), np.zeros((1, 1 + resamples, classes))
    hits[0, 0], predicted[0, 0] = np.diagonal(counts), counts.sum(axis=0)
    support = counts.sum(axis=1)
    rng = np.random.Generator(np.random.PCG64(seed))
    block = max(1, _CELLS_AT_ONCE // classes)
    for true_class in np.flatnonzero(support):
        imagined = np.full(classes, 0.5 / max(classes - 1, 1))
        imagined[true_class] = 0.5
        for start in range(1, 1 + resamples, block):
            place = slice(start, min(start + block, 1 + resamples))
            drawn = rng.standard_gamma(counts[true_class] + imagined, size=(place.stop - start, classes))
            drawn *= support[true_class] / drawn.sum(axis=1, keepdims=True)
            predicted[0, place] += drawn
            hits[0, place, true_class] = drawn[:, true_class]
    return Draws(hits, predicted, support, np.broadcast_to(support + predicted[:, :1] > 0, predicted.shape))


def _draw_counts(
    counts: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Yield the observed counts [1, cells], then multinomial draws [block, cells], each with its place."""
    yield slice(0, 1), counts[None, :]
    rows = int(counts.sum())
    block = max(1, _CELLS_AT_ONCE // len(counts))
    for start in range(1, 1 + resamples, block):
        stop = min(start + block, 1 + resamples)
        yield slice(start, stop), rng.multinomial(rows, counts / rows, size=stop - start)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide counts; 0 where nothing is there to divide by."""
    return part / np.where(whole > 0, whole, 1.0)
