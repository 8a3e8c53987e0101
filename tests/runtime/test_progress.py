"""How far long work is: bars on terminals, lines now and then in logs."""

from __future__ import annotations

import itertools

import pytest

from edgewren.cli import progress
from edgewren.cli.main import main


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)


def test_work_of_less_than_half_a_minute_says_nothing(capsys):
    with progress.counted(3, "embedding") as advance:
        for _ in range(3):
            advance(1)
    assert capsys.readouterr() == ("", "")


def test_log_tells_how_far_it_is_and_how_long_the_rest_takes(monkeypatch, capsys):
    now = itertools.count(0.0, 40.0)  # begun at 0 s, then a call every 40
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.counted(50_000, "embedding") as advance:
        advance(30_000)  # from the cache, of which the pace knows nothing
        advance(2_000)
        advance(2_000)
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "embedding: 32,000 of 50,000 texts, about 6 min left",
        "embedding: 34,000 of 50,000 texts, about 5 min left",
    ]
    assert out == ""


def test_on_a_terminal_there_is_a_bar_and_no_lines(at_once, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.counted(3, "training", "steps") as advance:
        for _ in range(3):
            advance(1)
    out, err = capsys.readouterr()
    assert "training: 100%" in err
    assert " of 3 steps" not in err
    assert out == ""


def test_score_tells_rows_and_bytes_in_a_log(at_once, tiny_bundle, tmp_path, capsys):
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "the ferry is late\n" * 20_000, encoding="utf-8")
    assert main(["score", str(source), "--model", str(tiny_bundle), "--output", str(tmp_path / "out.csv")]) == 0
    (*lines, last) = capsys.readouterr().err.splitlines()
    assert lines
    assert all("rows/s" in line and "% of the bytes, less than a minute left" in line for line in lines)
    assert last.startswith("20,000 rows")
