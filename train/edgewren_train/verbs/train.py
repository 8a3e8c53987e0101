"""The verb `edgewren train`: parse, call, print. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewren.display import escaped
from edgewren.errors import UsageError
from edgewren_train.encoder_names import MINILM
from edgewren_train.exit_plan import ALLOWED, ExitPlan, parse_exits
from edgewren_train.lora_recipe import USUAL_LENGTH
from edgewren_train.seeds import one_seed
from edgewren_train.verbs import lora_options

if TYPE_CHECKING:
    from edgewren.archive.labelled import LabelledTexts
    from edgewren_train.ridge_settings import RidgeSettings
    from edgewren_train.run_summary import Summary

_MINIMUM_ROWS_PER_LABEL = 2
_DEFAULT_SPLIT = "validation:0.2"
_EXITS_SPLIT = "folds:5"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    train = subparsers.add_parser(
        "train",
        help="train a classifier on a labelled file",
        description="Train a text classifier on your own labels, in one of three ways.",
        epilog="example:\n  edgewren train ridge tweets.csv --label-column bias --output models/bias-ridge",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    recipes = train.add_subparsers(dest="recipe", required=True, metavar="ridge|lora|static")
    ridge = recipes.add_parser(
        "ridge",
        help="ridge on sentence embeddings: seconds on a CPU",
        description="Embed each text with a sentence encoder, standardise, fit a ridge classifier; alpha by "
        "generalised cross-validation. Reports a cross-validated score.",
        epilog="example:\n  edgewren train ridge tweets.csv --label-column bias --test held_out.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(ridge)
    add_ridge_options(ridge)
    _add_depth(ridge)
    _add_exits(ridge)
    ridge.add_argument("--no-cache", action="store_true", help="embed anew, and keep nothing on disk")
    ridge.set_defaults(run=_run_ridge, extra="train")

    lora = recipes.add_parser(
        "lora",
        help="LoRA fine-tune of a small BERT, merged: minutes on a CPU",
        description="Fine-tune an encoder with low-rank adapters on query and value, and merge them into it.",
        epilog="example:\n  edgewren train lora tweets.csv --label-column bias --epochs 15 --test held_out.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(lora, usual_length=f"{USUAL_LENGTH}, or what the encoder takes")
    _add_depth(lora)
    _add_exits(lora)
    lora_options.add_settings(lora)
    lora_options.add_validation(lora)
    lora.add_argument(
        "--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where the processor has it"
    )
    lora.add_argument(
        "--padding",
        choices=("dynamic", "max"),
        default="dynamic",
        help="max pads every text to --max-length, as notebooks do: same quality, many times slower",
    )
    lora.add_argument(
        "--calibrate",
        metavar="SPEC",
        help="rows held out for an honest score and the temperature: validation:F (default, F = 0.2: one more training "
        "on the rest of the rows), folds:N (N more trainings; what an ensemble needs, and with N = 5 the default with "
        "--exits) or none (default with --max-steps)",
    )
    lora.add_argument("--max-steps", type=int, default=None, metavar="N", help="stop after N steps (for timing)")
    lora.set_defaults(run=_run_lora, extra="train")

    from edgewren_train.verbs import train_static

    train_static.add_parser(recipes)


def _add_depth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--depth",
        metavar="K|auto",
        help="keep the encoder's first K layers; auto: as few as are within one standard error of the best "
        "(default: all)",
    )


def _add_exits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exits",
        metavar="auto|K,L",
        help="let texts that are sure leave after these layers (0: the embeddings; auto: 0 and each third); export "
        "then adds variants that compute in stages",
    )
    parser.add_argument(
        "--exit-difference",
        type=float,
        default=ALLOWED,
        metavar="P",
        help="with --exits: share of labels that may differ from the full model's, proved at 95 %% confidence "
        f"(default: {ALLOWED})",
    )


def add_ridge_options(parser: argparse.ArgumentParser) -> None:
    """Add what everything with a ridge head takes."""
    parser.add_argument(
        "--alphas",
        default="wide",
        metavar="wide|classic|A,B,…",
        help="regularisation strengths: wide (1e-3 … 1e6, extended while the best is on an edge; default), classic "
        "(the six values 1e-3 … 100 of published notebooks, as they are), or your own list",
    )
    parser.add_argument(
        "--folds", type=int, default=10, metavar="N", help="folds of the cross-validated score; 0: none"
    )
    parser.add_argument(
        "--no-calibration", action="store_true", help="leave scores as they come; default: a temperature from the folds"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add what every verb takes that reads a labelled file."""
    parser.add_argument(
        "train", metavar="TRAIN", help="CSV, TSV, JSONL (plain or .gz) or Parquet with texts and labels"
    )
    parser.add_argument("--text-column", default="text", metavar="NAME", help="default: text")
    parser.add_argument("--label-column", default="label", metavar="NAME", help="default: label")
    parser.add_argument("--format", choices=("csv", "tsv", "jsonl", "parquet"), help="default: by suffix")
    parser.add_argument("--encoding", default="utf-8", help="of the file (default: utf-8)")


def add_common(parser: argparse.ArgumentParser, *, usual_length: str = "the encoder's own") -> None:
    add_data(parser)
    parser.add_argument("--output", "-o", metavar="DIR", help="folder for the trained model (default: NAME-RECIPE)")
    parser.add_argument(
        "--encoder",
        default=MINILM,
        metavar="NAME",
        help="hub id or folder of a sentence-transformers or BERT-like model; minilm: the packaged one, no download "
        f"(default: {MINILM})",
    )
    parser.add_argument("--max-length", type=int, metavar="N", help=f"tokens kept of a text (default: {usual_length})")
    parser.add_argument(
        "--normaliser",
        choices=("none", "http"),
        default="http",
        help="http: each URL becomes 'http', HTML entities are unescaped: a quarter fewer tokens of tweets, no worse "
        "in quality; none: text as it is (default: http)",
    )
    parser.add_argument("--test", metavar="FILE", help="labelled file to evaluate on, same columns")
    parser.add_argument(
        "--seed", type=one_seed, default=0, metavar="N", help="same seed and data: same model (default: 0)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where torch computes")
    parser.add_argument("--force", action="store_true", help="overwrite an existing trained model")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def _run_ridge(args: argparse.Namespace) -> int:
    from edgewren_train.depth_run import parse_depth
    from edgewren_train.embedding import default_cache
    from edgewren_train.ridge_run import run_ridge

    settings = ridge_settings(args)
    data, test, output = prepare(args)
    summary = run_ridge(
        data,
        output,
        settings,
        depth=parse_depth(args.depth),
        exits=_exits(args),
        test=test,
        device=torch_device(args.device),
        cache=None if args.no_cache else default_cache(),
        say=say,
        progress=bar,
    )
    print_summary(summary, as_json=args.json)
    return 0


def _run_lora(args: argparse.Namespace) -> int:
    from edgewren_train.depth_run import parse_depth
    from edgewren_train.lora_run import run_lora
    from edgewren_train.out_of_fold import Split

    exits = _exits(args)
    usual = _EXITS_SPLIT if exits is not None else _DEFAULT_SPLIT if args.max_steps is None else "none"
    split = Split.parse(args.calibrate or usual)
    recipe = lora_options.recipe(args)
    choosing = lora_options.choosing(args)
    warning = lora_options.sweep_warning(args)
    if warning:
        say(warning)
    data, test, output = prepare(args)
    summary = run_lora(
        data,
        output,
        encoder_spec=args.encoder,
        recipe=recipe,
        choosing=choosing,
        normaliser=args.normaliser,
        split=split,
        depth=parse_depth(args.depth),
        exits=exits,
        test=test,
        device=torch_device(args.device),
        say=say,
        show_progress=sys.stderr.isatty(),
    )
    print_summary(summary, as_json=args.json)
    return 0


def _exits(args: argparse.Namespace) -> ExitPlan | None:
    """Return what `_add_exits` read.

    Raises:
        UsageError: --exits is wrong, or --exit-difference stands without it.
    """
    if args.exits is None and args.exit_difference != ALLOWED:
        raise UsageError("--exit-difference is of early exits: add --exits auto, or leave it out.")
    return parse_exits(args.exits, args.exit_difference)


def ridge_settings(args: argparse.Namespace) -> RidgeSettings:
    """Return what `add_common` and `add_ridge_options` read.

    Raises:
        UsageError: --alphas or --folds is wrong.
    """
    from edgewren_train import ridge
    from edgewren_train.ridge_settings import RidgeSettings

    alphas, extend = alpha_grid(args.alphas, ridge.WIDE_GRID, ridge.CLASSIC_GRID)
    if args.folds < 0 or args.folds == 1:
        raise UsageError(f"--folds is {args.folds}, expected 0 (none) or at least 2.")
    return RidgeSettings(
        encoder_spec=args.encoder,
        max_length=args.max_length,
        normaliser=args.normaliser,
        alphas=alphas,
        extend=extend,
        folds=args.folds,
        calibrated=not args.no_calibration,
        seed=args.seed,
    )


def prepare(args: argparse.Namespace) -> tuple[LabelledTexts, LabelledTexts | None, Path]:
    """Read and check everything that can be refused, before anything takes time."""
    from edgewren_train.model import check_output

    output = Path(args.output or f"{stem(args.train)}-{args.recipe}")
    check_output(output, force=args.force)
    group = getattr(args, "group_column", None)
    data = read(args, others=[group] if group else [])
    test = read(args, args.test, minimum_per_class=1) if args.test else None
    if test is not None:
        test.check_known(data.classes, args.train, phrase="does not have. It has")
    return data, test, output


def read(
    args: argparse.Namespace,
    path: str | None = None,
    *,
    minimum_per_class: int = _MINIMUM_ROWS_PER_LABEL,
    others: Sequence[str] = (),
) -> LabelledTexts:
    """Read the labelled file that the arguments name, or another one with the same columns; warn of contradictions, and
    of labels that a model gave.
    """
    from edgewren.archive.labelled import read_labelled

    data = read_labelled(
        path or args.train,
        text_column=args.text_column,
        label_column=args.label_column,
        format=args.format,
        encoding=args.encoding,
        minimum_per_class=minimum_per_class,
        other_columns=others,
    )
    data.warn_if_scored(args.label_column, say)
    if data.contradictions and path is None:
        text, rows = data.contradictions[0]
        say(
            f"warning: {len(data.contradictions)} text(s) occur with different labels, for example rows "
            f"{', '.join(map(str, rows))}: {text[:60]!r}"
        )
    return data


def stem(path: str) -> str:
    return Path(path).name.split(".")[0]


def alpha_grid(spec: str, wide: tuple[float, ...], classic: tuple[float, ...]) -> tuple[tuple[float, ...], bool]:
    if spec == "wide":
        return wide, True
    if spec == "classic":
        return classic, False
    try:
        return tuple(float(part) for part in spec.split(",")), False
    except ValueError as error:
        raise UsageError(f"--alphas is {spec!r}, expected wide, classic, or numbers like 1,10,100.") from error


def torch_device(requested: str) -> str:
    import torch

    if requested == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise UsageError("--device cuda: torch finds no CUDA device here. Use --device cpu, or a CUDA build of torch.")
    return "cpu"


def say(message: str) -> None:
    print(escaped(message), file=sys.stderr)  # noqa: T201  the command line speaks to people on stderr


def bar(total: int, title: str, *, unit: str = " texts") -> Callable[[int], None]:
    from tqdm import tqdm

    shown = tqdm(total=total, desc=title, unit=unit, disable=not sys.stderr.isatty(), file=sys.stderr)

    def advance(count: int) -> None:
        shown.update(count)
        if shown.n >= total:
            shown.close()

    return advance


def print_summary(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.as_dict()))  # noqa: T201
        return
    for name, evaluation in summary.evaluations.items():
        print(f"== {name}\n{evaluation.as_text()}\n")  # noqa: T201
    print(f"trained model: {summary.folder}\nnext: edgewren export {summary.folder}")  # noqa: T201
