"""The verb `edgewren export`: parse, call, print. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edgewren.cli import text_file
from edgewren.errors import InputError

_MOST_NOTES = 65_536


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "export",
        help="turn a trained model into a bundle",
        description="Turn a trained model into one ONNX folder that scores anywhere. Each stage is compared with the "
        "one before it on real texts; if they disagree, the export fails and writes nothing.",
        epilog="example:\n  edgewren export models/bias-ridge --output bundles/bias-ridge",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="DIR", help="trained model, written by 'edgewren train'")
    parser.add_argument("--output", "-o", metavar="BUNDLE", help="folder for the bundle (default: DIR-bundle)")
    parser.add_argument(
        "--precision",
        action="append",
        metavar="P,Q",
        help="variants to write, may be given several times: fp32, int8 (2.5 times as fast on CPUs with VNNI, a "
        "quarter of the size; fails if it changes more than 0.5 %% of the labels of at least 1,000 texts), fp16 (for "
        "CUDA, half the size). Default: fp32",
    )
    parser.add_argument("--texts", metavar="FILE", help="texts for the parity gates (default: the training texts)")
    text_file.add_options(parser, "--texts")
    parser.add_argument(
        "--notes",
        metavar="FILE",
        help="Markdown passage for the model card, in your words: source and licence of the data, licence, limits",
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing bundle")
    parser.add_argument("--json", action="store_true", help="print the manifest as one JSON document on stdout")
    parser.set_defaults(run=_run, extra="export")


def _run(args: argparse.Namespace) -> int:
    from edgewren_export.pipeline import export

    result = export(
        args.model,
        args.output or f"{args.model.rstrip('/')}-bundle",
        precisions=_precisions(args.precision),
        texts=text_file.read(args, args.texts, "--texts"),
        notes=_notes(args.notes) if args.notes else None,
        force=args.force,
        say=lambda message: print(message, file=sys.stderr),  # noqa: T201  people read stderr
    )
    if args.json:
        print(json.dumps(json.loads(result.manifest.to_json())))  # noqa: T201
        return 0
    shown = result.folder.relative_to(Path.cwd()) if result.folder.is_relative_to(Path.cwd()) else result.folder
    for name in result.manifest.variants:
        print(f"{name}: {result.manifest.variant_bytes(name) / 1e6:.1f} MB")  # noqa: T201
    print(f"bundle: {shown}\nnext: edgewren score FILE --model {shown}")  # noqa: T201
    return 0


def _precisions(given: list[str] | None) -> list[str]:
    names = [part.strip() for option in given or ["fp32"] for part in option.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def _notes(path: str) -> str:
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. --notes takes a Markdown file.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}). --notes takes a Markdown file.") from error
    if not text.strip() or len(data) > _MOST_NOTES:
        raise InputError(f"{path} has {len(data):,} bytes. --notes takes some text, at most {_MOST_NOTES:,} bytes.")
    return text
