"""The verb `edgewren evaluate`: how good a bundle is on a labelled file, and whether it beats another."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewren.cli import labelled_file
from edgewren.cli.score import add_model_options
from edgewren.display import say
from edgewren.errors import OutputError, UsageError

if TYPE_CHECKING:
    from edgewren.archive.labelled import LabelledTexts
    from edgewren.classifier import Classifier
    from edgewren.metrics import Evaluation
    from edgewren.paired_comparison import Comparison


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a bundle on a labelled file, with intervals",
        description="Score a labelled file and compare with its labels: accuracy, balanced accuracy, F1 per class, "
        "each with a bootstrap interval, and the confusion matrix. With --against, a paired test between two bundles.",
        epilog="example:\n  edgewren evaluate test.csv --label-column bias --model lora-bundle --against ridge-bundle",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "labelled", metavar="LABELLED", help="CSV, TSV, JSONL (plain or .gz) or Parquet with texts and labels"
    )
    add_model_options(parser)
    parser.add_argument("--against", metavar="BUNDLE", help="second bundle, compared on the same rows")
    parser.add_argument(
        "--training",
        metavar="FILE",
        help="the labelled file that the bundle was trained on: rows of LABELLED with the text of one of its rows are "
        "counted and warned of (same columns, format and encoding as LABELLED)",
    )
    labelled_file.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument("--heatmap", metavar="PNG", help="draw the confusion matrix into this file")
    parser.add_argument("--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print. Raises EdgewrenError as its parts do."""
    from edgewren import metrics
    from edgewren.classifier import Classifier
    from edgewren.paired_comparison import compare

    if args.heatmap:
        from edgewren.picture import check_available

        check_available()  # before the scoring, not after it
        if Path(args.heatmap).exists():
            raise UsageError(f"{args.heatmap} exists already. Name another file with --heatmap.")
        if not Path(args.heatmap).absolute().parent.is_dir():
            raise OutputError(f"{args.heatmap} cannot be written: its folder does not exist. Make it first.")
    data = labelled_file.read(args, args.labelled)
    data.warn_if_scored(args.label_column, say)
    copies = None
    if args.training is not None:
        copies = data.warn_of_copies(labelled_file.read(args, args.training), say)
        if not copies:
            say(f"none of the {len(data.texts):,} rows has the text of a row of {args.training} (links apart)")
    options: dict[str, Any] = {"resamples": args.resamples, "seed": args.seed}
    models: list[Classifier] = []
    predictions: list[list[str]] = []
    asked = [(args.model, args.variant, args.require_sha256)]
    if args.against is not None:
        asked.append((args.against, None, None))
    for path, variant, sha256 in asked:
        models.append(
            Classifier.load(path, device=args.device, threads=args.threads, variant=variant, expected_sha256=sha256)
        )
        data.check_known(models[-1].labels, models[-1].bundle.path)
        data.warn_if_seen(models[-1].bundle.manifest.training, models[-1].bundle.path, say)
        predictions.append(models[-1].predict(data.texts))
    evaluations = [
        metrics.evaluate(data.labels, predicted, model.labels, **options)
        for model, predicted in zip(models, predictions, strict=True)
    ]
    comparison = None
    if len(models) == 2:
        known = dict.fromkeys(models[0].labels + models[1].labels)
        comparison = compare(data.labels, predictions[0], predictions[1], list(known), **options)
    _print(args, data, models, evaluations, comparison, copies)
    if args.heatmap:  # last: a full disk costs the picture alone
        from edgewren.heatmap import draw

        draw(evaluations[0].confusion, evaluations[0].labels, args.heatmap)
    return 0


def _print(
    args: argparse.Namespace,
    data: LabelledTexts,
    models: Sequence[Classifier],
    evaluations: Sequence[Evaluation],
    comparison: Comparison | None,
    copies: int | None,
) -> None:
    if args.json:
        document: dict[str, Any] = {
            "rows": len(data.texts),
            "data": {"path": data.path, "sha256": data.sha256},
            "model": _describe(models[0]),
            "evaluation": evaluations[0].as_dict(),
        }
        if copies is not None:
            document["data"]["copies_of_training_rows"] = copies
        if comparison is not None:
            document["against"] = {
                "model": _describe(models[1]),
                "evaluation": evaluations[1].as_dict(),
                "comparison": comparison.as_dict(),
            }
        print(json.dumps(document, ensure_ascii=True, allow_nan=False))
        return
    for model, evaluation in zip(models, evaluations, strict=True):
        print(f"== {model.bundle.path} ({model.variant}) on {data.path}\n{evaluation.as_text()}\n")
    if comparison is not None:
        print(f"== A: {models[0].bundle.path}, B: {models[1].bundle.path}\n{comparison.as_text()}\n")


def _describe(model: Any) -> dict[str, str]:
    return {"path": str(model.bundle.path), "manifest_sha256": model.bundle.sha256, "variant": model.variant}
