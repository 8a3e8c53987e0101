"""Options of a labelled file: where its texts and labels are, and how it is written. Knows no verb; what reads the file
is `archive.labelled`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from edgewren.archive.format_names import TABLES

if TYPE_CHECKING:
    from edgewren.archive.labelled import LabelledTexts


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the labelled files of a verb, which are all written alike."""
    parser.add_argument("--text-column", default="text", metavar="NAME", help="default: text")
    parser.add_argument("--label-column", default="label", metavar="NAME", help="default: label")
    parser.add_argument("--format", choices=TABLES, help="default: by suffix")
    parser.add_argument("--encoding", default="utf-8", metavar="NAME", help="of the file (default: utf-8)")


def read(args: argparse.Namespace, path: str, **options: Any) -> LabelledTexts:
    """Return a labelled file. `options` and errors as of `read_labelled`."""
    from edgewren.archive.labelled import read_labelled

    return read_labelled(
        path,
        text_column=args.text_column,
        label_column=args.label_column,
        format=args.format,
        encoding=args.encoding,
        **options,
    )
