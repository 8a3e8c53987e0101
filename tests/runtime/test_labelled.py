"""A labelled file is either usable as a whole, or refused with every reason that a person needs to mend it."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewren.archive.labelled import read_labelled
from edgewren.archive.labels import label_text
from edgewren.archive.rows import Number
from edgewren.errors import InputError, UsageError


def write(tmp_path: Path, data: str | bytes, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_texts_and_labels_come_in_the_files_order(tmp_path):
    data = "id,text,bias\n1,b one,  partisan \n2, a ,neutral\n3,c,partisan\n"
    found = read_labelled(write(tmp_path, data), label_column="bias")
    assert found.texts == ("b one", " a ", "c")
    assert found.labels == ("partisan", "neutral", "partisan")
    assert found.classes == ("neutral", "partisan")
    assert found.rows == (1, 2, 3)
    assert found.columns == ("id", "text", "bias")
    assert found.path == str(tmp_path / "a.csv")
    assert found.sha256 == hashlib.sha256(data.encode()).hexdigest()
    assert found.contradictions == ()


def test_hash_is_of_the_packed_file(tmp_path):
    data = gzip.compress(b"text,label\na,x\nb,y\n")
    assert read_labelled(write(tmp_path, data, "a.csv.gz")).sha256 == hashlib.sha256(data).hexdigest()


def test_labels_beside_tweets_are_found_as_jsonl_and_the_refusal_says_so(tmp_path):
    tweets = [{"id_str": str(n), "full_text": f"text {n}", "label": "ab"[n]} for n in range(2)]
    path = write(tmp_path, "".join(json.dumps(tweet) + "\n" for tweet in tweets), "scored.jsonl")
    with pytest.raises(InputError, match=r"no column 'label'.* --format jsonl: as tweets they have these alone"):
        read_labelled(path)
    assert read_labelled(path, format="jsonl", text_column="full_text").labels == ("a", "b")


def test_json_numbers_and_booleans_are_labels_as_spelled(tmp_path):
    lines = '{"text":"a","label":1}\n{"text":"b","label":0}\n{"text":"c","label":true}\n{"text":"d","label":1.0}\n'
    assert read_labelled(write(tmp_path, lines, "a.jsonl")).labels == ("1", "0", "true", "1.0")


@pytest.mark.parametrize("values", [(True, False), ("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
def test_true_and_false_are_the_same_labels_in_every_format(tmp_path, values):
    """pandas writes True into CSV, R and spreadsheets TRUE; JSON knows true, and Parquet no spelling at all."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"text": "a", "label": values[0]}, {"text": "b", "label": values[1]}]
    write(tmp_path, f"text,label\na,{values[0]}\nb, {values[1]} \n", "a.csv")
    write(tmp_path, f"text\tlabel\na\t{values[0]}\nb\t{values[1]}\n", "a.tsv")
    write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
        assert read_labelled(tmp_path / name).labels == ("true", "false"), name


@given(st.lists(st.one_of(st.booleans(), st.integers(-(10**20), 10**20), st.text(max_size=5)), min_size=1))
def test_a_label_is_the_same_from_the_csv_and_the_json_of_one_table(values):
    for value in values:
        assert label_text(json.loads(json.dumps(value), parse_int=Number)) == label_text(str(value))


def test_a_missing_number_of_parquet_is_no_label(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"text": ["a", "b", "c", "d"], "label": [0.0, 1.0, float("nan"), None]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="2 of 4 rows .*row 3: the label is missing; row 4: the label is missing"):
        read_labelled(tmp_path / "a.parquet")


def test_parquet_labels_are_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), tmp_path / "a.parquet")
    found = read_labelled(tmp_path / "a.parquet")
    assert found.labels == ("0", "1")
    assert found.sha256 == hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest()


def test_contradicting_labels_are_reported_not_refused(tmp_path):
    found = read_labelled(write(tmp_path, "text,label\nsame,x\nother,y\nsame,y\nother,y\nsame,x\n"))
    assert found.contradictions == (("same", (1, 3, 5)),)
    assert len(found.texts) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "lable"}, r"no column 'lable'. Did you mean 'label'\? It has: Text, label. .*--label-column"),
        ({"text_column": "text"}, r"no column 'text'. Did you mean 'Text'\?.*--text-column"),
        ({"text_column": "Text", "label_column": "xyz"}, r"no column 'xyz'. It has"),
    ],
)
def test_missing_column_names_those_there_are(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        read_labelled(write(tmp_path, "Text,label\na,x\n"), **({"text_column": "Text"} | options))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,x\n,y\n", r"1 of 2 rows cannot be used: row 2: the text is empty"),
        ("a,x\n \u2028 ,y\n", r"row 2: the text is empty"),
        ("a,x\nb,  \n", r"row 2: the label is empty"),
        ("a,x\nb\n", r"row 2: 1 fields where the header has 2"),
        ("a,x\nb,y\x07z\n", r"row 2: the label is 'y\\x07z', which has characters that cannot be printed"),
        (f"a,x\nb,{'y' * 129}\n", r"row 2: the label is 129 characters long"),
        ("a,-1\nb,+ve\nc,-ve\n", r"2 of 3 rows .* row 2: the label is '\+ve', which a spreadsheet takes for a formula"),
        ("a,x\n" + ",y\n" * 7, r"7 of 8 rows .*row 2.*row 6: the text is empty; and 2 more"),
        ("a,x\nb,x\n", r"every row has the label 'x'"),
        ("", r"has no rows, only columns: text, label"),
    ],
)
def test_unusable_rows_are_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_labelled(write(tmp_path, "text,label\n" + rows))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"label": "x"}, "the text is missing"),
        ({"text": None, "label": "x"}, "the text is missing"),
        ({"text": 3, "label": "x"}, "the text is 3, expected text"),
        ({"text": "a"}, "the label is missing"),
        ({"text": "a", "label": ["x"]}, r'the label is \["x"\], expected text'),
    ],
)
def test_unusable_records_are_named(tmp_path, record, message):
    good = json.dumps({"text": "a", "label": "x"})
    with pytest.raises(InputError, match="row 2: " + message):
        read_labelled(write(tmp_path, f"{good}\n{json.dumps(record)}\n", "a.jsonl"))


def test_a_column_of_ids_is_recognised(tmp_path):
    data = "text,label\n" + "".join(f"a,{number}\n" for number in range(101))
    with pytest.raises(InputError, match=r"101 different values .*free text or ids"):
        read_labelled(write(tmp_path, data))
    assert len(read_labelled(write(tmp_path, data.removesuffix("a,100\n"))).classes) == 100


def test_too_small_a_class_is_named_with_its_count(tmp_path):
    path = write(tmp_path, "text,label\na,x\nb,x\nc,y\n")
    with pytest.raises(InputError, match=r"the class 'y' has 1 row, at least 2 are needed"):
        read_labelled(path, minimum_per_class=2)
    assert len(read_labelled(path, minimum_per_class=1).texts) == 3


def rows_of(counts):
    return "text,label\n" + "".join(f"t{n},{label}\n" for label, rows in counts.items() for n in range(rows))


def told_of(path):
    told = []
    read_labelled(path).warn_if_doubtful(told.append)
    return told


@pytest.mark.parametrize("label", ["NA", "n/a", "nan", "NaN", "None", "null", "NULL", "#N/A", "<NA>"])
def test_a_label_that_looks_like_a_missing_value_is_told_with_its_rows(tmp_path, label):
    path = write(tmp_path, rows_of({label: 3, "x": 4, "y": 4}))
    (told,) = told_of(path)
    assert told == (
        f"warning: {path}: the label {label!r} (3 rows) looks like a missing value, and counts as a class. Leave such "
        "rows out, unless it is one."
    )


@pytest.mark.parametrize("label", ["none", "neutral", "N", "nah", "nanny", "0"])
def test_labels_that_are_classes_are_not_told(tmp_path, label):
    assert told_of(write(tmp_path, rows_of({label: 3, "x": 4, "y": 4}))) == []


def test_spellings_of_one_class_are_told_with_their_rows(tmp_path):
    counts = {"Partisan": 2, "partisan": 5, "partisan ": 1, "very  neutral": 1, "Very neutral": 4, "Caf\u00e9": 1}
    (told,) = told_of(write(tmp_path, rows_of(counts | {"Cafe\u0301": 1, "other": 2})))
    assert "labels that differ only by case or blanks count as different classes: " in told
    assert "'Partisan' (2 rows), 'partisan' (6 rows)" in told
    assert "'Very neutral' (4 rows), 'very  neutral' (1 row)" in told
    assert told.count("Caf") == 2
    assert "other" not in told


def test_a_class_too_small_that_is_another_one_written_otherwise_says_so(tmp_path):
    path = write(tmp_path, rows_of({"partisan": 5, "Partisan": 1, "neutral": 5}))
    with pytest.raises(InputError, match=r"'Partisan' has 1 row.*only by case or blanks from 'partisan' \(5 rows\)"):
        read_labelled(path, minimum_per_class=2)


@pytest.mark.parametrize("kinds", [{}, {"x": 3, "y": 3}])
def test_a_column_of_few_ids_is_recognised_where_classes_need_rows(tmp_path, kinds):
    path = write(tmp_path, rows_of(kinds | {f"id{number}": 1 for number in range(20)}))
    with pytest.raises(InputError, match=r"'id0' has 1 row, as have 19 of the other .*free text or ids.*: text, label"):
        read_labelled(path, minimum_per_class=2)


def test_texts_as_their_own_labels_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"'text' is both --text-column and --label-column"):
        read_labelled(write(tmp_path, "text\na\nb\n"), label_column="text")


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        ("x,Y,x", r"row 2 has the label 'Y', which m does not know. It knows: x, y. Did you mean 'y'\? Correct it"),
        ("x,z,w", r"row 2 has the label 'z', .*: x, y. 2 of 3 rows have a label that is none of these. Correct it"),
        ("1,0,1", r"row 1 has the label '1', .*: x, y. None of the rows has one of these: is it the right column\?"),
    ],
)
def test_labels_that_a_model_does_not_know_are_told_with_what_may_be_meant(tmp_path, labels, hint):
    path = write(tmp_path, "text,label\n" + "".join(f"t,{label}\n" for label in labels.split(",")))
    with pytest.raises(InputError, match=hint):
        read_labelled(path).check_known(["x", "y"], "m")
