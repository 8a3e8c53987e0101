"""LoRA's options on the command line, for `train lora` and what else trains one. Imports nothing heavy."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from edgewren.errors import UsageError
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.verbs.options import some_seeds

if TYPE_CHECKING:
    from edgewren_train.epoch_choice import Choosing

_DEFAULT = LoraRecipe()
_PATIENCE = 3


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the recipe's settings. None means: not given, so that --from-sweep can fill it in."""
    parser.add_argument(
        "--from-sweep",
        metavar="DIR",
        help="take the best settings and number of epochs of this sweep; others given win",
    )
    for name, kind, mark, what in (
        ("rank", int, "R", "rank of the adapters"),
        ("alpha", int, "A", "adapters are scaled by alpha/rank"),
        ("dropout", float, "P", "dropout in the adapters"),
        ("epochs", int, "N", "passes over the file"),
        ("learning_rate", float, "LR", "learning rate, falls to 0"),
        ("batch_size", int, "N", "texts per step"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            metavar=mark,
            help=f"{what} (default: {getattr(_DEFAULT, name):g})",
        )
    parser.add_argument(
        "--target-modules", metavar="A,B", help="linear layers to adapt (default: query and value, found)"
    )
    parser.add_argument(
        "--adapt-layers",
        type=int,
        metavar="N",
        help="adapters only in the N uppermost layers: those below need no gradient, which is faster (default: all)",
    )
    parser.add_argument(
        "--class-weights",
        choices=("none", "balanced"),
        help="balanced: rows of rare classes count more, for unbalanced labels (default: none)",
    )


def add_validation(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the number of epochs and tells the noise of seeds."""
    parser.add_argument(
        "--validation",
        type=float,
        metavar="SHARE",
        help="hold out this share of the rows to choose the number of epochs (the lowest log loss), then train on all "
        "rows for so many; 0.15 is usual",
    )
    parser.add_argument(
        "--early-stopping",
        type=int,
        metavar="N",
        help=f"with --validation: stop after N epochs without a lower loss; 0: see all (default: {_PATIENCE})",
    )
    parser.add_argument(
        "--no-refit",
        action="store_true",
        help="with --validation: keep the model of the training part, at its best epoch",
    )
    parser.add_argument(
        "--seeds",
        type=some_seeds,
        metavar="A,B,…",
        help="with --validation: repeat with these seeds, each with its own held-out part, and report the spread",
    )


def recipe(args: argparse.Namespace) -> LoraRecipe:
    """Return the recipe: what is given, over the sweep's choice where asked for, over the defaults.

    Raises:
        UsageError: a value out of range.
        InputError: the sweep's folder holds no result.
    """
    start = _DEFAULT
    if args.from_sweep:
        from edgewren_train.sweep_files import read_choice

        start = read_choice(Path(args.from_sweep)).recipe
    given = {
        name: getattr(args, name)
        for name in (
            "rank",
            "alpha",
            "dropout",
            "epochs",
            "learning_rate",
            "batch_size",
            "adapt_layers",
            "class_weights",
        )
        if getattr(args, name) is not None
    }
    if args.target_modules is not None:
        given["target_modules"] = tuple(filter(None, args.target_modules.split(",")))
    if "epochs" in given:
        given["stop_after"] = None
    return dataclasses.replace(
        start,
        **given,
        max_length=args.max_length,
        seed=args.seed,
        precision=args.precision,
        padding=args.padding,
        maximum_steps=args.max_steps,
    )


def sweep_warning(args: argparse.Namespace) -> str | None:
    """Return what to warn of where --from-sweep's settings were found with another encoder or normaliser."""
    if not args.from_sweep:
        return None
    from edgewren_train.sweep_files import read_choice

    choice = read_choice(Path(args.from_sweep))
    differing = [
        f"--{name} {there} (here {here})"
        for name, there, here in (
            ("encoder", choice.encoder, args.encoder),
            ("normaliser", choice.normaliser, args.normaliser),
        )
        if there != here
    ]
    return f"warning: {args.from_sweep} was swept with {' and '.join(differing)}" if differing else None


def choosing(args: argparse.Namespace) -> Choosing | None:
    """Return how to choose the number of epochs, or None.

    Raises:
        UsageError: an option out of range, or one that needs --validation without it.
    """
    if args.validation is None:
        for name in ("seeds", "no_refit", "early_stopping"):
            if getattr(args, name) is not None and getattr(args, name) is not False:  # 0 epochs are given, too
                raise UsageError(f"--{name.replace('_', '-')} needs rows to judge by: add --validation 0.15.")
        return None
    from edgewren_train.epoch_choice import Choosing

    return Choosing(
        share=args.validation,
        patience=_PATIENCE if args.early_stopping is None else args.early_stopping,
        seeds=args.seeds or (args.seed,),
        refit=not args.no_refit,
    )
