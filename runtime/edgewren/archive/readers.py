"""Files as tables: which format a file has, and how to open it. Knows the formats by their descriptions only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgewren.archive import lines
from edgewren.archive.compression import without_suffix
from edgewren.archive.format_names import TABLES
from edgewren.archive.formats import all_formats
from edgewren.archive.lines import STDIN
from edgewren.archive.rows import Block, Number, Row, cell_text, json_text
from edgewren.archive.table import Format, Opening, Position, Table
from edgewren.errors import InputError, UsageError

__all__ = [
    "STDIN",
    "Block",
    "Number",
    "Row",
    "Table",
    "cell_text",
    "format_of",
    "json_text",
    "open_table",
    "resolve_format",
]

_HEAD_CHARACTERS = 1 << 18
_ZIP = b"PK\x03\x04"
_LOOKED_INTO = (".json", ".js", ".jsonl", ".ndjson", "")
"""Suffixes under which files of several formats come."""


def open_table(
    source: str | Path,
    *,
    format: str | None = None,  # noqa: A002  the word that every caller uses
    encoding: str = "utf-8",
    position: Position | None = None,
    tweets: bool = True,
) -> Table:
    """Open a file for reading row by row, or block by block, in constant memory.

    Args:
        source: path, or "-" for standard input.
        format: one of `format_names.TABLES` or "twitter"; None: by looking for Twitter's own shapes, then by suffix
            (.csv, .tsv, .jsonl, .parquet …), and csv for standard input. gzip, zstd, xz and bzip2 are recognised by
            their first bytes and by .gz, .zst, .xz, .bz2.
        encoding: of the text; UTF-8 with or without byte order mark is the default.
        position: a position of an earlier reading of the same file, to go on there.
        tweets: whether an error should offer "twitter", too, which has no labels.

    Raises:
        InputError: the file is missing, a folder, empty or damaged, not in this encoding, or its header is of no use.
        UsageError: the format cannot be told, or the encoding is unknown.
        MissingDependencyError: Parquet without pyarrow, or zstd without its package.
    """
    chosen = resolve_format(source, format, encoding=encoding, tweets=tweets)
    return all_formats()[chosen].open(Opening(source, encoding, position))


def format_of(path: str | Path, likely: str | None = None) -> str | None:
    """Return the format that a file's name stands for, or None; of several, the likely one, else the plainest."""
    suffix = _suffix(path)
    found = [made.name for made in all_formats().values() if suffix and suffix in made.suffixes]
    return likely if likely in found else next(iter(found), None)


def resolve_format(source: str | Path, requested: str | None, *, encoding: str = "utf-8", tweets: bool = True) -> str:
    """Return the name of the format that a file is read as: as requested, else by looking, else by its name.

    Raises:
        InputError: the file is missing, or a folder.
        UsageError: no such format, or it cannot be told.
    """
    formats = all_formats()
    if requested is not None:
        if requested not in formats:
            raise UsageError(f"Unknown format {requested!r}. Expected one of {', '.join(formats)}.")
        return requested
    if str(source) == STDIN:
        return "csv"
    by_name = format_of(source)
    path = Path(source)
    looked_into = by_name is None or _suffix(source) in _LOOKED_INTO
    if looked_into and os.path.isfile(path):  # noqa: PTH113  a name that is too long is none's; opening it says so
        seen = _seen(path, formats, encoding)
        if seen is not None:
            return seen
    if by_name is not None:
        return by_name
    lines.check_there(path)  # the likelier mistake of the two
    if path.is_dir():
        raise InputError(f"{source} is a folder, expected a file. Name the files in it.")
    offered = "|".join([*TABLES, *["twitter"] * tweets])
    raise UsageError(f"{source}: cannot tell the format from the name. {_guess(path, encoding, offered)}")


def _seen(path: Path, formats: dict[str, Format], encoding: str) -> str | None:
    try:
        head = lines.head(path, encoding=encoding, characters=_HEAD_CHARACTERS)
    except InputError:  # whoever opens it next says so, with more to say
        return None
    return next((made.name for made in formats.values() if made.looks_like is not None and made.looks_like(head)), None)


def _guess(path: Path, encoding: str, offered: str) -> str:
    """Return what a file of no known suffix seems to be, and what to do with it."""
    name_it = f"Name it with --format {offered}."
    if not path.is_file():  # a pipe is read once
        return name_it
    with contextlib.closing(lines.ByteSource(path)) as source:
        if source.first_bytes.startswith(_ZIP):
            return "It is a workbook or a zip archive: save the sheet as CSV (UTF-8), or unpack it."
        marked = lines.marked_encoding(source.first_bytes)
    if marked is not None and lines.checked_encoding(encoding) == lines.UTF_8:
        encoding, name_it = marked, f"{name_it[:-1]}, and --encoding {marked}."
    try:
        start = lines.head(path, encoding=encoding, characters=_HEAD_CHARACTERS).lstrip()
    except InputError:  # it has another encoding, which whoever opens it says
        return name_it
    if start.startswith("["):
        return (
            "It seems to be one JSON array: write one object per line (pandas: to_json(…, orient='records', "
            "lines=True)), and name it .jsonl."
        )
    if start.startswith("{"):
        return f"It seems to hold JSON objects, and one per line is jsonl. {name_it}"
    first = start.partition("\n")[0]
    mark = max("\t;|,", key=first.count)
    return f"Its first line has {first.count(mark)} times {mark!r}. {name_it}" if mark in first else name_it


def _suffix(path: str | Path) -> str:
    return Path(without_suffix(Path(path).name.lower())).suffix
