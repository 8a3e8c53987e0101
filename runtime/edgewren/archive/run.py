"""Rows through a classifier: one row in, one row out, in order. Knows no formats (readers, writers) and no tokens.

Rows are scored in windows of fixed size, so memory is constant. While one window is computed, the one before it is
written and the next is read.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import check_column
from edgewren.archive.lines import STDIN
from edgewren.archive.readers import Number, Row, Table, json_text, open_table
from edgewren.archive.writers import Value, Writer, choose_output_format
from edgewren.classifier import WINDOW_ROWS, Classifier, Scores
from edgewren.errors import UsageError
from edgewren.probabilities import softmax

_REJECTIONS_KEPT = 5
NON_FINITE = "non-finite"


@dataclass(frozen=True)
class Report:
    """What a finished run did. Each row has one status, so the five counts sum to `rows`.

    Attributes:
        rows: rows read, and written.
        ok, truncated, repaired, empty, rejected: rows by status.
        distinct: token rows computed; the others were copies within their window.
        tokens: tokens computed.
        seconds: wall time.
        rejections: the first rejected rows, as "row N of FILE: reason".
    """

    rows: int
    ok: int
    truncated: int
    repaired: int
    empty: int
    rejected: int
    distinct: int
    tokens: int
    seconds: float
    rejections: tuple[str, ...]


def score_archive(
    classifier: Classifier,
    sources: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    text_column: str = "text",
    format: str | None = None,  # noqa: A002  the word that every caller uses
    output_format: str | None = None,
    encoding: str = "utf-8",
    prefix: str = "",
    force: bool = False,
    window: int = WINDOW_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score every row of some files, and write each with its label, scores and status behind its own columns.

    Added columns: `label`, `score` (the probability of that label), `score_<label>` for each label, and `status`: ok,
    truncated (tokens were cut off), repaired (invalid Unicode was mended; truncated goes before it), empty (scored
    nonetheless), or rejected:<why>, with no label and no scores. Scores are the shortest decimals that give back the
    same float32.

    Args:
        classifier: the loaded bundle.
        sources: paths, or "-" for standard input; read one after another into one output.
        output: path; None or "-" for standard output.
        text_column: column with the texts; every input must have it.
        format: of all inputs ("csv", "tsv", "jsonl", "parquet"); None: by suffix.
        output_format: "csv", "tsv" or "jsonl"; None: by suffix of the output, else the first input's.
        encoding: of the inputs; output is always UTF-8.
        prefix: put before the name of every added column.
        force: whether an existing output may be replaced.
        window: rows read, scored and written together.
        progress: called after each window with rows written and input bytes read so far.

    Raises:
        InputError: a file cannot be read, or has no such text column.
        UsageError: the output exists; an added column's name is taken; the inputs do not have the same columns.
        OutputError: the output cannot be written. What was there before is untouched.
    """
    if window < 1:
        raise UsageError(f"window is {window}, expected at least 1.")
    added = _added_columns(classifier.labels, prefix)
    tables = _Tables(sources, format=format, encoding=encoding, text_column=text_column, added=added)
    counts: Counter[str] = Counter()
    rejections: list[str] = []
    distinct = tokens = 0
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.callback(tables.close)
        first = tables.open_first()
        chosen = choose_output_format(output, output_format, first.format)
        writer = stack.enter_context(Writer(output, format=chosen, columns=first.columns, added=added, force=force))
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="edgewren-window"))

        def write(rows: list[_Entry], future: Future[Scores]) -> None:
            nonlocal distinct, tokens
            scores = future.result()
            distinct += scores.distinct
            tokens += scores.tokens
            for entry, (status, values) in zip(rows, _results(classifier.labels, rows, scores), strict=True):
                writer.write(entry.row, values)
                kind, _, reason = status.partition(":")
                counts[kind] += 1
                if kind == "rejected":
                    writer.reject(entry.file, entry.row, reason)
                    if len(rejections) < _REJECTIONS_KEPT:
                        rejections.append(f"row {entry.row.number} of {entry.file}: {reason}")
            writer.flush()
            if progress is not None:
                progress(counts.total(), tables.bytes_read)

        pending: tuple[list[_Entry], Future[Scores]] | None = None
        for rows in _windows(tables, text_column, window):
            future = pool.submit(classifier.score, [entry.text for entry in rows if entry.rejected is None])
            if pending is not None:
                write(*pending)
            pending = rows, future
        if pending is not None:
            write(*pending)
    return Report(
        rows=counts.total(),
        ok=counts["ok"],
        truncated=counts["truncated"],
        repaired=counts["repaired"],
        empty=counts["empty"],
        rejected=counts["rejected"],
        distinct=distinct,
        tokens=tokens,
        seconds=time.perf_counter() - started,
        rejections=tuple(rejections),
    )


class _Tables:
    """The inputs one after another, each checked against the first."""

    def __init__(
        self,
        sources: Sequence[str | Path],
        *,
        format: str | None,  # noqa: A002  the word that every caller uses
        encoding: str,
        text_column: str,
        added: Sequence[str],
    ) -> None:
        if not sources:
            raise UsageError("There is no input. Name at least one file, or - for standard input.")
        if sum(str(source) == STDIN for source in sources) > 1:
            raise UsageError("Standard input (-) is named more than once. It can be read only once.")
        self._sources = sources
        self._format = format
        self._encoding = encoding
        self._text_column = text_column
        self._added = added
        self._first: Table | None = None
        self._current: Table | None = None
        self._bytes_before = 0

    @property
    def bytes_read(self) -> int:
        return self._bytes_before + (self._current.bytes_read if self._current is not None else 0)

    def open_first(self) -> Table:
        """Open the first input, and look into the others, so that a mistake shows before anything takes time."""
        self._first = self._current = self._open(self._sources[0])
        for source in self._sources[1:]:
            if str(source) != STDIN:
                self._open(source).close()
        return self._first

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        for index, source in enumerate(self._sources):
            if index:
                self._current = self._open(source)
            table = self._current
            if table is None:
                return
            added = frozenset(self._added)
            for row in table:
                if not added.isdisjoint(row.fields):
                    self._refuse_taken(table.name, row.fields)
                yield table.name, row
            self._bytes_before += table.bytes_read
            self._current = None
            table.close()

    def close(self) -> None:
        if self._current is not None:
            self._current.close()

    def _open(self, source: str | Path) -> Table:
        table = open_table(source, format=self._format, encoding=self._encoding)
        try:
            check_column(table, self._text_column, "--text-column")
            self._refuse_taken(table.name, table.columns)
            self._check_same_columns(table)
        except BaseException:
            table.close()
            raise
        return table

    def _refuse_taken(self, name: str, columns: Container[str]) -> None:
        taken = [column for column in self._added if column in columns]
        if taken:
            raise UsageError(
                f"{name} has a column {taken[0]!r} already, and scoring adds a column of this name. Give the added "
                "columns other names with --prefix, for example --prefix edgewren_."
            )

    def _check_same_columns(self, table: Table) -> None:
        first = self._first
        if first is None or table.columns == first.columns or table.format == first.format == "jsonl":
            return
        missing = [column for column in first.columns if column not in table.columns]
        further = [column for column in table.columns if column not in first.columns]
        difference = "their order differs"
        if missing or further:
            difference = f"it lacks {missing[0]!r}" if missing else f"it also has {further[0]!r}"
        raise UsageError(
            f"{table.name} does not have the same columns as {first.name}: {difference}. Score them "
            "one by one, each into its own output."
        )


class _Entry(NamedTuple):
    """A row on its way: its text, or why it has none that can be scored."""

    file: str
    row: Row
    text: str
    rejected: str | None


def _windows(tables: _Tables, text_column: str, window: int) -> Iterator[list[_Entry]]:
    entries = (_entry(file, row, text_column) for file, row in tables)
    while chunk := list(itertools.islice(entries, window)):
        yield chunk


def _entry(file: str, row: Row, text_column: str) -> _Entry:
    value = row.get(text_column)
    if row.error is not None:
        return _Entry(file, row, "", row.error)
    if isinstance(value, str) and not isinstance(value, Number):
        return _Entry(file, row, value, None)
    found = json_text(value)[:60] if text_column in row.fields else "missing"
    return _Entry(file, row, "", f"{text_column} is {found}, expected text")


def _added_columns(labels: Sequence[str], prefix: str) -> list[str]:
    return [prefix + name for name in ("label", "score", *(f"score_{label}" for label in labels), "status")]


def _results(labels: Sequence[str], rows: Sequence[_Entry], scores: Scores) -> Iterator[tuple[str, list[Value]]]:
    """Yield each row's status and added values."""
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(scores.logits).all(axis=1))
    logits = np.where(finite[:, None], scores.logits, np.float32(0))
    probabilities = softmax(logits)
    best = logits.argmax(axis=1).tolist()
    nothing: list[Value] = [None] * (len(labels) + 2)
    index = -1
    for entry in rows:
        rejected = entry.rejected
        if rejected is None:
            index += 1
            rejected = None if finite[index] else NON_FINITE
        if rejected is not None:
            status = f"rejected:{rejected}"
            yield status, [*nothing, status]
            continue
        if not entry.text.strip():
            status = "empty"
        elif scores.truncated[index]:
            status = "truncated"
        else:
            status = "repaired" if scores.repaired[index] else "ok"
        # numpy writes a float32 with the fewest digits that give it back; Python would write those of a double.
        columns = [Number(str(value)) for value in probabilities[index]]
        yield status, [labels[best[index]], columns[best[index]], *columns, status]
