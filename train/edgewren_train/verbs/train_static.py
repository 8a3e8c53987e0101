"""The verb `edgewren train static`: parse, call, print. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse

from edgewren.display import say
from edgewren.errors import UsageError
from edgewren_train.verbs import options, ridge_options, terminal


def add_parser(recipes: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the recipe with `edgewren train`."""
    static = recipes.add_parser(
        "static",
        help="one number per word piece and label: as fast as the tokenizer, under 1 MB",
        description="Fit a ridge classifier to the mean of an encoder's word vectors and fold it into one number per "
        "vocabulary entry and label. With --distill, the numbers are then fitted to the answers of a larger bundle on "
        "unlabelled texts.",
        epilog="example:\n  edgewren train static tweets.csv --label-column bias --distill archive.csv "
        "--teacher bundles/bias-ridge",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_common(static)
    ridge_options.add_settings(static)
    static.add_argument(
        "--distill",
        metavar="TEXTS",
        help="file with unlabelled texts, written as TRAIN is: --text-column, --format, --encoding",
    )
    static.add_argument("--teacher", metavar="BUNDLE", help="bundle whose answers to those texts are learnt")
    static.set_defaults(run=_run, extra="train")


def _run(args: argparse.Namespace) -> int:
    from edgewren import Classifier
    from edgewren.archive.texts import read_texts
    from edgewren.bundle import Bundle
    from edgewren_train.static_run import Teaching, run_static

    settings = ridge_options.settings(args)
    if (args.distill is None) != (args.teacher is None):
        raise UsageError("--distill TEXTS and --teacher BUNDLE belong together: give both, or neither.")
    if args.teacher is not None and args.no_calibration:
        raise UsageError("--no-calibration: a distilled model has its teacher's temperature. Leave it out.")
    if args.teacher is None and args.device == "cuda":
        raise UsageError("--device cuda is where the --teacher computes. Static models are trained on the CPU.")
    data, test, output = options.prepare(args)
    teaching = None
    if args.distill is not None:
        # Read first: a file that cannot be read should not cost the loading of a model.
        texts = read_texts(args.distill, args.text_column, format=args.format, encoding=args.encoding)
        # The whole model teaches: texts that leave early have another head's decision values.
        variants = Bundle.open(args.teacher).manifest.variants
        whole = next((name for name in ("fp32", "int8", "fp16") if name in variants), None)
        teacher = Classifier.load(args.teacher, device=args.device, variant=whole)
        teaching = Teaching(teacher, texts, args.distill)
    summary = run_static(data, output, settings, test=test, teaching=teaching, say=say)
    terminal.print_summary(summary, as_json=args.json)
    return 0
