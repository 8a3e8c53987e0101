"""Rows on their way from a reader to a writer, in blocks. Knows no file formats.

A reader hands out blocks of consecutive rows in whatever form is cheapest for it; a writer asks for the view that it
needs: cells (text), objects (one line of JSON each) or fields (columns to values). Each format has one of these for
nothing, and the others by way of the fields.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewren.errors import InputError


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


class Block(ABC):
    """Consecutive rows of one file.

    Attributes:
        source: name of the file; "" where there is none.
        first: number of the first row.
        errors: index in the block to the reason why that row cannot be used.
        characters: about what the rows take, in characters as they stood in the file or bytes; bounds memory.
    """

    def __init__(self, source: str, first: int, errors: Mapping[int, str], characters: int) -> None:
        self.source = source
        self.first = first
        self.errors = errors
        self.characters = characters

    @abstractmethod
    def __len__(self) -> int:
        """Rows."""

    @abstractmethod
    def row(self, index: int) -> Row:
        """Return one row with all that is known about it."""

    @abstractmethod
    def values(self, column: str) -> list[Any]:
        """Return one column; None where a row has no such field."""

    def text_values(self, column: str) -> list[Any]:
        """Return one column as `values`, but where it is the one that holds the texts."""
        return self.values(column)

    def texts(self, column: str) -> tuple[list[str], dict[int, str]]:
        """Return one column's texts, "" where a row cannot be used, and why it cannot."""
        values = self.text_values(column)
        problems = dict(self.errors)
        if not set(map(type, values)) <= {str}:
            for index, value in enumerate(values):
                if type(value) is str:
                    continue
                values[index] = ""
                if index not in problems:
                    found = json_text(value)[:60] if column in self.row(index).fields else "missing"
                    problems[index] = f"{column} is {found}, expected text"
        for index in self.errors:
            values[index] = ""
        return values, problems

    def cells(self, columns: Sequence[str]) -> list[list[str]]:
        """Return each row's values as the texts of CSV fields.

        Raises:
            InputError: a row has a key that is no column.
        """
        rows = [self.row(index) for index in range(len(self))]
        self.check_known(columns)
        return [[cell_text(row.fields.get(column)) for column in columns] for row in rows]

    def objects(self) -> list[str]:
        """Return each row as a JSON object on one line; "{}" where nothing could be read."""
        return [json_text(dict(self.row(index).fields)) for index in range(len(self))]

    def check_known(self, columns: Sequence[str]) -> None:
        """Check that no row has a key that is no column.

        Raises:
            InputError: one has.
        """
        known = frozenset(columns)
        for index in range(len(self)):
            row = self.row(index)
            if not known.issuperset(row.fields):
                extra = next(key for key in row.fields if key not in known)
                raise InputError(
                    f"{self.source}: Row {row.number} (line {row.line}) has the key {extra!r}, which the first records "
                    "of the first input do not have, so there is no column for it. Write with --output-format jsonl."
                )

    def rest(self) -> None:  # noqa: B027  most blocks hold nothing else
        """Keep no more than the rows as they stood, from which all else can be had again.

        As objects they take ten times their text, and Python's garbage collector goes through them all the time.
        """

    def taken(self, names: Collection[str]) -> str | None:
        """Return a name that some row has as a key, beyond the table's own columns, or None."""
        del names
        return None


_JSON = json.JSONEncoder(ensure_ascii=False, default=str).encode  # `json.dumps` would make one for each value
_JSON_TYPES = (bool, int, float, dict, list, tuple)


def json_text(value: Any) -> str:
    """Return a value as JSON text, numbers in their own spelling; NaN and infinity, unknown to JSON, as null; bytes in
    hexadecimal.
    """
    if type(value) is str:  # most values
        return _JSON(value)
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join([f"{_JSON(str(key))}: {json_text(part)}" for key, part in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join([json_text(part) for part in value]) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    if isinstance(value, bytes):
        return f'"{value.hex()}"'
    return _JSON(value)


def cell_text(value: Any) -> str:
    """Return a value as the text of a CSV field: text and numbers as they are, nothing for null, else JSON."""
    if isinstance(value, str):
        return str(value)
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json_text(value) if isinstance(value, _JSON_TYPES) else str(value)
