r"""CSV, TSV and the like, as RFC 4180 has them: strict when read, "\n" as line end when written."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence

from edgewren.archive.field_limit import FIELD_LIMIT, MAXIMUM_FIELD_CHARACTERS, check_fields
from edgewren.archive.lines import ByteSource, Lines, packing_of
from edgewren.archive.rows import Block, Row
from edgewren.archive.table import (
    Added,
    Encoder,
    Format,
    Opening,
    Position,
    RecordTable,
    Table,
    column_names,
    first_nameless,
)
from edgewren.errors import InputError
from edgewren.text import repair

_FIELD_CHARACTERS = 16
"""What a field takes beyond its characters: Python's 57 bytes and more for a string and its place in a list, at up to
four bytes a character."""


class _Records(Block):
    """Records as csv.reader gives them."""

    def __init__(
        self, source: str, first: int, header: list[str], records: list[list[str]], line: int, characters: int
    ) -> None:
        width = len(header)
        errors = {}
        if set(map(len, records)) != {width}:
            for index, record in enumerate(records):
                if len(record) != width:
                    errors[index] = f"{len(record)} fields where the header has {width}" if record else "empty line"
        super().__init__(source, first, errors, characters)
        self._header = header
        self._records = records
        self._line = line
        self._lines: list[int] = []

    def __len__(self) -> int:
        return len(self._records)

    def row(self, index: int) -> Row:
        record = self._records[index]
        error = self.errors.get(index)
        fields = dict(zip(self._header, self._padded(record), strict=True))
        return Row(self.first + index, self._line_of(index), fields, None if error is None else tuple(record), error)

    def values(self, column: str) -> list[str]:
        place = self._header.index(column)
        if self.errors:
            return [self._padded(record)[place] for record in self._records]
        return [record[place] for record in self._records]

    def cells(self, columns: Sequence[str]) -> list[list[str]]:
        if list(columns) != self._header:
            return super().cells(columns)
        return [self._padded(record) for record in self._records] if self.errors else self._records

    def objects(self) -> list[str]:
        quote = functools.partial(json.dumps, ensure_ascii=False)
        keys = [quote(name) + ": " for name in self._header]
        return [
            "{" + ", ".join([key + quote(cell) for key, cell in zip(keys, record, strict=True)]) + "}"
            for record in self.cells(self._header)
        ]

    def _padded(self, record: list[str]) -> list[str]:
        width = len(self._header)
        return record if len(record) == width else [*record, *[""] * width][:width]

    def _line_of(self, index: int) -> int:
        if not self._lines:
            counts = (1 + sum(map(_line_ends, record)) for record in self._records)
            self._lines = list(itertools.accumulate(counts, initial=self._line))
        return self._lines[index]


_DELIMITERS = {"csv": ",", "csv-pipe": "|", "csv-semicolon": ";", "tsv": "\t"}
"""Formats, and what stands between their fields. Spreadsheets write semicolons where the comma is the decimal sign."""

_EXCEL_NOTE = re.compile(r"sep=(.)", re.IGNORECASE)
"""What a first line says that is meant for Excel: which delimiter the file has."""


class _DelimitedTable(RecordTable[list[str]]):
    def __init__(self, opening: Opening, name: str, delimiter: str) -> None:
        source = ByteSource(opening.source)
        try:
            lines = _lines(source, opening, 0)
            reader = csv.reader(lines.iterator, delimiter=delimiter, strict=True)
            header = _header(reader, lines, source.name, delimiter)
            if opening.position is not None:
                source.close()
                source = ByteSource(opening.source)
                lines = _lines(source, opening, opening.position["characters"])
                reader = csv.reader(lines.iterator, delimiter=delimiter, strict=True)
        except BaseException:
            source.close()
            raise
        super().__init__(source, header)
        self.format = name
        self._lines = lines
        self._reader = reader
        position = opening.position or {}
        self._row = position.get("rows", 0)
        self._line_before = position.get("line", 0)
        self._line = 0  # where the block that is read begins

    @property
    def position(self) -> Position:
        return {
            "characters": self._lines.position,
            "rows": self._row,
            "line": self._line_before + self._reader.line_num,
        }

    @property
    def rows_read(self) -> int:
        return self._row

    def read(self, rows: int) -> Block | None:
        self._line = self._line_before + self._reader.line_num + 1
        records, characters = self.records(rows)
        if not records:
            return None
        first = self._row + 1
        self._row += len(records)
        return _Records(self.name, first, self.columns, records, self._line, characters)

    def take(self, records: list[list[str]], wanted: int) -> None:
        self._lines.records = records
        before, start = len(records), self._lines.position
        try:
            with FIELD_LIMIT:
                records.extend(itertools.islice(self._reader, wanted))
            check_fields(records, before, self._lines.position - start)
        except csv.Error as error:
            line = self._line + sum(1 + sum(map(_line_ends, record)) for record in records)
            raise _unreadable(self.name, line, error) from error

    def is_blank(self, record: list[str]) -> bool:
        return not record

    def beyond(self, records: list[list[str]]) -> int:
        return _FIELD_CHARACTERS * sum(map(len, records))

    def why_missing(self, column: str) -> str:
        header = _DELIMITERS[self.format].join(self.columns)
        parts = {
            mark: [part.strip(' "') for name in self.columns for part in name.split(mark)]
            for mark in _DELIMITERS.values()
        }
        mark = max(parts, key=lambda mark: (column in parts[mark], len(parts[mark])))
        if len(parts[mark]) > len(self.columns) and (column in parts[mark] or len(self.columns) == 1):
            return f"Its header is {header[:200]!r}: its delimiter seems to be {mark!r}. {_remedy(mark)}"
        return ""


def _remedy(delimiter: str) -> str:
    known = next((name for name, mark in _DELIMITERS.items() if mark == delimiter), None)
    return f"Read it with --format {known}." if known else "Write it with commas, or as JSONL or Parquet."


def _lines(source: ByteSource, opening: Opening, skip: int) -> Lines:
    return Lines(source, encoding=opening.encoding, packed=packing_of(source), only_newline=False, skip=skip)


def _header(reader: Iterator[list[str]], lines: Lines, name: str, delimiter: str) -> list[str]:
    header = _first(reader, lines, name)
    note = _EXCEL_NOTE.fullmatch(delimiter.join(header or ()))
    if note and note[1] != delimiter:
        raise InputError(
            f"{name}: the first line, {note[0]!r}, tells Excel that the delimiter is {note[1]!r}. {_remedy(note[1])}"
        )
    if note:
        header = _first(reader, lines, name)
    if header is None:
        raise InputError(f"{name} is empty. Expected a header line and rows.")
    nameless = first_nameless(header) if header else 0
    if nameless is not None:
        raise InputError(
            f"{name}: the header has no name for column {nameless + 1} of {len(header)}. "
            "Expected a first line that names every column."
        )
    twice = sorted({column for column in header if header.count(column) > 1}) if len(set(header)) < len(header) else []
    if twice:
        raise InputError(f"{name}: the header names {twice[0]!r} more than once. Rename one of these columns.")
    return header


def _first(reader: Iterator[list[str]], lines: Lines, name: str) -> list[str] | None:
    lines.records = []
    start = lines.position
    try:
        with FIELD_LIMIT:
            record = next(reader, None)
        if record is not None:
            check_fields([record], 0, lines.position - start)
    except csv.Error as error:
        raise _unreadable(name, 1, error) from error
    return record


def _unreadable(name: str, line: int, error: csv.Error) -> InputError:
    reason = str(error)
    if "unexpected end of data" in reason:
        return InputError(
            f"{name}, line {line}: a quote is opened in the record that begins here, and not closed before the "
            "file ends. Close it, or double it where it is part of the text."
        )
    if "field limit" in reason:
        return InputError(
            f"{name}, line {line}: a field of more than {MAXIMUM_FIELD_CHARACTERS:,} characters in the record that "
            "begins here. Look for a quote that is opened and not closed."
        )
    others = ", ".join(_DELIMITERS)
    header = f" Or does the file have another delimiter? There are --format {others}." if line == 1 else ""
    return InputError(
        f"{name}, line {line}: the record that begins here is not valid ({reason}). A quote inside a quoted field "
        f"is written twice.{header}"
    )


def _line_ends(field: str) -> int:
    return field.count("\n") + field.count("\r") - field.count("\r\n")


_FORMULA = re.compile(r"[=+\-@\t\r]")
_PLAIN_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


class DelimitedEncoder(Encoder):
    """CSV, TSV and the like."""

    spreadsheets = True

    def __init__(self, table: Table, added: Sequence[str], delimiter: str) -> None:
        self._columns = tuple(table.columns)
        self._names = column_names(table)
        self._added = tuple(added)
        self._delimiter = delimiter

    def header(self) -> bytes:
        return self._bytes([[*self._names, *self._added]])

    def encode(self, block: Block, added: Added) -> bytes:
        further = zip(added.labels, *added.scores, added.statuses, strict=True)
        return self._bytes([[*cells, *more] for cells, more in zip(block.cells(self._columns), further, strict=True)])

    def count(self, chunks: Iterator[bytes]) -> int:
        ends = quotes = 0
        for chunk in chunks:
            for part in chunk.split(b'"'):
                if quotes % 2 == 0:
                    ends += part.count(b"\n")
                quotes += 1
            quotes -= 1  # the last part goes on in the next chunk
        return ends - 1

    def _harmless(self, cell: str | None) -> str | None:
        """Return a cell that no spreadsheet takes for a formula (OWASP, "CSV Injection"); numbers are left alone."""
        if cell and _FORMULA.match(cell) and not _PLAIN_NUMBER.fullmatch(cell):
            self.prefixed += 1
            return "'" + cell
        return cell

    def _bytes(self, rows: list[list[str | None]]) -> bytes:
        if self.excel_safe:
            rows = [list(map(self._harmless, row)) for row in rows]
        text = self._text(rows, "\n")
        if "\r" in text:
            # csv.writer quotes a field with "\r" only where "\r" is part of its own line end (until Python 3.13):
            # with "\n" as line end, a tweet with a lone "\r" would be read back as two rows.
            text = "".join(self._text([row], "\r\n")[:-2] + "\n" for row in rows)
        try:
            return text.encode()
        except UnicodeEncodeError:
            return repair(text).encode()

    def _text(self, rows: list[list[str | None]], line_end: str) -> str:
        stream = io.StringIO(newline="")
        csv.writer(stream, delimiter=self._delimiter, lineterminator=line_end).writerows(rows)
        return stream.getvalue()


def _format(name: str, delimiter: str) -> Format:
    suffixes = (".tsv", ".tab") if name == "tsv" else (".csv",)
    return Format(
        name,
        suffixes,
        open=functools.partial(_DelimitedTable, name=name, delimiter=delimiter),
        encoder=functools.partial(DelimitedEncoder, delimiter=delimiter),
    )


FORMATS = tuple(_format(name, delimiter) for name, delimiter in _DELIMITERS.items())
