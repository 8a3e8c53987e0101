"""Whether two models differ on the same rows: paired bootstrap and McNemar's exact test.

Knows label names and label indices, nothing of files, models or texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.bootstrap import RESAMPLES, draw
from edgewren.metrics import Estimate, estimate, label_indices


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows. Made by `compare`; positive differences favour A.

    Attributes:
        accuracy, balanced_accuracy, macro_f1: A's figure minus B's, with interval.
        p_accuracy, p_balanced_accuracy, p_macro_f1: two-sided bootstrap p-values of these differences.
        rows: number of texts compared.
        only_a_right, only_b_right: rows that only one of the two got right.
        mcnemar_p: two-sided p-value of McNemar's exact test on these two counts.
        resamples, seed, confidence: how intervals and bootstrap p-values were made.
    """

    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    p_accuracy: float
    p_balanced_accuracy: float
    p_macro_f1: float
    rows: int
    only_a_right: int
    only_b_right: int
    mcnemar_p: float
    resamples: int
    seed: int
    confidence: float

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as what JSON knows: dicts, int and finite floats."""
        return asdict(self)

    def as_text(self) -> str:
        """Return a report for a terminal."""
        lines = [
            f"A minus B on {self.rows:,} rows. In brackets: {100 * self.confidence:g} % intervals",
            f"(paired stratified bootstrap, {self.resamples:,} resamples, seed {self.seed}).",
            "",
            f"accuracy           {self.accuracy.as_text(signed=True)}  {_p(self.p_accuracy)}",
            f"balanced accuracy  {self.balanced_accuracy.as_text(signed=True)}  {_p(self.p_balanced_accuracy)}",
            f"macro-F1           {self.macro_f1.as_text(signed=True)}  {_p(self.p_macro_f1)}",
            "",
            f"only A right  {self.only_a_right:,} rows",
            f"only B right  {self.only_b_right:,} rows, McNemar's exact test {_p(self.mcnemar_p)}",
        ]
        return "\n".join(lines)


def compare(
    true: Sequence[str],
    predicted_a: Sequence[str],
    predicted_b: Sequence[str],
    labels: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """Tell whether model A is better than model B on the same rows.

    Rows are drawn with replacement within each true class (Efron & Tibshirani 1993, "An Introduction to the Bootstrap",
    chapter 13), pairs (A's label, B's label) together, so rows that are hard for both cancel out. Its p-values invert
    the percentile interval: twice the smaller share of draws on either side of zero, with one added to draws and to
    their count so that no p-value is 0 (Davison & Hinkley 1997, "Bootstrap Methods and their Application", chapter 4).
    McNemar's test looks at accuracy alone.

    Args:
        true: true label of each row.
        predicted_a: A's label of each row.
        predicted_b: B's label of each row.
        labels: all labels that either model knows.
        resamples: number of bootstrap draws.
        seed: same seed, same intervals (numpy's PCG64).
        confidence: share of the interval, between 0 and 1.

    Raises:
        InputError: no rows, unequal lengths, or a label that is not in `labels`.
        UsageError: an option out of range, or `labels` with duplicates.
    """
    rows, predictions = label_indices(labels, true=true, predicted_a=predicted_a, predicted_b=predicted_b)
    draws = draw(rows, predictions, len(labels), resamples=resamples, seed=seed, confidence=confidence)
    a, b = draws.figures(0), draws.figures(1)
    accuracy, balanced_accuracy = a.accuracy - b.accuracy, a.balanced_accuracy - b.balanced_accuracy
    macro_f1 = a.macro_f1 - b.macro_f1
    a_right, b_right = predictions == rows
    only_a_right, only_b_right = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    return Comparison(
        accuracy=estimate(accuracy, confidence),
        balanced_accuracy=estimate(balanced_accuracy, confidence),
        macro_f1=estimate(macro_f1, confidence),
        p_accuracy=_bootstrap_p(accuracy),
        p_balanced_accuracy=_bootstrap_p(balanced_accuracy),
        p_macro_f1=_bootstrap_p(macro_f1),
        rows=len(rows),
        only_a_right=only_a_right,
        only_b_right=only_b_right,
        mcnemar_p=mcnemar_exact(only_a_right, only_b_right),
        resamples=int(resamples),
        seed=int(seed),
        confidence=float(confidence),
    )


def mcnemar_exact(only_a_right: int, only_b_right: int) -> float:
    """Return the two-sided p-value that two models are equally often right, from the rows where just one of them is.

    If they are, each such row is a fair coin: an exact binomial test at 1/2 (McNemar 1947, "Note on the Sampling Error
    of the Difference Between Correlated Proportions", in its exact form). 1.0 where there are no such rows.
    """
    few, rows = min(only_a_right, only_b_right), only_a_right + only_b_right
    # The largest term of the tail in logarithms, the others by their ratios, all below 1: nothing can overflow.
    largest = math.lgamma(rows + 1) - math.lgamma(few + 1) - math.lgamma(rows - few + 1) - rows * math.log(2)
    term = tail = 1.0
    for count in range(few, 0, -1):
        term *= count / (rows - count + 1)
        tail += term
        if term < tail * 1e-17:
            break
    return min(1.0, 2 * tail * math.exp(largest))


def _bootstrap_p(differences: NDArray[np.float64]) -> float:
    draws = differences[1:]
    # Figures are sums of fractions: true ties differ by rounding, real differences by far more than 1e-12.
    fewer = min(int((draws <= 1e-12).sum()), int((draws >= -1e-12).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(draws) + 1))


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
