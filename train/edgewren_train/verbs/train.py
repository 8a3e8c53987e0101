"""The verb `edgewren train`: parse, call, print. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse

from edgewren.cli.progress import counted
from edgewren.display import say
from edgewren.errors import UsageError
from edgewren_train.exit_plan import ALLOWED, ExitPlan, parse_exits
from edgewren_train.lora_recipe import USUAL_LENGTH
from edgewren_train.verbs import lora_options, options, ridge_options, terminal, train_static

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
        "what it makes of rows left out. Reports a cross-validated score.",
        epilog="example:\n  edgewren train ridge tweets.csv --label-column bias --test held_out.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_common(ridge)
    ridge_options.add_settings(ridge)
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
    options.add_common(lora, usual_length=f"{USUAL_LENGTH}, or what the encoder takes")
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

    train_static.add_parser(recipes)


def _add_depth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--depth",
        default="whole",
        metavar="K|auto|whole",
        help="keep the encoder's first K layers; auto: as few as are within one standard error of the best "
        "(default: whole)",
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


def _run_ridge(args: argparse.Namespace) -> int:
    from edgewren_train.depth_run import parse_depth
    from edgewren_train.embedding import default_cache
    from edgewren_train.ridge_run import run_ridge

    settings = ridge_options.settings(args)
    data, test, output = options.prepare(args)
    summary = run_ridge(
        data,
        output,
        settings,
        depth=parse_depth(args.depth),
        exits=_exits(args),
        test=test,
        device=options.torch_device(args.device),
        cache=None if args.no_cache else default_cache(),
        say=say,
        progress=counted,
    )
    terminal.print_summary(summary, as_json=args.json)
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
    if args.group_column and split is None and choosing is None and args.depth != "auto":
        raise UsageError(
            "--group-column is of rows held out, and with --calibrate none none are. Leave it out, or hold out rows: "
            "--calibrate validation:0.2."
        )
    warning = lora_options.sweep_warning(args)
    if warning:
        say(warning)
    data, test, output = options.prepare(args)
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
        group_column=args.group_column,
        test=test,
        device=options.torch_device(args.device),
        say=say,
        progress=counted,
    )
    terminal.print_summary(summary, as_json=args.json)
    return 0


def _exits(args: argparse.Namespace) -> ExitPlan | None:
    """Return what `_add_exits` read.

    Raises:
        UsageError: --exits is wrong, or --exit-difference stands without it.
    """
    if args.exits is None and args.exit_difference != ALLOWED:
        raise UsageError("--exit-difference is of early exits: add --exits auto, or leave it out.")
    return parse_exits(args.exits, args.exit_difference)
