"""The verb `edgewren summarize`: shares of each label per author or month, corrected for the classifier's errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgewren.archive.format_names import TABLES
from edgewren.cli import progress
from edgewren.errors import UsageError

if TYPE_CHECKING:
    from edgewren.archive.summary import Summary

_CONFIDENCE = 0.95
_RESAMPLES = 2000


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "summarize",
        help="share of each label per author, month …, with intervals that account for the classifier's errors",
        description="Count the labels of scored files per value of a column, or per day, month or year of a column of "
        "dates. Beside the naive share stands one that is corrected for the errors which the bundle's evaluation "
        "measured, with an interval. Rows without text or label are left out and counted.",
        epilog="example:\n  edgewren summarize scored.csv --model bias-bundle --by created_at --period month "
        "--plot months.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scored", nargs="+", metavar="SCORED", help="files written by 'edgewren score'; - for standard input"
    )
    parser.add_argument("--by", required=True, metavar="COLUMN", help="column to group by")
    parser.add_argument(
        "--period",
        choices=("day", "month", "year"),
        help="take the column as dates (Twitter's, ISO 8601, seconds or milliseconds since 1970)",
    )
    parser.add_argument(
        "--timezone", metavar="NAME", help="in which days begin, for example America/New_York (default: UTC)"
    )
    parser.add_argument(
        "--model", metavar="BUNDLE", help="the bundle that scored the files (default: the one their reports name)"
    )
    parser.add_argument(
        "--evaluation", metavar="NAME", help="of the bundle's evaluations on held-out rows (default: out of fold first)"
    )
    parser.add_argument("--no-adjust", action="store_true", help="count only; nothing is corrected")
    parser.add_argument(
        "--uncertain",
        choices=("count", "exclude"),
        default="count",
        help="what to do with rows that scoring marked as uncertain: count them with their label, as the "
        "evaluation did (default), or leave them out (only with --no-adjust)",
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="of the columns that scoring added")
    parser.add_argument("--format", choices=TABLES, help="of the files (default: by suffix)")
    parser.add_argument("--encoding", default="utf-8", metavar="NAME", help="of the files (default: utf-8)")
    parser.add_argument("--top", type=int, metavar="N", help="show the N largest groups only")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    shape.add_argument("--csv", action="store_true", help="one line per group and label instead of a table")
    parser.add_argument(
        "--output",
        "-o",
        metavar="OUT",
        help="file to write: CSV or JSON by its suffix, else a table; packed by it, too (default: standard output)",
    )
    parser.add_argument("--plot", metavar="PNG", help="draw the shares into this file")
    parser.add_argument("--force", action="store_true", help="replace OUT and PNG if they exist")
    parser.add_argument(
        "--confidence",
        type=float,
        default=_CONFIDENCE,
        metavar="SHARE",
        help=f"of the intervals (default: {_CONFIDENCE})",
    )
    parser.add_argument(
        "--resamples", type=int, default=_RESAMPLES, metavar="N", help=f"of the bootstrap (default: {_RESAMPLES})"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Count, correct, print. Raises EdgewrenError as its parts do."""
    _check(args)
    from edgewren.archive.compression import without_suffix
    from edgewren.archive.inputs import expand
    from edgewren.archive.lines import check_there
    from edgewren.archive.periods import zone_named
    from edgewren.archive.readers import STDIN
    from edgewren.archive.summary import bundle_of, correction_of, summarize
    from edgewren.archive.tally import count_labels

    zone = zone_named(args.timezone or "UTC")
    args.scored = expand(args.scored)
    _check_no_input(args)
    for name in args.scored:
        if name != STDIN:
            check_there(name)
    if args.plot:
        from edgewren.picture import check_available

        check_available()  # before the counting, not after it
    bundle = bundle_of(args.scored, args.model)
    correction = None
    if not args.no_adjust:
        if bundle is None:
            raise UsageError(
                "The errors of the classifier are not known: no report beside the files names a bundle that is here. "
                "Name the one that scored them with --model, or count without correction: --no-adjust."
            )
        correction = correction_of(bundle, args.evaluation)
    with _progress(args.scored) as tell:
        tally = count_labels(
            args.scored,
            args.by,
            labels=None if bundle is None else bundle.manifest.labels,
            period=args.period,
            zone=zone,
            prefix=args.prefix,
            keep_uncertain=args.uncertain == "count",
            format=args.format,
            encoding=args.encoding,
            progress=tell,
        )
    summary = summarize(
        tally,
        args.by,
        correction,
        period=args.period,
        resamples=args.resamples,
        seed=args.seed,
        confidence=args.confidence,
        largest=args.top,
    )
    suffix = Path(without_suffix(args.output or "")).suffix.lower()
    as_json = args.json or (not args.csv and suffix == ".json")
    as_csv = args.csv or (not args.json and suffix == ".csv")
    text = summary.as_json() if as_json else summary.as_csv() if as_csv else summary.as_text()
    _write(text, args.output, force=args.force)
    if args.plot:
        _plot(summary, args.plot)
    if as_csv or as_json or args.output:
        counted, left = summary.total.rows, tally.rows - summary.total.rows
        print(f"{counted:,} rows counted, {left:,} left out, {len(summary.groups):,} groups", file=sys.stderr)
    shown, there = len(summary.groups), len(tally.counts)
    if shown < there:
        print(f"{there - shown:,} smaller groups are not shown (--top {args.top})", file=sys.stderr)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.uncertain == "exclude" and not args.no_adjust:
        raise UsageError(
            "--uncertain exclude needs --no-adjust: the evaluation measured the errors on all rows, so it does not "
            "know those among the certain ones."
        )
    if args.no_adjust and args.evaluation is not None:
        raise UsageError("--evaluation names the errors to correct for, and --no-adjust corrects nothing. Choose one.")
    for option, given in (
        ("--confidence", args.confidence != _CONFIDENCE),
        ("--resamples", args.resamples != _RESAMPLES),
        ("--seed", args.seed != 0),
    ):
        if args.no_adjust and given:
            raise UsageError(f"{option} is of the intervals, and --no-adjust counts without any. Choose one.")
    if args.timezone is not None and args.period is None:
        raise UsageError("--timezone needs --period: without it the column's values are not read as dates.")
    from edgewren.archive.compression import packed_for
    from edgewren.archive.whole_file import check_place

    for name in (args.output, args.plot):
        if name is not None and name != "-":
            if Path(name).is_file() and not args.force:
                raise UsageError(f"{name} exists already. Use --force to replace it, or name another file.")
            check_place(Path(os.path.realpath(name)), name)
            packed_for(name, b"")  # a missing package shows now
    if None not in (args.plot, args.output) and os.path.realpath(args.plot) == os.path.realpath(args.output):
        raise UsageError(f"{args.plot} is named twice, with --output and --plot. Name two files.")


def _check_no_input(args: argparse.Namespace) -> None:
    """Check that nothing is written over what is read, --force or not."""
    inputs = {os.path.realpath(name) for name in args.scored}
    for name in (args.output, args.plot):
        if name is not None and os.path.realpath(name) in inputs:
            raise UsageError(f"{name} is one of the files that are read. Name another file.")


def _write(text: str, output: str | None, *, force: bool) -> None:
    from edgewren.archive.compression import packed_for
    from edgewren.archive.whole_file import StandardOutput, WholeFile

    sink = StandardOutput() if output is None or output == "-" else WholeFile(output, force=force)
    try:
        sink.write(packed_for(output or "-", text.encode("utf-8", "backslashreplace")))
        sink.finish()
    finally:
        sink.discard()


def _plot(summary: Summary, path: str) -> None:
    from edgewren.share_plot import MOST_GROUPS, Series, draw

    groups = [group for group in summary.groups if group.name is not None or summary.period is None]
    if summary.period is None and len(groups) > MOST_GROUPS:
        print(f"the plot shows the {MOST_GROUPS} largest of {len(groups):,} groups", file=sys.stderr)
        groups = groups[:MOST_GROUPS]
    if not groups:
        raise UsageError("There is nothing to plot: no row has a readable date.")
    cells = [[group.cells[column] for group in groups] for column in range(len(summary.labels))]
    draw(
        [
            Series(
                label,
                [cell.naive for cell in column],
                [(cell.share.value, cell.share.low, cell.share.high) for cell in column if cell.share] or None,
            )
            for label, column in zip(summary.labels, cells, strict=True)
        ],
        [(group.name or "(none)") + " *" * group.doubtful for group in groups],
        path,
        title=f"{summary.total.rows:,} texts"
        + "   (* does not fit the measured errors)" * any(g.doubtful for g in groups),
        axis=f"{summary.period} of {summary.by}" if summary.period else summary.by,
        positions=[_place(group.name or "", summary.period) for group in groups] if summary.period else None,
        confidence=summary.confidence,
    )


def _place(name: str, period: str) -> float:
    from datetime import date

    if period == "day":
        return float(date.fromisoformat(name).toordinal())
    year, _, month = name.partition("-")
    return float(int(year) * 12 + int(month) - 1) if period == "month" else float(year)


@contextlib.contextmanager
def _progress(inputs: list[str]) -> Iterator[Callable[[int, int], None] | None]:
    with progress.bar("B", "count", total=progress.bytes_of(inputs)) as bar:

        def update(rows: int, bytes_read: int) -> None:
            bar.set_postfix_str(f"{rows:,} rows", refresh=False)
            bar.update(bytes_read - bar.n)

        yield None if bar is None else update
