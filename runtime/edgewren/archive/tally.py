"""Scored rows to counts: how many texts of each group got which label. Knows the added columns; no shares, no models.

Memory grows with the number of groups, never with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

from edgewren.archive.inputs import check_column
from edgewren.archive.json_records import parse_object
from edgewren.archive.labels import label_text
from edgewren.archive.periods import Period, period_of
from edgewren.archive.readers import Row, cell_text, open_table, resolve_format
from edgewren.archive.tweets import COLUMNS
from edgewren.errors import InputError

MAXIMUM_GROUPS = 100_000
_MAXIMUM_LABELS = 100
_ROWS_PER_REPORT = 20_000


@dataclass
class Tally:
    """Counts of some scored files. Made by `count_labels`.

    Attributes:
        labels: in the order of the counts.
        counts: group to texts by label, in order of appearance. The group None holds rows whose value is missing or,
            with a period, cannot be read as a date.
        uncertain: group to texts among those counted that the scoring marked as uncertain.
        rows: rows read; each was counted, or left out as `empty` (no text), `rejected` (no label) or `left_out`
            (uncertain, where these are not wanted).
        unread: the first value that is not empty and could not be read as a date, with its place; else None.
    """

    labels: tuple[str, ...]
    counts: dict[str | None, list[int]] = field(default_factory=dict)
    uncertain: dict[str | None, int] = field(default_factory=dict)
    rows: int = 0
    empty: int = 0
    rejected: int = 0
    left_out: int = 0
    unread: str | None = None


def count_labels(
    sources: Sequence[str | Path],
    by: str,
    *,
    labels: Sequence[str] | None,
    period: Period | None = None,
    zone: tzinfo = UTC,
    prefix: str = "",
    keep_uncertain: bool = True,
    format: str | None = None,  # noqa: A002  the word that every caller uses
    encoding: str = "utf-8",
    progress: Callable[[int, int], None] | None = None,
) -> Tally:
    """Count the labels of scored files per value of a column, or per period of a column of dates.

    Args:
        sources: files written by `edgewren score`, or "-".
        by: the column to group by.
        labels: those of the bundle, in its order; None: those that occur, sorted.
        period: "day", "month" or "year" of the column's dates; None: the column's values themselves.
        zone: in which days begin.
        prefix: of the columns that scoring added.
        keep_uncertain: whether rows with the status `uncertain` count, with the label that they have.
        format, encoding: of the files, as in `open_table`.
        progress: called now and then with rows and bytes read.

    Raises:
        InputError: a file cannot be read, lacks a column, has a label that is not among `labels`, or has more than
            100,000 groups; or no date of the column could be read.
    """
    known = {label: index for index, label in enumerate(labels)} if labels is not None else {}
    counting = _Counting(Tally(tuple(labels or ())), known, by, period, zone, prefix, keep_uncertain, labels is None)
    bytes_before = 0
    for source in sources:
        chosen = resolve_format(source, format, encoding=encoding, tweets=False)
        if chosen == "twitter" and by not in COLUMNS:
            chosen = "jsonl"
        with open_table(source, format=chosen, encoding=encoding) as table:
            check_column(table, by, "--by")
            if chosen != "twitter":
                for column in (prefix + "label", prefix + "status"):  # a label alone may be anybody's
                    check_column(table, column, "--prefix (what 'edgewren score' was told)")
            for row in table:
                counting.add(table.name, _scored_tweet(table.name, row, prefix) if chosen == "twitter" else row)
                if progress is not None and counting.tally.rows % _ROWS_PER_REPORT == 0:
                    progress(counting.tally.rows, bytes_before + table.bytes_read)
            bytes_before += table.bytes_read
            if progress is not None:
                progress(counting.tally.rows, bytes_before)
    return counting.finished()


def _scored_tweet(name: str, row: Row, prefix: str) -> Row:
    """Return a row of Twitter's own JSON with what scoring has put into it beside the tweet's columns."""
    own, error = parse_object(row.raw) if isinstance(row.raw, str) else ({}, row.error)
    if error is None and not {prefix + "label", prefix + "status"} <= own.keys():
        raise InputError(
            f"{name}, row {row.number} has no {prefix + 'label'!r}. Expected a file written by 'edgewren score'; name "
            "what that was told with --prefix."
        )
    return replace(row, fields={**own, **row.fields}, error=error)


@dataclass
class _Counting:
    tally: Tally
    known: dict[str, int]
    by: str
    period: Period | None
    zone: tzinfo
    prefix: str
    keep_uncertain: bool
    open_ended: bool

    def add(self, name: str, row: Row) -> None:
        tally = self.tally
        if row.error is not None:
            raise InputError(f"{name}, row {row.number}: {row.error}. Expected a file written by 'edgewren score'.")
        tally.rows += 1
        status = str(row.get(self.prefix + "status") or "")
        label = row.get(self.prefix + "label")
        if status == "empty":
            tally.empty += 1
            return
        if label is None or label == "" or status.startswith("rejected"):
            tally.rejected += 1
            return
        uncertain = status == "uncertain"
        if uncertain and not self.keep_uncertain:
            tally.left_out += 1
            return
        index = self._index(cell_text(label), name, row)
        group = self._group(row.get(self.by), name, row)
        counts = tally.counts.get(group)
        if counts is None:
            if len(tally.counts) == MAXIMUM_GROUPS:
                raise InputError(
                    f"{name}: the column {self.by!r} has more than {MAXIMUM_GROUPS:,} different values. It looks like "
                    "free text, ids or moments. Name another column, or group dates with --period month."
                )
            counts = tally.counts[group] = []
        if len(counts) <= index:
            counts.extend([0] * (max(len(self.known), index + 1) - len(counts)))
        counts[index] += 1
        if uncertain:
            tally.uncertain[group] = tally.uncertain.get(group, 0) + 1

    def finished(self) -> Tally:
        tally = self.tally
        if self.period is not None and tally.unread is not None and set(tally.counts) == {None}:
            raise InputError(
                f"No value of the column {self.by!r} could be read as a date, for example {tally.unread}. Expected "
                "2018-10-10T20:19:24Z or another form of ISO 8601, Twitter's Wed Oct 10 20:19:24 +0000 2018, or "
                "seconds or milliseconds since 1970."
            )
        order: list[int] = list(range(len(tally.labels)))
        if self.open_ended:
            tally.labels = tuple(sorted(self.known))
            order = [self.known[label] for label in tally.labels]
        for counts in tally.counts.values():
            counts.extend([0] * (len(order) - len(counts)))
            counts[:] = [counts[index] for index in order]
        return tally

    def _index(self, label: str, name: str, row: Row) -> int:
        index = self.known.get(label)
        if index is None:  # such as True, which pandas has made of true
            label = label_text(label)
            index = self.known.get(label)
        if index is not None:
            return index
        if not self.open_ended:
            raise InputError(
                f"{name}, row {row.number}: the label {label[:128]!r} is not one of the model's: "
                f"{', '.join(self.known)}. Name the bundle that scored this file with --model."
            )
        if len(self.known) == _MAXIMUM_LABELS:
            raise InputError(f"{name}: the label column has more than {_MAXIMUM_LABELS} different values.")
        self.known[label] = len(self.known)
        return self.known[label]

    def _group(self, value: Any, name: str, row: Row) -> str | None:
        text = cell_text(value)
        if self.period is None:
            return text if text.strip() else None
        period = period_of(text, self.period, self.zone)
        if period is None and self.tally.unread is None and text.strip():
            self.tally.unread = f"{text[:80]!r} in row {row.number} of {name}"
        return period
