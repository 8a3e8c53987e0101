"""What a classifier gets wrong, and what may be wrong with its labels. Knows texts, labels and scores of held-out rows.

Only scores of rows that the model was not trained on mean anything here: out-of-fold ones for training rows, or a
bundle's for another file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.calibration import wilson
from edgewren.metrics import Estimate, evaluate
from edgewren_train.duplicates import Pair, across, within

_MOST_VALUES = 12
_LENGTHS = ((0, 50), (50, 100), (100, 150), (150, 280), (280, None))


@dataclass(frozen=True)
class Judged:
    """Labelled rows with scores.

    Attributes:
        source: what the rows and the scores are, in words.
        labels: the model's, in the order of the scores.
        texts, given: of each row.
        rows: 1-based number of each row in its file.
        scores: probabilities, float64 [n, labels].
        truncated: whether tokens of the row were cut.
        columns: other columns, name to one value per row.
    """

    source: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    given: tuple[str, ...]
    rows: tuple[int, ...]
    scores: NDArray[np.float64]
    truncated: NDArray[np.bool_]
    columns: Mapping[str, Sequence[str]]

    @property
    def true(self) -> NDArray[np.int64]:
        index_of = {label: index for index, label in enumerate(self.labels)}
        return np.array([index_of[label] for label in self.given])

    @property
    def predicted(self) -> list[str]:
        return [self.labels[index] for index in self.scores.argmax(axis=1)]


@dataclass(frozen=True)
class Row:
    """One row to look at: its label, the model's, and the model's probabilities of both."""

    row: int
    text: str
    label: str
    predicted: str
    score_label: float
    score_predicted: float


@dataclass(frozen=True)
class Slice:
    """Rows that have something in common; `share_right` is their accuracy with its Wilson interval."""

    name: str
    value: str
    rows: int
    share_right: Estimate
    balanced_accuracy: Estimate | None


@dataclass(frozen=True)
class Alike:
    """Two alike texts with their places and labels; `where` is "within" or "across"."""

    where: str
    row: int
    text: str
    label: str
    other_row: int
    other_text: str
    other_label: str
    similarity: float

    @property
    def conflicting(self) -> bool:
        return self.label != self.other_label


@dataclass(frozen=True)
class Analysis:
    """The whole analysis. Made by `analyse`.

    Attributes:
        source: what was analysed.
        rows, mistakes: their numbers.
        confident_mistakes: the model is surest of these, and wrong by the given label.
        suspects: rows whose label the held-out scores dispute, likeliest errors first; `suspect_count` is of all.
        slices: scores by length, truncation and columns.
        alike_within, alike_across: pairs of alike texts, the most alike first.
        compared_with: name of the other file for `alike_across`.
    """

    source: str
    rows: int
    mistakes: int
    confident_mistakes: tuple[Row, ...]
    suspect_count: int
    suspects: tuple[Row, ...]
    slices: tuple[Slice, ...]
    alike_within: tuple[Alike, ...]
    alike_across: tuple[Alike, ...]
    compared_with: str | None

    def as_dict(self) -> dict[str, Any]:
        document = asdict(self)
        for key in ("alike_within", "alike_across"):
            for entry in document[key]:
                entry["conflicting"] = entry["label"] != entry["other_label"]
        return document


def analyse(
    judged: Judged,
    *,
    others: tuple[str, Sequence[str], Sequence[str]] | None = None,
    shown: int = 20,
    threshold: float = 0.6,
) -> Analysis:
    """Analyse labelled rows with held-out scores.

    Args:
        others: name, texts and labels of another file, in which alike texts would be leaks between the two.
        shown: at most so many mistakes and suspects are kept.
        threshold: similarity from which two texts count as alike.
    """
    wrong = np.flatnonzero(judged.scores.argmax(axis=1) != judged.true)
    surest = wrong[np.argsort(-judged.scores[wrong].max(axis=1), kind="stable")]
    suspects = label_suspects(judged.scores, judged.true)
    inside = [
        _alike("within", pair, judged, judged.texts, judged.given, judged.rows)
        for pair in within(judged.texts, threshold=threshold)
    ]
    outside: list[Alike] = []
    if others is not None:
        _, texts, labels = others
        outside = [
            _alike("across", pair, judged, texts, labels, range(1, len(texts) + 1))
            for pair in across(judged.texts, texts, threshold=threshold)
        ]
    return Analysis(
        source=judged.source,
        rows=len(judged.texts),
        mistakes=len(wrong),
        confident_mistakes=tuple(_row(judged, place) for place in surest[:shown]),
        suspect_count=len(suspects),
        suspects=tuple(_row(judged, place) for place in suspects[:shown]),
        slices=slices(judged),
        alike_within=tuple(inside),
        alike_across=tuple(outside),
        compared_with=None if others is None else others[0],
    )


def label_suspects(scores: NDArray[np.float64], true: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the places of rows whose label is likely wrong, the likeliest first.

    Confident learning (Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
    JAIR 70): a class's threshold is the mean score that rows labelled with it get for it. A row is counted as another
    class if that class's score reaches its threshold and is the highest of those that do. Ranked by how much the other
    class's score exceeds the given one's (their "normalized margin").

    Args:
        scores: held-out probabilities, float64 [n, C].
        true: the given label's index of each row.
    """
    classes = scores.shape[1]
    thresholds = np.array(
        [scores[true == index, index].mean() if (true == index).any() else np.inf for index in range(classes)]
    )
    candidates = np.where(scores >= thresholds, scores, -np.inf)
    believed = candidates.argmax(axis=1)
    rows = np.arange(len(true))
    disputed = np.flatnonzero(np.isfinite(candidates.max(axis=1)) & (scores[rows, believed] > scores[rows, true]))
    margin = scores[disputed, believed[disputed]] - scores[disputed, true[disputed]]
    return disputed[np.argsort(-margin, kind="stable")]


def slices(judged: Judged) -> tuple[Slice, ...]:
    """Return accuracy by length in characters, by truncation, and by each column with few values."""
    lengths = np.array([len(text) for text in judged.texts])
    groups: list[tuple[str, str, NDArray[np.bool_]]] = []
    for low, high in _LENGTHS:
        inside = (lengths >= low) & ((lengths < high) if high is not None else True)
        groups.append(("characters", f"{low} to {high - 1}" if high is not None else f"{low} or more", inside))
    if judged.truncated.any():
        groups += [("truncated", "yes", judged.truncated), ("truncated", "no", ~judged.truncated)]
    for name, values in judged.columns.items():
        column = np.array(values, dtype=object)
        kinds, counts = np.unique(column.astype(str), return_counts=True)
        order = np.argsort(-counts, kind="stable")
        named = kinds[order[:_MOST_VALUES]]
        groups += [(name, str(value), column == value) for value in named]
        if len(kinds) > len(named):
            groups.append((name, f"{len(kinds) - len(named)} other values", ~np.isin(column.astype(str), named)))
    return tuple(_slice(judged, name, value, kept) for name, value, kept in groups if kept.any())


def _slice(judged: Judged, name: str, value: str, kept: NDArray[np.bool_]) -> Slice:
    given = [label for label, taken in zip(judged.given, kept, strict=True) if taken]
    predicted = [label for label, taken in zip(judged.predicted, kept, strict=True) if taken]
    right = sum(a == b for a, b in zip(given, predicted, strict=True))
    whole = len(set(given)) == len(set(judged.given))  # without all classes, it is another figure
    balanced = evaluate(given, predicted, judged.labels, resamples=500).balanced_accuracy if whole else None
    return Slice(name, value, len(given), wilson(right, len(given)), balanced)


def _row(judged: Judged, place: int) -> Row:
    scores = judged.scores[place]
    best = int(scores.argmax())
    return Row(
        row=judged.rows[place],
        text=judged.texts[place],
        label=judged.given[place],
        predicted=judged.labels[best],
        score_label=float(scores[judged.labels.index(judged.given[place])]),
        score_predicted=float(scores[best]),
    )


def _alike(
    where: str, pair: Pair, judged: Judged, texts: Sequence[str], labels: Sequence[str], rows: Sequence[int]
) -> Alike:
    return Alike(
        where=where,
        row=judged.rows[pair.first],
        text=judged.texts[pair.first],
        label=judged.given[pair.first],
        other_row=rows[pair.second],
        other_text=texts[pair.second],
        other_label=labels[pair.second],
        similarity=pair.similarity,
    )
