"""One column of a file, wholly in memory: texts to try a model on. Knows no labels and no models."""

from __future__ import annotations

from pathlib import Path

from edgewren.archive.inputs import check_column
from edgewren.archive.readers import open_table
from edgewren.errors import InputError


def read_texts(
    path: str | Path,
    column: str = "text",
    *,
    format: str | None = None,  # noqa: A002  the word that every caller uses
    encoding: str = "utf-8",
) -> list[str]:
    """Return a column's texts in the file's order, without those that are empty or could not be read.

    Args:
        format, encoding: as for `open_table`.

    Raises:
        InputError: the file cannot be read, has no such column, or holds no text.
        UsageError: the format cannot be told, or the encoding is unknown.
    """
    with open_table(path, format=format, encoding=encoding) as table:
        check_column(table, column, "--text-column")
        texts = [
            text for row in table if row.error is None and isinstance(text := row.get(column), str) and text.strip()
        ]
    if not texts:
        raise InputError(f"{path} has no texts in column {column!r}. Expected at least one row with text.")
    return texts
