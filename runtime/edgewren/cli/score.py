"""The verb `edgewren score`: files of texts in, the same files with labels and scores out."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgewren.errors import RejectedRowsError, UsageError

if TYPE_CHECKING:
    from edgewren.archive.run import Report


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "score",
        help="label and score the texts of files of any size",
        description="Label every row of some files. All columns pass through untouched and in order; behind them come "
        "label, score, score_<label> for each label, and status (ok, truncated, repaired, empty, rejected:<why>). "
        "One row in, one row out.",
        epilog="example:\n  edgewren score 2019.csv.gz 2020.csv.gz --model bias-bundle --output scored.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input", nargs="+", metavar="INPUT", help="CSV, TSV, JSONL (plain or .gz) or Parquet; - for standard input"
    )
    add_model_options(parser)
    parser.add_argument(
        "--output", "-o", metavar="OUT", help="file to write, packed if it ends in .gz (default: standard output)"
    )
    parser.add_argument("--text-column", default="text", metavar="NAME", help="default: text")
    parser.add_argument(
        "--format",
        choices=("csv", "tsv", "jsonl", "parquet"),
        help="of the input (default: by suffix; csv for standard input)",
    )
    parser.add_argument(
        "--output-format",
        choices=("csv", "tsv", "jsonl"),
        help="default: by OUT's suffix, else the first input's (jsonl for Parquet)",
    )
    parser.add_argument(
        "--encoding", default="utf-8", metavar="NAME", help="of the input; output is UTF-8 (default: utf-8)"
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="put before the name of every added column")
    parser.add_argument(
        "--max-bad-rows",
        type=int,
        default=0,
        metavar="N",
        help="with more rejected rows than this, finish and exit with 5 (default: 0)",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model computes, and where."""
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        help="folder written by 'edgewren export', or a name: media-bias (default, inside the package), "
        "media-bias-ridge, media-bias-lora (where artifacts/ has them); never downloaded",
    )
    parser.add_argument(
        "--variant", metavar="NAME", help="ONNX file of the bundle, for example fp32 (default: best here)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: all CPU cores granted to this process")
    parser.add_argument(
        "--require-sha256", metavar="HEX", help="refuse any other bundle than the one whose manifest has this SHA-256"
    )


def run(args: argparse.Namespace) -> int:
    """Score, tell what was done on stderr.

    Raises:
        RejectedRowsError: finished, with more rejected rows than --max-bad-rows.
        EdgewrenError: see `score_archive` and `Classifier.load`.
    """
    if args.max_bad_rows < 0:
        raise UsageError(f"--max-bad-rows is {args.max_bad_rows}, expected 0 or more.")
    from edgewren.archive.run import score_archive
    from edgewren.classifier import Classifier

    classifier = Classifier.load(
        args.model,
        device=args.device,
        threads=args.threads,
        variant=args.variant,
        expected_sha256=args.require_sha256,
    )
    with _progress(args.input) as progress:
        report = score_archive(
            classifier,
            args.input,
            args.output,
            text_column=args.text_column,
            format=args.format,
            output_format=args.output_format,
            encoding=args.encoding,
            prefix=args.prefix,
            force=args.force,
            progress=progress,
        )
    print(_summary(report, args.output), file=sys.stderr)
    if report.rejected > args.max_bad_rows:
        listed = "; ".join(report.rejections)
        more = (
            f"; and {report.rejected - len(report.rejections)} more" if report.rejected > len(report.rejections) else ""
        )
        where = f" All are in {args.output}.rejects.jsonl." if args.output not in (None, "-") else ""
        raise RejectedRowsError(
            f"finished, but {report.rejected:,} of {report.rows:,} rows were rejected, more than the "
            f"{args.max_bad_rows:,} allowed: {listed}{more}.{where} Correct them, or allow them with --max-bad-rows."
        )
    return 0


def _summary(report: Report, output: str | None) -> str:
    rate = report.rows / report.seconds if report.seconds else 0.0
    counts = ((name, getattr(report, name)) for name in ("ok", "truncated", "repaired", "empty", "rejected"))
    listed = ", ".join(f"{count:,} {name}" for name, count in counts if count)
    return (
        f"{report.rows:,} rows{f' ({listed})' if listed else ''} in {report.seconds:,.1f} s, {rate:,.0f} rows/s "
        f"-> {'standard output' if output in (None, '-') else output}"
    )


@contextlib.contextmanager
def _progress(inputs: list[str]) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on stderr if people are watching and tqdm is there (it comes with tokenizers' own dependencies)."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    sizes = [Path(name).stat().st_size if Path(name).is_file() else 0 for name in inputs]
    total = sum(sizes) if all(sizes) else None
    # % by bytes, which are known beforehand; rows beside it, which people count in.
    with tqdm(total=total, unit="B", unit_scale=True, desc="score", file=sys.stderr) as bar:

        def update(rows: int, bytes_read: int) -> None:
            elapsed = bar.format_dict["elapsed"] or 1e-9
            bar.set_postfix_str(f"{rows:,} rows, {rows / elapsed:,.0f} rows/s", refresh=False)
            bar.update(bytes_read - bar.n)

        yield update
