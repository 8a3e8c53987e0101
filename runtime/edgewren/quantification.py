"""The share of each class in a group of texts, corrected for the errors that the classifier is known to make.

Knows counts and label indices; no files, no models, no dates. Counting labels is biased: with a tenth of the neutral
texts called partisan, an archive without any partisan text still shows a tenth of them. The correction, *adjusted
count*, takes the rates P(predicted | true) from an evaluation on held-out rows and asks which true shares would have
shown the labels that were counted:

    counted shares [C]  =  rates [C, C] transposed  @  true shares [C]

Sources: for two classes Gart & Buck 1966, "Comparison of a screening test and a reference test in epidemiologic
studies. II" (American Journal of Epidemiology 83: 593-602) and Rogan & Gladen 1978, "Estimating prevalence from the
results of a screening test" (the same journal, 107: 71-76); as quantification with classifiers Forman 2008,
"Quantifying counts and costs via classification" (Data Mining and Knowledge Discovery 17: 164-206); for several
categories of documents Hopkins & King 2010, "A Method of Automated Nonparametric Content Analysis for Social Science"
(American Journal of Political Science 54: 229-247).

It holds where the texts of one class look alike here and in the evaluation, so that only the shares differ (prior
shift: the same P(text | class)). Read from top to bottom: `ErrorRates`, `estimate_shares`, then the least squares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewren.bootstrap import RESAMPLES, check_bootstrap
from edgewren.errors import InputError
from edgewren.evaluations import unbiased

MINIMUM_ROWS_PER_CLASS = 10
"""Fewer labelled rows of a class say next to nothing about how it is mistaken."""

LARGEST_STANDARD_ERROR = 0.25
"""Of a share. Twice this on either side is all that a share can be. For two classes in equal numbers this is the point
at which the classifier is no longer two standard errors better than chance."""

WIDE_STANDARD_ERROR = 0.1

_PRIOR = 1.0
"""Dirichlet prior of each drawn distribution: one imagined row. Of the rates it is spread evenly over the classes: an
error that was not seen in the evaluation could not happen in any draw without it. Of a group's counts, half of it is of
the class whose interval is made and half of all others: for this class against the rest that is Jeffreys' prior (Brown,
Cai & DasGupta 2001, "Interval Estimation for a Binomial Proportion", Statistical Science 16: 101-133), however many
others there are. (Spread evenly, 8 classes left an eighth of a row to a class: of groups of 10 texts, the intervals
held the true share in 70 to 83 % for seven equal classes, now in 95 to 99 %.)"""

_RIDGE = 1e-12


@dataclass(frozen=True)
class ErrorRates:
    """What an evaluation tells about a classifier's mistakes. Make one with `ErrorRates.measured`.

    Attributes:
        confusion: counts [true][predicted], float64 [C, C] of whole numbers.
        rates: P(predicted | true), float64 [C, C]; rows sum to 1.
        standard_errors: float64 [C]; of each class's share in an endless group with equal shares of all classes, so
            from the evaluation's size alone (delta method). Infinite where the rates cannot be inverted.
    """

    confusion: NDArray[np.float64]
    rates: NDArray[np.float64]
    standard_errors: NDArray[np.float64]

    @classmethod
    def measured(cls, confusion: ArrayLike) -> ErrorRates:
        """Take the rates from a confusion matrix, counts [true][predicted] of held-out rows.

        Raises:
            InputError: it is not square, has fewer than two classes, or holds anything but counts.
        """
        counts = np.asarray(confusion, dtype=np.float64)
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) < 2:
            raise InputError(f"The confusion matrix has shape {list(counts.shape)}, expected [classes, classes].")
        if not (np.isfinite(counts).all() and (counts >= 0).all() and (counts == np.floor(counts)).all()):
            raise InputError("The confusion matrix holds values that are not counts. Expected whole numbers from 0.")
        rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        return cls(counts, rates, _standard_errors(counts, rates))

    def problem(self, labels: Sequence[str]) -> str | None:
        """Return why shares cannot be corrected with these rates, or None if they can."""
        rows = self.confusion.sum(axis=1)
        few = int(rows.argmin())
        if rows[few] < MINIMUM_ROWS_PER_CLASS:
            return (
                f"the evaluation has {int(rows[few])} rows of {labels[few]!r}, at least {MINIMUM_ROWS_PER_CLASS} of "
                "each class are needed to know how it is mistaken"
            )
        balanced = float(np.diagonal(self.rates).mean())
        if balanced <= 1 / len(rows):
            chance = 1 / len(rows)
            return f"the classifier is no better than chance (balanced accuracy {balanced:.3f}, chance {chance:.3f})"
        worst = int(self.standard_errors.argmax())
        error = float(self.standard_errors[worst])
        if error > LARGEST_STANDARD_ERROR:
            size = f"a standard error of {error:.2f}" if np.isfinite(error) else "no bound at all"
            return (
                f"the evaluation ({int(rows.sum()):,} rows, balanced accuracy {balanced:.3f}) cannot tell "
                f"{labels[worst]!r} from the other classes: its share would have {size} even in an endless archive, "
                f"and more than {LARGEST_STANDARD_ERROR:g} says nothing"
            )
        return None

    def warning(self, labels: Sequence[str]) -> str | None:
        """Return what makes every interval wide, or None."""
        worst = int(self.standard_errors.argmax())
        if self.standard_errors[worst] <= WIDE_STANDARD_ERROR:
            return None
        return (
            f"the evaluation ({int(self.confusion.sum()):,} rows) leaves a standard error of "
            f"{self.standard_errors[worst]:.2f} to the share of {labels[worst]!r}, however many texts are counted: "
            "expect wide intervals. More labelled rows, or a better classifier, would narrow them"
        )


@dataclass(frozen=True)
class Shares:
    """Estimated true shares of the classes in some groups. Made by `estimate_shares`.

    Attributes:
        value, low, high: float64 [groups, C], from 0 to 1; each row of `value` sums to 1; low <= value <= high.
            NaN for a group without rows.
            Where a whole interval lay outside of 0 to 1 before it was cut, the group's intervals are stretched to the
            shares that were counted (where none or all were, to the end of the counted share's own interval): a
            precaution, no longer a confidence interval.
        doubtful: bool [groups]; some class's share lies outside of 0 to 1 beyond chance: no true shares are likely to
            show such counts under these rates, so the texts of some class look different here than in the evaluation.
            Where true shares are 0 or 1, chance alone brings this about in about one group of 40 (0 to 4 % of simulated
            groups of 10 to 2,000 texts, 2 to 8 classes, `confidence` 0.95), elsewhere hardly ever.
    """

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    doubtful: NDArray[np.bool_]


def estimate_shares(
    rates: ErrorRates,
    counts: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Shares:
    """Return the classes' true shares in each group, with bootstrap intervals that account for two kinds of chance.

    The estimate is least squares on the simplex: shares from 0 to 1 that sum to 1 and come closest to the counts.

    For the interval, the evaluation is finite, so the rates are uncertain, and the group is finite, so its counts are.
    Both are drawn anew `resamples` times from Dirichlet distributions around what was counted (the Bayesian bootstrap,
    Rubin 1981, Annals of Statistics 9: 130-134, with one further imagined row, see `_PRIOR`). Each draw is
    inverted *without* the constraints; the middle `confidence` of a class's draws, cut at 0 and 1, is its interval. (Of
    constrained draws too few come near a share of 1 where there are more than two classes: of 500 simulated groups
    that held one class alone, 86 to 93 % had its true share in their intervals instead of 95 %.) The interval is that
    of the source which the group's texts came from; for the share among just these texts it is a little too wide.

    A group's figures depend on its own counts, the rates and the seed, not on the other groups.

    Args:
        rates: of the classifier that gave the labels.
        counts: texts by predicted label, [groups, C].
        resamples: draws.
        seed: the same seed gives the same intervals.
        confidence: share of the interval, between 0 and 1.

    Raises:
        InputError: `counts` does not fit the rates.
        UsageError: an option is out of range.
    """
    classes = len(rates.rates)
    check_bootstrap(resamples, seed, confidence, cells=classes**2)
    table = np.asarray(counts, dtype=np.int64)
    if table.ndim != 2 or table.shape[1] != classes or (table < 0).any():
        raise InputError(f"counts has shape {list(table.shape)}, expected counts [groups, {classes}].")
    rng = np.random.Generator(np.random.PCG64(seed))
    inverses = _inverted(_dirichlet(np.repeat(rates.confusion[None], resamples, axis=0) + _PRIOR / classes, rng))
    # What half of the imagined row adds to a class beyond its part of the other half.
    others = _PRIOR / 2 / (classes - 1)
    own = rng.standard_gamma(np.full((resamples, classes), _PRIOR / 2 - others))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    value = np.full(table.shape, np.nan)
    low, high = value.copy(), value.copy()
    doubtful = np.zeros(len(table), dtype=np.bool_)
    rows = table.sum(axis=1)
    filled = rows > 0
    value[filled] = _least_squares(rates.rates, table[filled] / rows[filled, None])
    for group in np.flatnonzero(filled).tolist():
        row = table[group]
        rng = np.random.Generator(np.random.PCG64([seed, *row.tolist()]))
        gammas = rng.standard_gamma(np.repeat(row[None].astype(np.float64), resamples, axis=0) + others)
        sums = np.maximum(gammas.sum(axis=1, keepdims=True) + own, np.finfo(np.float64).tiny)
        shares = (np.einsum("nij,nj->ni", inverses, gammas) + np.einsum("nii->ni", inverses) * own) / sums
        ends = np.quantile(shares, tails, axis=0)
        low[group], high[group] = ends.clip(0.0, 1.0)
        # Each class has its chance to lie outside: at the level of one interval, one of five does in a tenth of groups.
        possible = np.minimum((shares >= 0).mean(axis=0), (shares <= 1).mean(axis=0))
        doubtful[group] = possible.min() < tails[0] / classes
        if (ends[1] < 0).any() or (ends[0] > 1).any():  # cut to a point, it would look like certainty
            counted = np.quantile((gammas + own) / sums, tails, axis=0)
            low[group] = np.minimum(low[group], np.where(row == rows[group], counted[0], row / rows[group]))
            high[group] = np.maximum(high[group], np.where(row == 0, counted[1], row / rows[group]))
    return Shares(value, np.minimum(low, value), np.maximum(high, value), doubtful)


def choose_evaluation(
    evaluations: Mapping[str, Any], labels: Sequence[str], name: str | None = None
) -> tuple[str, ErrorRates]:
    """Return name and error rates of the evaluation that tells most about new texts, out of a manifest's.

    Predictions out of fold come first, since they have the most rows; then a test file; then validation rows. Figures
    on training rows are never taken: they hide the mistakes that matter here. Nor are those of the model before it was
    distilled or fine-tuned: its mistakes are others.

    Args:
        evaluations: name to `Evaluation.as_dict()`.
        labels: of the bundle, in its order, which the confusion matrices follow.
        name: the one to take; None: choose.

    Raises:
        InputError: none of them is on held-out rows, or the one to take is missing or unsound.
    """
    ranks = {key: rank for key in evaluations if (rank := _rank(key)) is not None}
    listed = ", ".join(repr(key) for key in evaluations) or "none"
    if name is None:
        if not ranks:
            raise InputError(
                f"The bundle has no evaluation on held-out rows; it has: {listed}. Train with cross-validation or "
                "--test FILE and export again, so that the classifier's errors are known."
            )
        name = min(ranks, key=ranks.__getitem__)
    elif name not in evaluations:
        raise InputError(f"The bundle has no evaluation {name!r}; it has: {listed}.")
    elif name not in ranks:
        raise InputError(
            f"The evaluation {name!r} is not on held-out rows by the finished model, whose errors are others."
        )
    entry = evaluations[name]
    confusion = entry.get("confusion") if isinstance(entry, Mapping) else None
    order = entry.get("labels", list(labels)) if isinstance(entry, Mapping) else None
    sound = isinstance(confusion, list) and len(confusion) == len(labels)
    if not sound or order != list(labels) or not all(isinstance(row, list) for row in confusion or []):
        raise InputError(f"The evaluation {name!r} has no confusion matrix of the bundle's {len(labels)} labels.")
    try:
        return name, ErrorRates.measured(confusion or [])
    except (TypeError, ValueError) as error:
        raise InputError(f"The evaluation {name!r} is unsound: {error}") from error


def _rank(name: str) -> int | None:
    if not unbiased(name):
        return None
    lower = name.lower()
    for rank, words in enumerate((("cross-validation", "out-of-fold", "out of fold"), ("test",), ("validation",))):
        if any(word in lower for word in words):
            return rank
    return None


def _standard_errors(confusion: NDArray[np.float64], rates: NDArray[np.float64]) -> NDArray[np.float64]:
    classes = len(rates)
    rows = confusion.sum(axis=1)
    nothing = np.full(classes, np.inf)
    if (rows == 0).any() or np.linalg.cond(rates) > 1e8:
        return nothing
    inverse = np.linalg.inv(rates.T)
    variance = np.zeros(classes)
    for rate, count in zip(rates, rows, strict=True):
        spread = (np.diag(rate) - np.outer(rate, rate)) / count
        variance += np.diagonal(inverse @ spread @ inverse.T) / classes**2
    errors: NDArray[np.float64] = np.sqrt(np.maximum(variance, 0.0))
    return errors


def _dirichlet(alpha: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw one distribution for each last axis of `alpha`."""
    # Tiny parameters can underflow to 0 in all places; alpha sums to 1 at least here, so in practice none does.
    gammas = np.maximum(rng.standard_gamma(alpha), np.finfo(np.float64).tiny)
    drawn: NDArray[np.float64] = gammas / gammas.sum(axis=-1, keepdims=True)
    return drawn


def _inverted(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrices [n, C, C] that turn counted shares into true ones."""
    transposed = rates.transpose(0, 2, 1)
    inverses: Any
    try:
        inverses = np.linalg.inv(transposed)
    except np.linalg.LinAlgError:  # a draw is singular to the last bit, which almost never happens
        inverses = np.linalg.pinv(transposed)
    return np.asarray(inverses, dtype=np.float64)


def _least_squares(rates: NDArray[np.float64], counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares x [n, C] on the simplex with least |rates.T @ x - q|² for each q of counted [n, C].

    Exact, by block principal pivoting: Portugal, Júdice & Vicente 1994, "A comparison of block pivoting and
    interior-point algorithms for linear least squares problems with nonnegative variables" (Mathematics of Computation
    63: 625-643). Guess which shares are zero, solve for the others, exchange all that have the wrong sign; where that
    does not lessen their number, exchange one at a time, which must end (Murty's rule).
    """
    count, classes = counted.shape
    # The ridge lets a singular matrix be solved; it moves a share that can be told by less than 1e-9.
    gram = rates @ rates.T + _RIDGE * np.eye(classes)
    right = np.einsum("nj,ij->ni", counted, rates)  # not @, whose last bits depend on the number of rows
    shares = np.zeros((count, classes))
    free = np.ones((count, classes), dtype=np.bool_)
    fewest = np.full(count, classes + 1)
    patience = np.full(count, 3)
    pending = np.arange(count)
    for _ in range(50 + 10 * classes):
        shares[pending], wrong = _with_zeros(gram, right[pending], free[pending])
        unsettled = wrong.any(axis=1)
        pending, wrong = pending[unsettled], wrong[unsettled]
        if not len(pending):
            break
        number = wrong.sum(axis=1)
        better = number < fewest[pending]
        fewest[pending] = np.where(better, number, fewest[pending])
        patience[pending] = np.where(better, 3, patience[pending] - 1)
        single = patience[pending] <= 0
        last = classes - 1 - wrong[:, ::-1].argmax(axis=1)
        only = np.zeros_like(wrong)
        only[np.arange(len(pending)), last] = True
        free[pending] ^= np.where(single[:, None], only, wrong)
        emptied = ~free[pending].any(axis=1)
        free[pending[emptied], right[pending[emptied]].argmax(axis=1)] = True
    shares = np.maximum(shares, 0.0)
    found: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return found


def _with_zeros(
    gram: NDArray[np.float64], right: NDArray[np.float64], free: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Solve for the free shares alone, which sum to 1. Return all shares, and which of them break optimality."""
    count, classes = right.shape
    system = np.zeros((count, classes + 1, classes + 1))
    both = free[:, :, None] & free[:, None, :]
    system[:, :classes, :classes] = np.where(both, gram, 0.0)
    diagonal = np.arange(classes)
    system[:, diagonal, diagonal] += ~free
    system[:, :classes, classes] = free
    system[:, classes, :classes] = free
    known = np.concatenate([np.where(free, right, 0.0), np.ones((count, 1))], axis=1)
    solution = np.linalg.solve(system, known[:, :, None])[:, :, 0]
    shares, level = np.where(free, solution[:, :classes], 0.0), solution[:, classes:]
    slope = np.einsum("nj,ij->ni", shares, gram) - right + level
    return shares, np.where(free, shares < -1e-9, slope < -1e-9)
