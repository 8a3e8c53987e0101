"""The inputs of a run: which files, in which order, one after another as blocks, each checked against the first.

Knows no formats and no models. `Place` says how far the inputs were read, and what was seen on the way, so that a later
run can make sure that it goes on in the same files.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewren.archive.direct import is_direct
from edgewren.archive.lines import check_there
from edgewren.archive.readers import STDIN, Block, Table, open_table, resolve_format
from edgewren.errors import InputError, ResumeError, UsageError

_CHUNK_BYTES = 1 << 20
_PATTERN = frozenset("*?[")


def expand(sources: Sequence[str | Path], *, but: Collection[Path] = ()) -> list[str]:
    """Return the files that some names and glob patterns stand for: names in their order, a pattern's files sorted.

    A file that several patterns match comes once; names are taken as they are. `**` goes into folders.

    Args:
        sources: paths, patterns, or "-".
        but: files that no pattern matches: the run's own output.

    Raises:
        UsageError: there are none, or standard input comes twice.
        InputError: a pattern matches no file.
    """
    found: list[str] = []
    excluded = {os.path.realpath(path) for path in but}
    for source in map(str, sources):
        if source == STDIN or not _PATTERN & set(source) or os.path.exists(source):  # noqa: PTH110
            found.append(source)
            continue
        matches = sorted(name for name in glob.glob(source, recursive=True) if Path(name).is_file())  # noqa: PTH207
        matches = [name for name in matches if os.path.realpath(name) not in excluded]
        if not matches:
            raise InputError(f"No file matches {source!r}. Check the pattern and the folder.")
        known = {os.path.realpath(name) for name in found}
        found.extend(name for name in matches if os.path.realpath(name) not in known)
    if not found:
        raise UsageError("There is no input. Name at least one file, or - for standard input.")
    if found.count(STDIN) > 1:
        raise UsageError("Standard input (-) is named more than once. It can be read only once.")
    return found


def comes_once(source: str) -> bool:
    """Return whether an input gives its bytes only once: standard input, a pipe, a device."""
    return source == STDIN or is_direct(source)


def check_column(table: Table, column: str, option: str) -> None:
    """Check that a table has a column.

    Raises:
        InputError: it has not; the message names the columns that it has and the likeliest of them.
    """
    if column in table.columns:
        return
    why = table.why_missing(column)
    if why:
        raise InputError(f"{table.name} has no column {column!r}. {why}")
    close = difflib.get_close_matches(column.lower(), [name.lower() for name in table.columns], n=1, cutoff=0.6)
    named = [name for name in table.columns if close and name.lower() == close[0]]
    hint = f" Did you mean {named[0]!r}?" if named else ""
    listed = ", ".join(repr(name)[1:-1] for name in table.columns[:50]) or "none"
    others = ", or read the lines' own keys with --format jsonl: as tweets they have these alone"
    raise InputError(
        f"{table.name} has no column {column!r}.{hint} It has: {listed}. Name one with {option}"
        f"{others if table.format == 'twitter' else ''}."
    )


@dataclass(frozen=True)
class Finished:
    """An input that was read to its end."""

    path: str
    format: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Place:
    """How far the inputs were read.

    Attributes:
        index: of the input that is being read.
        position: in that input; None: at its start.
        bytes_read, sha256: what was read of it so far, as it lies on disk, to find the position; it may be more than
            the position needs.
        bytes_before: of the inputs before it.
    """

    index: int = 0
    position: Mapping[str, int] | None = None
    bytes_read: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    bytes_before: int = 0

    @property
    def bytes_behind(self) -> int:
        """Bytes of all inputs that were read on the way here."""
        return self.bytes_before + (self.bytes_read if self.position else 0)


class Inputs:
    """Some files one after another.

    Args:
        sources: paths or "-", as `expand` returns them.
        format: of all of them, or None.
        encoding: of their text.
        text_column: which each must have.
        added: names of the added columns, which none may have.

    Attributes:
        finished: inputs that were read to their end, the first ones.

    Raises:
        InputError: a file is missing.
        UsageError: the format of one cannot be told.
    """

    first: Table
    """The first one, once it is open."""

    def __init__(
        self,
        sources: Sequence[str],
        *,
        format: str | None,  # noqa: A002  the word that every caller uses
        encoding: str,
        text_column: str,
        added: Sequence[str],
    ) -> None:
        self.sources = list(sources)
        self._encoding = encoding
        self._text_column = text_column
        self._added = tuple(added)
        self.formats = [resolve_format(source, format, encoding=encoding) for source in self.sources]
        self.finished: list[Finished] = []
        self._bytes_before = 0
        self._index = 0
        self._sizes: dict[str, tuple[int, int]] = {}
        for source in self.sources:
            if source != STDIN:
                check_there(source)
            self._sizes[source] = _size_and_time(source)
        self._table: Table | None = None

    def open(self) -> None:
        """Open the first, and check that the others can be read with it.

        Raises:
            InputError: a file cannot be opened or has no such column.
            UsageError: the files do not have the same columns, or one has an added column's name.
        """
        self.first = self._table = self._open(0, None)
        try:
            for index, source in enumerate(self.sources[1:], 1):
                if not comes_once(source):
                    self._open(index, None).close()  # a mistake shows before anything takes time
        except BaseException:
            self.first.close()
            raise

    @property
    def identity(self) -> list[dict[str, Any]]:
        """What the inputs are, as far as can be told without reading them: names, formats, bytes, time of change."""
        return [
            {"path": source, "format": made, "bytes": self._sizes[source][0], "changed_ns": self._sizes[source][1]}
            for source, made in zip(self.sources, self.formats, strict=True)
        ]

    @property
    def place(self) -> Place:
        """How far the blocks handed out so far go."""
        table = self._table
        if table is None:
            return Place(self._index, bytes_before=self._bytes_before)
        return Place(self._index, dict(table.position), *table.seen(), self._bytes_before)

    def go_on(self, place: Place, finished: Sequence[Finished]) -> None:
        """Go on at a place of an earlier run, after making sure that what it read is still there.

        Raises:
            ResumeError: something in it has changed.
        """
        for done in finished:
            if _sha256(Path(done.path), done.bytes) != done.sha256:
                raise ResumeError(f"{done.path} has changed since it was scored. Start over with --force.")
        if place.index < len(self.sources) and place.sha256:
            source = self.sources[place.index]
            if _sha256(Path(source), place.bytes_read) != place.sha256:
                raise ResumeError(
                    f"{source} has changed in what was scored already. Start over with --force, or restore the file."
                )
        self.first.close()
        self.finished = list(finished)
        self._bytes_before = place.bytes_before
        self._index = place.index
        self._table = None
        if place.index < len(self.sources):
            self._table = self._open(place.index, place.position)

    def blocks(self, rows: int, characters: int) -> Iterator[Block]:
        """Yield the blocks of the next window: until it has come to this many rows, or to so many characters of them.

        Raises:
            InputError, UsageError: as above, or a file cannot be read on.
        """
        while rows > 0 and characters > 0 and self._index < len(self.sources):
            if self._table is None:
                self._table = self._open(self._index, None)
            block = self._table.read(rows)
            if block is None:
                self._finish_table(self._table)
                continue
            taken = block.taken(self._added)
            if taken is not None:
                self._refuse_taken(self._table.name, taken)
            yield block
            rows -= len(block)
            characters -= block.characters

    def close(self) -> None:
        """Close what is open."""
        if self._table is not None:
            self._table.close()

    def _finish_table(self, table: Table) -> None:
        source = self.sources[self._index]
        done = Finished(source, self.formats[self._index], table.rows_read, *table.seen())
        self.finished.append(done)
        self._bytes_before += done.bytes
        table.close()
        self._table = None
        self._index += 1
        if source != STDIN and _size_and_time(source) != self._sizes[source]:
            raise InputError(f"{source} was changed while it was read. Score it again when nobody writes to it.")

    def _open(self, index: int, position: Mapping[str, int] | None) -> Table:
        table = open_table(self.sources[index], format=self.formats[index], encoding=self._encoding, position=position)
        try:
            check_column(table, self._text_column, "--text-column")
            taken = [name for name in self._added if name in table.columns]
            if taken:
                self._refuse_taken(table.name, taken[0])
            if hasattr(self, "first"):
                _check_same_columns(table, self.first)
        except BaseException:
            table.close()
            raise
        return table

    def _refuse_taken(self, name: str, column: str) -> None:
        raise UsageError(
            f"{name} has a column {column!r} already, and scoring adds a column of this name. Give the added "
            "columns other names with --prefix, for example --prefix edgewren_."
        )


def _check_same_columns(table: Table, first: Table) -> None:
    difference = ""
    if table.columns != first.columns and not table.format == first.format == "jsonl":
        missing = [column for column in first.columns if column not in table.columns]
        further = [column for column in table.columns if column not in first.columns]
        difference = "their order differs"
        if missing or further:
            difference = f"it lacks {missing[0]!r}" if missing else f"it also has {further[0]!r}"
    elif table.schema is not None and first.schema is not None and table.schema != first.schema:
        pairs = zip(first.schema, table.schema, strict=True)
        difference = "; ".join(f"{theirs!r} where the first has {ours!r}" for ours, theirs in pairs if ours != theirs)
    if difference:
        raise UsageError(
            f"{table.name} does not have the same columns as {first.name}: {difference}. Score them "
            "one by one, each into its own output."
        )


def _size_and_time(source: str) -> tuple[int, int]:
    if source == STDIN:
        return 0, 0
    try:
        found = Path(source).stat()
    except OSError:
        return 0, 0
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (0, 0)  # a pipe's come and go


def _sha256(path: Path, size: int) -> str | None:
    """Return the hash of a file's first bytes, or None where it has not so many."""
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as stream:
            while size and (data := stream.read(min(size, _CHUNK_BYTES))):
                digest.update(data)
                size -= len(data)
    except OSError:
        return None
    return None if size else digest.hexdigest()
