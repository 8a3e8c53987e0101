"""Print a scored CSV for people: how many of each label, and the texts of which the model is surest.

    python examples/show_scored.py demo-output/scored.csv

Uses the standard library alone; the file is what `edgewren score` writes.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

TEXT_WIDTH = 88
SHOWN_PER_LABEL = 5


def main(path: str) -> None:
    with Path(path).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    counts = Counter(row["label"] for row in rows)
    print(f"\n{len(rows)} posts: " + ", ".join(f"{count} {label}" for label, count in sorted(counts.items())))
    for label in sorted(counts):
        print(f"\nmost clearly {label}")
        surest = sorted((row for row in rows if row["label"] == label), key=lambda row: -float(row["score"]))
        for row in surest[:SHOWN_PER_LABEL]:
            text = " ".join(row["text"].split())
            print(f"  {float(row['score']):.2f}  {text if len(text) <= TEXT_WIDTH else text[: TEXT_WIDTH - 1] + '…'}")


if __name__ == "__main__":
    main(sys.argv[1])
