"""Probabilities that mean what they say: one factor for all logits, how well it works, and what leaving out unsure
texts brings. Pure numpy; knows logits and class indices, nothing of labels' names, models or files.

The factor is what design.md calls the temperature: logits are multiplied by it (Guo et al. 2017 divide by theirs). It
is positive and comes without a bias, so the largest logit stays the largest: no label ever changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewren.errors import InputError, UsageError
from edgewren.metrics import Estimate, estimate, holding
from edgewren.probabilities import class_indices, softmax

MINIMUM_ROWS = 30
"""Held-out rows that it takes to fit a factor at all: below that it is mostly noise."""

ECE_BINS = 15
COVERAGE_STEPS = tuple(step / 100 for step in range(1, 100))

_LOG_BOUNDS = (-10.0, 10.0)
_HALVINGS = 60
_RELIABILITY_BINS = 10
_ROWS_PER_BIN = 30
_PSEUDO_FOLDS = 5
_CELLS_AT_ONCE = 4_000_000
_EPSILON = 1e-12


def fit_temperature(logits: ArrayLike, true_indices: ArrayLike) -> float:
    """Return the factor s > 0 for which softmax(s * logits) has the lowest log loss.

    The log loss is convex in s, so its derivative has one zero, found by bisection. Targets are softened to
    (n + 1) / (n + C) and 1 / (n + C), as Platt 1999 ("Probabilistic Outputs for Support Vector Machines") does for two
    classes: on few rows that a model separates without mistake, s would otherwise run to infinity.

    Args:
        logits: float [n, C], of rows that the model was not trained on.
        true_indices: the true class of each.

    Raises:
        InputError: the shapes do not fit, or a logit is not finite.
    """
    values, true = _checked(logits, true_indices)
    rows, classes = values.shape
    softened = np.full_like(values, 1 / (rows + classes))
    softened[np.arange(rows), true] = (rows + 1) / (rows + classes)
    centred = values - values.mean(axis=1, keepdims=True)
    wanted = float((softened * centred).sum() / rows)

    def slope(log_factor: float) -> float:
        shares = _softmax64(math.exp(log_factor) * centred)
        return float((shares * centred).sum() / rows) - wanted

    low, high = _LOG_BOUNDS
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if slope(middle) < 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def says_nothing(factor: float) -> bool:
    """Whether a fitted factor is the lower end of the search: no larger one was better, since logits are no higher for
    right classes than for wrong ones. All classes then come out as about equally probable.
    """
    return math.log(factor) < _LOG_BOUNDS[0] + 1e-6


def cross_fitted(
    logits: ArrayLike, true_indices: ArrayLike, folds: ArrayLike, together: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return each row's logits, float64 [n, C], times a factor that was fitted on the rows of all other folds.

    What a figure of these says holds for new texts: no row took part in the factor that it is judged by. Where all
    rows are of one fold (a single validation part), five parts of it take the place of folds.

    Args:
        together: the same number for rows that such parts keep together, as folds do (copies of a text); None: none.

    Raises:
        InputError: the shapes do not fit, or a logit is not finite.
    """
    values, true = _checked(logits, true_indices)
    return _without_own_fold([values], true, folds, together)


def cross_fitted_mean(
    members: Sequence[ArrayLike], true_indices: ArrayLike, folds: ArrayLike, together: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the mean of several models' logits as `cross_fitted` does those of one: each member times its factor, and
    the mean times its own, all of them fitted on the rows of all other folds.

    (Not `cross_fitted` of a mean of what it gave: there, factors of the other folds know this one, and the second fit
    undoes them.)

    Raises:
        InputError: the shapes do not fit, or a logit is not finite.
    """
    checked = [_checked(logits, true_indices) for logits in members]
    return _without_own_fold([values for values, _ in checked], checked[0][1], folds, together)


def _without_own_fold(
    members: Sequence[NDArray[np.float64]], true: NDArray[np.int64], folds: ArrayLike, together: ArrayLike | None
) -> NDArray[np.float64]:
    parts = np.asarray(folds)
    units = np.arange(len(true)) if together is None else np.asarray(together)
    for name, given in (("folds", parts), ("together", units)):
        if given.shape != true.shape:
            raise InputError(f"{name} has shape {list(given.shape)}, expected {list(true.shape)}: one per row.")
    if len(np.unique(parts)) < 2:
        # The k-th row, or what it stands for, of each class goes to part k mod 5: every part holds every class.
        _, firsts, unit = np.unique(units, return_index=True, return_inverse=True)
        of_unit = np.empty(len(firsts), dtype=np.int64)
        for index in np.unique(true):
            places = np.flatnonzero(true[firsts] == index)
            of_unit[places] = np.arange(len(places)) % _PSEUDO_FOLDS
        parts = of_unit[unit]
    out = np.empty_like(members[0])
    for part in np.unique(parts):
        held_out = parts == part
        rest = ~held_out
        factors = [fit_temperature(values[rest], true[rest]) if rest.any() else 1.0 for values in members]
        mean = np.mean([factor * values for factor, values in zip(factors, members, strict=True)], axis=0)
        own = fit_temperature(mean[rest], true[rest]) if len(members) > 1 and rest.any() else 1.0
        out[held_out] = own * mean[held_out]
    return out


@dataclass(frozen=True)
class Sharpness:
    """How far probabilities can be trusted: each figure is lower for better ones.

    Attributes:
        brier: Brier score, 0 to 2 (see `probabilities.brier`).
        log_loss: in nats.
        ece: expected calibration error in 15 bins, 0 to 1. On few rows it is too high, and so is its interval:
            chance alone opens gaps in each bin.
    """

    brier: Estimate
    log_loss: Estimate
    ece: Estimate

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    logits: ArrayLike,
    true_indices: ArrayLike,
    *,
    against: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Sharpness:
    """Return Brier score, log loss and ECE of softmax(logits), with intervals of a bootstrap within each true class.

    Args:
        logits: float [n, C].
        true_indices: the true class of each row.
        against: other logits of the same rows; then the figures are differences, `logits` minus `against`, and the
            bootstrap is paired.
        resamples, seed, confidence: of the bootstrap.

    Raises:
        InputError: the shapes do not fit, or a logit is not finite.
        UsageError: an option out of range.
    """
    if resamples < 1 or seed < 0 or not 0 < confidence < 1:
        raise UsageError(
            f"resamples, seed and confidence are {resamples}, {seed} and {confidence}, expected at least 1, at least "
            "0, and between 0 and 1."
        )
    values, true = _checked(logits, true_indices)
    table = _losses(values, true)
    if against is not None:
        other, _ = _checked(against, true_indices)
        table = np.concatenate([table, _losses(other, true)], axis=1)
    draws = np.concatenate([weights @ table for weights in _row_weights(true, resamples, seed)]) / len(true)
    width = 2 + ECE_BINS
    parts = [draws[:, start : start + width] for start in range(0, draws.shape[1], width)]
    figures = [np.stack([part[:, 0], part[:, 1], np.abs(part[:, 2:]).sum(axis=1)]) for part in parts]
    result = figures[0] if against is None else figures[0] - figures[1]
    return Sharpness(*(holding(estimate(row, confidence)) for row in result))


@dataclass(frozen=True)
class Bin:
    """Rows of similar confidence: their number, mean confidence, and how many of them are right (95 % Wilson)."""

    rows: int
    confidence: float
    accuracy: Estimate


def reliability(logits: ArrayLike, true_indices: ArrayLike) -> tuple[Bin, ...]:
    """Return up to ten bins with equally many rows, by the probability of the predicted class, ascending.

    Equally many, because confidences crowd: bins of equal width would be empty or full.
    """
    confidence, right = _confidence(logits, true_indices)
    order = np.argsort(confidence, kind="stable")
    count = max(1, min(_RELIABILITY_BINS, len(order) // _ROWS_PER_BIN))
    return tuple(
        Bin(len(part), float(confidence[part].mean()), wilson(int(right[part].sum()), len(part)))
        for part in np.array_split(order, count)
    )


@dataclass(frozen=True)
class Band:
    """What is kept when every text below a threshold is left out: share, rows, and how many of these are right."""

    threshold: float
    coverage: float
    rows: int
    accuracy: Estimate


def coverage(logits: ArrayLike, true_indices: ArrayLike) -> tuple[Band, ...]:
    """Return the coverage-accuracy curve of abstaining below a threshold P of the predicted class's probability.

    Thresholds are hundredths; those that leave nothing out or nothing over are left away, but for one at the start.
    Source: El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification" (risk-coverage curve).
    """
    confidence, right = _confidence(logits, true_indices)
    bands = []
    for threshold in (0.0, *COVERAGE_STEPS):
        kept = confidence >= threshold
        rows = int(kept.sum())
        if rows and (threshold == 0 or rows < len(kept)):
            bands.append(Band(threshold, rows / len(kept), rows, wilson(int(right[kept].sum()), rows)))
    return tuple(bands)


def wilson(right: int, rows: int, confidence: float = 0.95) -> Estimate:
    """Return a share with its score interval (Wilson 1927), which holds for few rows and shares near 0 and 1."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / rows
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    return Estimate(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def _checked(logits: ArrayLike, true_indices: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values = np.array(logits, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise InputError(f"logits has shape {list(values.shape)}, expected [n, classes], at least one row and two.")
    true = class_indices("true_indices", true_indices, values.shape[1])
    if len(true) != len(values):
        raise InputError(f"logits has {len(values)} rows, but true_indices has {len(true)}. Pass one per row.")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise InputError(f"Row {bad[0] + 1} of logits is {values[bad[0], :5].tolist()}, expected finite numbers.")
    return values, true


def _softmax64(values: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


def _confidence(logits: ArrayLike, true_indices: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, true = _checked(logits, true_indices)
    # As scoring computes and compares it: in float32 after softmax.
    return softmax(values).max(axis=1).astype(np.float64), values.argmax(axis=1) == true


def _losses(values: NDArray[np.float64], true: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return per row, [n, 2 + bins]: Brier's term, log loss, and accuracy minus confidence in the row's bin."""
    shares = _softmax64(values)
    rows = np.arange(len(true))
    missed = shares.copy()
    missed[rows, true] -= 1
    confidence = shares.max(axis=1)
    place = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    table = np.zeros((len(true), 2 + ECE_BINS))
    table[:, 0] = np.square(missed).sum(axis=1)
    table[:, 1] = -np.log(np.maximum(shares[rows, true], _EPSILON))
    table[rows, 2 + place] = (shares.argmax(axis=1) == true) - confidence
    return table


def _row_weights(true: NDArray[np.int64], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each row is drawn, [draws, n]: first once each, then blocks of resamples within each class."""
    yield np.ones((1, len(true)))
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(true == index) for index in np.unique(true)]
    block = max(1, _CELLS_AT_ONCE // len(true))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        weights = np.empty((size, len(true)))
        for places in members:
            weights[:, places] = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), size=size)
        yield weights
