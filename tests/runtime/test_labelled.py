"""A labelled file is either usable as a whole, or refused with every reason that a person needs to mend it."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from edgewren.archive.labelled import read_labelled
from edgewren.errors import InputError


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
