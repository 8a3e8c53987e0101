"""The verb `edgewren sweep`: parse, call, print. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgewren.cli.progress import counted
from edgewren.display import say
from edgewren.errors import UsageError
from edgewren_train.encoder_names import MINILM
from edgewren_train.lora_recipe import USUAL_LENGTH, LoraRecipe
from edgewren_train.verbs import options, terminal

if TYPE_CHECKING:
    from edgewren.archive.labelled import LabelledTexts
    from edgewren_train.sweep_plan import Run, SweepPlan

_TRIALS = 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    sweep = subparsers.add_parser(
        "sweep",
        help="search the best settings of LoRA",
        description="Search the best settings of a recipe. Only LoRA has settings worth it.",
        epilog="example:\n  edgewren sweep lora tweets.csv --label-column bias --jobs 2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    recipes = sweep.add_subparsers(dest="recipe", required=True, metavar="lora")
    lora = recipes.add_parser(
        "lora",
        help="rank, alpha, learning rate, epochs, dropout, target modules",
        description="Train LoRA with every combination of the values given (4,8,16), or, where one is a range "
        "(1e-4:1e-3), with what Optuna proposes; each setting with every seed, judged on a held-out part of the rows "
        "with early stopping. Run the same command again to go on after an interruption.",
        epilog="example:\n  edgewren sweep lora tweets.csv --label-column bias --rank 4,8,16 --alpha 8,16,32 "
        "--output sweep\n  edgewren train lora tweets.csv --label-column bias --from-sweep sweep",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_data(lora)
    lora.add_argument("--output", "-o", metavar="DIR", help="folder for results (default: NAME-sweep)")
    lora.add_argument("--encoder", default=MINILM, metavar="NAME", help=f"default: {MINILM}")
    lora.add_argument("--normaliser", choices=("none", "http"), default="http", help="default: http")
    default = LoraRecipe()
    for name, usual, example in (
        ("rank", "4,8,16", "4,8,16"),
        ("alpha", "8,16,32", "8,16,32"),
        ("learning_rate", f"{default.learning_rate:g}", "1e-4:1e-3"),
        ("epochs", str(default.epochs), "10,20"),
        ("dropout", f"{default.dropout:g}", "0,0.05,0.1"),
        ("target_modules", "query and value", "'query,value;query,key,value'"),
        ("adapt_layers", "all", "3,6"),
        ("batch_size", str(default.batch_size), "32,64"),
    ):
        lora.add_argument(
            f"--{name.replace('_', '-')}", metavar=example, help=f"values, or LOW:HIGH (default: {usual})"
        )
    lora.add_argument(
        "--trials", type=int, metavar="N", help=f"settings to try where one is a range (default: {_TRIALS})"
    )
    lora.add_argument(
        "--prune", action="store_true", help="give up settings worse than the median of the others at the same epoch"
    )
    lora.add_argument(
        "--seeds",
        type=options.some_seeds,
        default=(0, 1, 2),
        metavar="A,B,…",
        help="train each setting so often (default: 0,1,2)",
    )
    lora.add_argument(
        "--validation", type=float, default=0.2, metavar="SHARE", help="of the rows, held out (default: 0.2)"
    )
    lora.add_argument(
        "--early-stopping",
        type=int,
        default=3,
        metavar="N",
        help="stop after N epochs without a lower log loss; 0: never (default: 3)",
    )
    lora.add_argument("--group-column", metavar="NAME", help="keep rows with the same value together, such as author")
    lora.add_argument("--class-weights", choices=("none", "balanced"), default="none", help="default: none")
    lora.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help=f"tokens kept of a text (default: {USUAL_LENGTH}, or what the encoder takes)",
    )
    lora.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at once, each with fewer threads")
    lora.add_argument("--retrain", metavar="OUT", help="then train the best setting on all rows, into this folder")
    lora.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where torch computes")
    lora.add_argument("--force", action="store_true", help="start anew in a folder that holds other results")
    lora.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    lora.set_defaults(run=_run, extra="sweep")


def _run(args: argparse.Namespace) -> int:
    from edgewren_train import sweep_files
    from edgewren_train.model import check_output
    from edgewren_train.sweep import run_sweep

    plan = _plan(args)
    if args.retrain:
        check_output(Path(args.retrain), force=args.force)
    data = options.read(args)
    output = Path(args.output or f"{options.stem(args.train)}-sweep")
    with counted(_trainings(plan), "training", "runs") as advance:

        def on_run(run: Run) -> None:
            advance(1)
            if not sys.stderr.isatty():
                say(_told(run))

        runs = run_sweep(
            data,
            output,
            plan,
            groups=data.others[args.group_column] if args.group_column else None,
            jobs=args.jobs,
            device=options.torch_device(args.device),
            force=args.force,
            on_run=on_run,
            progress=counted,
        )
    found = sweep_files.settings(runs, plan)
    if not found:
        raise UsageError(sweep_files.why_nothing_finished(runs))
    written = sweep_files.write(found, runs, plan, output)
    if args.json:
        print(json.dumps(json.loads((output / "sweep.json").read_text(encoding="utf-8"))))  # noqa: T201
    else:
        print(f"{sweep_files.as_text(found, runs, plan)}\n\nwritten: {output}/{', '.join(written)}")  # noqa: T201
    if args.retrain:
        _retrain(args, data, output)
    elif not args.json:
        print(f"next: {_next(args, output)}")  # noqa: T201
    return 0


def _told(run: Run) -> str:
    from edgewren_train.search_space import describe

    told = (
        f"failed: {run.failed}"
        if run.failed
        else f"balanced accuracy {run.best.balanced_accuracy:.3f}, epoch {run.best.epoch} of {len(run.scores)} "
        f"seen, {run.seconds:.0f} s{', given up' if run.pruned else ''}"
    )
    return f"{describe(run.settings)}, seed {run.seed}: {told}"


def _next(args: argparse.Namespace, output: Path) -> str:
    """Return the command that trains with the best setting on the same data."""
    words = ["edgewren", "train", "lora", args.train]
    for option, value, default in (
        ("--encoder", args.encoder, MINILM),
        ("--text-column", args.text_column, "text"),
        ("--label-column", args.label_column, "label"),
        ("--group-column", args.group_column, None),
    ):
        words += [option, value] if value != default else []
    return shlex.join([*words, "--from-sweep", str(output)])


def _plan(args: argparse.Namespace) -> SweepPlan:
    from edgewren_train.search_space import DEFAULT, KINDS, parse_axis
    from edgewren_train.sweep_plan import SweepPlan

    given = {name: getattr(args, name) for name in KINDS if getattr(args, name) is not None}
    if not given.keys() & {"rank", "alpha"} and not any(":" in text for text in given.values()):
        given = {**DEFAULT, **given}
    plan = SweepPlan(
        encoder=args.encoder,
        axes=tuple(parse_axis(name, given[name]) for name in KINDS if name in given),
        base=LoraRecipe(max_length=args.max_length, class_weights=args.class_weights),
        normaliser=args.normaliser,
        seeds=args.seeds,
        validation=args.validation,
        patience=args.early_stopping,
        trials=_TRIALS if args.trials is None else args.trials,
        prune=args.prune,
        group_column=args.group_column,
    )
    if plan.is_grid and args.trials is not None:
        raise UsageError(
            "--trials is of searches in ranges, and all combinations of lists are tried. Give a range, for example "
            "--learning-rate 1e-4:1e-3, or leave --trials out."
        )
    return plan


def _trainings(plan: SweepPlan) -> int:
    from edgewren_train.search_space import grid

    return len(plan.seeds) * (len(grid(plan.axes)) if plan.is_grid else plan.trials)


def _retrain(args: argparse.Namespace, data: LabelledTexts, folder: Path) -> None:
    from edgewren_train.lora_run import run_lora
    from edgewren_train.sweep_files import read_choice

    choice = read_choice(folder)
    summary = run_lora(
        data,
        Path(args.retrain),
        encoder_spec=choice.encoder,
        recipe=choice.recipe,
        normaliser=choice.normaliser,
        group_column=args.group_column,
        device=options.torch_device(args.device),
        say=say,
        progress=counted,
    )
    if not args.json:
        terminal.print_summary(summary, as_json=False)
