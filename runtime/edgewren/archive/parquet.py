"""Parquet to rows, by pyarrow, which is imported only here and only when a Parquet file is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewren.archive.lines import STDIN
from edgewren.archive.readers import Row, Table
from edgewren.errors import InputError, MissingDependencyError, UsageError

_ROWS_AT_ONCE = 1024
"""Few, since each may hold long texts: memory is bounded by the file's row groups, not by our batches."""


def open_parquet(source: str | Path) -> Table:
    """Open a Parquet file for reading row by row.

    Text, numbers, booleans, lists and structures arrive as what JSON knows; dates, times and decimals as their text;
    binary values in hexadecimal.

    Raises:
        InputError: the file is missing, a folder, or not sound Parquet; or two of its columns share a name.
        MissingDependencyError: pyarrow is not installed.
        UsageError: standard input, since Parquet is read from its end.
    """
    if str(source) == STDIN:
        raise UsageError("Parquet cannot be read from standard input, since it is read from its end. Name the file.")
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading {source} needs pyarrow, which cannot be imported ({error}). Run: pip install 'edgewren[parquet]'."
        ) from error
    path = Path(source)
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{source} {what}. Check the path.")
    errors = (pa.ArrowException, OSError, ValueError)
    try:
        file: Any = ParquetFile(path)
    except errors as error:
        raise InputError(f"{source} is not a sound Parquet file: {error}. Get it again.") from error
    columns = list(file.schema_arrow.names)
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice or not columns or "" in columns:
        file.close()
        problem = f"the name {twice[0]!r} belongs to two columns" if twice else "a column has no name"
        raise InputError(f"{source}: {problem}. Expected columns with names of their own.")
    total: int = file.metadata.num_rows
    size = path.stat().st_size
    done = 0

    def rows() -> Iterator[Row]:
        nonlocal done
        try:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                values = [_plain(pa, column) for column in batch.columns]
                for record in zip(*values, strict=True):
                    done += 1
                    yield Row(done, None, dict(zip(columns, record, strict=True)))
        except errors as error:
            raise InputError(f"{source} cannot be read after row {done}: {error}. Get the file again.") from error
        if done != total:
            raise InputError(f"{source} announces {total} rows and holds {done}. Get the file again.")

    def bytes_read() -> int:
        return size * done // max(total, 1)

    def sha256() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return Table(str(source), "parquet", columns, rows(), bytes_read=bytes_read, sha256=sha256, close=file.close)


def _plain(pa: Any, column: Any) -> list[Any]:
    """Return a column's values as what JSON knows."""
    types = pa.types
    kind = column.type
    if types.is_dictionary(kind):
        return _plain(pa, column.dictionary_decode())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [None if value is None else value.hex() for value in column.to_pylist()]
    if types.is_temporal(kind) or types.is_decimal(kind):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values
