"""A text's logits are the same bits alone, in any batch, in any order, at any number of threads: proved on real texts.

    python benchmarks/bit_identity.py BUNDLE TEXTS.csv [--text-column text] [--texts 2000] [--variant fp32 int8]

Texts of the file come first, then invented ones up to `--texts`: from nothing to beyond max_length, in several scripts.
Each way is compared with the others bit by bit. The last line is one JSON document; ends with 1 on any difference.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgewren import Classifier
from edgewren.archive.readers import open_table

BATCHES = (2, 7, 32, 256)
_LETTERS = "abcdefghijklmnopqrstuvwxyz" * 4 + " " * 20 + "0123456789.,!?#@&'-äéñßøłאבגدذرзийкδεζ字漢かな😀🔥👍"


def invented(count: int) -> Iterator[str]:
    draw = random.Random(11)  # noqa: S311  no secret
    for _ in range(count):
        yield "".join(draw.choices(_LETTERS, k=int(draw.paretovariate(1.0) * 20) % 700))


def in_pieces(classifier: Classifier, texts: list[str], size: int) -> NDArray[np.float32]:
    return np.concatenate([classifier.score(texts[at : at + size]).logits for at in range(0, len(texts), size)])


def ways(bundle: str, variant: str, texts: list[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield logits in the order of `texts`, computed in one way after another."""
    one = Classifier.load(bundle, device="cpu", threads=1, variant=variant)
    two = Classifier.load(bundle, device="cpu", threads=2, variant=variant)
    order = np.random.default_rng(5).permutation(len(texts))
    back = np.argsort(order)
    yield "all at once, 1 thread", one.score(texts).logits
    yield "all at once, 2 threads", two.score(texts).logits
    yield "shuffled, 2 threads", two.score([texts[index] for index in order]).logits[back]
    yield "alone", in_pieces(one, texts, 1)
    for size in BATCHES:
        yield f"{size} at a time", in_pieces(two, texts, size)
    windows = (texts[at : at + 500] for at in range(0, len(texts), 500))
    yield "windows, 2 threads", np.concatenate([scores.logits for scores in two.score_windows(windows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("file")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--variant", nargs="+", default=["fp32", "int8"])
    arguments = parser.parse_args()
    table = open_table(arguments.file)
    read = [str(row.get(arguments.text_column)) for row in table][: arguments.texts]
    table.close()
    texts = [*read, *invented(arguments.texts - len(read))]
    report: dict[str, dict[str, int]] = {}
    for variant in arguments.variant:
        different: dict[str, int] = {}
        reference: NDArray[np.float32] | None = None
        start = time.perf_counter()
        for way, logits in ways(arguments.bundle, variant, texts):
            if reference is None:
                reference = logits
            else:
                different[way] = int((logits.view(np.uint32) != reference.view(np.uint32)).any(axis=1).sum())
            print(f"{variant}  {way:24} {time.perf_counter() - start:6.1f} s", file=sys.stderr)
        report[variant] = different
    passed = not any(count for different in report.values() for count in different.values())
    print(json.dumps({"texts": len(texts), "from_the_file": len(read), "texts_that_differ": report, "passed": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
