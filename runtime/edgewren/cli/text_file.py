"""Options of a file whose texts a model is tried on: which column they are in, and how it is written. Reads it by
`archive.texts`, and knows no verb.
"""

from __future__ import annotations

import argparse

from edgewren.archive.format_names import TABLES
from edgewren.errors import UsageError

_DEFAULTS = {"text_column": "text", "format": None, "encoding": "utf-8"}


def add_options(parser: argparse.ArgumentParser, file: str) -> None:
    """Add the options of `file`, as the verb calls it."""
    parser.add_argument("--text-column", default="text", metavar="NAME", help=f"of {file} (default: text)")
    parser.add_argument("--format", choices=(*TABLES, "twitter"), help=f"of {file} (default: by looking and by suffix)")
    parser.add_argument("--encoding", default="utf-8", metavar="NAME", help=f"of {file} (default: utf-8)")


def read(args: argparse.Namespace, path: str | None, file: str) -> list[str] | None:
    """Return the file's texts, None where none is named.

    Raises:
        UsageError: an option of the file, and no file.
        InputError: as `read_texts` does.
    """
    from edgewren.archive.texts import read_texts

    if path is not None:
        return read_texts(path, args.text_column, format=args.format, encoding=args.encoding)
    for name, default in _DEFAULTS.items():
        if getattr(args, name) != default:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} is of {file}, and none is named. Name one, or leave {option} out.")
    return None
