"""A finished comparison as text for people, and as CSV, JSON and PNG files. Computes nothing new."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewren.display import shortened
from edgewren.errors import OutputError
from edgewren_train.comparison import Comparison, pareto_front
from edgewren_train.comparison_plot import Point, pareto
from edgewren_train.paired_tests import NEGLIGIBLE

_NAME_COLUMNS = 44


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Return everything as what JSON knows."""
    front = {item.name for item in pareto_front(comparison.judged)}
    return {
        "rows": comparison.rows,
        "folds": comparison.folds,
        "repeats": comparison.repeats,
        "seed": comparison.seed,
        "group_column": comparison.group_column,
        "interval": "95 % corrected resampled t (Nadeau & Bengio 2003)",
        "negligible_difference": NEGLIGIBLE,
        "candidates": [
            {
                "name": item.name,
                "candidate": item.candidate.as_dict(),
                "balanced_accuracy": item.balanced_accuracy.as_dict(),
                "macro_f1": item.macro_f1.as_dict(),
                "balanced_accuracies": list(item.balanced_accuracies),
                "macro_f1s": list(item.macro_f1s),
                **asdict(item.cost),
                "on_pareto_front": item.name in front,
            }
            for item in comparison.judged
        ],
        "pairs": [
            {"a": pair.a, "b": pair.b, "p_holm": pair.p_holm, **pair.test.as_dict()} for pair in comparison.pairs
        ],
        "failures": comparison.failures,
    }


def as_text(comparison: Comparison) -> str:
    """Return the table for a terminal of 120 columns."""
    best, front = comparison.judged[0], {item.name for item in pareto_front(comparison.judged)}
    grouped = f", nobody of {comparison.group_column!r} in both parts" if comparison.group_column else ""
    width = max(9, min(_NAME_COLUMNS, *(max(len(item.name), 9) for item in comparison.judged)))
    width = max(width, *(min(len(item.name), _NAME_COLUMNS) for item in comparison.judged))
    design = f"{comparison.repeats} x {comparison.folds}-fold cross-validation{grouped}, seed {comparison.seed}"
    lines = [
        f"{comparison.rows:,} rows, {design}.",
        "In brackets: 95 % intervals (corrected resampled t, Nadeau & Bengio 2003). *: no other is better and faster.",
        "",
        f"  {'candidate':<{width}}  {'balanced accuracy':<20}  {'macro-F1':<20}  {'texts/s':>8}  {'MB':>7}  train s",
    ]
    lines += [
        f"{'*' if item.name in front else ' '} {shortened(item.name, _NAME_COLUMNS):<{width}}  "
        f"{item.balanced_accuracy.as_text()}  "
        f"{item.macro_f1.as_text()}  {item.cost.texts_per_s:>8,.0f}  {item.cost.megabytes:>7.1f}  "
        f"{item.cost.train_s:>7.2f}"
        for item in comparison.judged
    ]
    if len(comparison.judged) > 1:
        pairs = len(comparison.pairs)
        lines += [
            "",
            f"{shortened(best.name, _NAME_COLUMNS)} minus each other, balanced accuracy on the same folds;",
            f"p{f' after Holm for all {pairs} pairs' * (pairs > 1)}; chances that it is better by more than",
            f"{100 * NEGLIGIBLE:g} point, that they are as good as equal, and worse (Corani & Benavoli 2015):",
            "",
        ]
        for item in comparison.judged[1:]:
            pair = comparison.pair(best.name, item.name)
            if pair is None:
                continue
            test = pair.test
            lines.append(
                f"  {shortened(item.name, _NAME_COLUMNS):<{width}}  "
                f"{test.difference.as_text(signed=True)}  {_p(pair.p_holm)}  "
                f"better {test.p_better:.2f}  equal {test.p_equal:.2f}  worse {test.p_worse:.2f}"
            )
    lines += [f"failed: {name}: {reason}" for name, reason in comparison.failures.items()]
    return "\n".join(lines)


def write(comparison: Comparison, folder: Path) -> None:
    """Write comparison.csv, folds.csv, pairs.csv, comparison.json and pareto.png into an existing folder.

    Raises:
        OutputError: one of them cannot be written.
    """
    front = {item.name for item in pareto_front(comparison.judged)}
    table: list[list[Any]] = [
        [
            "candidate", "encoder", "depth", "recipe", "normaliser", "alphas",
            "balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high",
            "macro_f1", "macro_f1_low", "macro_f1_high",
            "texts_per_s", "megabytes", "parameters", "train_s", "on_pareto_front",
        ],
        *(
            [
                item.name, item.candidate.encoder, item.candidate.depth or "whole",
                item.candidate.recipe, item.candidate.normaliser,
                item.candidate.alphas if item.candidate.recipe == "ridge" else "",
                *item.balanced_accuracy.as_dict().values(), *item.macro_f1.as_dict().values(),
                item.cost.texts_per_s, item.cost.megabytes, item.cost.parameters, item.cost.train_s,
                item.name in front,
            ]
            for item in comparison.judged
        ),
    ]  # fmt: skip
    folds: list[list[Any]] = [["candidate", "repeat", "fold", "balanced_accuracy", "macro_f1"]] + [
        [item.name, index // comparison.folds, index % comparison.folds, accuracy, f1]
        for item in comparison.judged
        for index, (accuracy, f1) in enumerate(zip(item.balanced_accuracies, item.macro_f1s, strict=True))
    ]
    columns = ["a", "b", "difference", "low", "high", "p", "p_holm", "p_better", "p_equal", "p_worse"]
    pairs: list[list[Any]] = [columns] + [
        [
            pair.a, pair.b, *pair.test.difference.as_dict().values(), pair.test.p, pair.p_holm,
            pair.test.p_better, pair.test.p_equal, pair.test.p_worse,
        ]
        for pair in comparison.pairs
    ]  # fmt: skip
    try:
        for name, rows in (("comparison.csv", table), ("folds.csv", folds), ("pairs.csv", pairs)):
            (folder / name).write_text(csv_text(rows), encoding="utf-8", newline="")
        document = json.dumps(as_dict(comparison), ensure_ascii=False, indent=2, allow_nan=False)
        (folder / "comparison.json").write_text(document + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}. Free space, run again.") from error
    pareto(
        [
            Point(item.name, item.cost.texts_per_s, item.balanced_accuracy, item.name in front)
            for item in comparison.judged
        ],
        folder / "pareto.png",
    )


def csv_text(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as CSV whose lines end in a line feed."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
