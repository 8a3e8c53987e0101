r"""JSONL: one JSON object per line, lines ended by "\n" alone.

A row that came from JSONL is written as its own line, with the new keys put in before the closing brace, so ids,
decimals and spelling cannot change.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from edgewren.archive import lines as lines_module
from edgewren.archive.json_records import JSON_SPACE, parse_object
from edgewren.archive.lines import ByteSource, Lines, packing_of
from edgewren.archive.rows import Block, Row, cell_text
from edgewren.archive.table import Added, Encoder, Format, Opening, Position, RecordTable, Table
from edgewren.errors import InputError

_HEAD_LINES = 1000
_HEAD_CHARACTERS = 1 << 20
"""Columns are the keys within the first lines: no more than these, and no more than that many characters, up to the
longest record where none of them is sound."""


class Records(Block):
    """Parsed lines."""

    def __init__(self, source: str, first: int, line: int, raw: list[str], characters: int) -> None:
        errors: dict[int, str] = {}
        records: list[dict[str, Any]] = []
        for index, text in enumerate(raw):
            fields, error = parse_object(text)
            if error is not None:
                errors[index] = error if text.strip(JSON_SPACE) else "empty line"
            records.append(fields)
        super().__init__(source, first, errors, characters)
        self._line = line
        self._raw = raw
        self._parsed: list[dict[str, Any]] | None = records

    def __len__(self) -> int:
        return len(self._raw)

    @property
    def _records(self) -> list[dict[str, Any]]:
        if self._parsed is None:
            self._parsed = [parse_object(text)[0] for text in self._raw]
        return self._parsed

    def rest(self) -> None:
        self._parsed = None

    def row(self, index: int) -> Row:
        raw = self._raw[index]
        fields = parse_object(raw)[0] if self._parsed is None else self._parsed[index]
        return Row(self.first + index, self._line + index, fields, raw, self.errors.get(index))

    def values(self, column: str) -> list[Any]:
        return [record.get(column) for record in self._records]

    def cells(self, columns: Sequence[str]) -> list[list[str]]:
        self.check_known(columns)
        return [[cell_text(record.get(column)) for column in columns] for record in self._records]

    def objects(self) -> list[str]:
        if not self.errors:
            return self._raw
        return ["{}" if index in self.errors else raw for index, raw in enumerate(self._raw)]

    def check_known(self, columns: Sequence[str]) -> None:
        known = frozenset(columns)
        if not all(map(known.issuperset, self._records)):
            super().check_known(columns)

    def taken(self, names: Collection[str]) -> str | None:
        known = frozenset(names)
        if all(map(known.isdisjoint, self._records)):
            return None
        return next(name for record in self._records for name in names if name in record)


class _JsonlTable(RecordTable[str]):
    format = "jsonl"

    def __init__(self, opening: Opening) -> None:
        source = ByteSource(opening.source)
        try:
            self._lines = _lines(source, opening, 0)
            self._number = self._row = 0
            self._ahead: list[str] = []
            columns = self._head_keys(source.name)
            if opening.position is not None:
                source.close()
                source = ByteSource(opening.source)
                self._lines = _lines(source, opening, opening.position["characters"])
                self._number, self._row = opening.position["line"], opening.position["rows"]
                self._ahead = []
        except BaseException:
            source.close()
            raise
        super().__init__(source, columns)

    @property
    def position(self) -> Position:
        ahead = sum(map(len, self._ahead))
        return {"characters": self._lines.position - ahead, "rows": self._row, "line": self._number}

    @property
    def rows_read(self) -> int:
        return self._row

    def read(self, rows: int) -> Block | None:
        found, characters = self.records(rows)
        if not found:
            return None
        first, line = self._row + 1, self._number + 1
        self._row += len(found)
        self._number += len(found)
        raw = [text.removesuffix("\n").removesuffix("\r") for text in found]
        return Records(self.name, first, line, raw, characters)

    def take(self, records: list[str], wanted: int) -> None:
        self._lines.records = records
        ahead = self._ahead[:wanted]
        del self._ahead[:wanted]
        records.extend(ahead)
        records.extend(itertools.islice(self._lines.iterator, wanted - len(ahead)))

    def is_blank(self, record: str) -> bool:
        return not record.strip(JSON_SPACE)

    def _head_keys(self, name: str) -> list[str]:
        """Return the keys of the first lines' sound records, as they come, and keep what was read to find them."""
        problem, characters = "", 0
        keys: dict[str, None] = {}
        sound = more = False
        for line in self._lines.iterator:
            self._ahead.append(line)
            self._lines.records = self._ahead
            characters += len(line)
            fields, error = parse_object(line)
            if error is None:
                sound = True
                keys.update(dict.fromkeys(fields))
            else:
                problem = problem or f"line {len(self._ahead)}: {error if line.strip(JSON_SPACE) else 'empty line'}"
            limit = _HEAD_CHARACTERS if sound else lines_module.MAXIMUM_RECORD_CHARACTERS
            more = len(self._ahead) == _HEAD_LINES or characters >= limit
            if more:
                break
        if not sound and not "".join(self._ahead).strip(JSON_SPACE):
            raise InputError(f"{name} is empty. Expected one JSON object per line.")
        if not sound and more:
            raise InputError(
                f"{name}: none of the first {len(self._ahead):,} lines is a JSON object ({problem}). Name the "
                "file's format with --format."
            )
        return list(keys)


def _lines(source: ByteSource, opening: Opening, skip: int) -> Lines:
    return Lines(source, encoding=opening.encoding, packed=packing_of(source), only_newline=True, skip=skip)


class JsonlEncoder(Encoder):
    """One JSON object per line."""

    def __init__(self, _table: Table, added: Sequence[str]) -> None:
        quoted = [json.dumps(name, ensure_ascii=False).replace("%", "%%") for name in added]
        self._tail = ", ".join(f"{name}: %s" for name in quoted) + "}\n"

    def header(self) -> bytes:
        return b""

    def encode(self, block: Block, added: Added) -> bytes:
        labels = _quoted(added.labels)
        scores = [["null" if value is None else value for value in column] for column in added.scores]
        statuses = _quoted(added.statuses)
        tails = [self._tail % values for values in zip(labels, *scores, statuses, strict=True)]
        bodies = [own.rstrip(JSON_SPACE)[:-1] for own in block.objects()]
        lines = [
            f"{body}, {tail}" if body.strip(JSON_SPACE) != "{" else f"{'{'}{tail}"
            for body, tail in zip(bodies, tails, strict=True)
        ]
        # Lone surrogates, which can stand only inside strings here, become JSON's own \uXXXX.
        return "".join(lines).encode("utf-8", "backslashreplace")

    def count(self, chunks: Iterator[bytes]) -> int:
        return sum(chunk.count(b"\n") for chunk in chunks)


def _quoted(values: Sequence[str | None]) -> list[str]:
    known: dict[str | None, str] = {
        value: json.dumps(value, ensure_ascii=False) for value in set(values)
    }  # few: labels, statuses
    return [known[value] for value in values]


FORMAT = Format("jsonl", (".jsonl", ".ndjson"), open=_JsonlTable, encoder=JsonlEncoder)
