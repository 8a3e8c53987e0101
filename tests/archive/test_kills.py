"""SIGKILL at random moments of a real process, and signals that ask it to stop."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import archives
import pytest

from edgewren.archive.run import score_archive

SCRIPT = """
import sys
from edgewren import Classifier
from edgewren.archive.run import score_archive
model, output, *sources = sys.argv[1:]
classifier = Classifier.load(model, device="cpu", threads=2)
print("loaded", flush=True)
score_archive(classifier, sources, output, resume=True, window=16)
"""
NAMES = ("o.csv", "o.jsonl.gz", "o.csv.zst", "o.parquet")


def start(bundle: Path, output: Path, sources: list[Path]) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", SCRIPT, str(bundle), str(output), *map(str, sources)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def killed_until_finished(folder, bundle, classifier, chance, *, kills: int) -> int:
    """Start, kill at a random moment, and again; then let it finish. Returns the kills that met a living process."""
    name = chance.choice(NAMES)
    kind = "jsonl" if "jsonl" in name else "parquet" if "parquet" in name else "csv"
    records = archives.rows(1500, seed=3)
    sources = [
        archives.write(folder / f"a.{kind}", records[:700]),
        archives.write(folder / (f"b.{kind}" if kind == "parquet" else f"b.{kind}.gz"), records[700:]),
    ]
    sources = [Path(os.path.realpath(source)) for source in sources]
    (folder / "whole").mkdir()
    (folder / "out").mkdir()
    score_archive(classifier, sources, folder / "whole" / name, window=16)
    expected = archives.result(folder / "whole" / name)
    output = folder / "out" / name
    met = 0
    for _ in range(kills):
        process = start(bundle, output, sources)
        process.stdout.readline()
        time.sleep(chance.random() * 0.35)
        met += process.poll() is None
        process.kill()
        process.wait()
    process = start(bundle, output, sources)
    assert process.wait() == 0
    assert archives.result(output) == expected
    return met


@pytest.mark.slow
def test_a_chain_of_three_kills_resumes(tmp_path, tiny_bundle, classifier):
    killed_until_finished(tmp_path, tiny_bundle, classifier, random.Random(0), kills=3)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(20))
def test_a_hundred_kills_in_chains_of_five_resume(tmp_path, tiny_bundle, classifier, seed, record_property):
    met = killed_until_finished(tmp_path, tiny_bundle, classifier, random.Random(seed), kills=5)
    record_property("kills that met a living process", met)


@pytest.mark.parametrize("pause", [0.001, 0.003, 0.01, 0.03])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_break_into_the_cleanup(tiny_bundle, second, pause):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgewren", "score", "-", "--model", str(tiny_bundle), "--format", "csv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    process.stdin.write(b"text\n" + b"good vote\n" * 20_000)
    process.stdin.flush()
    process.stdout.read(1)  # it is at work
    for number in (signal.SIGINT, *[second] * 9):
        process.send_signal(number)
        time.sleep(pause)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.decode().splitlines() == ["edgewren: interrupted"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_stops_the_command_in_seconds_and_it_resumes(tmp_path, tiny_bundle, number, code):
    source = archives.write(tmp_path / "in.jsonl", archives.rows(120_000))
    output = tmp_path / "o.jsonl"
    argv = [sys.executable, "-m", "edgewren", "score", str(source), "--model", str(tiny_bundle)]
    argv += ["--output", str(output), "--max-bad-rows", "99999", "--resume"]
    # A shell starts background jobs with SIGINT ignored, which children inherit; a person's terminal doesn't.
    process = subprocess.Popen(
        argv,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    journal = Path(f"{output}.journal")
    while not (journal.exists() and journal.stat().st_size > 2500):  # a window is committed
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    sent = time.monotonic()
    assert process.wait() == code
    assert time.monotonic() - sent < 5
    assert "Go on with the same command and --resume" in process.stderr.read()
    assert not output.exists()
    done = subprocess.run(argv, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, "resumed 1 times" in done.stderr) == (0, True)
    assert output.read_bytes().count(b"\n") == 120_000
