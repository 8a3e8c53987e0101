"""How long a bundle takes to load, and how much of that is checking it.

    python benchmarks/load_time.py BUNDLE [--variant int8] [--rounds 25]

Interleaved rounds in one warm process; the last line of stdout is one JSON document. "Without checks" reads the same
files and makes the same session and tokenizer, but neither hashes nor scans nor lists.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from edgewren import Classifier
from edgewren.bundle import Bundle
from edgewren.session import ModelSession
from edgewren.text import TextTokenizer


def without_checks(folder: Path, variant: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    entry = manifest["variants"][variant]
    files = [stage["file"] for stage in entry.get("stages", [])] or [entry["file"]]
    for name in files:
        ModelSession((folder / name).read_bytes(), stage=len(files) > 1)
    TextTokenizer((folder / "tokenizer.json").read_bytes(), manifest["max_length"])


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variant", help="default: the best for a CPU")
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    variant, entry = bundle.variant(args.variant, "cpu")
    steps: dict[str, Callable[[], object]] = {
        "load": lambda: Classifier.load(args.bundle, device="cpu", threads=1, variant=variant),
        "without checks": lambda: without_checks(args.bundle, variant),
        "open: manifest, listing, small files": lambda: Bundle.open(args.bundle),
        f"read, hash, scan {' '.join(entry.loaded)}": lambda: [bundle.read(name) for name in entry.loaded],
        "read, hash, scan tokenizer.json": lambda: bundle.read("tokenizer.json"),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():  # warm up
        step()
        step()
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(milliseconds(step))
    median = {name: round(statistics.median(values), 1) for name, values in times.items()}
    best = {name: round(min(values), 1) for name, values in times.items()}
    for name in steps:
        print(f"{median[name]:8.1f} ms median {best[name]:8.1f} ms best   {name}")
    added = {
        kind: round(100 * (values["load"] / values["without checks"] - 1), 1)
        for kind, values in (("median", median), ("best", best))
    }
    print(f"checking adds {added['median']:.0f} % to loading ({added['best']:.0f} % in the best rounds)")
    document = {"variant": variant, "rounds": args.rounds, "added_percent": added, "median_ms": median, "best_ms": best}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
