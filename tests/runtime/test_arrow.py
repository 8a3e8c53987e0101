"""A column of texts in Arrow: the statuses and digits of the command line."""

from __future__ import annotations

import csv

import pyarrow as pa
import pytest

from edgewren import Classifier
from edgewren.archive.decimals import shortest
from edgewren.archive.run import score_archive
from edgewren.errors import UsageError
from edgewren.integrations.arrow import Scoring, score_column

TEXTS = ["good vote", "", "we support you " * 20, "cat", "nonfinite", " \t"]


@pytest.fixture(scope="module")
def classifier(tiny_bundle):
    return Classifier.load(tiny_bundle, device="cpu", threads=1)


def test_a_column_gets_what_the_command_line_gives(classifier, tmp_path):
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    with source.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text",), *([text or ""] for text in TEXTS)])
    score_archive(classifier, [source], output, abstain_below=0.6)
    with output.open(newline="") as stream:
        expected = list(csv.DictReader(stream))
    batch = score_column(classifier, pa.array(TEXTS), Scoring(abstain_below=0.6))
    assert batch.schema.names == ["label", "score", "score_neutral", "score_partisan", "status"]
    assert batch["status"].to_pylist() == [row["status"] for row in expected]
    assert [label or "" for label in batch["label"].to_pylist()] == [row["label"] for row in expected]
    for name in ("score", "score_neutral", "score_partisan"):
        column = batch[name]
        printed = iter(shortest(column.drop_null().to_numpy()))
        assert ["" if value is None else next(printed) for value in column.to_pylist()] == [r[name] for r in expected]


def test_a_null_is_a_rejected_row_and_other_kinds_of_text_are_text(classifier):
    plain = score_column(classifier, pa.array(["cat", None, "dog"]))
    assert plain["status"].to_pylist() == ["ok", "rejected:text is null, expected text", "ok"]
    assert plain["score"].to_pylist()[1] is None
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        assert score_column(classifier, pa.array(["cat", None, "dog"], kind)).equals(plain)
    chunked = pa.chunked_array([["cat"], [None, "dog"]], pa.string())
    assert score_column(classifier, chunked).equals(plain)
    assert score_column(classifier, pa.array([], pa.string())).num_rows == 0
    assert score_column(classifier, pa.nulls(2)).num_rows == 2


def test_what_is_no_text_is_refused(classifier):
    with pytest.raises(UsageError, match="int64, expected text"):
        score_column(classifier, pa.array([1, 2]))
    with pytest.raises(UsageError, match="abstain_below is 2"):
        Scoring(abstain_below=2)
