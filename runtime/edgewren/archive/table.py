"""An opened file as rows, and what turns rows into a file's bytes. Knows no particular format: `formats` has those."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

from edgewren.archive.lines import ByteSource
from edgewren.archive.rows import Block, Row
from edgewren.errors import InputError, UsageError
from edgewren.text import repair

Position = Mapping[str, int]
"""How far a table was read, in the format's own terms: enough to go on from there another time."""

BLOCK_CHARACTERS = 2 * 2**20
"""A block that has come to this many characters is handed out, however few rows it has."""

_Record = TypeVar("_Record")

_ROWS_AT_ONCE = 1024
_MOST_ROWS_A_STEP = 64
_MAXIMUM_BLANK_LINES = 1_000_000


class Table(ABC):
    """An opened file: its columns, and its rows in blocks or one by one. Made by `readers.open_table`.

    Attributes:
        name: the path as given, or "standard input".
        format: name of the format.
        columns: header names; for JSONL the keys of the first records.
        schema: the columns' types, where the format has any; files read into one output must agree in it.
    """

    format: str
    schema: tuple[str, ...] | None = None

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        self.name = name
        self.columns = list(columns)

    @abstractmethod
    def read(self, rows: int) -> Block | None:
        """Return the next block, None at the end.

        It has about as many rows as asked for: fewer if they are long, more where a format cannot stop there. How
        many depends on the file's content alone, not on how it was read so far.

        Raises:
            InputError: the file cannot be read on.
        """

    @property
    @abstractmethod
    def position(self) -> Position:
        """Where the next block begins."""

    @property
    @abstractmethod
    def rows_read(self) -> int:
        """Rows handed out so far, those before the position it was opened at included."""

    @property
    @abstractmethod
    def bytes_read(self) -> int:
        """Bytes of the file read so far, as it lies on disk."""

    @abstractmethod
    def seen(self) -> tuple[int, str]:
        """Return how many bytes from the file's start on were read, and their SHA-256, hexadecimal: all of them, once
        all rows were read. A format that does not read from start to end counts the whole file from the start on.
        """

    def why_missing(self, column: str) -> str:
        """Return why a column may not be there, and what to do about it, in sentences; "" where nothing tells."""
        del column
        return ""

    def sha256(self) -> str:
        """Return the SHA-256 of what was `seen`, hexadecimal."""
        return self.seen()[1]

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __iter__(self) -> Iterator[Row]:
        while (block := self.read(_ROWS_AT_ONCE)) is not None:
            for index in range(len(block)):
                yield block.row(index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SourceTable(Table):
    """A table that comes from a `ByteSource` read from its start to its end."""

    def __init__(self, source: ByteSource, columns: Sequence[str]) -> None:
        super().__init__(source.name, columns)
        self._source = source

    @property
    def bytes_read(self) -> int:
        return self._source.bytes_read

    def seen(self) -> tuple[int, str]:
        return self._source.bytes_read, self._source.sha256()

    def close(self) -> None:
        self._source.close()


class RecordTable(SourceTable, Generic[_Record]):
    """A table of records that are read one after another."""

    @abstractmethod
    def take(self, records: list[_Record], wanted: int) -> None:
        """Append the next records: so many, fewer only at the end."""

    @abstractmethod
    def is_blank(self, record: _Record) -> bool:
        """Whether the record is a blank line: a row where others follow, nothing at the end."""

    def beyond(self, records: list[_Record]) -> int:
        """Return what records take beyond their characters, in characters."""
        del records
        return 0

    def records(self, rows: int) -> tuple[list[_Record], int]:
        """Return the records of the next block, none at the end, and what they take, in characters.

        The block ends at no blank line.
        """
        records: list[_Record] = []
        start = self.position["characters"]
        beyond = 0
        step = 1
        while True:
            before = len(records)
            wanted = min(step, max(rows - before, 1))
            self.take(records, wanted)
            beyond += self.beyond(records[before:])
            characters = self.position["characters"] - start + beyond
            if len(records) - before < wanted:
                while records and self.is_blank(records[-1]):
                    records.pop()
                return records, characters
            # Records may be long: go on by few, and by fewer the closer the block's end is.
            left = (BLOCK_CHARACTERS - characters) * len(records) // (4 * max(characters, 1))
            step = max(1, min(2 * step, _MOST_ROWS_A_STEP, left))
            if (len(records) >= rows or characters >= BLOCK_CHARACTERS) and not self.is_blank(records[-1]):
                return records, characters
            if len(records) > rows + _MAXIMUM_BLANK_LINES:
                raise InputError(
                    f"{self.name}: more than {_MAXIMUM_BLANK_LINES:,} empty lines in a row, after row "
                    f"{self.rows_read:,}. Check the file."
                )


@dataclass(frozen=True)
class Added:
    """What scoring adds to a block, one entry per row.

    Attributes:
        labels: None where a row was rejected.
        scores: columns of numbers in their shortest spelling: the label's, then each label's; None as above.
        statuses: text.
    """

    labels: Sequence[str | None]
    scores: Sequence[Sequence[str | None]]
    statuses: Sequence[str]


class Encoder(ABC):
    """Turns rows with added columns into bytes that can be appended to each other. Made for one output."""

    spreadsheets: ClassVar[bool] = False
    """Whether spreadsheet programs open these files and take some texts for formulas (`excel_safe`)."""
    excel_safe: bool = False
    """Whether to put an apostrophe before such texts."""
    prefixed: int = 0
    """Texts that got one."""
    seals: ClassVar[bool] = False
    """Whether what was appended is turned into the final file in one pass at the end (`seal`, `count_sealed`)."""

    @abstractmethod
    def header(self) -> bytes:
        """Return what the file begins with."""

    @abstractmethod
    def encode(self, block: Block, added: Added) -> bytes:
        """Return the bytes of a block.

        Raises:
            InputError: a row has a key that is no column, and the format has no place for it.
        """

    def count(self, chunks: Iterator[bytes]) -> int:
        """Return how many rows finished bytes hold, counted from the bytes alone, the header left out."""
        raise NotImplementedError

    def seal(self, appended: Path, write: Callable[[bytes], None]) -> None:
        """Write the final file from what was appended."""
        raise NotImplementedError

    def count_sealed(self, end: Callable[[int], bytes]) -> int:
        """Return how many rows a final file says that it holds; -1 if it is none. `end` gives its last bytes."""
        raise NotImplementedError


def first_nameless(names: Sequence[str]) -> int | None:
    """Return the place of the first column that has a blank for a name, if there is one.

    An empty name before others is that of row names: pandas' `to_csv` and R's `write.csv` put them there.
    """
    row_names = len(names) > 1 and not names[0]
    return next((place for place, name in enumerate(names) if not name.strip() and not (row_names and not place)), None)


def column_names(table: Table, *, blank: bool = False) -> list[str]:
    """Return the names of a table's columns for a format that begins with them, lone surrogates repaired.

    Args:
        blank: whether the format has columns whose names are blank.

    Raises:
        UsageError: what is written could not be read back: a name is blank, or two are the same once repaired.
    """
    names: dict[str, None] = {}
    nameless = None if blank else first_nameless(table.columns)
    for place, key in enumerate(table.columns):
        name = repair(key)
        if name in names or place == nameless:
            why = "another one is the same with invalid Unicode repaired" if name in names else "it is blank"
            raise UsageError(
                f"{table.name} has the key {key!r}, which cannot be the name of a column: {why}. Write with "
                "--output-format jsonl."
            )
        names[name] = None
    return list(names)


@dataclass(frozen=True)
class Opening:
    """How a file is to be opened.

    Attributes:
        source: path, or "-" for standard input.
        encoding: of its text.
        position: where to go on; None: at the start.
    """

    source: str | Path
    encoding: str = "utf-8"
    position: Position | None = None


@dataclass(frozen=True)
class Format:
    """One file format: a module in `formats` has one as `FORMAT`, and nothing else has to know of it.

    Attributes:
        name: for --format.
        suffixes: of file names, without that of a compression.
        open: opens a file as a table.
        looks_like: whether the start of a file's text can only be this format, where the suffix does not tell enough;
            None: never by looking.
        encoder: makes an encoder from the input's columns, its schema's table and the added names; None: not written.
        written_as: name of the format that is written where no other was asked for.
        packable: whether files of this format may be packed.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[Opening], Table]
    looks_like: Callable[[str], bool] | None = None
    encoder: Callable[[Table, Sequence[str]], Encoder] | None = None
    written_as: str | None = None
    packable: bool = True
