"""The verb `edgewren ensemble`: parse, call, print. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edgewren.display import say


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "ensemble",
        help="join trained models into one, if it beats each of them",
        description="Average the calibrated logits of trained models with the same rows and folds. Built only if its "
        "out-of-fold balanced accuracy beats the best member's in a paired test (p below 0.05).",
        epilog="example:\n  edgewren ensemble models/bias-ridge models/bias-lora --output models/bias-both",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "members", nargs="+", metavar="DIR", help="trained models with out-of-fold logits over the same folds"
    )
    parser.add_argument("--output", "-o", required=True, metavar="DIR", help="folder for the ensemble, a trained model")
    parser.add_argument(
        "--force-ensemble", action="store_true", help="build it even if it does not win; the figures are kept with it"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstraps (default: 0)")
    parser.add_argument("--force", action="store_true", help="overwrite an existing trained model")
    parser.add_argument("--json", action="store_true", help="print the verdict as one JSON document on stdout")
    parser.set_defaults(run=_run, extra="train")


def _run(args: argparse.Namespace) -> int:
    from edgewren_train.ensemble import run_ensemble
    from edgewren_train.model import check_output

    output = Path(args.output)
    check_output(output, force=args.force)
    verdict = run_ensemble(
        args.members,
        output,
        force=args.force_ensemble,
        seed=args.seed,
        say=say,
    )
    if args.json:
        print(json.dumps({"folder": str(output), **verdict.as_dict()}))  # noqa: T201
    else:
        print(f"trained model: {output}\nnext: edgewren export {output}")  # noqa: T201
    return 0
