"""`edgewren bench`: figures of this machine, each in its unit, and one JSON document at the end."""

from __future__ import annotations

import json

import pytest

from edgewren import measurement
from edgewren.archive.texts import read_texts
from edgewren.cli.main import main
from edgewren.errors import InputError, InvariantError, UsageError


def test_figures_are_consistent_with_each_other(tiny_bundle):
    measured = measurement.measure(
        tiny_bundle, ["good vote", "bad tax", "good vote"], device="cpu", threads=1, seconds=0.05
    )
    assert (measured.texts, measured.distinct, measured.tokens) == (3, 2, 8)
    assert (measured.variant, measured.device, measured.threads) == ("fp32", "cpu", 1)
    assert measured.left_after_layer is None
    assert measured.rounds >= 3
    assert measured.texts_per_s > 0
    latency = measured.latency_ms
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert 0 < measured.load_s < measured.cold_start_s, "a fresh process must import and load, too"
    assert measured.peak_resident_mb is None or 10 < measured.peak_resident_mb < 300


def test_last_line_is_one_json_document(tiny_bundle, tmp_path, capsys):
    (tmp_path / "posts.csv").write_text("id,words\n1,good vote\n2,\n3,bad tax\n", encoding="utf-8")
    options = ["--text-column", "words", "--seconds", "0.05", "--device", "cpu"]
    assert main(["bench", str(tiny_bundle), str(tmp_path / "posts.csv"), *options]) == 0
    *people, last = capsys.readouterr().out.splitlines()
    assert json.loads(last)["texts"] == 2
    assert [line.split("  ")[0] for line in people] == [
        "model",
        "texts",
        "throughput",
        "one text",
        "load",
        "cold start",
        "memory",
    ]


def test_share_that_left_at_each_exit_is_told(staged_bundle, tmp_path, capsys):
    bundle, texts = staged_bundle
    (tmp_path / "posts.csv").write_text("text\n" + "\n".join(texts) + "\n")
    assert main(["bench", str(bundle), str(tmp_path / "posts.csv"), "--seconds", "0.05", "--device", "cpu"]) == 0
    *people, last = capsys.readouterr().out.splitlines()
    assert json.loads(last)["left_after_layer"] == {layer: pytest.approx(1 / 3) for layer in ("0", "1", "2")}
    exits = "33.3% left after layer 0, 33.3% left after layer 1, 33.3% left after layer 2"
    assert f"early exit   {exits}" in people


def test_without_a_file_the_golden_texts_are_taken_and_that_is_said(tiny_bundle, capsys):
    assert main(["bench", str(tiny_bundle), "--seconds", "0.05", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["texts"] == 9
    assert "golden texts" in err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_seconds_must_be_positive(tiny_bundle, capsys, seconds):
    assert main(["bench", str(tiny_bundle), "--seconds", seconds]) == 2
    assert "expected at least one and more than 0" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--text-column", "tweet"), ("--format", "tsv"), ("--encoding", "cp1252")])
def test_an_option_of_the_file_without_one_is_refused(tiny_bundle, capsys, option):
    assert main(["bench", str(tiny_bundle), *option]) == 2
    assert f"{option[0]} is of FILE, and none is named" in capsys.readouterr().err


def test_a_file_is_read_as_its_options_say(tiny_bundle, tmp_path, capsys):
    (tmp_path / "posts.txt").write_bytes("id;words\n1;caf\xe9 vote\n2;bad tax\n".encode("cp1252"))
    options = ["--text-column", "words", "--format", "csv-semicolon", "--encoding", "cp1252", "--seconds", "0.05"]
    assert main(["bench", str(tiny_bundle), str(tmp_path / "posts.txt"), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == 2


def test_no_texts_are_refused(tiny_bundle):
    with pytest.raises(UsageError, match="0 texts"):
        measurement.measure(tiny_bundle, [])


def test_column_of_texts_is_read_without_what_is_empty(tmp_path):
    path = tmp_path / "posts.jsonl"
    path.write_text('{"text": "a"}\n{"text": " "}\n{"text": 3}\n{"text": "b"}\n', encoding="utf-8")
    assert read_texts(path)[0] == "a"
    assert read_texts(path)[-1] == "b"
    with pytest.raises(InputError, match="has no column 'words'"):
        read_texts(path, "words")
    path.write_text('{"text": " "}\n', encoding="utf-8")
    with pytest.raises(InputError, match="has no texts in column 'text'"):
        read_texts(path)


def test_bundle_that_is_none_is_refused(tmp_path, capsys):
    assert main(["bench", str(tmp_path)]) == 3
    assert "has no manifest.json" in capsys.readouterr().err


def test_fresh_process_that_fails_is_reported_with_its_reason(tiny_bundle, monkeypatch):
    monkeypatch.setattr(measurement, "_FRESH_PROCESS", "raise SystemExit('no room')")
    with pytest.raises(InvariantError, match="A fresh process could not score: no room"):
        measurement.measure(tiny_bundle, ["good vote"], device="cpu", seconds=0.01)


def test_fresh_processes_run_no_module_of_the_working_directory(tiny_bundle, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('run from the working directory')")
    monkeypatch.chdir(tmp_path)
    measured = measurement.measure(tiny_bundle, ["good vote"], device="cpu", threads=1, seconds=0.01)
    assert measured.cold_start_s > 0
