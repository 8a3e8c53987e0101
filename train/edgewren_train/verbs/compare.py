"""The verb `edgewren compare`: parse, call, print. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewren.cli.progress import counted
from edgewren.display import say
from edgewren.errors import EdgewrenError, RejectedRowsError, UsageError
from edgewren_train.encoder_names import MINILM
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.verbs import options

if TYPE_CHECKING:
    from edgewren_train.depth_run import Depth

_ALPHAS = "wide"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "compare",
        help="compare encoders and settings by repeated cross-validation",
        description="Judge candidates on the same repeated stratified cross-validation: balanced accuracy and macro-F1 "
        "with intervals, paired tests corrected for several comparisons, speed and size. Candidates are all "
        "combinations of --encoders, --depths, --recipe, --normalisers and --alphas. A candidate that fails is listed "
        "with its reason, and the exit code is 5. Run the same command again to go on after an interruption.",
        epilog="example:\n  edgewren compare tweets.csv --label-column bias --encoders minilm,BAAI/bge-small-en-v1.5 "
        "--group-column author",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_data(parser)
    parser.add_argument("--output", "-o", metavar="DIR", help="folder for results (default: NAME-compare)")
    parser.add_argument(
        "--encoders",
        default=MINILM,
        metavar="A,B,…",
        help=f"hub ids, folders or minilm (default: {MINILM})",
    )
    parser.add_argument(
        "--depths",
        default="whole",
        metavar="1,3,whole,all,auto",
        help="layers of the encoders that are kept: numbers, whole, all for each depth, or auto (ridge): chosen anew "
        "in each training part (default: whole)",
    )
    parser.add_argument(
        "--recipe", default="ridge", metavar="ridge|lora|ridge,lora", help="what is trained (default: ridge)"
    )
    parser.add_argument("--normalisers", default="http", metavar="http,none", help="default: http")
    parser.add_argument(
        "--alphas",
        default=_ALPHAS,
        metavar="A,B,…",
        help="grids of ridge to compare: wide, classic, or own values separated by / (default: wide)",
    )
    parser.add_argument(
        "--epochs", type=int, default=LoraRecipe.epochs, metavar="N", help=f"of lora (default: {LoraRecipe.epochs})"
    )
    parser.add_argument(
        "--from-sweep",
        metavar="DIR",
        help="also train lora with the best settings of this sweep, beside the default ones",
    )
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="parts of a cross-validation (default: 5)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="cross-validations (default: 5)")
    parser.add_argument(
        "--group-column",
        metavar="NAME",
        help="keep rows with the same value together, such as author: nobody in both parts",
    )
    parser.add_argument(
        "--seed", type=options.one_seed, default=0, metavar="N", help="of the folds and of lora (default: 0)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where torch computes")
    parser.add_argument("--no-cache", action="store_true", help="embed anew, and keep nothing on disk")
    parser.add_argument("--force", action="store_true", help="start anew in a folder that holds other results")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.set_defaults(run=_run, extra="train")


def _run(args: argparse.Namespace) -> int:
    from edgewren_train import comparison_files
    from edgewren_train.candidate import combine
    from edgewren_train.comparison import Design, compare
    from edgewren_train.embedding import default_cache
    from edgewren_train.normalisers import NORMALISERS

    normalisers = _listed(args.normalisers)
    unknown = sorted(set(normalisers) - set(NORMALISERS))
    if unknown:
        raise UsageError(f"--normalisers names {unknown[0]!r}, expected some of: {', '.join(NORMALISERS)}.")
    kinds = _listed(args.recipe)
    _refuse_options_of_others(args, kinds)
    recipes = [LoraRecipe(epochs=args.epochs, seed=args.seed)]
    if args.from_sweep:
        from edgewren_train.sweep_files import read_choice

        recipes.append(dataclasses.replace(read_choice(Path(args.from_sweep)).recipe, seed=args.seed))
    candidates = []
    for kind in kinds:
        for encoder in _listed(args.encoders):
            # Normaliser, encoder and its depth concern both recipes, alphas only one.
            axes: dict[str, list[Any]] = {"encoder": [encoder], "recipe": [kind], "normaliser": normalisers}
            axes["depth"] = _depths(args.depths, encoder)
            axes.update({"lora": recipes} if kind == "lora" else {"alphas": _listed(args.alphas)})
            candidates += combine(axes)
    if not candidates:
        raise UsageError("--encoders or --recipe names nothing to compare. Expected at least one value.")
    data = options.read(args)
    output = Path(args.output or f"{options.stem(args.train)}-compare")
    design = Design(folds=args.folds, repeats=args.repeats, seed=args.seed, group_column=args.group_column)
    finished: dict[str, int] = {}
    with counted(len(candidates) * args.folds * args.repeats, "training", "folds") as advance:

        def on_fold(name: str, done: int, _of: int) -> None:
            advance(done - finished.get(name, 0))
            finished[name] = done

        result = compare(
            data,
            output,
            candidates,
            design,
            groups=data.others[args.group_column] if args.group_column else None,
            device=options.torch_device(args.device),
            cache=None if args.no_cache else default_cache(),
            force=args.force,
            say=say,
            on_fold=on_fold,
            progress=counted,
        )
    comparison_files.write(result, output)
    if args.json:
        print(json.dumps(comparison_files.as_dict(result)))  # noqa: T201
    else:
        written = "comparison.csv, folds.csv, pairs.csv, comparison.json, pareto.png"
        print(f"{comparison_files.as_text(result)}\n\nwritten: {output}/{written}")  # noqa: T201
    if result.failures:
        say(f"{len(result.failures)} of {len(candidates)} candidates failed; the others are compared above")
        return RejectedRowsError.exit_code
    return 0


def _refuse_options_of_others(args: argparse.Namespace, kinds: Sequence[str]) -> None:
    """Refuse options that concern only a recipe which is not compared."""
    for recipe, option, given in (
        ("lora", "--from-sweep", args.from_sweep is not None),
        ("lora", "--epochs", args.epochs != LoraRecipe.epochs),
        ("ridge", "--alphas", args.alphas != _ALPHAS),
    ):
        if given and recipe not in kinds:
            raise UsageError(
                f"{option} is of {recipe}, which is not compared. Add it to --recipe, or leave {option} out."
            )


def _depths(spec: str, encoder: str) -> list[Depth]:
    """Return what --depths means for an encoder; None is the whole of it.

    Raises:
        UsageError: a part is neither a number from 1 nor "whole", "all" or "auto".
    """
    from edgewren_train.depth_run import parse_depth

    found: list[Depth] = []
    for part in _listed(spec):
        if part == "all":
            found += _all_depths(encoder)
            continue
        try:
            found.append(parse_depth(part))
        except UsageError as error:
            raise UsageError(
                f"--depths names {part!r}, expected numbers of layers from 1 (0: 'train static'), whole, all or auto."
            ) from error
    return list(dict.fromkeys(found))


def _all_depths(encoder: str) -> list[Depth]:
    from edgewren_train.depth import depth_of
    from edgewren_train.encoders import load_encoder

    try:
        return list(range(1, depth_of(load_encoder(encoder)) + 1))
    except EdgewrenError:
        return [None]  # `compare` lists this candidate with the reason


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
