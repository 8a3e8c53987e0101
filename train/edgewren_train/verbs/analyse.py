"""The verb `edgewren analyse`: parse, call, print. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from edgewren.cli import labelled_file
from edgewren.display import say, shortened
from edgewren.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgewren_train.analysis import Alike, Analysis, Row

_TEXT_CHARACTERS = 90


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "analyse",
        help="find a model's worst mistakes, doubtful labels, weak spots and repeated texts",
        description="Most confident mistakes, labels that held-out scores dispute, scores by length and column, and "
        "texts that occur (almost) twice. A trained model is analysed on its training rows, out of fold; a bundle on a "
        "labelled file that it was not trained on.",
        epilog="example:\n  edgewren analyse models/bias-ridge tweets.csv --label-column bias --slice audience "
        "--compare-with test.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="trained model or bundle")
    parser.add_argument(
        "labelled", nargs="?", metavar="LABELLED", help="for a trained model: its training file; for a bundle: another"
    )
    parser.add_argument("--slice", action="append", default=[], metavar="COLUMN", help="score by this column, too")
    parser.add_argument(
        "--compare-with", metavar="FILE", help="labelled file in which to look for the same texts (leaks), same columns"
    )
    labelled_file.add_options(parser)
    parser.add_argument("--show", type=int, default=10, metavar="N", help="rows shown of each list (default: 10)")
    parser.add_argument(
        "--similarity", type=float, default=0.6, metavar="S", help="from which texts count as alike (default: 0.6)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.set_defaults(run=_run, extra="train")


def _run(args: argparse.Namespace) -> int:
    from edgewren_train.analysis import analyse
    from edgewren_train.judged import load_judged

    if args.show < 0:
        raise UsageError(f"--show is {args.show}, expected 0 or more.")
    if args.labelled is None and args.compare_with is None:
        for option, given in (
            ("--text-column", args.text_column != "text"),
            ("--label-column", args.label_column != "label"),
            ("--format", args.format is not None),
            ("--encoding", args.encoding != "utf-8"),
        ):
            if given:
                raise UsageError(f"{option} is of files, and none is named. Name LABELLED, or leave {option} out.")
    data = labelled_file.read(args, args.labelled) if args.labelled else None
    judged = load_judged(args.model, data, args.slice, format=args.format, encoding=args.encoding, say=say)
    others = None
    if args.compare_with:
        other = labelled_file.read(args, args.compare_with)
        others = (other.path, other.texts, other.labels)
    analysis = analyse(judged, others=others, shown=args.show, threshold=args.similarity)
    print(  # noqa: T201  the command line prints
        json.dumps(analysis.as_dict()) if args.json else _account(analysis, args.show)
    )
    return 0


def _account(analysis: Analysis, shown: int) -> str:
    lines = [f"== {analysis.source}: {analysis.rows:,} rows, {analysis.mistakes:,} of them labelled otherwise", ""]
    lines += ["Most confident mistakes (row, given -> model's label and its probability):"]
    lines += _rows(analysis.confident_mistakes[:shown])
    disputed = f"{analysis.suspect_count:,} of {analysis.rows:,}"
    lines += ["", f"Labels to check: held-out scores dispute {disputed} (row, given -> likelier label):"]
    lines += _rows(analysis.suspects[:shown])
    lines += ["", f"{'slice':<32}  {'rows':>6}  share right           balanced accuracy"]
    for part in analysis.slices:
        balanced = part.balanced_accuracy.as_text() if part.balanced_accuracy is not None else "(one class only)"
        name = _short(f"{part.name}: {part.value}", 32)
        lines.append(f"{name:<32}  {part.rows:>6,}  {part.share_right.as_text()}  {balanced}")
    conflicts = [pair for pair in analysis.alike_within if pair.conflicting]
    lines += ["", f"Alike texts within: {len(analysis.alike_within)} pairs, {len(conflicts)} with different labels."]
    lines += _pairs((conflicts or analysis.alike_within)[:shown])
    if analysis.compared_with is not None:
        leaked = len({pair.other_row for pair in analysis.alike_across})
        lines += ["", f"Alike texts in {analysis.compared_with}: {leaked} of its rows (leaks between the two files)."]
        lines += _pairs(analysis.alike_across[:shown])
    return "\n".join(lines)


def _rows(rows: Sequence[Row]) -> list[str]:
    return [
        f"  {row.row:>6}  {row.label} -> {row.predicted} {row.score_predicted:.2f}  {_short(row.text)}" for row in rows
    ]


def _pairs(pairs: Sequence[Alike]) -> list[str]:
    lines = []
    for pair in pairs:
        lines.append(f"  {pair.similarity:.2f}  row {pair.row} ({pair.label}): {_short(pair.text)}")
        lines.append(f"        row {pair.other_row} ({pair.other_label}): {_short(pair.other_text)}")
    return lines


def _short(text: str, limit: int = _TEXT_CHARACTERS) -> str:
    """Return a text on one line, without terminal codes, cut to a length."""
    return shortened(" ".join(text.split()), limit)
