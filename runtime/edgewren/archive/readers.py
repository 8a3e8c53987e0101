"""Lines to rows: CSV, TSV and JSONL, one row at a time (Parquet: `parquet`). Knows no texts, labels or models.

What is wrong with one row makes it a row with an `error`, which keeps its place; what is wrong with the file as a whole
is an `InputError` that names file and line. Values are handed on as they were written: ids stay text, numbers keep
their spelling, and a JSONL row keeps its whole line.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from edgewren.archive.lines import STDIN, ByteSource, Lines
from edgewren.errors import InputError, UsageError

Format = Literal["csv", "tsv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

MAXIMUM_DEPTH = 100
"""Levels of nesting in a JSON record. Fixed, because Python's own limit depends on who is calling."""

JSON_SPACE = " \t\r\n"

_MAXIMUM_DIGITS = 4300
"""Longest number in a JSON record: Python itself refuses to read longer integers."""

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_FIRST_RECORD_WITHIN = 1000


class Number(str):
    """A number of a JSON record as it was spelled, so that ids and decimals pass through unrounded."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        number: 1 for the first row of data.
        line: line of the file on which the row begins; None for Parquet.
        fields: columns to values, in the row's order: str from CSV and TSV; what JSON knows, with `Number` for numbers,
            from JSONL; what JSON knows from Parquet. Empty where nothing could be read.
        raw: the row as it stood in the file: JSONL's line without its end; the fields of a CSV record that was
            rejected; else None.
        error: why the row cannot be used, or None.
    """

    number: int
    line: int | None
    fields: Mapping[str, Any]
    raw: str | tuple[str, ...] | None = None
    error: str | None = None

    def get(self, column: str) -> Any:
        """Return the value of one column, or None where the row has none."""
        return self.fields.get(column)


class Table:
    """An opened file: its format and columns, and an iterator over its rows. Made by `open_table`.

    Attributes:
        name: the path as given, or "standard input".
        format: "csv", "tsv", "jsonl" or "parquet".
        columns: header names; for JSONL the keys of the first record.
    """

    def __init__(
        self,
        name: str,
        format: Format,  # noqa: A002  the word that every caller uses
        columns: list[str],
        rows: Iterator[Row],
        *,
        bytes_read: Callable[[], int],
        sha256: Callable[[], str],
        close: Callable[[], None],
    ) -> None:
        self.name = name
        self.format = format
        self.columns = columns
        self._rows = rows
        self._bytes_read = bytes_read
        self._sha256 = sha256
        self._close = close

    @property
    def bytes_read(self) -> int:
        """Bytes of the file read so far, as it lies on disk."""
        return self._bytes_read()

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes, hexadecimal, once all rows were read."""
        return self._sha256()

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._close()


def open_table(source: str | Path, *, format: str | None = None, encoding: str = "utf-8") -> Table:  # noqa: A002
    """Open a file for reading row by row, in constant memory.

    Args:
        source: path, or "-" for standard input.
        format: "csv", "tsv", "jsonl" or "parquet"; None: by suffix (.csv, .tsv, .jsonl, each also with .gz, .parquet),
            and csv for standard input. Gzip is recognised by its first bytes too.
        encoding: of the text; UTF-8 with or without byte order mark is the default.

    Raises:
        InputError: the file is missing, a folder, empty or damaged, not in this encoding, or its header is of no use.
        UsageError: the format cannot be told, or the encoding is unknown.
        MissingDependencyError: Parquet without pyarrow.
    """
    chosen = _choose_format(source, format)
    if chosen == "parquet":
        from edgewren.archive.parquet import open_parquet

        return open_parquet(source)
    stream = ByteSource(source)
    try:
        lines = Lines(
            stream,
            encoding=encoding,
            gzipped=stream.starts_like_gzip or stream.name.lower().endswith(".gz"),
            only_newline=chosen == "jsonl",
        )
        columns, rows = _open_jsonl(lines, stream.name) if chosen == "jsonl" else _open_csv(lines, stream.name, chosen)
    except BaseException:
        stream.close()
        raise
    return Table(
        stream.name,
        chosen,
        columns,
        rows,
        bytes_read=lambda: stream.bytes_read,
        sha256=stream.sha256,
        close=stream.close,
    )


def format_of(path: str | Path) -> Format | None:
    """Return the format that a file's name stands for, or None."""
    return _SUFFIXES.get(Path(Path(path).name.lower().removesuffix(".gz")).suffix)


def json_text(value: Any) -> str:
    """Return a value as JSON text, numbers in their own spelling; NaN and infinity, unknown to JSON, as null."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json_text(str(key))}: {json_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    return json.dumps(value, ensure_ascii=False, default=str)


def cell_text(value: Any) -> str:
    """Return a value as the text of a CSV field: text and numbers as they are, nothing for null, else JSON."""
    if isinstance(value, str):
        return str(value)
    return "" if value is None else json_text(value)


def _choose_format(source: str | Path, requested: str | None) -> Format:
    if requested is not None:
        if requested not in FORMATS:
            raise UsageError(f"Unknown format {requested!r}. Expected one of {', '.join(FORMATS)}.")
        return requested
    if str(source) == STDIN:
        return "csv"
    by_name = format_of(source)
    if by_name is None:
        if not Path(source).exists():  # the likelier mistake of the two
            raise InputError(f"{source} does not exist. Check the path.")
        if Path(source).is_dir():
            raise InputError(f"{source} is a folder, expected a file. Name the files in it.")
        raise UsageError(f"{source}: cannot tell the format from the name. Name it with --format {'|'.join(FORMATS)}.")
    return by_name


def _open_csv(lines: Lines, name: str, format: Format) -> tuple[list[str], Iterator[Row]]:  # noqa: A002
    # csv.field_size_limit belongs to the whole process: the command line sets it to 1 MiB, a library must not.
    reader = csv.reader(lines, delimiter="\t" if format == "tsv" else ",", strict=True)
    header = _next_record(reader, lines, name)
    if header is None:
        raise InputError(f"{name} is empty. Expected a header line and rows.")
    _check_header(header, name)
    return header, _csv_rows(reader, lines, name, header)


def _next_record(reader: Iterator[list[str]], lines: Lines, name: str) -> list[str] | None:
    begin = lines.number + 1
    lines.start_record()
    try:
        return next(reader, None)
    except csv.Error as error:
        reason = str(error)
        if "unexpected end of data" in reason:
            raise InputError(
                f"{name}, line {begin}: a quote is opened in the record that begins here, and not closed before the "
                "file ends. Close it, or double it where it is part of the text."
            ) from error
        if "field limit" in reason:
            raise InputError(
                f"{name}, line {begin}: a field of more than {csv.field_size_limit():,} characters in the record that "
                "begins here. Look for a quote that is opened and not closed."
            ) from error
        raise InputError(
            f"{name}, line {begin}: the record that begins here is not valid ({reason}). A quote inside a quoted field "
            "is written twice."
        ) from error


def _check_header(header: Sequence[str], name: str) -> None:
    empty = [number for number, column in enumerate(header, 1) if not column.strip()]
    if empty or not header:
        raise InputError(
            f"{name}: the header has no name for column {empty[0] if empty else 1} of {len(header)}. "
            "Expected a first line that names every column."
        )
    twice = sorted({column for column in header if header.count(column) > 1}) if len(set(header)) < len(header) else []
    if twice:
        raise InputError(f"{name}: the header names {twice[0]!r} more than once. Rename one of these columns.")


def _csv_rows(reader: Iterator[list[str]], lines: Lines, name: str, header: list[str]) -> Iterator[Row]:
    width = len(header)
    number = 0
    held = 0
    while True:
        begin = lines.number + 1
        record = _next_record(reader, lines, name)
        if record is None:
            return
        if not record:  # blank lines count unless nothing follows them
            held += 1
            continue
        for back in range(held, 0, -1):
            number += 1
            yield Row(number, begin - back, dict.fromkeys(header, ""), (), "empty line")
        held = 0
        number += 1
        if len(record) == width:
            yield Row(number, begin, dict(zip(header, record, strict=True)))
        else:
            padded = [*record, *[""] * width][:width]
            error = f"{len(record)} fields where the header has {width}"
            yield Row(number, begin, dict(zip(header, padded, strict=True)), tuple(record), error)


def _open_jsonl(lines: Lines, name: str) -> tuple[list[str], Iterator[Row]]:
    rows = _jsonl_rows(lines)
    ahead: list[Row] = []
    for row in rows:
        ahead.append(row)
        if row.error is None:
            break
        if len(ahead) == _FIRST_RECORD_WITHIN:
            raise InputError(
                f"{name}: none of the first {_FIRST_RECORD_WITHIN:,} lines is a JSON object (line {ahead[0].line}: "
                f"{ahead[0].error}). Name the file's format with --format."
            )
    if not ahead:
        raise InputError(f"{name} is empty. Expected one JSON object per line.")
    return list(ahead[-1].fields), _chained(ahead, rows)


def _chained(ahead: list[Row], rows: Iterator[Row]) -> Iterator[Row]:
    yield from ahead
    ahead.clear()
    yield from rows


def _jsonl_rows(lines: Lines) -> Iterator[Row]:
    number = 0
    held = 0
    for line in lines:
        lines.start_record()
        raw = line.removesuffix("\n").removesuffix("\r")
        if not raw.strip(JSON_SPACE):  # blank lines count unless nothing follows them
            held += 1
            continue
        for back in range(held, 0, -1):
            number += 1
            yield Row(number, lines.number - back, {}, "", "empty line")
        held = 0
        number += 1
        fields, error = _parse_json(raw)
        yield Row(number, lines.number, fields, raw, error)


def _parse_json(raw: str) -> tuple[dict[str, Any], str | None]:
    """Return the record's fields, and why it cannot be used. Fields are given only if the line is a sound object."""
    try:
        value = _DECODER.decode(raw)
    except RecursionError:
        return {}, f"nested more than {MAXIMUM_DEPTH} levels deep"
    except _RefusedJsonError as error:
        return {}, str(error)
    except ValueError:
        return {}, "not valid JSON"
    if not isinstance(value, dict):
        return {}, f"a JSON {_json_type(value)} where an object is expected"
    if raw.count("{") + raw.count("[") > MAXIMUM_DEPTH and _deeper_than(value, MAXIMUM_DEPTH):
        return {}, f"nested more than {MAXIMUM_DEPTH} levels deep"
    return value, None


class _RefusedJsonError(ValueError):
    """JSON that Python would read, but other readers would not."""


def _number(text: str) -> Number:
    if len(text) > _MAXIMUM_DIGITS:
        raise _RefusedJsonError(f"a number of more than {_MAXIMUM_DIGITS} digits")
    return Number(text)


def _constant(name: str) -> Any:
    raise _RefusedJsonError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_constant)


def _json_type(value: Any) -> str:
    if isinstance(value, Number):
        return "number"
    names = {str: "string", bool: "boolean", list: "array", type(None): "null", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _deeper_than(value: Any, levels: int) -> bool:
    layer: list[Any] = [value]
    for _ in range(levels):
        layer = [
            part
            for item in layer
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
            if isinstance(part, (dict, list))
        ]
        if not layer:
            return False
    return True
