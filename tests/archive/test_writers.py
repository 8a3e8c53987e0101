"""Rows to bytes: untouched columns, in every format; what stands where a file cannot be replaced."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewren.archive.disk import Disk
from edgewren.archive.format_names import TABLES
from edgewren.archive.formats import all_formats
from edgewren.archive.labelled import read_labelled
from edgewren.archive.readers import open_table
from edgewren.archive.run import score_archive
from edgewren.archive.table import Added
from edgewren.archive.whole_file import WholeFile
from edgewren.errors import InputError, OutputError, UsageError

ADDED = ("label", "score")


def encoded(tmp_path: Path, name: str, data: str | bytes, kind: str, *, labels=None, excel_safe=False) -> bytes:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with open_table(path) as table:
        encoder = all_formats()[kind].encoder(table, ADDED)
        encoder.excel_safe = excel_safe
        out = encoder.header()
        while (block := table.read(100)) is not None:
            found = labels or ["x"] * len(block)
            out += encoder.encode(block, Added(found, [], ["0.5"] * len(block)))
    assert encoder.count(iter([out])) == len(found)
    assert encoder.count(iter(out[i : i + 1] for i in range(len(out)))) == len(found)
    return out


def test_csv_is_rfc_4180_with_newlines(tmp_path):
    source = 'a,b,c,d,e\n"q""uote","line\r\nbreak","lone\rreturn"," @x,y ",\n'
    expected = 'a,b,c,d,e,label,score\n"q""uote","line\r\nbreak","lone\rreturn"," @x,y ",,x,0.5\n'
    assert encoded(tmp_path, "i.csv", source, "csv") == expected.encode()


def test_tsv_is_the_same_with_tabs(tmp_path):
    assert encoded(tmp_path, "i.csv", 'a\n"x\ty,z"\n', "tsv") == b'a\tlabel\tscore\n"x\ty,z"\tx\t0.5\n'


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            '{"id": 12345678901234567890, "x":1.50 , "u":"\\u00e9"}',
            '{"id": 12345678901234567890, "x":1.50 , "u":"\\u00e9", "label": "x", "score": "0.5"}',
        ),
        ('  {"a":{"b":1} } \t', '  {"a":{"b":1} , "label": "x", "score": "0.5"}'),
        ("{}", '{"label": "x", "score": "0.5"}'),
        (" { } ", '{"label": "x", "score": "0.5"}'),
    ],
)
def test_a_jsonl_line_keeps_every_byte(tmp_path, raw, expected):
    assert encoded(tmp_path, "i.jsonl", raw + "\n", "jsonl") == expected.encode() + b"\n"


def test_a_line_that_is_no_object_leaves_the_added_keys_alone(tmp_path):
    data = encoded(tmp_path, "i.jsonl", '{"a": 1}\nnot json\n', "jsonl", labels=["x", None])
    assert data.splitlines()[1] == b'{"label": null, "score": "0.5"}'


def test_jsonl_to_csv_has_text_of_values(tmp_path):
    source = '{"id":12345678901234567890,"f":1.50,"n":null,"b":true,"l":[1.0,{"k":"é"}],"s":"x"}\n{"s":"y"}\n'
    data = encoded(tmp_path, "i.jsonl", source, "csv")
    assert list(csv.reader(io.StringIO(data.decode()))) == [
        ["id", "f", "n", "b", "l", "s", "label", "score"],
        ["12345678901234567890", "1.50", "", "true", '[1.0, {"k": "é"}]', "x", "x", "0.5"],
        ["", "", "", "", "", "y", "x", "0.5"],
    ]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_further_key_has_no_place_in_columns(tmp_path, kind):
    records = '{"a": "1"}\n' * 1000 + '{"a": "1", "b": "2"}\n'
    with pytest.raises(InputError, match=r"i\.jsonl: Row 1001 \(line 1001\) has the key 'b'.*--output-format jsonl"):
        encoded(tmp_path, "i.jsonl", records, kind)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_row_names_of_pandas_and_r_need_no_name(tmp_path, classifier, kind):
    source, middle, output = tmp_path / "i.csv", tmp_path / f"m.{kind}", tmp_path / "o.csv"
    source.write_text('"",text\n7,good\n"x, y",bad bad\n', encoding="utf-8")
    score_archive(classifier, [source], middle)
    score_archive(classifier, [middle], output, prefix="again_")
    header, *records = csv.reader(output.read_text(encoding="utf-8").splitlines())
    assert header[:2] == ["", "text"]
    assert [record[:2] for record in records] == [["7", "good"], ["x, y", "bad bad"]]


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        *((kind, keys) for kind in ("csv", "tsv") for keys in (["a", ""], [" ", "a"])),
        *((kind, ["a\\ud800", "a\\udfff"]) for kind in ("csv", "tsv", "parquet")),
    ],
)
def test_keys_that_no_column_can_be_named_are_refused(tmp_path, classifier, kind, keys):
    source, output = tmp_path / "i.jsonl", tmp_path / f"o.{kind}"
    source.write_text(f'{{"text": "good", "{keys[0]}": "1", "{keys[1]}": "2"}}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"i\.jsonl has the key '.*--output-format jsonl"):
        score_archive(classifier, [source], output)
    assert [path.name for path in tmp_path.iterdir()] == ["i.jsonl"]
    score_archive(classifier, [source], tmp_path / "o.jsonl")


@pytest.mark.parametrize("key", ["", " "])
def test_parquet_has_columns_with_blank_names(tmp_path, classifier, key):
    pytest.importorskip("pyarrow")
    source, middle, output = (tmp_path / name for name in ("i.jsonl", "m.parquet", "o.jsonl"))
    source.write_text(f'{{"text": "good", "{key}": "1"}}\n', encoding="utf-8")
    score_archive(classifier, [source], middle)
    score_archive(classifier, [middle], output, prefix="again_")
    assert json.loads(output.read_text(encoding="utf-8"))[key] == "1"


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_keys_that_not_all_records_have_are_columns(tmp_path, kind):
    records = '{"a": "1"}\n{"b": 1.50}\noops\n{"b": null, "a": "2"}\n'
    lines = encoded(tmp_path, "i.jsonl", records, kind).decode().splitlines()
    delimiter = "," if kind == "csv" else "\t"
    assert [line.split(delimiter)[:2] for line in lines] == [["a", "b"], ["1", ""], ["", "1.50"], ["", ""], ["2", ""]]


def test_lone_surrogates_never_stop_the_writing(tmp_path):
    source = '{"a": "x\\ud83dy"}\n'
    assert encoded(tmp_path, "i.jsonl", source, "csv").decode() == "a,label,score\nx\ufffdy,x,0.5\n"
    assert json.loads(encoded(tmp_path, "i.jsonl", source, "jsonl"))["a"] == "x\ud83dy"


def test_excel_safe_prefixes_formulas_and_leaves_numbers(tmp_path):
    source = "a,b,c,d,e,f\n=cmd,+1,-1.5e3,@name,-x,plain\n"
    data = encoded(tmp_path, "i.csv", source, "csv", excel_safe=True)
    assert data.decode().splitlines()[1] == "'=cmd,+1,-1.5e3,'@name,'-x,plain,x,0.5"


def test_excel_safe_says_how_many_and_is_refused_where_it_means_nothing(tmp_path, classifier):
    source = tmp_path / "i.csv"
    source.write_text("text\n@senator good\ngood\n@x\n")
    report = score_archive(classifier, [source], tmp_path / "o.csv", excel_safe=True)
    assert report.prefixed == 2
    assert "'@senator good" in (tmp_path / "o.csv").read_text()
    with pytest.raises(UsageError, match="--excel-safe is for CSV and TSV"):
        score_archive(classifier, [source], tmp_path / "o.jsonl", excel_safe=True)


def test_parquet_keeps_types_and_gives_others_text(tmp_path, classifier):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"id": [2**62, None], "text": ["good", None], "n": [1.5, 2.5], "tags": [["a"], []]})
    pq.write_table(table, tmp_path / "i.parquet")
    (tmp_path / "i.jsonl").write_text('{"id": 12345678901234567890, "text": "good", "n": null}\n')
    score_archive(classifier, [tmp_path / "i.parquet"], tmp_path / "o.parquet")
    out = pq.read_table(tmp_path / "o.parquet")
    assert out.select(table.column_names).equals(table)
    assert [out.schema.field(name).type for name in ("label", "score", "status")] == [
        pa.string(),
        pa.float32(),
        pa.string(),
    ]
    assert out["status"].to_pylist() == ["ok", "rejected:text is null, expected text"]
    assert out["score"].to_pylist()[1] is None
    score_archive(classifier, [tmp_path / "i.jsonl"], tmp_path / "p.parquet")
    assert pq.read_table(tmp_path / "p.parquet").to_pylist()[0]["id"] == "12345678901234567890"
    assert pq.read_table(tmp_path / "p.parquet").to_pylist()[0]["n"] is None


def test_packed_output_is_one_member_per_window_and_reproducible(tmp_path, classifier):
    source = tmp_path / "i.csv"
    source.write_text("text\n" + "good vote\n" * 10)
    for name in ("a.csv.gz", "b.csv.gz"):
        score_archive(classifier, [source], tmp_path / name, window=3)
    data = (tmp_path / "a.csv.gz").read_bytes()
    assert data == (tmp_path / "b.csv.gz").read_bytes()
    assert data.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") == 4  # no name, no time
    assert gzip.decompress(data).count(b"\n") == 11


@pytest.mark.parametrize("name", ["o.parquet.gz", None])
def test_parquet_is_neither_packed_nor_sent_to_standard_output(tmp_path, classifier, name):
    source = tmp_path / "i.csv"
    source.write_text("text\ngood\n")
    with pytest.raises(UsageError, match="parquet cannot be written"):
        score_archive(classifier, [source], name and tmp_path / name, output_format="parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["i.csv"]


@pytest.mark.parametrize(("kind", "mark"), [("csv-semicolon", ";"), ("csv-pipe", "|")])
def test_csv_with_another_delimiter_keeps_it(tmp_path, classifier, capsysbinary, kind, mark):
    source = tmp_path / "i.csv"
    source.write_text(f'id{mark}text\n1{mark}"good{mark} vote"\n2{mark}bad, tax\n')
    score_archive(classifier, [source], None, format=kind)
    printed = capsysbinary.readouterr().out
    for name, options, first in (
        ("o.csv", {}, f'1{mark}"good{mark} vote"{mark}'),
        ("o.csv.gz", {}, f'1{mark}"good{mark} vote"{mark}'),
        ("p.csv", {"output_format": "csv"}, f"1,good{mark} vote,"),
        ("o.tsv", {}, f"1\tgood{mark} vote\t"),
    ):
        score_archive(classifier, [source], tmp_path / name, format=kind, **options)
        data = (tmp_path / name).read_bytes()
        data = gzip.decompress(data) if name.endswith(".gz") else data
        assert data.splitlines()[1].startswith(first.encode())
        assert name != "o.csv" or data == printed
    labelled = read_labelled(tmp_path / "o.csv", label_column="id", format=kind)
    assert labelled.texts == (f"good{mark} vote", "bad, tax")


def test_output_format_is_requested_or_named_or_the_inputs(tmp_path, classifier):
    source = tmp_path / "i.tsv"
    source.write_text("text\ngood\n")
    for name, options, start in (
        ("o.csv", {}, b"text,label"),
        ("o.csv", {"output_format": "jsonl", "force": True}, b'{"text"'),
        ("o.txt", {}, b"text\tlabel"),
    ):
        score_archive(classifier, [source], tmp_path / name, **options)
        assert (tmp_path / name).read_bytes().startswith(start)
    for requested in ("xlsx", "twitter"):
        with pytest.raises(UsageError, match="Cannot write format"):
            score_archive(classifier, [source], tmp_path / "x", output_format=requested)


# Where nothing can be replaced


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_a_pipe_under_the_name_of_standard_output_is_written_to(tmp_path, tiny_bundle):
    source = tmp_path / "a.csv"
    source.write_text("text\ngood\n", encoding="utf-8")
    argv = [sys.executable, "-m", "edgewren", "score", str(source), "--model", str(tiny_bundle)]
    done = subprocess.run([*argv, "--output", "/dev/stdout"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[0][:10]) == (0, "text,label")
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_is_written_to_not_replaced(tmp_path, classifier):
    source = tmp_path / "i.csv"
    source.write_text("text\n" + "good\n" * 1000)
    with pytest.raises(OutputError, match="No space left"):
        score_archive(classifier, [source], "/dev/full")
    assert not Path("/dev/full").is_file()
    score_archive(classifier, [source], "/dev/null")


def test_a_closed_pipe_is_an_output_error_caused_by_it(tmp_path, classifier, monkeypatch):
    class Closed(io.RawIOBase):
        def writable(self):
            return True

        def write(self, _):
            raise BrokenPipeError(32, "Broken pipe")

    source = tmp_path / "i.csv"
    source.write_text("text\ngood\n")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Closed())))
    with pytest.raises(OutputError, match="Standard output") as caught:
        score_archive(classifier, [source])
    assert isinstance(caught.value.__cause__, BrokenPipeError)
    Closed.write = lambda _, data: len(data)  # what is still buffered goes there when the stream is collected
    monkeypatch.undo()


def test_a_whole_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "o.txt"
    path.write_text("precious")
    with pytest.raises(UsageError, match="--force"):
        WholeFile(path)
    unfinished = WholeFile(path, force=True)
    unfinished.write(b"new")
    assert path.read_text() == "precious"
    unfinished.discard()
    finished = WholeFile(path, force=True)
    finished.write(b"new")
    finished.finish()
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.txt"]


def test_the_rows_of_a_parquet_file_with_a_long_index_are_counted(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = pa.table({"text": ["x" * 3900, "y" * 3900], **{f"c{n}": ["z" * 3900] * 2 for n in range(4)}})
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, rows.schema, compression="zstd") as writer:
        for _ in range(900):
            writer.write_table(rows)
    (tmp_path / "a.parquet").write_bytes(stream.getvalue())
    assert int.from_bytes(stream.getvalue()[-8:-4], "little") > 32 * 2**20
    with open_table(tmp_path / "a.parquet") as table:
        encoder = all_formats()["parquet"].encoder(table, ADDED)
    disk = Disk()
    assert encoder.count_sealed(lambda size: disk.end(tmp_path / "a.parquet", size)) == 1800
    cut = stream.getvalue()[-1000:]
    assert encoder.count_sealed(lambda size: cut[-size:]) == -1
    assert encoder.count_sealed(lambda size: b"PAR1"[-size:]) == -1


# Any table survives

field = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
tables = st.lists(st.lists(field, min_size=2, max_size=2), max_size=5)
DELIMITERS = {"csv": ",", "csv-semicolon": ";", "csv-pipe": "|", "tsv": "\t"}
KINDS = ("csv", "tsv", "jsonl", "parquet", "csv.gz", "jsonl.zst", "tsv.xz", "jsonl.bz2")


def round_trip(folder: Path, classifier, table, source_kind, kind, window):
    source = folder / f"i.{source_kind.partition('-')[0]}"
    if source_kind == "jsonl":
        source.write_bytes(b"".join(json.dumps({"text": a, "b": b}).encode() + b"\n" for a, b in table))
    elif source_kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"text": [a for a, _ in table], "b": [b for _, b in table]}
        pq.write_table(pa.table(columns, schema=pa.schema([("text", pa.string()), ("b", pa.string())])), source)
    else:
        with source.open("w", encoding="utf-8", newline="") as stream:
            delimiter = DELIMITERS[source_kind]
            csv.writer(stream, delimiter=delimiter, lineterminator="\r\n").writerows([["text", "b"], *table])
    report = score_archive(classifier, [source], folder / f"o.{kind}", format=source_kind, window=window)
    assert (report.rows, report.rejected) == (len(table), 0)
    if report.rows or "jsonl" not in kind:
        written = source_kind if kind.startswith("csv") and source_kind.startswith("csv") else None
        with open_table(folder / f"o.{kind}", format=written) as found:
            assert [list(row.fields.values())[:2] for row in found] == table


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(tables, st.sampled_from(TABLES), st.sampled_from(KINDS), st.integers(1, 4))
def test_any_unicode_table_survives_scoring(tmp_path_factory, classifier, table, source_kind, kind, window):
    if source_kind == "jsonl" and not table:
        table = [["x", "y"]]
    round_trip(tmp_path_factory.mktemp("h"), classifier, table, source_kind, kind, window)


@pytest.mark.proof
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=2000, deadline=None)
@given(tables, st.sampled_from(TABLES), st.sampled_from(KINDS), st.integers(1, 4))
def test_any_of_two_thousand_unicode_tables_survives_scoring(
    tmp_path_factory, classifier, table, source_kind, kind, window
):
    if source_kind == "jsonl" and not table:
        table = [["x", "y"]]
    round_trip(tmp_path_factory.mktemp("h"), classifier, table, source_kind, kind, window)
