"""Tweets per second and milliseconds per tweet: edgewren beside every stack that it could be replaced by.

    make bench                     four stacks that the development environment has
    make bench-rivals              all, in an environment made from benchmarks/requirements.txt
    python benchmarks/rivals.py [--only NAME …] [--recipe lora] [--trained DIR] [--rounds 3] [--texts N]

All stacks hold the same MiniLM weights and the same head, run on all granted cores, each in a process of its own, and
are tuned on the same texts first (batch size and more). Then rounds are interleaved (A B C A B C …), so that a drifting
machine hits all alike; the table shows medians and ratios. What cannot be had is listed with the reason. The last line
of stdout is one JSON document.

Texts: --data, else the tweets in $EDGEWREN_DATA or ../shared/data, else the shipped sample posts. The model is trained
on the first file (columns text and bias, at least 1,000 rows for int8's gate), or given with --trained.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from stacks.hosted import HostedStack
from stacks.material import Material, UnavailableError, default_data, load_material, read

# name -> module, function, distribution
STACKS = {
    "edgewren-int8": ("edgewren_bundle", "int8", "edgewren"),
    "edgewren-int8-exit": ("edgewren_bundle", "int8_exit", "edgewren"),
    "edgewren-fp32": ("edgewren_bundle", "fp32", "edgewren"),
    "edgewren-int8-http": ("edgewren_bundle", "int8_http", "edgewren"),
    "edgewren-default-static": ("edgewren_bundle", "default_static", "edgewren"),
    "edgewren-default-ridge": ("edgewren_bundle", "default_ridge", "edgewren"),
    "edgewren-default-lora": ("edgewren_bundle", "default_lora", "edgewren"),
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
OURS = "edgewren-"


def build(names: list[str], material: Material) -> tuple[dict[str, HostedStack], dict[str, str]]:
    """Return the stacks that can be built, tuned, and for each other one the reason."""
    stacks: dict[str, HostedStack] = {}
    missing: dict[str, str] = {}
    for name in names:
        module, function, _ = STACKS[name]
        say(f"{name}: building and tuning")
        try:
            stacks[name] = HostedStack(module, function, material)
        except UnavailableError as error:
            missing[name] = str(error)
        say(f"{name}: {missing[name] if name in missing else dict(stacks[name].settings)}")
    return stacks, missing


def throughput(stacks: Mapping[str, HostedStack], count: int, rounds: int) -> dict[str, float]:
    """Return texts per second, the median of interleaved rounds over `count` texts."""
    seconds: dict[str, list[float]] = {name: [] for name in stacks}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for name, stack in stacks.items():
            seconds[name].append(stack.seconds())
    return {name: count / statistics.median(values) for name, values in seconds.items()}


def latencies(stacks: Mapping[str, HostedStack], count: int, turns: int = 2) -> dict[str, tuple[float, float]]:
    """Return p50 and p99 of milliseconds for one text, each stack in several turns; a first pass warms each up."""
    say(f"{count} texts one by one")
    for stack in stacks.values():
        stack.single_seconds(count // 2)
    seconds: dict[str, list[float]] = {name: [] for name in stacks}
    for _ in range(turns):
        for name, stack in stacks.items():
            seconds[name] += stack.single_seconds(count)
    return {name: (_percentile(values, 50), _percentile(values, 99)) for name, values in seconds.items()}


def _percentile(seconds: list[float], percent: int) -> float:
    """Return milliseconds, the smallest value that `percent` of all don't exceed."""
    return 1000 * sorted(seconds)[max(0, -(-len(seconds) * percent // 100) - 1)]


def agreement(stacks: Mapping[str, HostedStack], fp32: list[str]) -> dict[str, int | None]:
    """Return how many labels equal those of the model in fp32, None where there is no such model. Also the warm-up."""
    counts: dict[str, int | None] = {}
    for name, stack in stacks.items():
        say(f"{name}: labels")
        reference = stack.reference() or fp32
        equal = sum(a == b for a, b in zip(stack.labels(), reference, strict=True))
        counts[name] = equal if stack.comparable else None
    return counts


def measure(names: list[str], material: Material, rounds: int) -> dict[str, Any]:
    texts = material.texts
    with contextlib.closing(HostedStack("edgewren_bundle", "fp32", material)) as fp32:
        expected = fp32.labels()
    stacks, missing = build(names, material)
    same = agreement(stacks, expected)
    rates = throughput(stacks, len(texts), rounds)
    milliseconds = latencies(stacks, min(SINGLE_TEXTS, len(texts)))
    for stack in stacks.values():
        stack.close()
    rivals = [name for name in stacks if not name.startswith(OURS)]
    best = max(rivals or stacks, key=rates.__getitem__)
    return {
        "texts": len(texts),
        "distinct_texts": len(set(texts)),
        "cores": material.cores,
        "machine": platform.processor() or platform.machine(),
        "recipe": material.kind,
        "rounds": rounds,
        "best_rival": best,
        "stacks": {
            name: {
                "version": metadata.version(STACKS[name][2]),
                "texts_per_s": rates[name],
                "ratio_to_best_rival": rates[name] / rates[best],
                "labels_as_fp32": same[name],
                "single_p50_ms": milliseconds[name][0],
                "single_p99_ms": milliseconds[name][1],
                "settings": dict(stack.settings),
            }
            for name, stack in stacks.items()
        },
        "left_out": missing,
    }


def show(report: dict[str, Any]) -> None:
    """Print the table as Markdown, as docs/benchmarks.md holds it."""
    print(
        f"{report['texts']:,} texts ({report['distinct_texts']:,} distinct), {report['recipe']} model, "
        f"{report['cores']} cores, medians of {report['rounds']} rounds\n\n"
        f"| stack | version | texts/s | to {report['best_rival']} | as fp32 | one text, p50 and p99 | settings |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, row in sorted(report["stacks"].items(), key=lambda item: -float(item[1]["texts_per_s"])):
        same = row["labels_as_fp32"]
        share = "" if same is None else f"{same / report['texts']:.2%}"
        settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
        print(
            f"| {name} | {row['version']} | {row['texts_per_s']:,.0f} | {row['ratio_to_best_rival']:.2f} | {share} | "
            f"{row['single_p50_ms']:.2f} and {row['single_p99_ms']:.2f} ms | {settings} |"
        )
    for name, reason in report["left_out"].items():
        print(f"| {name} | | left out: {' '.join(reason.split())} | | | | |")
    print()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STACKS, metavar="NAME", help=f"of: {' '.join(STACKS)}")
    parser.add_argument("--recipe", choices=("ridge", "lora"), default="ridge", help="what to train (default: ridge)")
    parser.add_argument("--trained", type=Path, metavar="DIR", help="a trained model of either recipe instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=None, metavar="N", help="only the first N texts")
    parser.add_argument("--data", type=Path, nargs="+", default=None, metavar="CSV", help="with columns text and bias")
    args = parser.parse_args(arguments)
    if args.rounds < 1 or (args.texts is not None and args.texts < 1):
        parser.error("--rounds and --texts take numbers from 1")
    return args


def main() -> None:
    args = parse()
    files = args.data or default_data()
    names = [name for name in STACKS if args.only is None or name in args.only]
    with tempfile.TemporaryDirectory() as scratch:
        say("training and exporting the model that all stacks share")
        material = load_material(Path(scratch), files[0], read(files)[: args.texts], args.recipe, args.trained)
        material.make(http="edgewren-int8-http" in names)
        report = measure(names, material, args.rounds)
    show(report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
