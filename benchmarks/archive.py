"""How fast archives are read, scored and written, in how much memory, and what an interruption costs.

    python benchmarks/archive.py stub                    rows/s per format, with a model that costs nothing
    python benchmarks/archive.py model BUNDLE            end to end beside `predict` on the same texts in memory
    python benchmarks/archive.py million [BUNDLE]        a million tweets, 30 % copies: rows/s, memory, output verified
    python benchmarks/archive.py resume [BUNDLE]         wall time lost by a kill at the half and a resume

Each ends in one JSON line. Tweets are made up of words of posts in examples/, 30 % are copies of earlier ones.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgewren import Classifier
from edgewren.archive import compression
from edgewren.archive.run import score_archive
from edgewren.classifier import Scores

ROOT = Path(__file__).parent.parent
FORMATS = ("csv", "tsv", "jsonl", "csv.gz", "jsonl.gz", "csv.zst", "jsonl.zst", "parquet")


class Stub:
    """A model that costs nothing: what is left is reading, writing and the disk."""

    labels = ("neutral", "partisan")
    variant, device = "stub", "cpu"
    exits: tuple[int, ...] = ()
    bundle = SimpleNamespace(sha256="0" * 64, path="stub", manifest=SimpleNamespace(kind="stub"))

    def score_windows(self, windows: Iterator[Sequence[str]]) -> Iterator[Scores]:
        for texts in windows:
            none = np.zeros(len(texts), bool)
            lengths = np.array(list(map(len, texts)), np.float32)
            logits = np.stack([np.sin(lengths * 0.7), np.cos(lengths * 1.3)], axis=1)
            yield Scores(logits, none, none, distinct=len(texts), tokens=0)


def tweets(count: int, seed: int = 0) -> Iterator[tuple[str, str, str, str]]:
    """Id, time, author and text of made-up tweets, 3 in 10 of which have an earlier one's text."""
    with (ROOT / "examples" / "town_posts_train.csv").open(encoding="utf-8", newline="") as stream:
        words = [word for row in csv.DictReader(stream) for word in row["text"].split()]
    chance = random.Random(seed)  # noqa: S311
    recent: list[str] = []
    for number in range(count):
        if recent and chance.random() < 0.3:
            text = chance.choice(recent)
        else:
            text = " ".join(chance.choices(words, k=chance.randint(4, 24)))
            if len(recent) < 5000:
                recent.append(text)
            else:
                recent[chance.randrange(5000)] = text
        day = number % 28 + 1
        yield str(10**18 + number), f"2020-{number % 12 + 1:02}-{day:02}T12:00:00Z", f"author{number % 997}", text


def write(path: Path, count: int) -> Path:
    """Write made-up tweets in the format that the name says."""
    kind = path.name.split(".")[1]
    names = ("id", "created_at", "author", "text")
    packed = compression.by_name(path.name)
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = list(zip(*tweets(count), strict=True))
        pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path, row_group_size=50_000)
        return path
    with path.open("wb") as stream:
        rows = tweets(count)
        first = True
        while part := list(itertools.islice(rows, 20_000)):
            lines = _lines(kind, names if first else None, part)
            first = False
            stream.write(packed.pack(lines) if packed else lines)
    return path


def _lines(kind: str, header: Sequence[str] | None, rows: list[tuple[str, str, str, str]]) -> bytes:
    import io

    if kind == "jsonl":
        names = ("id", "created_at", "author", "text")
        return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows).encode()
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
    writer.writerows([header, *rows] if header else rows)
    return text.getvalue().encode()


def timed(classifier: Any, source: Path, output: Path) -> float:
    started = time.perf_counter()
    score_archive(classifier, [source], output, force=True)
    return time.perf_counter() - started


def stub(folder: Path, rows: int, formats: Sequence[str]) -> dict[str, Any]:
    """Rows/s of reading and writing, best of two."""
    rates = {}
    for kind in formats:
        source = write(folder / f"in.{kind}", rows)
        seconds = min(timed(Stub(), source, folder / f"out.{kind}") for _ in range(2))
        rates[kind] = round(rows / seconds)
        print(f"{kind:>10}: {rates[kind]:>9,} rows/s", file=sys.stderr)
        source.unlink()
    return {"rows": rows, "rows_per_s": rates}


def model(folder: Path, bundle: str, rows: int, formats: Sequence[str]) -> dict[str, Any]:
    """End to end beside `predict`, in turns, best of two."""
    classifier = Classifier.load(bundle, device="cpu")
    texts = [text for *_, text in tweets(rows)]
    sources = {kind: write(folder / f"in.{kind}", rows) for kind in formats}
    classifier.predict(texts[:2000])
    memory = float("inf")
    best = dict.fromkeys(formats, float("inf"))
    for _ in range(2):
        started = time.perf_counter()
        classifier.predict(texts)
        memory = min(memory, time.perf_counter() - started)
        for kind, source in sources.items():
            best[kind] = min(best[kind], timed(classifier, source, folder / f"out.{kind}"))
    for kind in formats:
        print(f"{kind:>10}: {rows / best[kind]:>9,.0f} rows/s, {memory / best[kind]:.3f} x predict", file=sys.stderr)
    return {
        "rows": rows,
        "predict_rows_per_s": round(rows / memory),
        "of_predict": {kind: round(memory / best[kind], 3) for kind in formats},
    }


CHILD = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import archive
from edgewren import Classifier
from edgewren.archive.run import score_archive
bundle, source, output = sys.argv[2:5]
classifier = Classifier.load(bundle, device="cpu") if bundle != "stub" else archive.Stub()
started = time.perf_counter()
report = score_archive(classifier, [source], output, resume=True)
print(json.dumps({"seconds": time.perf_counter() - started, "rows": report.rows, "resumed": report.resumed,
    "duplicates": report.document["duplicate_share"],
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def child(bundle: str, source: Path, output: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, str(Path(__file__).parent), bundle, str(source), str(output)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the run failed with {process.returncode}")
    found: dict[str, Any] = json.loads(out)
    return found


def million(folder: Path, bundle: str, rows: int) -> dict[str, Any]:
    """Peak memory of a run and of one with a tenth of its rows, in processes of their own; every row compared."""
    peaks = []
    for count in (rows // 10, rows):
        source, output = write(folder / f"in{count}.csv", count), folder / f"out{count}.csv"
        found = answer(child(bundle, source, output))
        peaks.append(found["peak_mib"])
        print(
            f"{count:>9,} rows: {count / found['seconds']:,.0f} rows/s, peak {found['peak_mib']:.0f} MiB",
            file=sys.stderr,
        )
    verified = 0
    with source.open(newline="") as before, output.open(newline="") as after:
        for row, scored in zip(csv.reader(before), csv.reader(after), strict=True):
            if scored[: len(row)] != row or (verified and scored[-1] != "ok"):
                raise SystemExit(f"row {verified} differs: {row} {scored}")
            verified += 1
    return {
        "rows": rows,
        "rows_per_s": round(rows / found["seconds"]),
        "duplicate_share": found["duplicates"],
        "peak_mib": [round(peak, 1) for peak in peaks],
        "peak_growth": round(peaks[1] / peaks[0] - 1, 4),
        "rows_verified": verified - 1,
    }


def resume(folder: Path, bundle: str, rows: int) -> dict[str, Any]:
    """Wall time of an undisturbed run, and of one killed at its half and gone on with."""
    source = write(folder / "in.csv", rows)
    started = time.perf_counter()
    whole = answer(child(bundle, source, folder / "whole.csv"))
    undisturbed = time.perf_counter() - started
    start_up = undisturbed - whole["seconds"]
    window = whole["seconds"] * 8192 / rows
    output = folder / "out.csv"
    started = time.perf_counter()
    first = child(bundle, source, output)
    time.sleep(start_up + whole["seconds"] / 2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = answer(child(bundle, source, output))
    disturbed = time.perf_counter() - started
    same = output.read_bytes() == (folder / "whole.csv").read_bytes()
    return {
        "rows": rows,
        "undisturbed_s": round(undisturbed, 2),
        "killed_and_resumed_s": round(disturbed, 2),
        "lost_s": round(disturbed - undisturbed, 2),
        "window_plus_start_up_s": round(window + start_up, 2),
        "resumed": second["resumed"],
        "same_bytes": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("stub", "model", "million", "resume"))
    parser.add_argument("bundle", nargs="?", default="stub")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--formats", default=",".join(FORMATS))
    args = parser.parse_args()
    formats = args.formats.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.what == "stub":
            found = stub(folder, args.rows or 100_000, formats)
        elif args.what == "model":
            found = model(folder, args.bundle, args.rows or 20_000, formats)
        elif args.what == "million":
            found = million(folder, args.bundle, args.rows or 1_000_000)
        else:
            found = resume(folder, args.bundle, args.rows or 400_000)
    print(json.dumps({"benchmark": f"archive {args.what}", "model": args.bundle, **found}))


if __name__ == "__main__":
    main()
