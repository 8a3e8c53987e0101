"""The verb `edgewren bench`: how fast a bundle is on this machine, with the user's own texts."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from edgewren.cli import text_file

if TYPE_CHECKING:
    from edgewren.measurement import Measurement


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "bench",
        help="measure a bundle's speed and memory on this machine",
        description="Measure throughput, latency of single texts, cold start and resident memory, on your own texts. "
        "The last line of stdout is one JSON document.",
        epilog="example:\n  edgewren bench bias-bundle tweets.csv --text-column text",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder written by 'edgewren export'")
    parser.add_argument(
        "texts", nargs="?", metavar="FILE", help="file with texts like yours (default: the bundle's golden texts)"
    )
    text_file.add_options(parser, "FILE")
    parser.add_argument("--variant", metavar="NAME", help="ONNX file of the bundle (default: best here)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all CPU cores granted to this process")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for the throughput (default: 5)")
    parser.add_argument("--json", action="store_true", help="print the JSON document alone")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Raises EdgewrenError as `measure` and `text_file.read` do."""
    from edgewren.measurement import measure
    from edgewren.verification import golden_texts

    texts = text_file.read(args, args.texts, "FILE")
    if texts is None:
        print("note: these are the bundle's golden texts, odd ones; give a file with texts like yours", file=sys.stderr)
    measured = measure(
        args.bundle,
        golden_texts(args.bundle) if texts is None else texts,
        device=args.device,
        threads=args.threads,
        variant=args.variant,
        seconds=args.seconds,
    )
    if not args.json:
        print(_account(measured))
    print(json.dumps(measured.as_dict()))
    return 0


def _account(measured: Measurement) -> str:
    latency = ", ".join(f"{name} {value:.2f} ms" for name, value in measured.latency_ms.items())
    memory = "unknown here" if measured.peak_resident_mb is None else f"{measured.peak_resident_mb:.0f} MB at most"
    left = measured.left_after_layer or {}
    exits = ", ".join(f"{share:.1%} left after layer {layer}" for layer, share in left.items())
    return "\n".join(
        [
            f"model        {measured.variant} on {measured.device}, {measured.threads} threads",
            f"texts        {measured.texts:,} ({measured.distinct:,} distinct, {measured.tokens:,} tokens)",
            *([f"early exit   {exits}"] if exits else []),
            f"throughput   {measured.texts_per_s:,.0f} texts/s (median of {measured.rounds} rounds)",
            f"one text     {latency}",
            f"load         {measured.load_s:.3f} s",
            f"cold start   {measured.cold_start_s:.2f} s from starting a process to its first label",
            f"memory       {memory}, in a process that scored all texts",
        ]
    )
