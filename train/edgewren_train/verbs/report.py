"""The verb `edgewren report`: parse, call, write. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from edgewren.display import say
from edgewren.errors import OutputError, UsageError

if TYPE_CHECKING:
    from edgewren_train.reporting.page import Report


_COMPARISON = "comparison.json"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "report",
        help="write a report for people: one HTML file, and its charts as PNG",
        description="One self-contained HTML file about a trained model, a bundle or a comparison: data, scores with "
        "intervals, calibration, what abstaining brings, doubtful labels, parity and speed. It loads nothing from "
        "anywhere, prints well, and follows light and dark.",
        epilog="example:\n  edgewren report models/bias-ridge --bundle bundles/bias-ridge --output bias-report.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "subject",
        metavar="SUBJECT",
        help="trained model, bundle, folder of 'edgewren compare', or JSON of 'edgewren evaluate --against … --json'",
    )
    parser.add_argument("--bundle", metavar="BUNDLE", help="what the trained model was exported to: parity and speed")
    parser.add_argument("--output", "-o", metavar="HTML", help="default: SUBJECT-report.html")
    parser.add_argument("--no-speed", action="store_true", help="don't measure the bundle's speed (ten seconds)")
    parser.add_argument("--no-learning-curve", action="store_true", help="don't fit the learning curve (ridge)")
    parser.add_argument("--no-texts", action="store_true", help="show no text of people, only numbers")
    parser.add_argument("--no-png", action="store_true", help="write the HTML file alone")
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.set_defaults(run=_run, extra="train")


def _run(args: argparse.Namespace) -> int:
    from edgewren_train.reporting.comparison import read_comparison
    from edgewren_train.reporting.facts import gather
    from edgewren_train.reporting.page import comparison_report, model_report

    subject = Path(args.subject)
    if (subject / _COMPARISON).is_file():
        subject = subject / _COMPARISON
    output = Path(args.output or f"{Path(args.subject).name.removesuffix('.json')}-report.html")
    pictures = output.parent / f"{output.stem}-charts"
    if output.is_dir():
        raise UsageError(f"{output} is a folder. Name a file with --output, for example {output / 'report.html'}.")
    if not args.no_png and pictures.exists() and not pictures.is_dir():
        raise UsageError(f"{pictures} is not a folder, and the charts go there. Choose another --output, or --no-png.")
    for path in (output, *(() if args.no_png else (pictures,))):
        if path.exists() and not args.force:
            raise UsageError(f"{path} exists. Choose another --output, or overwrite it with --force.")
    if subject.is_file():
        if args.bundle is not None:
            raise UsageError(f"--bundle is of trained models, and {subject} is a comparison. Leave it out.")
        report = comparison_report(read_comparison(subject))
    else:
        facts = gather(
            args.subject,
            bundle=args.bundle,
            with_speed=not args.no_speed,
            with_curve=not args.no_learning_curve,
            say=say,
        )
        report = model_report(facts, with_texts=not args.no_texts)
    _write(report, output, None if args.no_png else pictures)
    print(output if args.no_png else f"{output}\n{pictures}{os.sep} ({len(report.charts)} PNG files)")  # noqa: T201
    return 0


def _write(report: Report, output: Path, pictures: Path | None) -> None:
    """Write the page under a temporary name, then rename it: never half a report."""
    scratch = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(report.html, encoding="utf-8", errors="replace")  # training texts may hold surrogates
        scratch.replace(output)
        if pictures is not None:
            pictures.mkdir(exist_ok=True)
            for chart in report.charts:
                (pictures / f"{chart.name}.png").write_bytes(chart.png)
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written: {error.strerror or error}. Free space or choose another --output."
        ) from error
    finally:
        scratch.unlink(missing_ok=True)
