"""A polars column of texts in; labels or probabilities out, in its order. Imports polars."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from edgewren.classifier import Classifier
from edgewren.errors import InputError, MissingDependencyError, UsageError

try:
    import polars as pl
except ImportError as error:
    raise MissingDependencyError(
        f"edgewren.integrations.polars needs polars, which cannot be imported ({error}). "
        "Run: pip install 'edgewren[polars]'."
    ) from error

Missing = Literal["error", "keep"]


def predict(classifier: Classifier, column: Any, *, missing: Missing = "error") -> Any:
    """Return the most probable label of each text, as a String Series named "label".

    In an expression: `pl.col("text").map_batches(lambda column: predict(classifier, column), return_dtype=pl.String)`.

    Args:
        classifier: the loaded bundle.
        column: Series of texts (String, Categorical or Enum).
        missing: what to do with nulls: "error" names the first of them; "keep" gives them null.

    Raises:
        InputError: a row is null, and missing is "error".
        TypeError: `column` is not a Series of texts.
        UsageError: missing is something else.
    """
    texts, present = _texts(column, missing)
    labels: list[str | None] = [None] * len(present)
    for index, label in zip(np.flatnonzero(present).tolist(), classifier.predict(texts), strict=True):
        labels[index] = label
    return pl.Series("label", labels, dtype=pl.String)


def predict_proba(classifier: Classifier, column: Any, *, missing: Missing = "error") -> Any:
    """Return probabilities as a DataFrame of Float32 with one column per label.

    Arguments and errors as in `predict`; a null has null in all columns.
    """
    texts, present = _texts(column, missing)
    values = np.full((len(present), len(classifier.labels)), np.nan, dtype=np.float32)
    values[present] = classifier.predict_proba(texts)
    table = pl.DataFrame({label: values[:, index] for index, label in enumerate(classifier.labels)})
    return table if present.all() else table.select(pl.when(pl.lit(pl.Series(present))).then(pl.all()))


def _texts(column: Any, missing: Missing) -> tuple[list[str], Any]:
    """Return the texts that are there, and which rows have one, bool [n]."""
    if not isinstance(column, pl.Series):
        raise TypeError(f"column is {type(column).__name__}, expected a polars Series, for example table['text'].")
    if missing not in ("error", "keep"):
        raise UsageError(f"missing is {missing!r}, expected 'error' or 'keep'.")
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise TypeError(f"column {column.name!r} is of type {column.dtype}, expected String. Cast it: cast(pl.String).")
    present = column.is_not_null().to_numpy()
    if missing == "error" and not present.all():
        raise InputError(
            f"Row {int(np.argmin(present))} (from 0) of {column.name!r} is null, and {int((~present).sum())} rows in "
            'all. Drop them (drop_nulls), or pass missing="keep" to get null for them.'
        )
    return column.drop_nulls().cast(pl.String).to_list(), np.asarray(present, dtype=np.bool_)
