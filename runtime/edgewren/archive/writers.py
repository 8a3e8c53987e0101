r"""Rows to lines: each input row as it came, with further columns behind it. Knows no models.

CSV and TSV follow RFC 4180 with "\n" as line end; fields are the input's own text. A JSONL row that came from JSONL is
its own line with the new keys put in before the closing brace, so ids, decimals and spelling cannot change.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from edgewren.archive.lines import STDIN
from edgewren.archive.readers import JSON_SPACE, Format, Number, Row, cell_text, format_of, json_text
from edgewren.archive.whole_file import Sink, StandardOutput, WholeFile
from edgewren.errors import InputError, UsageError
from edgewren.text import repair

OutputFormat = Literal["csv", "tsv", "jsonl"]
Value = str | Number | None
"""An added value: text, a number in its own spelling, or nothing."""

REJECTS_SUFFIX = ".rejects.jsonl"


def choose_output_format(output: str | Path | None, requested: str | None, input_format: Format) -> OutputFormat:
    """Return the format to write: as requested, else by OUT's suffix, else the input's (JSONL for Parquet).

    Raises:
        UsageError: unknown format, or one that is only read.
    """
    by_name = None if output is None or str(output) == STDIN else format_of(output)
    match requested or by_name or input_format:
        case "csv":
            return "csv"
        case "tsv":
            return "tsv"
        case "jsonl":
            return "jsonl"
        case "parquet" if requested is None and by_name is None:
            return "jsonl"
        case unknown:
            raise UsageError(
                f"Cannot write format {unknown!r}. Expected csv, tsv or jsonl, by name or --output-format."
            )


class Writer:
    """Writes rows with added columns to a file or standard output. A context manager: an exception discards the file.

    Args:
        output: path; None or "-" for standard output.
        format: "csv", "tsv" or "jsonl".
        columns: the input's columns, in order; every row's further keys are refused in CSV and TSV.
        added: names of the added columns, in order.
        force: whether an existing file may be replaced.

    Raises:
        UsageError: the file exists and force is not set.
        OutputError: it cannot be written.
    """

    def __init__(
        self,
        output: str | Path | None,
        *,
        format: OutputFormat,  # noqa: A002  the word that every caller uses
        columns: Sequence[str],
        added: Sequence[str],
        force: bool = False,
    ) -> None:
        self._format = format
        self._columns = tuple(columns)
        self._known = frozenset(columns)
        self._added = tuple(added)
        self._added_keys = [json.dumps(name, ensure_ascii=False) for name in added]
        self._rejects: WholeFile | None = None
        self._rejects_path: Path | None = None
        self._force = force
        self._sink: Sink
        if output is None or str(output) == STDIN:
            self._sink = StandardOutput()
        else:
            self._rejects_path = Path(f"{output}{REJECTS_SUFFIX}")
            if self._rejects_path.exists() and not force:
                raise UsageError(f"{self._rejects_path} exists already. Use --force to replace it, or move it away.")
            self._sink = WholeFile(output, force=force)
        self._lines: list[str] = []
        self._csv = csv.writer(
            _Collector(self._lines), delimiter="\t" if format == "tsv" else ",", lineterminator="\r\n"
        )
        if format != "jsonl":
            self._csv.writerow([*self._columns, *self._added])

    def write(self, row: Row, values: Sequence[Value]) -> None:
        """Take one row and its added values. It reaches the file with the next `flush`.

        Raises:
            InputError: the row has a key that is no column, and the format has no place for it.
        """
        if self._format == "jsonl":
            self._lines.append(self._json_line(row, values))
            return
        if not self._known.issuperset(row.fields):
            extra = next(key for key in row.fields if key not in self._known)
            raise InputError(
                f"Row {row.number} (line {row.line}) has the key {extra!r}, which the first record does not have, so "
                f"{self._format} has no column for it. Write with --output-format jsonl."
            )
        fields = [cell_text(row.fields.get(column)) for column in self._columns]
        self._csv.writerow([*fields, *("" if value is None else value for value in values)])

    def reject(self, source: str, row: Row, reason: str) -> None:
        """List a rejected row in OUT.rejects.jsonl; on standard output there is no such file."""
        if self._rejects_path is None:
            return
        if self._rejects is None:
            self._rejects = WholeFile(self._rejects_path, force=self._force)
        entry: Mapping[str, object] = {
            "source": source,
            "row": row.number,
            "line": row.line,
            "reason": reason,
            "raw": row.raw if row.raw is not None else row.fields,
        }
        self._rejects.write(_json_bytes(json_text(entry) + "\n"))

    def flush(self) -> None:
        """Hand all rows taken so far to the file. Raises OutputError."""
        lines = "".join(self._lines)
        self._lines.clear()
        if self._format == "jsonl":
            data = _json_bytes(lines)
        else:
            try:
                data = lines.encode()
            except UnicodeEncodeError:
                data = repair(lines).encode()
        self._sink.write(data)
        self._sink.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.flush()
                if self._rejects is not None:
                    self._rejects.finish()
                elif self._rejects_path is not None and self._force:
                    self._rejects_path.unlink(missing_ok=True)  # it would speak of rows of an earlier run
                self._sink.finish()
        finally:
            self._sink.discard()
            if self._rejects is not None:
                self._rejects.discard()

    def _json_line(self, row: Row, values: Sequence[Value]) -> str:
        added = ", ".join(f"{key}: {json_text(value)}" for key, value in zip(self._added_keys, values, strict=True))
        if row.fields and isinstance(row.raw, str):
            return f"{row.raw.rstrip(JSON_SPACE)[:-1]}, {added}}}\n"
        own = json_text(dict(row.fields))[1:-1]
        return f"{{{own}{', ' if own else ''}{added}}}\n"


class _Collector:
    r"""Collects the lines of csv.writer, with "\n" instead of its "\r\n".

    csv.writer quotes a field with "\r" only where "\r" is part of its own line end (Python 3.11): with "\n" as line
    end, a tweet with a lone "\r" would be read back as two rows.
    """

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, line: str) -> int:
        self._lines.append(line[:-2] + "\n")
        return len(line)


def _json_bytes(text: str) -> bytes:
    r"""Encode JSON; lone surrogates, which can stand only inside strings here, become JSON's own \uXXXX."""
    return text.encode("utf-8", "backslashreplace")
