"""Scores of scores: how good predictions are, how sure that is, and whether two models differ.

This module knows label names and label indices. It knows nothing of files, models or texts, and computes with numpy
alone. Read it from top to bottom: `evaluate`, then `compare`, then what both share: one bootstrap.

The point figures are scikit-learn's (1.9 was compared): undefined precision, recall and F1 are 0, balanced accuracy
averages over the classes that occur in `true`, macro-F1 over those that occur in `true` or `predicted`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewren.display import printable
from edgewren.errors import InputError, UsageError
from edgewren.probabilities import class_indices

_CELLS_AT_ONCE = 2_000_000
"""Counts drawn in one call: 16 MB as int64, and as fast as any larger block."""

_RESAMPLES = 2000
_MOST_CELLS = 20_000_000
"""Resamples (more than the usual number) times the values that are kept of each: about a gigabyte."""

_TEXT_COLUMNS = 120
_NAME_COLUMNS = 24


def confusion_matrix(true: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Return counts, int64 [classes, classes], of label indices: rows are true classes, columns predicted ones.

    Raises:
        InputError: the lengths differ, or an index is not an integer from 0 to classes - 1.
    """
    rows, columns = class_indices("true", true, classes), class_indices("predicted", predicted, classes)
    if len(rows) != len(columns):
        raise InputError(f"true has {len(rows)} rows, but predicted has {len(columns)}. Pass one of each per text.")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class Estimate:
    """A figure with its confidence interval, low to high. All of them are finite."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def as_text(self, *, signed: bool = False) -> str:
        """Return '0.812 [0.790, 0.834]', or with explicit signs for a difference."""
        value, low, high = (f"{figure:{'+' if signed else ''}z.3f}" for figure in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


@dataclass(frozen=True)
class ClassRow:
    """One class of an `Evaluation`; `support` rows have this label, `predicted` rows were given it."""

    label: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int
    predicted: int


@dataclass(frozen=True)
class Evaluation:
    """How well predictions match true labels. Made by `evaluate`.

    Attributes:
        labels: all labels the model knows, in its order; `classes` and `confusion` follow it.
        rows: number of texts evaluated.
        confusion: counts [true][predicted].
        resamples, seed, confidence: how the intervals were made.
    """

    labels: tuple[str, ...]
    rows: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]
    resamples: int
    seed: int
    confidence: float

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as what JSON knows: dicts, lists, str, int and finite floats."""
        return {name: _listed(value) for name, value in asdict(self).items()}

    def as_text(self) -> str:
        """Return a report for a terminal of 120 columns; classes are numbered and a wide matrix continues below."""
        names = [f"{number:>{len(str(len(self.labels)))}} {_short(row)}" for number, row in enumerate(self.labels, 1)]
        width = max(map(len, names))
        lines = [
            f"{self.rows:,} rows, {len(self.labels)} classes. In brackets: {100 * self.confidence:g} % intervals",
            f"(stratified bootstrap, {self.resamples:,} resamples, seed {self.seed}).",
            "",
            f"accuracy           {self.accuracy.as_text()}",
            f"balanced accuracy  {self.balanced_accuracy.as_text()}",
            f"macro-F1           {self.macro_f1.as_text()}",
            "",
            f"{'class':<{width}}  {'precision':<20}  {'recall':<20}  {'F1':<20}  {'rows':>7}  {'predicted':>9}",
        ]
        for name, row in zip(names, self.classes, strict=True):
            figures = "  ".join(figure.as_text() for figure in (row.precision, row.recall, row.f1))
            lines.append(f"{name:<{width}}  {figures}  {row.support:>7}  {row.predicted:>9}")

        lines += ["", "Confusion matrix: rows are true classes, columns predicted ones by number."]
        cell = 1 + max(len(str(len(names))), *(len(str(count)) for row in self.confusion for count in row))
        step = (_TEXT_COLUMNS - width) // cell
        for start in range(0, len(names), step):
            columns = range(start, min(start + step, len(names)))
            lines.append(" " * width + "".join(f"{column + 1:>{cell}}" for column in columns))
            for name, counts in zip(names, self.confusion, strict=True):
                # a point for zero: mistakes, not zeros, should catch the eye
                lines.append(f"{name:<{width}}" + "".join(f"{counts[column] or '.':>{cell}}" for column in columns))
            lines.append("")

        cut = [number for number, label in enumerate(self.labels, 1) if len(label) > _NAME_COLUMNS]
        if cut:
            lines += ["Names in full:", *(f"{number} {printable(self.labels[number - 1])}" for number in cut)]
        return "\n".join(lines).rstrip()


def evaluate(
    true: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Evaluation:
    """Compare predicted labels with true ones; every figure comes with a bootstrap interval.

    Intervals are percentile intervals (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13) of a
    bootstrap that is stratified by true class: they hold for data with these numbers of rows per class. Drawing rows
    with replacement within a true class and counting their predictions is exactly a multinomial draw over that class's
    row of the confusion matrix, so whole confusion matrices are drawn, at a cost that does not grow with the rows.

    A percentile interval can only mix what it saw: it is too narrow for a class with few rows, and of no width where
    all rows of a class are right, or all wrong.

    Args:
        true: true label of each row.
        predicted: predicted label of each row.
        labels: all labels the model knows; those without rows are reported with zeros.
        resamples: number of bootstrap draws.
        seed: same seed, same intervals (numpy's PCG64).
        confidence: share of the interval, between 0 and 1.

    Raises:
        InputError: no rows, unequal lengths, or a label that is not in `labels`.
        UsageError: an option out of range, or `labels` with duplicates.
    """
    rows, predictions = _label_indices(labels, true=true, predicted=predicted)
    draws = _bootstrap(rows, predictions, len(labels), resamples=resamples, seed=seed, confidence=confidence)
    figures = draws.figures(0)
    confusion = confusion_matrix(rows, predictions[0], len(labels))
    support, given = confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist()
    return Evaluation(
        labels=tuple(map(str, labels)),
        rows=len(rows),
        accuracy=_estimate(figures.accuracy, confidence),
        balanced_accuracy=_estimate(figures.balanced_accuracy, confidence),
        macro_f1=_estimate(figures.macro_f1, confidence),
        classes=tuple(
            ClassRow(
                label=str(label),
                precision=_estimate(figures.precision[:, index], confidence),
                recall=_estimate(figures.recall[:, index], confidence),
                f1=_estimate(figures.f1[:, index], confidence),
                support=support[index],
                predicted=given[index],
            )
            for index, label in enumerate(labels)
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
        resamples=int(resamples),
        seed=int(seed),
        confidence=float(confidence),
    )


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
    resamples: int = _RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """Tell whether model A is better than model B on the same rows.

    The bootstrap is that of `evaluate`, paired: within each true class, pairs (A's label, B's label) are drawn
    together, so rows that are hard for both cancel out. Its p-values invert the percentile interval: twice the smaller
    share of draws on either side of zero, with one added to draws and to their count so that no p-value is 0
    (Davison & Hinkley 1997, "Bootstrap Methods and their Application", chapter 4). McNemar's test looks at accuracy
    alone.

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
    rows, predictions = _label_indices(labels, true=true, predicted_a=predicted_a, predicted_b=predicted_b)
    draws = _bootstrap(rows, predictions, len(labels), resamples=resamples, seed=seed, confidence=confidence)
    a, b = draws.figures(0), draws.figures(1)
    accuracy, balanced_accuracy = a.accuracy - b.accuracy, a.balanced_accuracy - b.balanced_accuracy
    macro_f1 = a.macro_f1 - b.macro_f1
    a_right, b_right = predictions == rows
    only_a_right, only_b_right = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    return Comparison(
        accuracy=_estimate(accuracy, confidence),
        balanced_accuracy=_estimate(balanced_accuracy, confidence),
        macro_f1=_estimate(macro_f1, confidence),
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


def check_bootstrap(resamples: int, seed: int, confidence: float, *, cells: int) -> None:
    """Check a bootstrap's options.

    Args:
        cells: values that are kept of each resample, all in memory, since quantiles need them all.

    Raises:
        UsageError: one of them is out of range.
    """
    if resamples < 1:
        raise UsageError(f"resamples is {resamples}, expected at least 1; {_RESAMPLES} is the default.")
    most = max(_RESAMPLES, _MOST_CELLS // cells)
    if resamples > most:
        raise UsageError(
            f"resamples is {resamples:,}, expected at most {most:,} here, for memory; {_RESAMPLES} is the default."
        )
    if seed < 0:
        raise UsageError(f"seed is {seed}, expected 0 or more.")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}, expected between 0 and 1, for example 0.95.")


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


class _Figures(NamedTuple):
    """Figures of the observed data (first) and of each resample: [1 + resamples, C] or [1 + resamples]."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    balanced_accuracy: NDArray[np.float64]
    macro_f1: NDArray[np.float64]


class _Draws(NamedTuple):
    """The margins of confusion matrices that all figures need. Row 0 of axis 1 is the observed data.

    `hits` (right per class) and `predicted` (given per class) are [models, 1 + resamples, C]; `support` is [C], the
    same in every draw because the bootstrap is stratified. All hold whole numbers.
    """

    hits: NDArray[np.float64]
    predicted: NDArray[np.float64]
    support: NDArray[np.float64]

    def figures(self, model: int) -> _Figures:
        hits, predicted = self.hits[model], self.predicted[model]
        recall = _ratio(hits, self.support)
        f1 = _ratio(2 * hits, self.support + predicted)
        return _Figures(
            precision=_ratio(hits, predicted),
            recall=recall,
            f1=f1,
            accuracy=hits.sum(axis=1) / self.support.sum(),
            balanced_accuracy=recall[:, self.support > 0].mean(axis=1),
            macro_f1=f1.sum(axis=1) / (self.support + predicted > 0).sum(axis=1),
        )


def _bootstrap(
    true: NDArray[np.int64],
    predictions: NDArray[np.int64],
    classes: int,
    *,
    resamples: int,
    seed: int,
    confidence: float,
) -> _Draws:
    """Draw from true [rows] and predictions [models, rows], all models together; `evaluate` says how and why."""
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
    return _Draws(hits, predicted, np.bincount(true, minlength=classes).astype(np.float64))


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


def _estimate(values: NDArray[np.float64], confidence: float) -> Estimate:
    low, high = np.quantile(values[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(values[0]), float(low), float(high))


def _bootstrap_p(differences: NDArray[np.float64]) -> float:
    draws = differences[1:]
    # Figures are sums of fractions: true ties differ by rounding, real differences by far more than 1e-12.
    fewer = min(int((draws <= 1e-12).sum()), int((draws >= -1e-12).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(draws) + 1))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide counts; 0 where nothing is there to divide by."""
    return part / np.maximum(whole, 1.0)


def _label_indices(
    labels: Sequence[str], *, true: Sequence[str], **predicted: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Turn label names into indices: true [rows] and predictions [models, rows]."""
    index_of = {label: index for index, label in enumerate(labels)}
    if len(index_of) != len(labels):
        twice = next(label for place, label in enumerate(labels) if index_of[label] != place)
        raise UsageError(f"labels names {twice!r} twice. Name each label once.")
    if len(true) == 0:
        raise InputError("There are no rows to evaluate: true is empty. Pass at least one labelled row.")
    columns = []
    for name, column in {"true": true, **predicted}.items():
        values = list(column)
        if len(values) != len(true):
            raise InputError(f"true has {len(true)} rows, but {name} has {len(values)}. Pass one of each per text.")
        indices = [index_of.get(value, -1) for value in values]
        if -1 in indices:
            row = indices.index(-1)
            known = ", ".join(repr(label) for label in labels[:20])
            more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
            raise InputError(
                f"Row {row + 1} of {name} has the label {values[row]!r}, which is not among the labels known: "
                f"{known}{more}. Correct or leave out such rows, or use a model that was trained with this label."
            )
        columns.append(np.array(indices, dtype=np.int64))
    return columns[0], np.stack(columns[1:])


def _listed(value: Any) -> Any:
    """Replace tuples by lists, so that a dict equals its way through JSON and back."""
    if isinstance(value, dict):
        return {name: _listed(part) for name, part in value.items()}
    return [_listed(part) for part in value] if isinstance(value, (list, tuple)) else value


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def _short(label: str) -> str:
    """Cut a long label in its middle, since long names often differ only at their ends."""
    name = printable(label)
    if len(name) <= _NAME_COLUMNS:
        return name
    head = _NAME_COLUMNS // 2
    return f"{name[:head]}…{name[head + 1 - _NAME_COLUMNS :]}"
