"""Rows to files: untouched columns, whole files or none, errors of ours."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewren.archive.readers import Number, Row, open_table
from edgewren.archive.whole_file import WholeFile
from edgewren.archive.writers import Writer, choose_output_format
from edgewren.errors import InputError, OutputError, UsageError


def written(path, rows, *, columns=("a",), added=("label",), format="csv", values=("x",), **options):
    with Writer(path, format=format, columns=columns, added=added, **options) as writer:
        for row in rows:
            writer.write(row, list(values))
    return path.read_bytes()


def test_csv_is_rfc_4180_with_newlines(tmp_path):
    fields = {"a": 'q"uote', "b": "line\r\nbreak", "c": "lone\rreturn", "d": " @x,y ", "e": ""}
    data = written(tmp_path / "o.csv", [Row(1, 2, fields)], columns=list(fields), values=[Number("0.5")])
    assert data == b'a,b,c,d,e,label\n"q""uote","line\r\nbreak","lone\rreturn"," @x,y ",,0.5\n'


def test_tsv_is_the_same_with_tabs(tmp_path):
    data = written(tmp_path / "o.tsv", [Row(1, 2, {"a": "x\ty,z"})], format="tsv")
    assert data == b'a\tlabel\n"x\ty,z"\tx\n'


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            '{"id": 12345678901234567890, "x":1.50 , "u":"\\u00e9"}',
            '{"id": 12345678901234567890, "x":1.50 , "u":"\\u00e9", "label": "x", "score": 0.5}',
        ),
        ('  {"a":{"b":1} } \t', '  {"a":{"b":1} , "label": "x", "score": 0.5}'),
    ],
)
def test_a_jsonl_line_keeps_every_byte(tmp_path, raw, expected):
    row = Row(1, 1, json.loads(raw), raw)
    options = {"added": ("label", "score"), "values": ("x", Number("0.5")), "format": "jsonl"}
    assert written(tmp_path / "o.jsonl", [row], **options) == expected.encode() + b"\n"


def test_an_empty_object_gets_the_added_keys_alone(tmp_path):
    for row in (Row(1, 1, {}, "{}"), Row(1, 1, {}, "not json", "not valid JSON")):
        assert written(tmp_path / "o.jsonl", [row], format="jsonl", force=True, values=(None,)) == b'{"label": null}\n'


def test_jsonl_to_csv_has_text_of_values(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"id":12345678901234567890,"f":1.50,"n":null,"b":true,"l":[1.0,{"k":"é"}],"s":"x"}\n{"s":"y"}\n')
    with open_table(path) as table:
        data = written(tmp_path / "o.csv", table, columns=table.columns)
    assert list(csv.reader(io.StringIO(data.decode()))) == [
        ["id", "f", "n", "b", "l", "s", "label"],
        ["12345678901234567890", "1.50", "", "true", '[1.0, {"k": "é"}]', "x", "x"],
        ["", "", "", "", "", "y", "x"],
    ]


def test_a_further_key_has_no_place_in_csv(tmp_path):
    with pytest.raises(InputError, match=r"Row 2 \(line 2\) has the key 'b'.*--output-format jsonl"):
        written(tmp_path / "o.csv", [Row(1, 1, {"a": "1"}), Row(2, 2, {"a": "1", "b": "2"})])
    assert list(tmp_path.iterdir()) == []


def test_lone_surrogates_never_stop_the_writing(tmp_path):
    row = Row(1, 1, {"a": "x\ud83dy"})
    assert written(tmp_path / "o.csv", [row]).decode() == "a,label\nx\ufffdy,x\n"
    data = written(tmp_path / "o.jsonl", [row], format="jsonl")
    assert json.loads(data) == {"a": "x\ud83dy", "label": "x"}


def test_gzip_output_is_packed_and_reproducible(tmp_path):
    first = written(tmp_path / "o.csv.gz", [Row(1, 2, {"a": "1"})])
    assert gzip.decompress(first) == b"a,label\n1,x\n"
    assert written(tmp_path / "p.csv.gz", [Row(1, 2, {"a": "1"})]) == first


def test_an_existing_file_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "o.csv"
    path.write_text("precious")
    with pytest.raises(UsageError, match="--force"):
        written(path, [])
    assert path.read_text() == "precious"
    assert written(path, [], force=True) == b"a,label\n"


def test_an_exception_leaves_what_was_there_before(tmp_path):
    path = tmp_path / "o.csv"
    path.write_text("precious")
    with pytest.raises(KeyboardInterrupt), Writer(path, format="csv", columns=["a"], added=["b"], force=True) as writer:
        writer.write(Row(1, 2, {"a": "1"}), ["x"])
        writer.reject("in.csv", Row(1, 2, {"a": "1"}), "why")
        writer.flush()
        raise KeyboardInterrupt
    assert path.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.csv"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_disk_is_an_output_error_and_leaves_nothing(tmp_path, monkeypatch, failing):
    path = tmp_path / "o.csv"
    path.write_text("precious")

    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OutputError, match="o.csv cannot be written: No space left on device") as caught:
        written(path, [Row(1, 2, {"a": "1"})], force=True)
    assert caught.value.exit_code == 6
    assert path.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_is_written_to_not_replaced():
    with pytest.raises(OutputError, match="No space left"):
        written_to = WholeFile("/dev/full")
        try:
            written_to.write(b"x" * 100_000)
            written_to.finish()
        finally:
            written_to.discard()
    assert not Path("/dev/full").is_file()


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    written(tmp_path / "link.csv", [], force=True)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "a,label\n"


def test_places_that_cannot_be_written_are_output_errors(tmp_path):
    with pytest.raises(OutputError, match="No such file or directory"):
        written(tmp_path / "none" / "o.csv", [])
    with pytest.raises(OutputError, match="is a folder"):
        written(tmp_path, [])


def test_rejects_are_listed_beside_the_output(tmp_path):
    path = tmp_path / "o.csv"
    rows = [Row(1, 2, {"a": "1"}, ("1", "2"), "2 fields"), Row(2, 3, {"a": "é"})]
    with Writer(path, format="csv", columns=["a"], added=["label"]) as writer:
        for row in rows:
            writer.write(row, [None])
            writer.reject("in.csv", row, "why")
    listed = [json.loads(line) for line in (tmp_path / "o.csv.rejects.jsonl").read_text().splitlines()]
    assert listed == [
        {"source": "in.csv", "row": 1, "line": 2, "reason": "why", "raw": ["1", "2"]},
        {"source": "in.csv", "row": 2, "line": 3, "reason": "why", "raw": {"a": "é"}},
    ]
    with pytest.raises(UsageError, match=r"rejects.jsonl exists already"):
        written(tmp_path / "o.csv", [], force=False)
    written(path, [], force=True)
    assert not (tmp_path / "o.csv.rejects.jsonl").exists()


def test_output_format_is_requested_or_named_or_the_inputs():
    assert choose_output_format("o.csv.gz", None, "jsonl") == "csv"
    assert choose_output_format("o.csv", "jsonl", "csv") == "jsonl"
    assert choose_output_format(None, None, "tsv") == "tsv"
    assert choose_output_format("o.txt", None, "parquet") == "jsonl"
    for output, requested in (("o.parquet", None), (None, "parquet"), (None, "xlsx")):
        with pytest.raises(UsageError, match="Cannot write format"):
            choose_output_format(output, requested, "csv")


def test_a_closed_pipe_is_an_output_error_caused_by_it(monkeypatch):
    class Closed(io.RawIOBase):
        def writable(self):
            return True

        def write(self, _):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Closed())))
    with (
        pytest.raises(OutputError, match="Standard output") as caught,
        Writer(None, format="csv", columns=["a"], added=["b"]),
    ):
        pass
    assert isinstance(caught.value.__cause__, BrokenPipeError)
    monkeypatch.undo()


field = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.lists(field, min_size=2, max_size=2), max_size=5), st.sampled_from(["csv", "tsv"]))
def test_any_table_survives_writing_and_reading(tmp_path_factory, table, kind):
    path = tmp_path_factory.mktemp("h") / f"o.{kind}"
    rows = [Row(n, n, dict(zip("ab", values, strict=True))) for n, values in enumerate(table, 1)]
    written(path, rows, columns=("a", "b"), format=kind)
    with open_table(path) as found:
        assert [list(row.fields.values()) for row in found] == [[*values, "x"] for values in table]
