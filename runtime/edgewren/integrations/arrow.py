"""An Arrow column of texts in; label, scores and status out, as `edgewren score` gives them. Imports pyarrow.

Knows neither clusters nor files: Ray and Spark hand their batches to this, so both have the archive's own rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgewren.archive.inputs import Place
from edgewren.archive.results import Part, Window, added_names, results
from edgewren.archive.rows import Block, Row
from edgewren.archive.table import Added
from edgewren.classifier import Classifier
from edgewren.errors import InputError, MissingDependencyError, UsageError

try:
    import pyarrow as pa
except ImportError as error:
    raise MissingDependencyError(
        f"edgewren.integrations.arrow needs pyarrow, which cannot be imported ({error}). "
        "Run: pip install 'edgewren[parquet]'."
    ) from error


@dataclass(frozen=True)
class Scoring:
    """What decides about the added columns besides the model.

    Attributes:
        text_column: column with the texts.
        prefix: put before the name of every added column.
        abstain_below: rows whose best score is lower get the status "uncertain"; None: none.
    """

    text_column: str = "text"
    prefix: str = ""
    abstain_below: float | None = None

    def __post_init__(self) -> None:
        if self.abstain_below is not None and not 0 < self.abstain_below <= 1:
            raise UsageError(f"abstain_below is {self.abstain_below}, expected a probability above 0 and at most 1.")


def added_schema(labels: Sequence[str], prefix: str = "") -> Any:
    """Return the added columns as a pyarrow Schema: label, score, score_<label>…, status."""
    names = added_names(labels, prefix)
    kinds = [pa.string(), *[pa.float32()] * (len(names) - 2), pa.string()]
    return pa.schema([pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)])


def check_columns(columns: Sequence[str], labels: Sequence[str], scoring: Scoring) -> None:
    """Check that a table has the text column and none of those that are added.

    Raises:
        InputError: the text column is missing.
        UsageError: an added column's name is taken.
    """
    if scoring.text_column not in columns:
        raise InputError(
            f"There is no column {scoring.text_column!r}. The table has: {', '.join(columns) or 'none'}. "
            "Name one with text_column."
        )
    taken = [name for name in added_names(labels, scoring.prefix) if name in columns]
    if taken:
        raise UsageError(
            f"The table has a column {taken[0]!r} already, and scoring adds a column of this name. Give the added "
            'columns other names with prefix, for example prefix="edgewren_".'
        )


def score_column(classifier: Classifier, column: Any, scoring: Scoring | None = None) -> Any:
    """Return what `edgewren score` adds to each text: a pyarrow RecordBatch of as many rows, in order.

    Args:
        classifier: the loaded bundle.
        column: pyarrow Array or ChunkedArray of text; a null is a rejected row, as null is in a Parquet file.
        scoring: names and threshold; its text column is what messages call the column.

    Raises:
        UsageError: the column holds something else than text.
    """
    scoring = scoring or Scoring()
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text_kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in text_kinds):
        raise UsageError(f"{scoring.text_column} is {column.type}, expected text. Convert it to string first.")
    block = _Column(scoring.text_column, column.to_pylist())
    texts, problems = block.texts(scoring.text_column)
    usable = [text for row, text in enumerate(texts) if row not in problems] if problems else texts
    window = Window([Part(block, texts, problems)], usable, Place())
    (added,) = results(window, classifier.score(usable), classifier.labels, scoring.abstain_below).added
    return _batch(added, added_schema(classifier.labels, scoring.prefix))


def _batch(added: Added, schema: Any) -> Any:
    # The shortest decimals give the same float32 back, so the numbers are those that a CSV file would have.
    columns = [[None if value is None else float(value) for value in column] for column in added.scores]
    values = [added.labels, *columns, added.statuses]
    arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _Column(Block):
    """One column as a block of rows, for the archive's rules about what is a text."""

    def __init__(self, name: str, values: list[Any]) -> None:
        super().__init__("", 1, {}, characters=sum(len(value or "") for value in values))
        self._name = name
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def row(self, index: int) -> Row:
        return Row(index + 1, None, {self._name: self._values[index]})

    def values(self, column: str) -> list[Any]:
        del column
        return list(self._values)
