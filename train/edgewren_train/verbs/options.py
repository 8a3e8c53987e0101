"""Options that several verbs share, and the labelled files that they name. Imports nothing heavy until one is read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgewren.cli import labelled_file
from edgewren.display import say
from edgewren.errors import UsageError
from edgewren_train.encoder_names import MINILM

if TYPE_CHECKING:
    from edgewren.archive.labelled import LabelledTexts

_MINIMUM_ROWS_PER_LABEL = 2


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add what every verb takes that reads a labelled file."""
    parser.add_argument(
        "train", metavar="TRAIN", help="CSV, TSV, JSONL (plain or .gz) or Parquet with texts and labels"
    )
    labelled_file.add_options(parser)


def add_common(parser: argparse.ArgumentParser, *, usual_length: str = "the encoder's own") -> None:
    """Add what every recipe of `train` takes."""
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
    parser.add_argument(
        "--group-column",
        metavar="NAME",
        help="keep rows with the same value together wherever rows are held out, such as author: nobody in both parts",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where torch computes")
    parser.add_argument("--force", action="store_true", help="overwrite an existing trained model")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def one_seed(text: str) -> int:
    """Read a seed, as numpy and scikit-learn take them."""
    number = int(text) if text.strip().isdecimal() else -1
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed, expected a whole number from 0 to {2**32 - 1}")
    return number


def some_seeds(text: str) -> tuple[int, ...]:
    """Read seeds like 0,1,2."""
    return tuple(map(one_seed, text.split(",")))


def prepare(args: argparse.Namespace) -> tuple[LabelledTexts, LabelledTexts | None, Path]:
    """Read and check everything that can be refused, before anything takes time."""
    from edgewren_train.model import check_output

    output = Path(args.output or f"{stem(args.train)}-{args.recipe}")
    check_output(output, force=args.force)
    data = read(args)
    test = read(args, args.test, minimum_per_class=1) if args.test else None
    if test is not None:
        test.check_known(data.classes, args.train, phrase="does not have. It has")
    return data, test, output


def read(
    args: argparse.Namespace,
    path: str | None = None,
    *,
    minimum_per_class: int = _MINIMUM_ROWS_PER_LABEL,
) -> LabelledTexts:
    """Read the labelled file that the arguments name, with its groups, or another one with the same columns; warn of
    contradictions, of labels that a model gave, of those that are probably mistakes, and of rows without a group.
    """
    group_column = args.group_column if path is None else None
    data = labelled_file.read(
        args,
        path or args.train,
        minimum_per_class=minimum_per_class,
        other_columns=[group_column] if group_column else [],
    )
    data.warn_if_scored(args.label_column, say)
    if path is None:
        data.warn_if_doubtful(say)
    if data.contradictions and path is None:
        text, rows = data.contradictions[0]
        say(
            f"warning: {len(data.contradictions)} text(s) occur with different labels, for example rows "
            f"{', '.join(map(str, rows))}: {text[:60]!r}"
        )
    if group_column:
        nameless = sum(not group.strip() for group in data.others[group_column])
        if nameless:
            say(
                f"note: {nameless:,} of {len(data.texts):,} rows have no {group_column!r} and are held out as one group"
            )
    return data


def stem(path: str) -> str:
    return Path(path).name.split(".")[0]


def torch_device(requested: str) -> str:
    import torch

    if requested == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise UsageError("--device cuda: torch finds no CUDA device here. Use --device cpu, or a CUDA build of torch.")
    return "cpu"
