"""A window's rows and scores to the columns that are added. Pure: knows no files, formats or sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.decimals import shortest
from edgewren.archive.inputs import Place
from edgewren.archive.rows import Block, Row
from edgewren.archive.table import Added
from edgewren.classifier import Scores
from edgewren.probabilities import softmax

NON_FINITE = "non-finite"
STATUSES = ("ok", "truncated", "repaired", "uncertain", "empty", "rejected")


@dataclass(frozen=True)
class Part:
    """A block in a window: its texts ("" where a row cannot be used), and why rows cannot."""

    block: Block
    texts: Sequence[str]
    problems: dict[int, str]


@dataclass(frozen=True)
class Window:
    """Rows that are scored and committed together, and where the inputs stand behind them."""

    parts: Sequence[Part]
    texts: list[str]
    place: Place


@dataclass
class Result:
    """What became of a window.

    Attributes:
        added: one per part.
        counts: rows by status.
        rejected: file, row and reason of each rejected row.
    """

    added: list[Added] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[str, Row, str]] = field(default_factory=list)


def added_names(labels: Sequence[str], prefix: str) -> list[str]:
    """Return the names of the added columns, in order."""
    return [prefix + name for name in ("label", "score", *(f"score_{label}" for label in labels), "status")]


def results(window: Window, scores: Scores, labels: Sequence[str], abstain_below: float | None) -> Result:
    """Return what is added to each row of a window.

    Args:
        window: whose `texts` were scored.
        scores: of these texts, in order.
        labels: in the order of the logits.
        abstain_below: rows whose best probability is lower get the status "uncertain".
    """
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(scores.logits).all(axis=1))
    logits = scores.logits if finite.all() else np.where(finite[:, None], scores.logits, np.float32(0))
    probabilities = softmax(logits)
    best = logits.argmax(axis=1)
    columns = [shortest(probabilities[:, index]) for index in range(len(labels))]
    indices = best.tolist()
    top: list[str | None] = [columns[label][row] for row, label in enumerate(indices)]
    chosen: list[str | None] = [labels[label] for label in indices]
    statuses = ["ok"] * len(indices)
    for row in np.flatnonzero(scores.repaired).tolist():
        statuses[row] = "repaired"
    for row in np.flatnonzero(scores.truncated).tolist():
        statuses[row] = "truncated"
    if abstain_below is not None:
        for row in np.flatnonzero(probabilities.max(axis=1, initial=0.0) < abstain_below).tolist():
            statuses[row] = "uncertain"
    for row, text in enumerate(window.texts):
        if not text or text.isspace():
            statuses[row] = "empty"
    result = Result()
    start = 0
    for part in window.parts:
        usable = len(part.block) - len(part.problems)
        span = slice(start, start + usable)
        problems = part.problems
        start += usable
        if not finite[span].all():
            rows = (row for row in range(len(part.block)) if row not in part.problems)
            good = finite[span].tolist()
            problems = {**problems, **{row: NON_FINITE for row, fine in zip(rows, good, strict=True) if not fine}}
        added = Added(chosen[span], [top[span], *(column[span] for column in columns)], statuses[span])
        if problems:
            added = _with_gaps(added, part, problems)
            for row in sorted(problems):
                result.rejected.append((part.block.source, part.block.row(row), problems[row]))
        result.added.append(added)
        result.counts.update(added.statuses if not problems else (s.partition(":")[0] for s in added.statuses))
    return result


def _with_gaps(added: Added, part: Part, problems: dict[int, str]) -> Added:
    """Return the columns with nothing in the rows that were rejected; `added` leaves out those that were not scored."""
    rows = len(part.block)
    scored = [row for row in range(rows) if row not in part.problems]

    def spread(values: Sequence[str | None]) -> list[str | None]:
        out: list[str | None] = [None] * rows
        for row, value in zip(scored, values, strict=True):
            if row not in problems:
                out[row] = value
        return out

    statuses = [
        f"rejected:{problems[row]}" if status is None else status for row, status in enumerate(spread(added.statuses))
    ]
    return Added(spread(added.labels), [spread(column) for column in added.scores], statuses)
