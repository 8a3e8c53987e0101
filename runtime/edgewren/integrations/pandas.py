"""A pandas column of texts in; labels or probabilities out, on the same index. Imports pandas."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from edgewren.classifier import Classifier
from edgewren.errors import InputError, MissingDependencyError, UsageError

try:
    import pandas as pd
except ImportError as error:
    raise MissingDependencyError(
        f"edgewren.integrations.pandas needs pandas, which cannot be imported ({error}). "
        "Run: pip install 'edgewren[pandas]'."
    ) from error

Missing = Literal["error", "keep"]


def predict(classifier: Classifier, column: Any, *, missing: Missing = "error") -> Any:
    """Return the most probable label of each text, as a Series named "label" on the column's index.

    Args:
        classifier: the loaded bundle.
        column: Series of texts.
        missing: what to do with rows without text (None, NaN, NA): "error" names the first of them; "keep" leaves
            them without label, so that the result has as many rows as the column.

    Raises:
        InputError: a row has no text, and missing is "error".
        TypeError: `column` is not a Series, or a value is neither text nor missing.
        UsageError: missing is something else.
    """
    present = _present(column, missing)
    labels: list[str | None] = [None] * len(column)
    for place, label in zip(
        np.flatnonzero(present).tolist(), classifier.predict(column[present].tolist()), strict=True
    ):
        labels[place] = label
    return pd.Series(labels, index=column.index, name="label", dtype="str")


def predict_proba(classifier: Classifier, column: Any, *, missing: Missing = "error") -> Any:
    """Return probabilities as a DataFrame of float32 with one column per label, on the column's index.

    Arguments and errors as in `predict`; a row without text has NaN.
    """
    present = _present(column, missing)
    values = np.full((len(column), len(classifier.labels)), np.nan, dtype=np.float32)
    values[present] = classifier.predict_proba(column[present].tolist())
    return pd.DataFrame(values, index=column.index, columns=list(classifier.labels))


def _present(column: Any, missing: Missing) -> Any:
    """Return which rows have a text, bool [n]."""
    if not isinstance(column, pd.Series):
        raise TypeError(f"column is {type(column).__name__}, expected a pandas Series, for example table['text'].")
    if missing not in ("error", "keep"):
        raise UsageError(f"missing is {missing!r}, expected 'error' or 'keep'.")
    present = column.notna().to_numpy(dtype=np.bool_)
    if missing == "error" and not present.all():
        (row,) = column.index[[int(np.argmin(present))]].tolist()
        name = "the column" if column.name is None else repr(column.name)
        raise InputError(
            f"Row {row!r} of {name} has no text, and {int((~present).sum())} rows in all. Drop them (dropna), "
            'or pass missing="keep" to get no label for them.'
        )
    return present
