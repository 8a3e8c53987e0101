"""Options of a ridge head, for `train ridge` and `train static`. Imports nothing heavy until they are read."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edgewren.errors import UsageError

if TYPE_CHECKING:
    from edgewren_train.ridge_settings import RidgeSettings


def add_settings(parser: argparse.ArgumentParser) -> None:
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


def settings(args: argparse.Namespace) -> RidgeSettings:
    """Return what `options.add_common` and `add_settings` read.

    Raises:
        UsageError: --alphas or --folds is wrong, or --group-column has nothing to keep together for.
    """
    from edgewren_train import ridge
    from edgewren_train.ridge_settings import RidgeSettings

    alphas, extend = _alpha_grid(args.alphas, ridge.WIDE_GRID, ridge.CLASSIC_GRID)
    if args.folds < 0 or args.folds == 1:
        raise UsageError(f"--folds is {args.folds}, expected 0 (none) or at least 2.")
    if args.group_column and not args.folds and len(alphas) == 1 and getattr(args, "depth", None) != "auto":
        raise UsageError(
            "--group-column is of rows held out, and with one alpha and --folds 0 none are. Leave it out, or hold out "
            "rows: --folds 10."
        )
    return RidgeSettings(
        encoder_spec=args.encoder,
        max_length=args.max_length,
        normaliser=args.normaliser,
        alphas=alphas,
        extend=extend,
        folds=args.folds,
        calibrated=not args.no_calibration,
        group_column=args.group_column,
        seed=args.seed,
    )


def _alpha_grid(spec: str, wide: tuple[float, ...], classic: tuple[float, ...]) -> tuple[tuple[float, ...], bool]:
    if spec == "wide":
        return wide, True
    if spec == "classic":
        return classic, False
    try:
        return tuple(float(part) for part in spec.split(",")), False
    except ValueError as error:
        raise UsageError(f"--alphas is {spec!r}, expected wide, classic, or numbers like 1,10,100.") from error
