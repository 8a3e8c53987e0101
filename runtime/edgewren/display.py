"""Strangers' texts on a terminal: labels, values and names of files come from anywhere, and none may steer it."""

from __future__ import annotations

import sys
import unicodedata


def say(message: str) -> None:
    """Tell people something, on standard error."""
    print(escaped(message), file=sys.stderr)  # noqa: T201  the command line speaks to people there


def printable(text: str) -> str:
    """Return the text for a cell of a table: one column each, `?` for what cannot be printed, line breaks too."""
    return "".join(character if character.isprintable() else "?" for character in text)


def escaped(text: str) -> str:
    """Return the text for a message: lines stay, and what cannot be printed stands there as Python would write it."""
    return "".join(character if _harmless(character) else ascii(character)[1:-1] for character in text)


def _harmless(character: str) -> bool:
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def shortened(text: str, columns: int) -> str:
    """Return the text for a cell of at most so many columns, its end cut off."""
    shown = printable(text)
    return shown if len(shown) <= columns else shown[: columns - 1] + "…"
