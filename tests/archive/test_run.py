"""One row in, one row out, in order, whatever is in the rows."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewren import Classifier
from edgewren.archive import compression, table
from edgewren.archive import run as archive_run
from edgewren.archive.field_limit import FIELD_LIMIT
from edgewren.archive.formats import jsonl, twitter
from edgewren.archive.readers import open_table
from edgewren.archive.run import score_archive
from edgewren.cli.main import main
from edgewren.errors import InputError, OutputError, UsageError


@pytest.fixture(scope="module")
def classifier(tiny_bundle) -> Classifier:
    return Classifier.load(tiny_bundle, device="cpu", threads=1)


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def table_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True))


def test_columns_pass_through_and_scores_follow(tmp_path, classifier):
    source = write(tmp_path / "in.csv", 'id,text,x\n0012345678901234567890,"good, vote",1.50\n2,bad tax,\n')
    report = score_archive(classifier, [source], tmp_path / "out.csv")
    header, *rows = table_of(tmp_path / "out.csv")
    assert header == ["id", "text", "x", "label", "score", "score_neutral", "score_partisan", "status"]
    assert [row[:3] for row in rows] == [["0012345678901234567890", "good, vote", "1.50"], ["2", "bad tax", ""]]
    assert [row[3] for row in rows] == classifier.predict(["good, vote", "bad tax"])
    assert [row[-1] for row in rows] == ["ok", "ok"]
    scores = np.array([row[5:7] for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(scores, classifier.predict_proba(["good, vote", "bad tax"]))  # every bit
    assert [row[4] for row in rows] == [max(row[5:7], key=float) for row in rows]
    assert (report.rows, report.ok, report.rejected, report.distinct) == (2, 2, 0, 2)


def test_report_and_summary_say_where_texts_left(tmp_path, staged_bundle, capsys):
    bundle, texts = staged_bundle
    layers = Classifier.load(bundle, device="cpu", threads=1).score(texts).layers
    source = write(tmp_path / "in.csv", "text\n" + "\n".join(texts) + "\n")
    command = ["score", str(source), "--model", str(bundle), "--device", "cpu", "--output"]
    assert main([*command, str(tmp_path / "out.csv")]) == 0
    document = json.loads((tmp_path / "out.csv.report.json").read_text())
    expected = {str(layer): round(float((layers == layer).mean()), 6) for layer in (0, 1, 2)}
    assert document["left_after_layer"] == expected
    shares = "left 33.3% after layer 0, 33.3% after layer 1, 33.3% after layer 2"
    assert shares in capsys.readouterr().err
    assert main([*command, str(tmp_path / "whole.csv"), "--variant", "fp32"]) == 0
    assert json.loads((tmp_path / "whole.csv.report.json").read_text())["left_after_layer"] is None
    assert "left" not in capsys.readouterr().err


def test_an_empty_file_has_no_shares_to_tell(tmp_path, staged_bundle, capsys):
    source = write(tmp_path / "in.csv", "text\n")
    assert main(["score", str(source), "--model", str(staged_bundle[0]), "--output", str(tmp_path / "out.csv")]) == 0
    assert "left" not in capsys.readouterr().err
    document = json.loads((tmp_path / "out.csv.report.json").read_text())
    assert document["left_after_layer"] == {"0": 0.0, "1": 0.0, "2": 0.0}


def test_scores_have_the_shortest_spelling_in_csv_and_jsonl(tmp_path, classifier):
    source = write(tmp_path / "in.csv", "text\ngood vote\n")
    score_archive(classifier, [source], tmp_path / "out.csv")
    score_archive(classifier, [source], tmp_path / "out.jsonl")
    spelled = table_of(tmp_path / "out.csv")[1][2]
    assert spelled == str(np.float32(spelled))
    assert f'"score": {spelled},' in (tmp_path / "out.jsonl").read_text()


def test_every_status(tmp_path, classifier):
    records = [
        {"text": "good vote"},
        {"text": "good " * 100},
        {"text": "good \ud83d"},
        {"text": "good \ud83d " * 100},
        {"text": " \t\n"},
        {"text": ""},
        {"text": "nonfinite"},
        {"text": None},
        {"text": 3},
        {"other": "x"},
    ]
    source = write(tmp_path / "in.jsonl", "".join(json.dumps(record) + "\n" for record in records) + "oops\n{}\n")
    report = score_archive(classifier, [source], tmp_path / "out.jsonl")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["status"] for record in found] == [
        "ok",
        "truncated",
        "repaired",
        "truncated",
        "empty",
        "empty",
        "rejected:non-finite",
        "rejected:text is null, expected text",
        "rejected:text is 3, expected text",
        "rejected:text is missing, expected text",
        "rejected:not valid JSON",
        "rejected:text is missing, expected text",
    ]
    assert all((record["label"] is None) == record["status"].startswith("rejected") for record in found)
    assert all((record["score_partisan"] is None) == (record["label"] is None) for record in found)
    assert (report.rows, report.ok, report.truncated, report.repaired, report.empty, report.rejected) == (
        12,
        1,
        2,
        1,
        2,
        6,
    )
    assert report.rejections[0] == f"row 7 of {source}: non-finite"
    rejects = [json.loads(line) for line in (tmp_path / "out.jsonl.rejects.jsonl").read_text().splitlines()]
    assert [reject["row"] for reject in rejects] == [7, 8, 9, 10, 11, 12]
    assert rejects[4]["raw"] == "oops"


WIDE = {
    "csv": "text,page\n" + f"hi,{'z' * 100_000}\n" * 300,
    "jsonl": (json.dumps({"text": "hi", "page": "z" * 100_000}) + "\n") * 300,
    "tweets.jsonl": (json.dumps({"id_str": "1", "full_text": "hi", "user": {"about": "z" * 100_000}}) + "\n") * 300,
}


@pytest.mark.parametrize("kind", [*WIDE, "parquet"])
def test_windows_end_by_what_whole_rows_take_so_memory_is_constant(tmp_path, classifier, kind):
    source = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pages = [f"{row:06}" + "z" * 100_000 for row in range(300)]
        pq.write_table(pa.table({"text": ["hi"] * 300, "page": pages}), source, row_group_size=50)
    else:
        write(source, WIDE[kind])
    rows = [0]
    score_archive(classifier, [source], tmp_path / "out.jsonl", progress=lambda done, _: rows.append(done))
    assert rows[-1] == 300
    assert np.diff(rows).max() <= 105  # 8 million characters, and what a block or a row group may be over them


MANY_VALUES = {
    "csv": lambda row: f"hi,{row:08}" + ",ab" * 300 + "\n",
    "jsonl": lambda row: json.dumps({"text": "hi", **{f"key{number}": row + number for number in range(90)}}) + "\n",
    "pages.jsonl": lambda row: json.dumps({"data": [_FAT_TWEET] * 20, "meta": {"result_count": 20}}) + "\n",
}
_FAT_TWEET = {"id": "1", "text": "hi", "author_id": "5", "context": [{"domain": {"id": "4"}, "entity": {}}] * 25}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("kind", MANY_VALUES)
def test_rows_of_many_values_wait_as_what_they_were_read_from(tmp_path, classifier, kind, form, monkeypatch):
    monkeypatch.setattr(archive_run, "WINDOW_CHARACTERS", 2**19)
    for module in (table, twitter):
        monkeypatch.setattr(module, "BLOCK_CHARACTERS", 2**17)
    header = "text,id" + "".join(f",c{number}" for number in range(300)) + "\n"
    rows = (header if kind == "csv" else "") + "".join(map(MANY_VALUES[kind], range(100 if "page" in kind else 2500)))
    source = write(tmp_path / f"in.{kind}", rows)
    score_archive(classifier, [source], tmp_path / f"first.{form}")
    tracemalloc.start()
    try:
        report = score_archive(classifier, [source], tmp_path / f"out.{form}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.rows >= 2000
    assert peak < 16 * 2**19, f"{peak / 2**19:.1f} windows"


def test_short_records_are_parsed_once(tmp_path, classifier, monkeypatch):
    parsed = []
    real = jsonl.parse_object
    monkeypatch.setattr(jsonl, "parse_object", lambda text: parsed.append(text) or real(text))
    monkeypatch.setattr(jsonl, "_HEAD_LINES", 1)
    rows = [json.dumps({"n": row, "text": "good"}) for row in range(100)]
    score_archive(classifier, [write(tmp_path / "in.jsonl", "\n".join(rows))], tmp_path / "out.csv", window=30)
    assert len(parsed) == len(rows) + 1


def test_a_ragged_row_keeps_its_place_without_scores(tmp_path, classifier):
    source = write(tmp_path / "in.csv", "id,text\n1,good\n2\n3,bad,x\n4,tax\n")
    report = score_archive(classifier, [source], tmp_path / "out.csv")
    rows = table_of(tmp_path / "out.csv")[1:]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert [row[2:6] == [""] * 4 for row in rows] == [False, True, True, False]
    assert rows[1][-1] == "rejected:1 fields where the header has 2"
    assert report.rejected == 2


@pytest.mark.parametrize("window", [1, 2, 3, 1000])
def test_the_window_changes_nothing(tmp_path, classifier, window):
    texts = [f"word{n % 7} good" * (n % 5) for n in range(50)]
    source = write(tmp_path / "in.jsonl", "".join(json.dumps({"n": n, "text": t}) + "\n" for n, t in enumerate(texts)))
    score_archive(classifier, [source], tmp_path / "out.jsonl", window=window)
    score_archive(classifier, [source], tmp_path / "whole.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [json.loads(line)["n"] for line in (tmp_path / "out.jsonl").open()] == list(range(50))


def test_several_files_go_into_one(tmp_path, classifier):
    first = write(tmp_path / "a.csv", "id,text\n1,good\n")
    second = write(tmp_path / "b.tsv.gz", gzip.compress(b"id\ttext\n2\tbad\n"))
    report = score_archive(classifier, [first, second], tmp_path / "out.csv")
    assert [row[0] for row in table_of(tmp_path / "out.csv")] == ["id", "1", "2"]
    assert report.rows == 2


@pytest.mark.parametrize(
    ("header", "difference"),
    [("id,text,z", "it also has 'z'"), ("text", "it lacks 'id'"), ("text,id", "their order differs")],
)
def test_files_with_other_columns_are_refused_before_anything_is_written(tmp_path, classifier, header, difference):
    first = write(tmp_path / "a.csv", "id,text\n1,good\n")
    second = write(tmp_path / "b.csv", header + "\n")
    with pytest.raises(UsageError, match=difference):
        score_archive(classifier, [first, second], tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("name", ["label", "score", "score_neutral", "status"])
def test_a_taken_column_name_is_refused_and_prefix_helps(tmp_path, classifier, name):
    source = write(tmp_path / "in.csv", f"text,{name}\ngood,1\n")
    with pytest.raises(UsageError, match=f"has a column '{name}' already.*--prefix"):
        score_archive(classifier, [source], tmp_path / "out.csv")
    score_archive(classifier, [source], tmp_path / "out.csv", prefix="ew_")
    assert table_of(tmp_path / "out.csv")[0][2:4] == ["ew_label", "ew_score"]


def test_a_taken_key_in_a_later_record_is_refused_too(tmp_path, classifier):
    source = write(tmp_path / "in.jsonl", '{"text":"a"}\n{"text":"b","status":"x"}\n')
    with pytest.raises(UsageError, match="'status' already"):
        score_archive(classifier, [source], tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_missing_text_column_is_an_input_error(tmp_path, classifier):
    for name, data in (("a.csv", "id,txt\n"), ("a.jsonl", '{"txt":"x"}\n')):
        with pytest.raises(InputError, match=r"no column 'text'. Did you mean 'txt'\?.*--text-column"):
            score_archive(classifier, [write(tmp_path / name, data)], tmp_path / "out.jsonl")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_names_that_are_no_unicode_are_told(tmp_path, classifier):
    source = write(tmp_path / "\udcff.csv", "text\ngood\n")
    output = tmp_path / "o\udcff.csv"
    score_archive(classifier, [source], output)
    report = json.loads((tmp_path / "o\udcff.csv.report.json").read_text())
    assert (report["inputs"][0]["path"], report["output"]["path"]) == (str(source), str(output))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"o\udcff.csv{end}" for end in ("", ".report.json")] + [
        "\udcff.csv"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_parquet_files_have_any_name(tmp_path, classifier):
    pytest.importorskip("pyarrow")
    output = tmp_path / "o\udcff.parquet"
    score_archive(classifier, [write(tmp_path / "in.csv", "text\ngood\n")], output)
    report = score_archive(classifier, [output], tmp_path / "again.parquet", prefix="x_")
    assert report.rows == 1
    with open_table(tmp_path / "again.parquet") as table:
        assert [row.get("text") for row in table] == ["good"]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "csv.zst", "csv.xz"])
def test_a_pipe_may_give_its_first_bytes_one_by_one(tmp_path, classifier, suffix):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    packed = compression.by_name(suffix)
    data = b"text\ngood\nbad\n"
    data = packed.pack(data) if packed else data

    def feed():
        with pipe.open("wb", buffering=0) as stream:
            for place in range(20):
                stream.write(data[place : place + 1])
                time.sleep(0.01)
            stream.write(data[20:])

    writer = threading.Thread(target=feed)
    writer.start()
    assert score_archive(classifier, [pipe], tmp_path / "o.csv", format="csv").rows == 2
    writer.join()


def test_standard_input_that_does_not_wait_has_not_ended(tmp_path, tiny_bundle):
    read, write_end = os.pipe()
    os.set_blocking(read, False)
    os.write(write_end, b"text\n" + b"good\n" * 5000)
    argv = [sys.executable, "-m", "edgewren", "score", "-", "--model", str(tiny_bundle), "-o", str(tmp_path / "o.csv")]
    done = subprocess.run(argv, stdin=read, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    os.close(read)
    assert done.returncode == 4
    assert "standard input cannot be read after byte 25005: Resource temporarily unavailable" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_long_fields_are_read_whoever_calls_and_the_hosts_limit_stays(tmp_path, classifier):
    before = csv.field_size_limit(1000)
    try:
        long = write(tmp_path / "long.csv", "text,k\ngood," + "x" * 2**20 + "\n" + "bad,\n" * 5000)
        reports = []
        threads = [
            threading.Thread(
                target=lambda n=n: reports.append(score_archive(classifier, [long], tmp_path / f"{n}.csv", window=9))
            )
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [report.rows for report in reports] == [5001] * 3
        assert csv.field_size_limit() == 1000
        longer = write(tmp_path / "longer.csv", "text,k\ngood," + "x" * (2**20 + 1) + "\n")
        with pytest.raises(InputError, match="more than 1,048,576 characters"):
            score_archive(classifier, [longer], tmp_path / "longer.out.csv")
        assert csv.field_size_limit() == 1000
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize("limit", [1000, 2**22, 2**31 - 1])
@pytest.mark.parametrize(
    ("data", "line"), [("text,{}\na,b\n", 1), ('text,k\na,"b\nb"\nc,{}\nd,e\n', 4), ("text,k\n{},b\n", 2)]
)
def test_the_longest_field_is_the_same_whatever_limit_the_host_has(tmp_path, limit, data, line):
    before = csv.field_size_limit(limit)
    try:
        with open_table(write(tmp_path / "a.csv", data.format("x" * 2**20))) as table:
            assert len(list(table)) == data.count("\n") - 1 - data.count('"b')
        longer = write(tmp_path / "b.csv", data.format("x" * (2**20 + 1)))
        with (
            pytest.raises(InputError, match=f"b.csv, line {line}: a field of more than 1,048,576 characters"),
            open_table(longer) as table,
        ):
            list(table)
        assert csv.field_size_limit() == limit
    finally:
        csv.field_size_limit(before)


def test_a_limit_that_the_host_sets_while_others_read_is_raised_for_us_and_comes_back():
    before = csv.field_size_limit(1000)
    try:
        with FIELD_LIMIT:
            csv.field_size_limit(2000)
            with FIELD_LIMIT:
                assert csv.field_size_limit() == 2**20
        assert csv.field_size_limit() == 2000
    finally:
        csv.field_size_limit(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_that_is_forked_while_others_read_has_the_hosts_limit():
    before = csv.field_size_limit(1000)
    reading, forked = threading.Event(), threading.Event()

    def read():
        with FIELD_LIMIT:
            reading.set()
            forked.wait()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        reading.wait()
        child = os.fork()
        if not child:
            at_once = csv.field_size_limit()
            with FIELD_LIMIT:
                pass
            os._exit((at_once, csv.field_size_limit()) != (1000, 1000))
        assert os.waitpid(child, 0)[1] == 0
    finally:
        forked.set()
        thread.join()
        after = csv.field_size_limit(before)
    assert after == 1000


def test_a_pipe_is_read_once_wherever_it_stands(tmp_path, classifier):
    first = write(tmp_path / "a.jsonl", '{"text":"good"}\n' * 3)
    pipe = tmp_path / "b.jsonl"
    os.mkfifo(pipe)
    lines = "".join(f'{{"text":"bad {number}"}}\n' for number in range(5000))
    writer = threading.Thread(target=pipe.write_text, args=(lines,))
    writer.start()
    report = score_archive(classifier, [first, pipe], tmp_path / "out.jsonl")
    writer.join()
    assert report.rows == 5003


def test_an_interrupted_run_over_a_pipe_leaves_nothing_and_cannot_be_resumed(tmp_path, classifier):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    body = "text\n" + "good vote\n" * 50

    def feed():
        with contextlib.suppress(BrokenPipeError):
            pipe.write_text(body)

    def interrupt(rows, _bytes):
        if rows == 20:
            raise KeyboardInterrupt

    writer = threading.Thread(target=feed)
    writer.start()
    with pytest.raises(KeyboardInterrupt):
        score_archive(classifier, [pipe], tmp_path / "o.csv", window=10, progress=interrupt)
    writer.join()
    assert list(tmp_path.iterdir()) == [pipe]
    with pytest.raises(UsageError, match=r"pipe.csv is no regular file: it cannot be read twice"):
        score_archive(classifier, [pipe], tmp_path / "o.csv", resume=True)  # and does not wait for a writer
    writer = threading.Thread(target=feed)
    writer.start()
    assert score_archive(classifier, [pipe], tmp_path / "o.csv").rows == 50
    writer.join()


def test_a_file_that_two_spellings_match_comes_once(tmp_path, classifier, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", "text\ngood\n")
    assert score_archive(classifier, ["*.csv", "./*.csv", f"{tmp_path}/*.csv"], "out.jsonl").rows == 1


@pytest.mark.parametrize("suffix", [".journal", ".journal.new", ".report.json.partial"])
@pytest.mark.parametrize("resume", [False, True])
def test_somebody_elses_side_files_are_left_alone(tmp_path, classifier, suffix, resume):
    source = write(tmp_path / "a.csv", "text\ngood\n")
    theirs = write(tmp_path / f"o.csv{suffix}", "my diary")
    with pytest.raises(UsageError, match=r"exists already.*--force"):
        score_archive(classifier, [source], tmp_path / "o.csv", resume=resume)
    assert theirs.read_text() == "my diary"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", theirs.name]
    assert score_archive(classifier, [source], tmp_path / "o.csv", force=True).rows == 1


def test_a_first_record_without_text_is_a_rejected_row(tmp_path, classifier):
    source = write(tmp_path / "in.jsonl", '{"n":1}\n{"n":2,"text":"good"}\n')
    report = score_archive(classifier, [source], tmp_path / "out.jsonl")
    assert report.rows == 2
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").open()]
    assert [(record["n"], record["status"]) for record in records] == [
        (1, "rejected:text is missing, expected text"),
        (2, "ok"),
    ]


def test_a_file_that_breaks_off_leaves_no_output(tmp_path, classifier):
    source = write(tmp_path / "in.csv", 'text\ngood\nbad\n"unclosed\n')
    with pytest.raises(InputError, match="line 4"):
        score_archive(classifier, [source], tmp_path / "out.csv", window=1)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_header_without_rows_gives_a_header_without_rows(tmp_path, classifier):
    report = score_archive(classifier, [write(tmp_path / "in.csv", "text\n")], tmp_path / "out.csv")
    assert (report.rows, len(table_of(tmp_path / "out.csv"))) == (0, 1)


def test_output_may_replace_its_own_input_by_force(tmp_path, classifier):
    source = write(tmp_path / "in.csv", "text\n" + "good\n" * 100)
    score_archive(classifier, [source], source, force=True, window=7)
    assert len(table_of(source)) == 101


def test_duplicates_are_computed_once_per_window(tmp_path, classifier):
    source = write(tmp_path / "in.csv", "text\n" + "good vote\n" * 100)
    assert score_archive(classifier, [source], tmp_path / "out.csv").distinct == 1


def test_progress_tells_rows_and_bytes(tmp_path, classifier):
    sources = [write(tmp_path / f"{n}.csv", "text\n" + "good\n" * 10) for n in range(2)]
    calls = []
    score_archive(classifier, sources, tmp_path / "out.csv", window=4, progress=lambda *call: calls.append(call))
    assert [rows for rows, _ in calls] == [4, 8, 12, 16, 20]
    assert calls[-1][1] == sum(source.stat().st_size for source in sources)


def test_parquet_goes_to_jsonl(tmp_path, classifier):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": [2**60], "text": ["good"]}), tmp_path / "in.parquet")
    score_archive(classifier, [tmp_path / "in.parquet"], tmp_path / "out.jsonl")
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert (record["id"], record["text"], record["status"]) == (2**60, "good", "ok")


def test_no_threads_are_left_behind(tmp_path, classifier):
    source = write(tmp_path / "in.csv", "text\ngood\n")
    before = threading.active_count()
    score_archive(classifier, [source], tmp_path / "out.csv")
    with pytest.raises(OutputError):
        score_archive(classifier, [source], tmp_path / "none" / "out.csv")
    assert threading.active_count() == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=8), st.sampled_from(["csv", "jsonl", "tsv"]), st.integers(1, 4))
def test_rows_out_are_rows_in_for_any_texts(tmp_path_factory, classifier, texts, output_format, window):
    folder = tmp_path_factory.mktemp("h")
    lines = (
        "".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(texts)) or '{"n": 0, "text": ""}\n'
    )
    source = write(folder / "in.jsonl", lines)
    report = score_archive(classifier, [source], folder / f"out.{output_format}", window=window)
    with open_table(folder / f"out.{output_format}") as table:
        assert [str(row.get("n")) for row in table] == [str(n) for n in range(max(len(texts), 1))]
    assert report.rejected == 0
