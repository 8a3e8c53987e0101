"""Tweets per second and milliseconds per tweet: edgewren beside every stack that it could be replaced by.

    python benchmarks/rivals.py [--only NAME …] [--rounds 5] [--texts N] [--data FILE.csv …]

In an environment made from benchmarks/requirements.txt. All stacks hold the same MiniLM weights and ridge head, run on
all granted cores, and are tuned on the same texts first (batch size and more). Then rounds are interleaved
(A B C A B C …), so that a drifting machine hits all alike; the table shows medians and ratios. A stack whose library is
missing is listed as not installed. The last line of stdout is one JSON document.

Texts: --data, else as throughput.py. The model is trained on the first file (columns text and bias, at least 1,000 rows
for int8's gate).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from stacks.material import Labeller, Material, Stack, load_material
from throughput import default_data, read, timed

YARDSTICK = "edgewren-int8"
# name -> module, function, distribution
STACKS = {
    YARDSTICK: ("edgewren_bundle", "int8", "edgewren"),
    "edgewren-fp32": ("edgewren_bundle", "fp32", "edgewren"),
    "edgewren-int8-http": ("edgewren_bundle", "int8_http", "edgewren"),
    "sentence-transformers": ("sentence_transformers_torch", "fp32", "sentence-transformers"),
    "sentence-transformers-onnx-int8": ("sentence_transformers_onnx", "int8", "sentence-transformers"),
    "setfit": ("setfit_model", "fp32", "setfit"),
    "transformers-pipeline": ("transformers_pipeline", "fp32", "transformers"),
    "optimum-fp32": ("optimum_pipeline", "fp32", "optimum-onnx"),
    "optimum-int8": ("optimum_pipeline", "int8", "optimum-onnx"),
    "fastembed-fp32": ("fastembed_onnx", "fp32", "fastembed"),
    "fastembed-int8": ("fastembed_onnx", "int8", "fastembed"),
    "openvino-fp32": ("openvino_async", "fp32", "openvino"),
    "openvino-bf16": ("openvino_async", "bf16", "openvino"),
    "openvino-int8": ("openvino_async", "int8", "openvino"),
}
SINGLE_TEXTS = 200


def build(names: list[str], material: Material) -> tuple[dict[str, Stack], dict[str, str]]:
    """Return the stacks that can be built, tuned, and the reason for each that is not installed."""
    stacks: dict[str, Stack] = {}
    missing: dict[str, str] = {}
    for name in names:
        module, function, _ = STACKS[name]
        say(f"{name}: building and tuning")
        try:
            with contextlib.redirect_stdout(sys.stderr):
                stacks[name] = getattr(importlib.import_module(f"stacks.{module}"), function)(material)
        except ImportError as error:
            missing[name] = str(error)
            say(f"{name}: not installed ({error})")
        else:
            say(f"{name}: {dict(stacks[name].settings)}")
    return stacks, missing


def throughput(stacks: Mapping[str, Stack], texts: list[str], rounds: int) -> dict[str, float]:
    """Return texts per second, the median of interleaved rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in stacks}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for name, stack in stacks.items():
            seconds[name].append(timed(stack.throughput, texts))
    return {name: len(texts) / statistics.median(values) for name, values in seconds.items()}


def latencies(stacks: Mapping[str, Stack], texts: list[str], turns: int = 5) -> dict[str, float]:
    """Return the median of milliseconds for one text, each stack in several turns; a first pass warms each up."""
    say(f"{len(texts)} texts one by one")
    singles = [[text] for text in texts]
    for stack in stacks.values():
        for single in singles:
            stack.latency(single)
    seconds: dict[str, list[float]] = {name: [] for name in stacks}
    for turn in range(turns):
        for name, stack in stacks.items():
            seconds[name] += [timed(stack.latency, single) for single in singles[turn::turns]]
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def agreement(stacks: Mapping[str, Stack], fp32: Labeller, texts: list[str]) -> dict[str, int]:
    """Return how many labels equal those of the model in fp32. Also the warm-up."""
    expected = fp32(texts)
    counts = {}
    for name, stack in stacks.items():
        say(f"{name}: labels")
        reference = stack.fp32(texts) if stack.fp32 else expected
        counts[name] = sum(a == b for a, b in zip(stack.throughput(texts), reference, strict=True))
    return counts


def measure(names: list[str], material: Material, rounds: int) -> dict[str, Any]:
    from stacks.edgewren_bundle import fp32

    stacks, missing = build(names, material)
    texts = material.texts
    same = agreement(stacks, fp32(material).throughput, texts)
    rates = throughput(stacks, texts, rounds)
    milliseconds = latencies(stacks, texts[:SINGLE_TEXTS])
    return {
        "texts": len(texts),
        "distinct_texts": len(set(texts)),
        "cores": material.cores,
        "machine": platform.processor() or platform.machine(),
        "rounds": rounds,
        "stacks": {
            name: {
                "version": metadata.version(STACKS[name][2]),
                "texts_per_s": rates[name],
                "yardstick_ratio": rates[YARDSTICK] / rates[name],
                "labels_as_fp32": same[name],
                "single_p50_ms": milliseconds[name],
                "settings": dict(stack.settings),
            }
            for name, stack in stacks.items()
        },
        "not_installed": missing,
    }


def show(report: dict[str, Any]) -> None:
    texts = f"{report['texts']:,} texts ({report['distinct_texts']:,} distinct)"
    print(f"{texts}, {report['cores']} cores, medians of {report['rounds']} rounds")
    print(f"{'':32}{'version':>10}{'texts/s':>10}{YARDSTICK + ' is':>18}{'as fp32':>10}{'one text':>11}  settings")
    for name, row in report["stacks"].items():
        share = f"{row['labels_as_fp32'] / report['texts']:.2%}"
        settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
        print(
            f"{name:32}{row['version']:>10}{row['texts_per_s']:>10.1f}{row['yardstick_ratio']:>16.2f} x{share:>10}"
            f"{row['single_p50_ms']:>8.2f} ms  {settings}"
        )
    for name, reason in report["not_installed"].items():
        print(f"{name:32}not installed: {reason}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=STACKS, metavar="NAME", help=f"{YARDSTICK} and: {' '.join(STACKS)}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=None, metavar="N", help="only the first N texts")
    parser.add_argument("--data", type=Path, nargs="+", default=None, metavar="CSV", help="with columns text and bias")
    args = parser.parse_args(arguments)
    if args.rounds < 1 or (args.texts is not None and args.texts < 1):
        parser.error("--rounds and --texts take numbers from 1")
    return args


def main() -> None:
    args = parse()
    files = args.data or default_data()
    names = [name for name in STACKS if args.only is None or name in {*args.only, YARDSTICK}]
    with tempfile.TemporaryDirectory() as scratch:
        say("training the model that all stacks share")
        material = load_material(Path(scratch), files[0], read(files)[: args.texts])
        report = measure(names, material, args.rounds)
    show(report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
