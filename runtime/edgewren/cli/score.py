"""The verb `edgewren score`: files of texts in, the same files with labels and scores out."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewren.archive.format_names import TABLES
from edgewren.cli import progress
from edgewren.errors import EdgewrenError, RejectedRowsError, UsageError

if TYPE_CHECKING:
    from edgewren.archive.report import Report


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "score",
        help="label and score the texts of files of any size",
        description="Label every row of some files. All columns pass through untouched and in order; behind them come "
        "label, score, score_<label> for each label, and status (ok, truncated, repaired, uncertain, empty, "
        "rejected:<why>). One row in, one row out. Whatever ends a run with files, --resume goes on, and the output "
        "is the same to the byte.",
        epilog="example:\n  edgewren score 'archive/2019-*.csv.gz' --model bias-bundle --output scored.csv.gz --resume",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input",
        nargs="+",
        metavar="INPUT",
        help="CSV, TSV, JSONL, Parquet, or Twitter's own JSON (API v1.1 and v2, tweets.js); plain, .gz, .zst, .xz or "
        ".bz2; a pattern in quotes stands for all files that match, sorted; - for standard input",
    )
    add_model_options(parser)
    parser.add_argument(
        "--output",
        "-o",
        metavar="OUT",
        help="file to write, its format and packing by suffix (default: standard output, which cannot be resumed)",
    )
    parser.add_argument("--text-column", default="text", metavar="NAME", help="default: text")
    parser.add_argument(
        "--format",
        metavar="NAME",
        help=f"of the input: {', '.join(TABLES)} or twitter (default: by looking and by suffix; csv for standard "
        "input)",
    )
    parser.add_argument(
        "--output-format",
        metavar="NAME",
        help=f"{', '.join(TABLES)} (default: by OUT's suffix, else the first input's, jsonl for Twitter's; semicolons "
        "stay semicolons)",
    )
    parser.add_argument(
        "--encoding", default="utf-8", metavar="NAME", help="of the input; output is UTF-8 (default: utf-8)"
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="put before the name of every added column")
    parser.add_argument(
        "--abstain-below",
        type=float,
        metavar="P",
        help="give rows whose score is lower the status uncertain; their label stays",
    )
    parser.add_argument(
        "--excel-safe",
        action="store_true",
        help="in CSV and TSV, put ' before texts that a spreadsheet would take for a formula, as @name",
    )
    parser.add_argument(
        "--max-bad-rows",
        type=int,
        default=0,
        metavar="N",
        help="with more rejected rows than this, finish and exit with 5 (default: 0)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an unfinished run; where there is none, begin one"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT, or an unfinished run, if there is one")
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: spread the inputs over a Ray cluster (RAY_ADDRESS, else one on this machine); INPUT may also be "
        "addresses as s3://…, and OUT is a folder that gets one part per input and a manifest at the end "
        "(default: local)",
    )
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
    if args.force and args.resume:
        raise UsageError("--force starts over and --resume goes on. Take one of them.")
    if args.engine == "ray":
        return _run_on_ray(args)
    from edgewren.archive.run import score_archive
    from edgewren.classifier import Classifier

    classifier = Classifier.load(
        args.model,
        device=args.device,
        threads=args.threads,
        variant=args.variant,
        expected_sha256=args.require_sha256,
    )
    try:
        with _progress(args.input) as tell:
            report = score_archive(
                classifier,
                args.input,
                args.output,
                text_column=args.text_column,
                format=args.format,
                output_format=args.output_format,
                encoding=args.encoding,
                prefix=args.prefix,
                abstain_below=args.abstain_below,
                excel_safe=args.excel_safe,
                force=args.force,
                resume=args.resume,
                progress=tell,
            )
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C, SIGTERM
            _say_how_to_go_on(args.output)
        raise
    print(_summary(report, args.output), file=sys.stderr)
    rejects = report.document.get("rejects")
    where = f" All are in {rejects['path']}." if rejects else ""
    _check_rejected(report.rejected, report.rows, report.rejections, where, args.max_bad_rows)
    return 0


def _check_rejected(rejected: int, rows: int, examples: Sequence[str], where: str, allowed: int) -> None:
    """Raise RejectedRowsError if there are more than allowed."""
    if rejected > allowed:
        more = f"; and {rejected - len(examples)} more" if rejected > len(examples) else ""
        raise RejectedRowsError(
            f"finished, but {rejected:,} of {rows:,} rows were rejected, more than the {allowed:,} allowed: "
            f"{'; '.join(examples)}{more}.{where} Correct them, or allow them with --max-bad-rows."
        )


def _run_on_ray(args: argparse.Namespace) -> int:
    """Score on a cluster. Raises EdgewrenError as `score_on_ray` does, and RejectedRowsError."""
    if args.output in (None, "-") or "-" in args.input:
        raise UsageError("--engine ray reads files and writes a folder: name inputs, and a folder with --output.")
    from edgewren.integrations.ray_archive import Options, connect, score_on_ray
    from edgewren.integrations.shipped import Placement

    names = ("text_column", "format", "output_format", "encoding", "prefix", "abstain_below", "excel_safe")
    placement = Placement("cpu" if args.device == "auto" else args.device, args.variant, args.threads or 1)
    started = time.monotonic()
    connect()
    with _splits() as tell:
        manifest = score_on_ray(
            args.model,
            args.input,
            args.output,
            options=Options(**{name: getattr(args, name) for name in names}),
            placement=placement,
            expected_sha256=args.require_sha256,
            force=args.force,
            resume=args.resume,
            progress=tell,
        )
    listed = ", ".join(f"{count:,} {name}" for name, count in manifest["statuses"].items() if count)
    print(
        f"{manifest['rows']:,} rows ({listed}) in {len(manifest['parts']):,} parts in "
        f"{time.monotonic() - started:,.1f} s -> {args.output}",
        file=sys.stderr,
    )
    examples = [text for part in manifest["parts"] for text in part["rejections"]][:5]
    where = f" All are in {args.output}/_rejects."
    _check_rejected(manifest["statuses"]["rejected"], manifest["rows"], examples, where, args.max_bad_rows)
    return 0


@contextlib.contextmanager
def _splits() -> Iterator[Callable[[int, int, int], None] | None]:
    """A bar over splits for people who watch."""
    with progress.bar("part", "score") as bar:

        def show(done: int, total: int, rows: int) -> None:
            bar.total = total
            bar.set_postfix_str(f"{rows:,} rows", refresh=False)
            bar.update(done - bar.n)

        yield None if bar is None else show


def _say_how_to_go_on(output: str | None) -> None:
    from edgewren.archive import journal
    from edgewren.archive.output import beside

    if output is not None and output != "-" and Path(beside(output, journal.SUFFIX)).exists():
        print(f"{output} is unfinished. Go on with the same command and --resume.", file=sys.stderr)


def _summary(report: Report, output: str | None) -> str:
    from edgewren.archive.results import STATUSES

    rate = report.rows / report.seconds if report.seconds else 0.0
    listed = ", ".join(f"{count:,} {name}" for name in STATUSES if (count := getattr(report, name)))
    further = f", resumed {report.resumed} times" if report.resumed else ""
    if report.left_after_layer and report.rows > report.rejected:
        shares = (f"{share:.1%} after layer {layer}" for layer, share in report.left_after_layer.items())
        further += f", left {', '.join(shares)}"
    further += f", {report.prefixed:,} texts got a ' before them (--excel-safe)" if report.prefixed else ""
    return (
        f"{report.rows:,} rows{f' ({listed})' if listed else ''} in {report.seconds:,.1f} s, {rate:,.0f} rows/s"
        f"{further} -> {'standard output' if output in (None, '-') else output}"
    )


@contextlib.contextmanager
def _progress(inputs: list[str]) -> Iterator[Callable[[int, int], None]]:
    """Show how far the run is: a bar for people who watch, a line each half minute for those who read it later."""
    from edgewren.archive.inputs import expand

    try:
        # % by bytes, which are known beforehand; rows beside it, which people count in.
        total = progress.bytes_of(expand(inputs))
    except (EdgewrenError, OSError):
        total = None  # the run itself says what is wrong
    with progress.bar("B", "score", total=total) as bar:
        yield _Lines(total) if bar is None else _Bar(bar)


class _Bar:
    """A tqdm bar over bytes, with rows and rows/s of this run beside it."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._first: tuple[int, float] | None = None

    def __call__(self, rows: int, bytes_read: int) -> None:
        bar = self._bar
        now = time.monotonic()
        if self._first is None:
            self._first = rows, now
            bar.set_postfix_str(f"{rows:,} rows", refresh=False)
        else:
            rate = (rows - self._first[0]) / max(now - self._first[1], 1e-9)
            bar.set_postfix_str(f"{rows:,} rows, {rate:,.0f} rows/s", refresh=False)
        bar.update(bytes_read - bar.n)


class _Lines:
    """Lines with rows, rows/s of this run, and how much of the bytes is behind them."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._pace = progress.Pace()
        self._first: int | None = None

    def __call__(self, rows: int, bytes_read: int) -> None:
        if self._first is None:
            self._first = rows
        since = self._pace.due(bytes_read)
        if since is None:
            return
        taken, seconds = since
        text = f"edgewren: {rows:,} rows, {(rows - self._first) / seconds:,.0f} rows/s"
        if self._total and taken > 0:
            text += f", {100 * bytes_read / self._total:.1f} % of the bytes"
            text += progress.minutes_left(self._total - bytes_read, taken, seconds)
        print(text, file=sys.stderr, flush=True)
