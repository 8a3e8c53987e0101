"""Parquet, by pyarrow, which is imported only here and only when a Parquet file is read or written.

A Parquet file ends with an index of all that it holds, so it cannot be appended to. What is appended while a run goes
on are Arrow streams, one per block; `seal` makes the Parquet file of them in one pass at the end. Any part of that pass
can be lost: it is done again.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewren.archive.lines import STDIN, UTF_8, check_there, checked_encoding, unreadable
from edgewren.archive.rows import Block, Row, cell_text
from edgewren.archive.table import Added, Encoder, Format, Opening, Position, Table, column_names
from edgewren.errors import InputError, MissingDependencyError, UsageError
from edgewren.text import is_unicode, repair

_ROWS_AT_ONCE = 1024
"""Few, since each may hold long texts: memory is bounded by the file's row groups, not by our batches."""

_WRITE_BYTES = 1 << 20
_GROUP_ROWS = 65_536
_GROUP_BYTES = 32 * 2**20
"""Rows and bytes of a row group that is written: large enough for readers, small enough for memory."""


def _arrow(purpose: str) -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs pyarrow, which cannot be imported ({error}). Run: pip install 'edgewren[parquet]'."
        ) from error
    return pa, pq


class _Batch(Block):
    """A batch of Arrow columns."""

    def __init__(self, source: str, first: int, pa: Any, batch: Any) -> None:
        super().__init__(source, first, {}, batch.nbytes)
        self._pa = pa
        self.batch = batch
        self._columns: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        rows: int = self.batch.num_rows
        return rows

    def row(self, index: int) -> Row:
        fields = {name: self._plain(name)[index] for name in self.batch.schema.names}
        return Row(self.first + index, None, fields)

    def values(self, column: str) -> list[Any]:
        return list(self._plain(column))

    def text_values(self, column: str) -> list[Any]:
        found = self.batch.column(column)
        if self._pa.types.is_dictionary(found.type):
            found = found.dictionary_decode()
        if not _is_binary(self._pa, found.type):
            return self.values(column)
        # What is no UTF-8 becomes lone surrogates, which are repaired like any others.
        return [None if value is None else value.decode(errors="surrogateescape") for value in found.to_pylist()]

    def rest(self) -> None:
        self._columns = {}

    def _plain(self, name: str) -> list[Any]:
        if name not in self._columns:
            try:
                self._columns[name] = _plain(self._pa, self.batch.column(name))
            except (self._pa.ArrowException, ValueError, OverflowError) as error:
                raise InputError(
                    f"{self.source}, rows {self.first:,} to {self.first + len(self) - 1:,}: column {name!r} holds "
                    f"what cannot be told as text: {error}. Write Parquet, which keeps it, leave it out, or give it "
                    "another type."
                ) from error
        return self._columns[name]


class _ParquetTable(Table):
    """Text, numbers, booleans, lists and structures arrive as what JSON knows; dates, times and decimals as their text;
    binary values in hexadecimal; float32 and float16 as the number with the fewest digits that gives them back; all of
    them also inside of lists and structures. A binary column of texts (older writers don't say that it is text) is read
    as UTF-8.
    """

    format = "parquet"

    def __init__(self, opening: Opening) -> None:
        source = opening.source
        if str(source) == STDIN:
            raise UsageError("Parquet cannot be read from standard input, since it is read from its end. Name a file.")
        if checked_encoding(opening.encoding) != UTF_8:
            raise UsageError(
                f"--encoding is for CSV, TSV and JSON, but {source} is read as Parquet, whose texts are always UTF-8. "
                "Leave it out, and read files that need it apart."
            )
        pa, pq = _arrow(f"Reading {source}")
        path = Path(source)
        check_there(path)
        if not path.is_file():
            raise InputError(f"{source} is not a file. Check the path.")
        self._errors = (pa.ArrowException, OSError, ValueError)
        try:
            self._stream = path.open("rb")  # pyarrow itself opens no names that are not Unicode
        except OSError as error:
            raise unreadable(source, error) from error
        try:
            self._file: Any = pq.ParquetFile(self._stream)
        except self._errors as error:
            self._stream.close()
            raise InputError(f"{source} is not a sound Parquet file: {error}. Get it again.") from error
        columns = list(self._file.schema_arrow.names)
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice or not columns:
            self.close()
            problem = f"the name {twice[0]!r} belongs to two columns" if twice else "it has no columns"
            raise InputError(f"{source}: {problem}. Expected columns with names of their own.")
        super().__init__(str(source), columns)
        self.arrow_schema = self._file.schema_arrow.remove_metadata()
        self.schema = tuple(f"{field.name}: {field.type}" for field in self.arrow_schema)
        self._pa = pa
        self._path = path
        self._size = path.stat().st_size
        self._total: int = self._file.metadata.num_rows
        self._done = (opening.position or {}).get("rows", 0)
        self._batches = self._read_from(self._done)
        self._waiting: Any = None
        self._sha256 = ""

    @property
    def position(self) -> Position:
        return {"rows": self._done}

    @property
    def rows_read(self) -> int:
        return self._done

    @property
    def bytes_read(self) -> int:
        return self._size * self._done // max(self._total, 1)

    def seen(self) -> tuple[int, str]:
        if not self._sha256:
            with self._path.open("rb") as stream:
                self._sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return self._size, self._sha256

    def close(self) -> None:
        self._file.close()
        self._stream.close()

    def read(self, rows: int) -> Block | None:
        batch = self._waiting
        self._waiting = None
        if batch is None:
            try:
                batch = next(self._batches, None)
            except self._errors as error:
                raise InputError(
                    f"{self.name} cannot be read after row {self._done}: {error}. Get the file again."
                ) from error
        if batch is None:
            if self._done != self._total:
                raise InputError(
                    f"{self.name} announces {self._total} rows and holds {self._done}. Get the file again."
                )
            return None
        if batch.num_rows > rows:
            batch, self._waiting = batch.slice(0, rows), batch.slice(rows)
        block = _Batch(self.name, self._done + 1, self._pa, batch)
        self._done += batch.num_rows
        return block

    def _read_from(self, rows: int) -> Iterator[Any]:
        """Yield batches from a row on; row groups before it are not read. Batches end where row groups do."""
        for group in range(self._file.num_row_groups):
            held = self._file.metadata.row_group(group).num_rows
            if rows >= held:
                rows -= held
                continue
            for batch in self._file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=[group]):
                if rows >= batch.num_rows:
                    rows -= batch.num_rows
                    continue
                yield batch.slice(rows)
                rows = 0


def _is_binary(pa: Any, kind: Any) -> bool:
    types = pa.types
    known = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(check(kind) for check in known)


def _is_list(pa: Any, kind: Any) -> bool:
    types = pa.types
    known = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(check(kind) for check in known)


def _plain(pa: Any, column: Any) -> list[Any]:
    """Return a column's values as what JSON knows.

    Raises:
        ValueError: a date or time so far away that Arrow has no text for it, or a structure with two fields of a name.
    """
    types = pa.types
    kind = column.type
    if types.is_dictionary(kind):
        return _plain(pa, column.dictionary_decode())
    if _is_binary(pa, kind):
        return [None if value is None else value.hex() for value in column.to_pylist()]
    if _is_list(pa, kind):
        items = iter(_plain(pa, column.flatten()))
        sizes = column.value_lengths().to_pylist()
        return [None if size is None else list(itertools.islice(items, size)) for size in sizes]
    if types.is_map(kind):
        rows = _plain(pa, column.cast(pa.list_(kind.field(0).type)))
        return [None if row is None else [tuple(entry.values()) for entry in row] for row in rows]
    if types.is_struct(kind):
        return _structures(pa, column)
    if types.is_float32(kind):
        column = column.cast(pa.string()).cast(pa.float64())
    elif types.is_float16(kind):
        return [None if value is None else float(str(np.float16(value))) for value in column.to_pylist()]
    elif types.is_temporal(kind) or types.is_decimal(kind):
        return _texts(column.cast(pa.string()).to_pylist())
    values: list[Any] = column.to_pylist()
    return values


def _structures(pa: Any, column: Any) -> list[dict[str, Any] | None]:
    names = [field.name for field in column.type]
    if len(set(names)) < len(names):
        raise ValueError(f"a structure has two fields of one name: {', '.join(names)}")
    rows = zip(*(_plain(pa, part) for part in column.flatten()), strict=True)
    there = column.is_valid().to_pylist()
    return [dict(zip(names, row, strict=True)) if valid else None for valid, row in zip(there, rows, strict=True)]


def _texts(values: list[str | None]) -> list[str | None]:
    strange = next((value for value in values if value and value.startswith("<")), None)
    if strange is not None:  # Arrow's words, not the value's text: years beyond -32,767 to 32,767
        raise ValueError(strange.strip("<>"))
    return values


class ParquetEncoder(Encoder):
    """Parquet's own columns keep their types; those of other formats are text. Scores are float32."""

    seals = True

    def __init__(self, table: Table, added: Sequence[str]) -> None:
        self._pa, self._pq = _arrow("Writing Parquet")
        pa = self._pa
        self._columns = list(table.columns)
        self._added = list(added)
        fields = (
            [field.with_nullable(True) for field in table.arrow_schema]  # a later file may have nulls
            if isinstance(table, _ParquetTable)
            else [pa.field(name, pa.string()) for name in column_names(table, blank=True)]
        )
        kinds = [pa.string(), *[pa.float32()] * (len(self._added) - 2), pa.string()]
        fields += [pa.field(name, kind) for name, kind in zip(self._added, kinds, strict=True)]
        self._schema = pa.schema(fields)

    def header(self) -> bytes:
        return b""

    def encode(self, block: Block, added: Added) -> bytes:
        pa = self._pa
        if isinstance(block, _Batch):
            arrays = list(block.batch.columns)
        else:
            block.check_known(self._columns)
            arrays = [
                pa.array(
                    [None if value is None else _valid(cell_text(value)) for value in block.values(name)], pa.string()
                )
                for name in self._columns
            ]
        arrays.append(pa.array(added.labels, pa.string()))
        arrays.extend(
            pa.array([None if value is None else float(value) for value in column], pa.float32())
            for column in added.scores
        )
        arrays.append(pa.array([_valid(status) for status in added.statuses], pa.string()))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def count_sealed(self, end: Callable[[int], bytes]) -> int:
        length = int.from_bytes(end(8)[:4], "little")
        footer = end(length + 8)
        if footer[-4:] != b"PAR1" or len(footer) < length + 8:
            return -1
        rows: int = self._pq.read_metadata(io.BytesIO(b"PAR1" + footer)).num_rows
        return rows

    def seal(self, appended: Path, write: Callable[[bytes], None]) -> None:
        stream = _Stream(write)
        try:
            with self._pq.ParquetWriter(stream, self._schema, compression="zstd") as writer:
                waiting: list[Any] = []
                for batch in self._appended(appended):
                    waiting.append(batch)
                    rows = sum(part.num_rows for part in waiting)
                    if rows >= _GROUP_ROWS or sum(part.nbytes for part in waiting) >= _GROUP_BYTES:
                        writer.write_table(self._pa.Table.from_batches(waiting, self._schema), row_group_size=rows)
                        waiting = []
                if waiting:
                    writer.write_table(self._pa.Table.from_batches(waiting, self._schema), row_group_size=2**30)
            stream.hand_on()
        finally:
            stream.ended = True

    def _appended(self, path: Path) -> Iterator[Any]:
        size = path.stat().st_size
        with path.open("rb") as file, self._pa.PythonFile(file, "r") as stream:
            while stream.tell() < size:
                with self._pa.ipc.open_stream(stream) as reader:
                    yield from reader


class _Stream(io.RawIOBase):
    """A file for pyarrow whose bytes go to a function, in large pieces.

    After an error pyarrow's writer still writes its footer, when it is collected some time later; `ended` keeps that
    from a file that is closed by then, and whose descriptor may be another file's.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._write = write
        self._position = 0
        self._waiting = bytearray()
        self.ended = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any, /) -> int:
        taken = len(data)
        if not self.ended:
            self._waiting += data
            self._position += taken
            if len(self._waiting) >= _WRITE_BYTES:
                self.hand_on()
        return taken

    def hand_on(self) -> None:
        """Write what waits."""
        data = bytes(self._waiting)
        self._waiting.clear()
        self._write(data)


def _valid(text: str) -> str:
    """Return text that Arrow takes: lone surrogates are repaired."""
    return text if is_unicode(text) else repair(text)


FORMAT = Format("parquet", (".parquet", ".pq"), open=_ParquetTable, encoder=ParquetEncoder, packable=False)
