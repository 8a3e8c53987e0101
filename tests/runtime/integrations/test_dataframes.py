"""Columns of pandas and polars in, columns out: as many rows, in place, and nothing missing in silence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edgewren import Classifier
from edgewren.errors import InputError, UsageError

TEXTS = ["good vote", "bad tax", "the senate", "awful cat"]


@pytest.fixture(scope="module")
def classifier(tiny_bundle):
    return Classifier.load(tiny_bundle)


@pytest.fixture
def on_pandas():
    pytest.importorskip("pandas")
    from edgewren.integrations import pandas

    return pandas


@pytest.fixture
def on_polars():
    pytest.importorskip("polars")
    from edgewren.integrations import polars

    return polars


# pandas


@pytest.mark.parametrize("dtype", ["str", "object", "string", "category"])
def test_pandas_index_is_kept_whatever_it_is(classifier, on_pandas, dtype):
    import pandas as pd

    column = pd.Series(TEXTS, index=["x", "y", "y", "z"], dtype=dtype, name="text")
    labels = on_pandas.predict(classifier, column)
    assert labels.tolist() == classifier.predict(TEXTS)
    assert labels.index.equals(column.index)
    assert labels.name == "label"
    table = on_pandas.predict_proba(classifier, column)
    assert np.array_equal(table.to_numpy(), classifier.predict_proba(TEXTS))
    assert table.columns.tolist() == list(classifier.labels)
    assert table.index.equals(column.index)
    assert {str(kind) for kind in table.dtypes} == {"float32"}


@pytest.mark.parametrize("nothing", [None, float("nan"), "NA"])
def test_pandas_rows_without_text_are_an_error_or_keep_their_place(classifier, on_pandas, nothing):
    import pandas as pd

    column = pd.Series(["good vote", pd.NA if nothing == "NA" else nothing, "bad tax"], index=[7, 8, 9], name="text")
    with pytest.raises(InputError, match="Row 8 of 'text' has no text, and 1 rows in all"):
        on_pandas.predict(classifier, column)
    labels = on_pandas.predict(classifier, column, missing="keep")
    assert labels.isna().tolist() == [False, True, False]
    assert labels.dropna().tolist() == classifier.predict(["good vote", "bad tax"])
    table = on_pandas.predict_proba(classifier, column, missing="keep")
    assert table.loc[8].isna().all()
    assert np.array_equal(table.loc[[7, 9]].to_numpy(), classifier.predict_proba(["good vote", "bad tax"]))


def test_pandas_empty_and_wrong_columns(classifier, on_pandas):
    import pandas as pd

    empty = pd.Series([], dtype="str")
    assert on_pandas.predict(classifier, empty).tolist() == []
    assert on_pandas.predict_proba(classifier, empty).shape == (0, 2)
    with pytest.raises(TypeError, match="column is DataFrame, expected a pandas Series"):
        on_pandas.predict(classifier, pd.DataFrame({"text": TEXTS}))
    with pytest.raises(TypeError, match="int"):
        on_pandas.predict(classifier, pd.Series([1, 2]))
    with pytest.raises(UsageError, match="'drop', expected 'error' or 'keep'"):
        on_pandas.predict(classifier, empty, missing="drop")


# polars


def test_polars_series_in_series_out(classifier, on_polars):
    import polars as pl

    for column in (pl.Series("text", TEXTS), pl.Series("text", TEXTS, dtype=pl.Categorical)):
        labels = on_polars.predict(classifier, column)
        assert labels.to_list() == classifier.predict(TEXTS)
        assert (labels.name, labels.dtype) == ("label", pl.String)
        table = on_polars.predict_proba(classifier, column)
        assert np.array_equal(table.to_numpy(), classifier.predict_proba(TEXTS))
        assert table.schema == dict.fromkeys(classifier.labels, pl.Float32)


def test_polars_nulls_are_an_error_or_stay_null(classifier, on_polars):
    import polars as pl

    column = pl.Series("text", ["good vote", None, "bad tax"])
    with pytest.raises(InputError, match=r"Row 1 \(from 0\) of 'text' is null, and 1 rows in all"):
        on_polars.predict(classifier, column)
    good, bad = classifier.predict(["good vote", "bad tax"])
    assert on_polars.predict(classifier, column, missing="keep").to_list() == [good, None, bad]
    table = on_polars.predict_proba(classifier, column, missing="keep")
    assert table.row(1) == (None, None)
    assert table.columns == list(classifier.labels)
    assert np.array_equal(table.drop_nulls().to_numpy(), classifier.predict_proba(["good vote", "bad tax"]))


def test_polars_expressions_can_call_it(classifier, on_polars):
    import polars as pl

    table = pl.DataFrame({"text": TEXTS}).lazy()
    label = pl.col("text").map_batches(lambda column: on_polars.predict(classifier, column), return_dtype=pl.String)
    assert table.with_columns(label=label).collect()["label"].to_list() == classifier.predict(TEXTS)


def test_polars_empty_and_wrong_columns(classifier, on_polars):
    import polars as pl

    for empty in (pl.Series("text", [], dtype=pl.String), pl.Series("text", [])):
        assert on_polars.predict(classifier, empty).to_list() == []
        assert on_polars.predict_proba(classifier, empty).shape == (0, 2)
    with pytest.raises(TypeError, match="column is list, expected a polars Series"):
        on_polars.predict(classifier, TEXTS)
    with pytest.raises(TypeError, match="is of type Int64, expected String"):
        on_polars.predict(classifier, pl.Series("n", [1, 2]))
    with pytest.raises(UsageError, match="expected 'error' or 'keep'"):
        on_polars.predict(classifier, pl.Series("text", TEXTS), missing="drop")


# what is not there


def test_a_missing_library_is_named_with_its_extra():
    code = """
import sys
for library, module in (("sklearn", "scikit_learn"), ("pandas", "pandas"), ("polars", "polars")):
    sys.modules[library] = None
    try:
        __import__(f"edgewren.integrations.{module}")
    except ImportError as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    for line, extra in zip(lines, ("sklearn", "pandas", "polars"), strict=True):
        assert line.startswith("MissingDependencyError")
        assert f"pip install 'edgewren[{extra}]'" in line
