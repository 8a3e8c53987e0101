"""Rows of files: what passes untouched, what becomes a rejected row, what ends the run."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewren.archive import lines
from edgewren.archive.format_names import TABLES
from edgewren.archive.formats import all_formats
from edgewren.archive.labelled import read_labelled
from edgewren.archive.readers import Number, cell_text, json_text, open_table
from edgewren.archive.run import score_archive
from edgewren.errors import EdgewrenError, InputError, UsageError


def write(tmp_path: Path, name: str, data: bytes | str) -> Path:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def rows(path: Path, **options):
    with open_table(path, **options) as table:
        return list(table)


# CSV and TSV


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "gb18030"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, encoding, name):
    text = "text\n\ufeffhi\n" if name == "a.csv" else '{"text": "\ufeffhi"}\n'
    mark = "" if encoding == "utf-16" else "\ufeff"  # which writes its own
    path = write(tmp_path, name, (mark + text).encode(encoding))
    with open_table(path, encoding=encoding) as table:
        assert table.columns == ["text"]
        assert [row.get("text") for row in table] == ["\ufeffhi"]
        position = table.position
    with open_table(path, encoding=encoding, position=position) as table:
        assert table.read(1) is None


def test_csv_values_are_the_files_text(tmp_path):
    path = write(tmp_path, "a.csv", 'id,text\n00123,"a ""b"", c"\n1e5,\n')
    with open_table(path) as table:
        assert (table.format, table.columns) == ("csv", ["id", "text"])
        found = list(table)
    assert [row.fields for row in found] == [{"id": "00123", "text": 'a "b", c'}, {"id": "1e5", "text": ""}]
    assert [(row.number, row.line, row.error) for row in found] == [(1, 2, None), (2, 3, None)]


def test_embedded_newlines_nul_and_line_separators_are_data(tmp_path):
    text = "a\r\nb\nc\rd\u2028e\u2029f\x85g\x00h\x0bi"
    path = write(tmp_path, "a.csv", f'text,n\r\n"{text}",1\r\nx,2\r\n')
    found = rows(path)
    assert [row.get("text") for row in found] == [text, "x"]
    assert found[1].line == 6  # lines end at \n, \r\n and \r, and nowhere else


def test_old_macintosh_line_ends_are_line_ends(tmp_path):
    assert [row.get("b") for row in rows(write(tmp_path, "a.csv", "a,b\r1,2\r3,4\r"))] == ["2", "4"]


def test_carriage_return_and_newline_split_over_two_chunks_stay_one_line_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "_CHUNK_BYTES", 1)
    found = rows(write(tmp_path, "a.csv", 'a,b\r\n1,"x\r\ny"\r\n3,4\r\n'))
    assert [row.get("b") for row in found] == ["x\r\ny", "4"]


def test_byte_order_mark_is_dropped(tmp_path):
    for name, encoding in (("utf-8", "utf-8-sig"), ("utf-16", "utf-16"), ("UTF8", "utf-8-sig")):
        path = write(tmp_path, "a.csv", "text,b\nx,é\n".encode(encoding))
        with open_table(path, encoding=name) as table:
            assert table.columns == ["text", "b"]
            assert [row.get("b") for row in table] == ["é"]


@pytest.mark.parametrize("suffix", [".tsv", ".tab", ".TSV", ".tsv.gz"])
def test_tsv_is_csv_with_tabs(tmp_path, suffix):
    data = b'id\ttext\n1\t"a\tb"\n'
    path = write(tmp_path, f"a{suffix}", gzip.compress(data) if suffix.endswith("gz") else data)
    assert rows(path)[0].fields == {"id": "1", "text": "a\tb"}


def test_a_ragged_row_is_rejected_and_keeps_its_place(tmp_path):
    found = rows(write(tmp_path, "a.csv", "a,b\n1,2\n3\n4,5,6\n7,8\n"))
    assert [row.error for row in found] == [
        None,
        "1 fields where the header has 2",
        "3 fields where the header has 2",
        None,
    ]
    assert found[1].fields == {"a": "3", "b": ""}
    assert found[2].fields == {"a": "4", "b": "5"}
    assert found[2].raw == ("4", "5", "6")


def test_blank_lines_are_rejected_rows_except_at_the_end(tmp_path):
    found = rows(write(tmp_path, "a.csv", "a\n1\n\n\n2\n\n\n"))
    assert [(row.number, row.line, row.error) for row in found] == [
        (1, 2, None),
        (2, 3, "empty line"),
        (3, 4, "empty line"),
        (4, 5, None),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('a,b\n1,2\n3,"4\n5,6\n', r"line 3: a quote is opened"),
        ('a,b\n1,"x"y\n', r"line 2: .* not valid"),
        (f'a,b\n1,"{"x" * (2**20 + 1)}"\n', r"line 2: a field of more than 1,048,576"),
        ("a,a\n1,2\n", r"names 'a' more than once"),
        ("a,,c\n1,2,3\n", r"no name for column 2 of 3"),
        (" ,b\n1,2\n", r"no name for column 1 of 2"),
        (",,c\n1,2,3\n", r"no name for column 2 of 3"),
        ("\n\na\n1\n", r"no name for column 1"),
        ("", r"is empty"),
        ("\ufeff", r"is empty"),
    ],
)
def test_what_is_wrong_with_the_whole_csv_file_names_its_place(tmp_path, data, message):
    with pytest.raises(InputError, match=message) as caught:
        rows(write(tmp_path, "a.csv", data))
    assert "a.csv" in str(caught.value)


def test_quote_that_swallowed_rows_is_found_at_the_record_where_it_began(tmp_path):
    with pytest.raises(InputError, match="line 3"):
        rows(write(tmp_path, "a.csv", 'a,b\n1,2\n3,"oops\n5,6\n7,"8"\n'))


@pytest.mark.parametrize("name", ["idna", "rot13", "nope"])
def test_what_is_no_encoding_of_texts_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=f"Unknown encoding '{name}'"):
        rows(write(tmp_path, "a.csv", "text\né\n".encode()), encoding=name)


def test_undecodable_bytes_name_byte_line_and_encoding_option(tmp_path):
    with pytest.raises(InputError, match=r"line 3: byte 10 is 0xe9.*--encoding cp1252"):
        rows(write(tmp_path, "a.csv", b"a,b\n1,2\n3,\xe9\n"))
    with pytest.raises(InputError, match=r"line 1: byte 0 is 0xff.*--encoding utf-16"):
        rows(write(tmp_path, "a.csv", "a,b\n1,2\n".encode("utf-16")))
    assert rows(write(tmp_path, "a.csv", b"a,b\n1,\xe9\n"), encoding="cp1252")[0].get("b") == "é"


@pytest.mark.parametrize("text", ["plain", "é 🔥"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_the_encoding_that_is_suggested_is_the_right_one(tmp_path, encoding, name, text):
    whole = f"id,text\n1,{text}\n" if name == "a.csv" else f'{{"id": 1, "text": "{text}"}}\n'
    path = write(tmp_path, name, whole.encode(encoding))
    with pytest.raises(InputError, match=rf"--encoding {encoding}\.$"):
        rows(path)
    assert rows(path, encoding=encoding)[0].get("text") == text


@pytest.mark.parametrize(
    ("mark", "encoding", "codec"),
    [
        (codecs.BOM_UTF16_BE, "utf-16", "utf-16-be"),
        (codecs.BOM_UTF32_BE, "utf-32", "utf-32-be"),
        (b"", "utf-16-le", "utf-16-le"),  # found late, where its first letters leave no zeros
    ],
)
def test_the_encoding_is_told_wherever_it_shows(tmp_path, mark, encoding, codec):
    path = write(tmp_path, "a.csv", mark + ("текстстр,text\n" + "1,plain\n" * 20_000 + "2,é\n").encode(codec))
    with pytest.raises(InputError, match=rf"--encoding {encoding}\.$"):
        rows(path)


def test_undecodable_byte_far_into_the_file_is_located_exactly(tmp_path):
    data = b"a,b\n" + b"1,\xc3\xa9\n" * 40_000
    place = len(data) + 2
    with pytest.raises(InputError, match=rf"line 40002: byte {place} is 0xff"):
        rows(write(tmp_path, "a.csv", data + b"1,\xff\n"))


def test_utf8_cut_in_the_middle_of_a_character_is_undecodable(tmp_path):
    with pytest.raises(InputError, match="line 2"):
        rows(write(tmp_path, "a.csv", "a\né".encode()[:-1]))


@pytest.mark.parametrize("name", ["nonsense", "rot13", "hex", "undefined", "bad\0name"])
def test_unknown_encodings_are_a_usage_error(tmp_path, name):
    with pytest.raises(UsageError, match="Unknown encoding"):
        rows(write(tmp_path, "a.csv", "a\n1\n"), encoding=name)


def test_record_without_end_does_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAXIMUM_RECORD_CHARACTERS", 10_000)
    monkeypatch.setattr(lines, "_CHUNK_BYTES", 1000)
    for name, data in (
        ("a.jsonl", "x" * 20_000),
        ("a.csv", "a,b\n" + "1," * 10_000),
        ("b.csv", 'a,b\n"' + '\n","' * 9999),
    ):
        with pytest.raises(InputError, match="a record of more than"):
            rows(write(tmp_path, name, data))


# gzip


def test_gzip_is_recognised_by_its_first_bytes(tmp_path):
    path = write(tmp_path, "a.csv", gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n"))
    assert [row.get("b") for row in rows(path)] == ["2", "4"]


@pytest.mark.parametrize("cut", [5, 12, -9, -8, -1])
def test_truncated_gzip_is_refused(tmp_path, cut):
    with pytest.raises(InputError, match=r"cut short|not a sound gzip"):
        rows(write(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 999)[:cut]))


@pytest.mark.parametrize("garbage", [b"x", b"garbage after", b"\x1f"])
def test_garbage_after_gzip_is_refused(tmp_path, garbage):
    with pytest.raises(InputError, match="gzip"):
        rows(write(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n1,2\n") + garbage))


def test_damaged_gzip_is_refused(tmp_path):
    data = bytearray(gzip.compress(b"a,b\n" + bytes(range(32, 127)).replace(b'"', b"") * 50))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(InputError, match="gzip"):
        rows(write(tmp_path, "a.csv.gz", bytes(data)))
    with pytest.raises(InputError, match="gzip"):
        rows(write(tmp_path, "b.csv.gz", b"a,b\n1,2\n"))


# JSONL


def test_jsonl_keeps_line_and_spelling(tmp_path):
    raw = '  {"id": 12345678901234567890123, "x": 1.10, "y": 1E5, "text": "a\u2028b\x85", "z": [1.0, {"k": null}]} '
    found = rows(write(tmp_path, "a.jsonl", raw + "\r\n" + '{"text":"\\ud83d"}'))
    assert found[0].raw == raw + ""
    assert found[0].get("id") == "12345678901234567890123"
    assert isinstance(found[0].get("id"), Number)
    assert found[0].get("x") == "1.10"
    assert found[0].get("text") == "a\u2028b\x85"
    assert found[1].get("text") == "\ud83d"
    assert found[1].error is None


def test_jsonl_columns_are_the_first_records_keys(tmp_path):
    with open_table(write(tmp_path, "a.ndjson", 'oops\n{"b":1,"a":2}\n{"c":3}\n')) as table:
        assert table.columns == ["b", "a", "c"]
        assert [row.error for row in table] == ["not valid JSON", None, None]


@pytest.mark.parametrize(
    ("row", "padding", "known"), [(999, "", True), (1000, "", False), (3, "x" * 2**19, False), (1, "x" * 2**19, True)]
)
def test_jsonl_columns_come_from_a_head_of_bounded_size(tmp_path, row, padding, known):
    lines = [f'{{"a":"{number}{padding}"}}' for number in range(row + 5)]
    lines[row] = '{"late":1}'
    with open_table(write(tmp_path, "a.jsonl", "\n".join(lines))) as table:
        assert table.columns == (["a", "late"] if known else ["a"])
        assert [row.get("a") for row in table] == [json.loads(line).get("a") for line in lines]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('["text"]', "a JSON array where an object is expected"),
        ('"text"', "a JSON string where an object is expected"),
        ("3", "a JSON number where an object is expected"),
        ("null", "a JSON null where an object is expected"),
        ('{"text": "a"', "not valid JSON"),
        ('{"text": "a"} {}', "not valid JSON"),
        ('{"text": "a\tb"}', "not valid JSON"),
        ('{"text": "a", "x": NaN}', "NaN is not JSON"),
        ('{"text": "a", "x": -Infinity}', "-Infinity is not JSON"),
        ('{"text": "a", "x": ' + "9" * 5000 + "}", "a number of more than 4300 digits"),
        ('{"text": "a", "x": ' + "[" * 100 + "]" * 100 + "}", "nested more than 100 levels deep"),
        ('{"text": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 100 levels deep"),
        ("", "empty line"),
        ("   \t", "empty line"),
    ],
)
def test_a_line_that_is_no_sound_object_is_a_rejected_row(tmp_path, line, reason):
    found = rows(write(tmp_path, "a.jsonl", f'{{"text":"x"}}\n{line}\n{{"text":"y"}}\n'))
    assert [row.error for row in found] == [None, reason, None]
    assert [row.number for row in found] == [1, 2, 3]


def test_nesting_of_a_hundred_levels_is_still_read(tmp_path):
    line = '{"text": "a", "x": ' + "[" * 99 + "]" * 99 + "}"
    assert rows(write(tmp_path, "a.jsonl", line))[0].error is None


def test_whitespace_at_the_end_of_jsonl_is_no_row(tmp_path):
    assert len(rows(write(tmp_path, "a.jsonl", '{"text":"x"}\n\n  \n\n'))) == 1


def test_lines_that_are_no_json_do_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAXIMUM_RECORD_CHARACTERS", 10_000)
    with pytest.raises(InputError, match=r"none of the first 3 lines is a JSON object \(line 1: not valid JSON\)"):
        open_table(write(tmp_path, "a.jsonl", ("z" * 4_000 + "\n") * 900))


def test_csv_named_jsonl_is_explained(tmp_path):
    with pytest.raises(InputError, match="none of the first 1,000 lines is a JSON object"):
        rows(write(tmp_path, "a.jsonl", "a,b\n" * 2000))


# Parquet


def test_parquet_rows_are_what_json_knows(tmp_path):
    import datetime as dt

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": pa.array([2**62, None], pa.int64()),
            "text": ["a", "b"],
            "when": [dt.date(2020, 1, 2), None],
            "tags": [["x"], []],
            "kind": pa.array(["k", "l"]).dictionary_encode(),
            "raw": [b"\x00\xff", None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with open_table(tmp_path / "a.parquet") as opened:
        assert opened.columns == table.column_names
        found = list(opened)
        assert opened.bytes_read == (tmp_path / "a.parquet").stat().st_size
    assert found[0].fields == {
        "id": 2**62,
        "text": "a",
        "when": "2020-01-02",
        "tags": ["x"],
        "kind": "k",
        "raw": "00ff",
    }
    assert found[1].get("id") is None


def test_parquet_texts_that_are_called_binary_are_read_and_odd_values_kept(tmp_path, classifier):
    import uuid

    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [b"good vote", "caf\u00e9 vote".encode(), b"bad \xff tax", None]
    columns = {
        "text": pa.array(texts, pa.binary()),
        "number": pa.array([float("nan"), float("inf"), None, -1.5]),
        "parts": pa.array([[b"\xff"], None, [], [b"a"]], pa.list_(pa.binary())),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    score_archive(classifier, [tmp_path / "a.parquet"], tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    expected = classifier.predict(["good vote", "café vote", "bad \ufffd tax"])
    assert [row["label"] for row in found[:3]] == expected
    assert [row["status"] for row in found[:3]] == ["ok", "ok", "repaired"]
    assert found[3]["status"].startswith("rejected:text is null")
    assert [row["number"] for row in found] == ["nan", "inf", "", "-1.5"]
    assert [row["parts"] for row in found] == ['["ff"]', "", "[]", '["61"]']
    assert cell_text(uuid.UUID(int=7)) == str(uuid.UUID(int=7))


DELIMITERS = {"csv": ",", "csv-semicolon": ";", "csv-pipe": "|", "tsv": "\t"}


@pytest.mark.parametrize("kind", DELIMITERS)
@pytest.mark.parametrize("read_as", DELIMITERS)
def test_another_delimiter_is_said_and_what_reads_it(tmp_path, classifier, kind, read_as):
    mark = DELIMITERS[kind]
    for header in (f"id{mark}text", f'"id"{mark}"text"', f"id{mark}text{mark}a, b;c\td|e"):
        path = write(tmp_path, "a.csv", f"{header}\n1{mark}good vote\n".encode())
        if kind == read_as:
            with open_table(path, format=kind) as table:
                assert table.columns[:2] == ["id", "text"]
        elif "a, b" not in header or read_as == "csv":
            with pytest.raises(InputError) as caught:
                score_archive(classifier, [path], tmp_path / "out.csv", format=read_as)
            known = f"its delimiter seems to be {mark!r}. Read it with --format {kind}."
            quoted = "another delimiter? There are --format csv, csv-pipe, csv-semicolon, tsv."
            assert (quoted if '"' in header else known) in str(caught.value)


def test_of_two_possible_delimiters_the_one_that_gives_the_column_is_said(tmp_path, classifier):
    path = write(tmp_path, "a.csv", b"id;text;left|right\n1;good vote;0\n")
    with pytest.raises(InputError, match="its delimiter seems to be ';'. Read it with --format csv-semicolon"):
        score_archive(classifier, [path], tmp_path / "out.csv")


@pytest.mark.parametrize("kind", DELIMITERS)
@pytest.mark.parametrize("quote", ["", '"'])
def test_excels_note_of_the_delimiter_is_no_header(tmp_path, kind, quote):
    mark = DELIMITERS[kind]
    path = write(tmp_path, "a.csv", f"{quote}sep={mark}{quote}\r\nid{mark}text\r\n1{mark}x\r\n2\r\n".encode())
    with open_table(path, format=kind) as table:
        assert table.columns == ["id", "text"]
        first = table.read(1)
        position = table.position
        assert (first.row(0).fields, first.row(0).line) == ({"id": "1", "text": "x"}, 3)
    with open_table(path, format=kind, position=position) as table:
        (last,) = table
    assert (last.number, last.line, last.error) == (2, 4, "1 fields where the header has 2")
    other = "tsv" if kind == "csv" else "csv"
    with pytest.raises(InputError, match=r"a.csv: the first line, .*tells Excel.* --format " + kind):
        open_table(path, format=other)


def test_a_delimiter_that_nothing_reads_is_said(tmp_path):
    with pytest.raises(InputError, match=r"the delimiter is '#'. Write it with commas"):
        open_table(write(tmp_path, "a.csv", "sep=#\nid#text\n"))


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00", r"a workbook or a zip archive: save the sheet as CSV \(UTF-8\)"),
        (b'[{"text": "a"}]', r"one JSON array: write one object per line .* name it .jsonl"),
        (b'{"text": "a"}\n{"text": "b"}\n', r"JSON objects, and one per line is jsonl. Name it with --format csv\|"),
        (b"id;text, and so on;label\n", r"Its first line has 2 times ';'. Name it with --format csv\|csv-semicolon\|"),
        (b"id\ttext\n", r"Its first line has 1 times '\\t'. Name it"),
        (b"text\n", r"from the name. Name it with --format"),
        (b"", r"from the name. Name it with --format"),
        ("id\ttext\n".encode("utf-16"), r"has 1 times '\\t'. Name it with --format .*, and --encoding utf-16\."),
        ("id\tcaf\u00e9\n".encode("cp1252"), r"from the name. Name it with --format"),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.xlsx", "a"])
def test_what_a_file_without_a_known_suffix_seems_to_be_is_said(tmp_path, data, hint, name):
    path = write(tmp_path, name, data)
    with pytest.raises(UsageError, match=hint) as caught:
        open_table(path)
    if "--format" in str(caught.value) and "--encoding" not in str(caught.value):
        assert str(caught.value).endswith("csv|csv-semicolon|csv-pipe|tsv|jsonl|parquet|twitter.")
        with pytest.raises(UsageError, match=r"\|parquet\.$"):  # what its --format takes
            read_labelled(path)


class OtherText(str):
    __slots__ = ()


def json_text_by_json_dumps(value):
    """What `json_text` was before it was made fast: `json.dumps` for each single value."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        parts = (f"{json_text_by_json_dumps(str(key))}: {json_text_by_json_dumps(part)}" for key, part in value.items())
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(json_text_by_json_dumps, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    if isinstance(value, bytes):
        return f'"{value.hex()}"'
    return json.dumps(value, ensure_ascii=False, default=str)


texts = st.text(st.characters(), max_size=8)  # lone surrogates, too
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.floats(width=32).map(np.float64),
        texts,
        texts.map(OtherText),
        st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]+)?([eE][+-]?[0-9]+)?", fullmatch=True).map(Number),
        st.binary(max_size=4),
        st.uuids(),
        st.decimals(),
    ),
    lambda parts: st.one_of(
        st.lists(parts, max_size=4),
        st.lists(parts, max_size=4).map(tuple),
        st.dictionaries(
            st.one_of(texts, texts.map(Number), st.integers(), st.none(), st.booleans()), parts, max_size=4
        ),
    ),
    max_leaves=20,
)


@given(values)
def test_json_text_is_to_the_byte_what_json_dumps_makes_of_each_value(value):
    assert json_text(value) == json_text_by_json_dumps(value)


def test_json_text_makes_no_encoder_for_each_value(monkeypatch):
    """That took most of the time of writing nested records as cells."""
    monkeypatch.setattr(json, "dumps", None)
    assert json_text({"a": [Number("1"), "b", 2, 0.5, None, True], "c": {}}) == (
        '{"a": [1, "b", 2, 0.5, null, true], "c": {}}'
    )


def test_formats_that_are_offered_are_those_that_tables_have():
    assert {*TABLES, "twitter"} == set(all_formats())


def test_parquet_texts_in_binary_views_are_read(tmp_path, classifier):
    import pyarrow as pa
    import pyarrow.parquet as pq

    views = pa.array([b"good \xc3\xa9", b"bad"], pa.binary_view())
    schema = pa.schema([pa.field("text", pa.binary_view()), pa.field("other", pa.binary_view())])
    try:
        pq.write_table(pa.Table.from_arrays([views, views], schema=schema), tmp_path / "a.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("this old pyarrow knows no views in files")
    score_archive(classifier, [tmp_path / "a.parquet"], tmp_path / "a.csv")
    found = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8", newline="")))
    assert [(row["other"], row["status"]) for row in found] == [("676f6f6420c3a9", "ok"), ("626164", "ok")]


def test_a_later_parquet_file_may_have_nulls(tmp_path, classifier):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, nullable, values in (("a", False, [1]), ("b", True, [None])):
        schema = pa.schema([pa.field("text", pa.string()), pa.field("n", pa.int64(), nullable=nullable)])
        pq.write_table(pa.table([["good"], values], schema=schema), tmp_path / f"{name}.parquet")
    score_archive(classifier, [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "o.parquet")
    assert pq.read_table(tmp_path / "o.parquet")["n"].to_pylist() == [1, None]


def test_parquet_values_beyond_what_can_be_told_name_their_column(tmp_path, classifier):
    import pyarrow as pa
    import pyarrow.parquet as pq

    days = pa.array([2**30], pa.int32()).cast(pa.date32())
    columns = {"text": ["good"], "days": pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), days)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet, rows 1 to 1: column 'days' holds what cannot be told as text"):
        score_archive(classifier, [tmp_path / "a.parquet"], tmp_path / "o.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    score_archive(classifier, [tmp_path / "a.parquet"], tmp_path / "o.parquet")
    assert pq.read_table(tmp_path / "o.parquet")["days"].equals(pq.read_table(tmp_path / "a.parquet")["days"])


def test_an_encoding_means_nothing_to_parquet(tmp_path, classifier):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["caf\u00e9"]}), path)
    with pytest.raises(UsageError, match=r"--encoding is for .*a\.parquet is read as Parquet.*Leave it out"):
        score_archive(classifier, [path], tmp_path / "o.csv", encoding="cp1252")
    assert rows(path, encoding="UTF8")[0].get("text") == "caf\u00e9"


def parquet_values(path: Path, values) -> list[str]:
    """Return a column's values as CSV has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"c": values}), path)
    with open_table(path) as table:
        return [cells[0] for cells in table.read(100).cells(["c"])]


def test_parquet_values_have_one_text_wherever_they_are_nested(tmp_path):
    import pyarrow as pa

    path = tmp_path / "a.parquet"
    kinds = {
        pa.time64("ns"): 3_723_123_456_789,  # Python's own time has microseconds
        pa.timestamp("ns"): 1_234_567_890_123_456_789,
        pa.timestamp("us"): 253_402_300_800_000_000,  # Python's own years end with 9999
        pa.timestamp("ns", "UTC"): 1_234_567_890_123_456_789,
        pa.duration("ns"): 123_456_789,
        pa.date32(): -800_000,
    }
    for kind, number in kinds.items():
        values = pa.array([number, None], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
        text, nothing = parquet_values(path, values)
        assert (text, nothing) == (str(values.cast(pa.string())[0]), "")
        lists = pa.ListArray.from_arrays([0, 0, 2], values, mask=pa.array([True, False]))
        structures = pa.StructArray.from_arrays([values, lists], ["a", "b"], mask=pa.array([True, False]))
        assert parquet_values(path, lists) == ["", f'["{text}", null]']
        assert parquet_values(path, structures) == ["", f'{{"a": null, "b": ["{text}", null]}}']
        assert parquet_values(path, pa.FixedSizeListArray.from_arrays(values, 2)) == [f'["{text}", null]']
    pairs = pa.MapArray.from_arrays([0, 2, 2], ["k", "l"], pa.array([1, None], pa.time64("ns")))
    assert parquet_values(path, pairs) == ['[["k", "00:00:00.000000001"], ["l", null]]', "[]"]


def test_parquet_numbers_of_fewer_bits_have_the_fewest_digits(tmp_path):
    import numpy as np
    import pyarrow as pa

    path = tmp_path / "a.parquet"
    values = ["0.1", "1e-40", "3.4028235e+38", "16777216.0", "-0.0", "nan", "-inf", "123456.79"]
    floats = pa.array([float(value) for value in values], pa.float32())
    assert parquet_values(path, floats) == parquet_values(path, floats.dictionary_encode()) == values
    assert parquet_values(path, pa.FixedSizeListArray.from_arrays(floats.slice(0, 2), 2)) == ["[0.1, 1e-40]"]
    assert parquet_values(path, pa.array(np.array([0.1, 65504, np.nan], np.float16))) == ["0.1", "65500.0", "nan"]


@given(st.lists(st.floats(width=32), min_size=1))
def test_a_float32_comes_back_from_its_text(tmp_path_factory, numbers):
    import numpy as np
    import pyarrow as pa

    texts = parquet_values(tmp_path_factory.mktemp("floats") / "a.parquet", pa.array(numbers, pa.float32()))
    values = np.array(numbers, np.float32)
    assert np.array_equal(np.array([np.float32(text) for text in texts]), values, equal_nan=True)
    assert all(float(text) == float(str(value)) for text, value in zip(texts, values, strict=True) if value == value)


def test_times_beyond_any_calendar_are_refused_nested_or_not(tmp_path):
    import pyarrow as pa

    far = pa.array([2**60], pa.timestamp("us"))
    for values in (far, pa.ListArray.from_arrays([0, 1], far)):
        with pytest.raises(InputError, match=r"'c' holds what cannot be told as text: value out of range: 1152921504"):
            parquet_values(tmp_path / "a.parquet", values)


def test_what_is_no_parquet_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="not a sound Parquet file"):
        rows(write(tmp_path, "a.parquet", b"PAR1 not really PAR1"))
    with pytest.raises(UsageError, match="standard input"):
        open_table("-", format="parquet")


def test_missing_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"edgewren\[parquet\]"):
        open_table(write(tmp_path, "a.parquet", b"x"))


# Any source


def test_missing_files_and_folders_are_input_errors(tmp_path):
    for name in ("none.csv", "none", "none.parquet"):
        with pytest.raises(InputError, match="does not exist"):
            open_table(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    for name in ("folder.csv", "."):
        with pytest.raises(InputError, match="is a folder"):
            open_table(tmp_path / name)


def test_unknown_format_is_a_usage_error(tmp_path):
    path = write(tmp_path, "a.txt", "a\n1\n")
    with pytest.raises(UsageError, match="--format"):
        open_table(path)
    with pytest.raises(UsageError, match="Unknown format 'xlsx'"):
        open_table(path, format="xlsx")
    assert len(rows(path, format="csv")) == 1


def test_standard_input_is_csv_unless_told_otherwise(monkeypatch):
    for data, options in ((b"text\nx\n", {}), (gzip.compress(b'{"text":"x"}\n'), {"format": "jsonl"})):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        with open_table("-", **options) as table:
            assert table.name == "standard input"
            assert [row.get("text") for row in table] == ["x"]


def test_bytes_read_and_hash_are_the_files(tmp_path):
    import hashlib

    data = gzip.compress(b"a,b\n" + b"1,2\n" * 100_000)
    with open_table(write(tmp_path, "a.csv.gz", data)) as table:
        assert sum(1 for _ in table) == 100_000
        assert table.bytes_read == len(data)
        assert table.sha256() == hashlib.sha256(data).hexdigest()


field = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.lists(field, min_size=2, max_size=2), max_size=6))
def test_any_table_that_csv_can_write_is_read_back(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("h") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["a", "b"], *table])
    assert [list(row.fields.values()) for row in rows(path)] == table


@given(st.lists(st.dictionaries(field, field, max_size=3), min_size=1, max_size=6), st.booleans())
def test_any_records_that_json_can_write_are_read_back(tmp_path_factory, records, ascii_only):
    path = tmp_path_factory.mktemp("h") / "a.jsonl"
    path.write_bytes("".join(json.dumps(r, ensure_ascii=ascii_only) + "\n" for r in records).encode())
    assert [row.fields for row in rows(path)] == records


@given(st.binary(max_size=60), st.sampled_from(["csv", "tsv", "jsonl"]))
def test_any_bytes_give_rows_or_an_error_of_ours(tmp_path_factory, data, kind):
    path = tmp_path_factory.mktemp("h") / f"a.{kind}"
    path.write_bytes(data)
    try:
        numbers = [row.number for row in rows(path)]
    except EdgewrenError:
        return
    assert numbers == list(range(1, len(numbers) + 1))


def test_bytes_that_a_named_encoding_lacks_are_no_reason_to_name_it_again(tmp_path):
    path = write(tmp_path, "a.csv", b"text\nna\xc3\x8f\n")
    with pytest.raises(InputError, match=r"is 0x8f, which is not valid cp1252 .* leave --encoding out"):
        rows(path, encoding="cp1252")
