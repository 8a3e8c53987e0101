"""Does memory stay flat over a long life? A million texts of random length through one classifier, then 200 lives.

    python benchmarks/soak.py BUNDLE [--texts 1000000] [--cycles 200] [--threads 2] [--variant int8]

Ends with 1 where resident memory during the last 10,000 texts is 5 % or more above that during the first 10,000, or
200 times load, score and close add 20 MiB or more to that after the first. The former are medians of a reading per
window, since what is in flight differs; before each reading, memory that is free, but that glibc keeps for later, is
given back. The largest reading of all (mib_at_most) is with it. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from edgewren import Classifier
from edgewren.device import return_free_memory

WINDOW = 2_000
FLAT_AFTER = 10_000
GROWTH_ALLOWED = 0.05
CYCLES_ALLOWED_MIB = 20.0
_PAGE_MIB = 4096 / 2**20
_WORDS = """
    good bad tax vote the senate great awful cat dog you we support against bill library ferry bridge council mayor
    budget school harbour market river #news @somebody https://t.co/AbCd RT &amp; meeting tonight opens closed friday
""".split()  # noqa: SIM905  a list of them would take half a page


def resident_mib() -> float:
    """Return this process's resident memory. Linux only.

    Between two lives it stands at 125 or at 190 MiB, by chance, unless what is free is returned before.
    """
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_MIB


def texts(count: int, longest_words: int) -> Iterator[str]:
    """Yield texts that all differ, from one word to far beyond a tweet."""
    draw = random.Random(17)  # noqa: S311  no secret
    for number in range(count):
        yield " ".join([str(number), *draw.choices(_WORDS, k=draw.randint(0, longest_words))])


def score_many(classifier: Classifier, count: int, longest_words: int) -> dict[str, float]:
    """Score texts in windows, and one alone per window. Return resident memory on the way."""
    source = texts(count, longest_words)
    windows = ([text for _, text in zip(range(WINDOW), source, strict=False)] for _ in range(-(-count // WINDOW)))
    early, late = list[float](), list[float]()
    scored, most, start = 0, 0.0, time.perf_counter()
    for scores in classifier.score_windows(windows):
        scored += len(scores.logits)
        classifier.predict([f"{scored} alone"])
        most = max(most, resident_mib())
        for readings, due in ((early, scored <= FLAT_AFTER), (late, scored > count - FLAT_AFTER)):
            if due:
                return_free_memory()
                readings.append(resident_mib())
        if scored % (50 * WINDOW) == 0:
            print(
                f"{scored:>9,} texts  {resident_mib():7.1f} MiB  {scored / (time.perf_counter() - start):7.0f} texts/s",
                file=sys.stderr,
            )
    return {
        "texts": scored,
        "mib_within_10000": statistics.median(early),
        "mib_within_the_last_10000": statistics.median(late),
        "mib_at_most": most,
    }


def live_and_die(bundle: str, cycles: int, options: dict[str, object]) -> dict[str, float]:
    """Load, score and close again and again. Return resident memory after the first time and after the last."""
    some = list(texts(64, 30))
    first = 0.0
    return_free_memory()
    for cycle in range(cycles):
        with Classifier.load(bundle, **options) as classifier:  # type: ignore[arg-type]
            classifier.predict(some)
        gc.collect()
        return_free_memory()
        if cycle == 0:
            first = resident_mib()
    return {"cycles": cycles, "mib_after_the_first": first, "mib_after_the_last": resident_mib()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--longest-words", type=int, default=60)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant")
    arguments = parser.parse_args()
    if arguments.texts < 2 * FLAT_AFTER:
        parser.error(
            f"--texts takes numbers from {2 * FLAT_AFTER:,}: the first {FLAT_AFTER:,} are compared with the last"
        )
    options: dict[str, object] = {"device": "cpu", "threads": arguments.threads, "variant": arguments.variant}

    lives = live_and_die(arguments.bundle, arguments.cycles, options)
    classifier = Classifier.load(arguments.bundle, **options)  # type: ignore[arg-type]
    flow = score_many(classifier, arguments.texts, arguments.longest_words)
    growth = flow["mib_within_the_last_10000"] / flow["mib_within_10000"] - 1
    lives_growth = lives["mib_after_the_last"] - lives["mib_after_the_first"]
    passed = growth < GROWTH_ALLOWED and lives_growth < CYCLES_ALLOWED_MIB
    facts = {"variant": classifier.variant, "threads": classifier.threads, "cycles_growth_mib": lives_growth}
    print(json.dumps({**facts, **lives, **flow, "texts_growth": growth, "passed": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
