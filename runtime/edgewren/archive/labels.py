"""Single labels: their text, which is the same from every format, and which are probably mistakes. Knows no files."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from edgewren.archive.rows import Number, json_text

_BOOLEANS = ("false", "true")
_MISSING = frozenset({"na", "n/a", "#n/a", "nan", "<na>", "null"})
"""How pandas, R and spreadsheets write a missing value, in any case. None is so in Python's spelling alone: 'none' is a
class of many data sets."""
_SHOWN = 5


def label_text(value: Any) -> str:
    """Return a label as text, without surrounding whitespace; "" for null and NaN.

    Numbers are spelled as in the file. True and false are `true` and `false` however they were written: pandas writes
    True into CSV, R and spreadsheets TRUE, JSON has true, and Parquet no spelling at all.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value).strip() if isinstance(value, (str, Number)) else json_text(value)
    return text.lower() if text.lower() in _BOOLEANS else text


def look_alike(label: str, others: Iterable[str]) -> list[str]:
    """Return those of the others that differ from a label only by case, blanks or how Unicode spells a letter."""
    return [other for other in others if other != label and _plain(other) == _plain(label)]


def doubtful(counts: Mapping[str, int]) -> list[str]:
    """Return what to tell of labels that are probably mistakes, one sentence or two for each kind; none: nothing.

    Args:
        counts: rows by label.
    """
    told = []
    missing = [label for label in sorted(counts) if label == "None" or label.lower() in _MISSING]
    if missing:
        told.append(
            f"the label {_listed(missing, counts)} looks like a missing value, and counts as a class. Leave such rows "
            "out, unless it is one."
        )
    kinds: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        kinds[_plain(label)].append(label)
    alike = [labels for labels in kinds.values() if len(labels) > 1]
    if alike:
        listed = "; ".join(_listed(labels, counts) for labels in alike[:_SHOWN])
        more = f"; and {len(alike) - _SHOWN} more" if len(alike) > _SHOWN else ""
        told.append(
            f"labels that differ only by case or blanks count as different classes: {listed}{more}. Write them alike, "
            "unless they mean different things."
        )
    return told


def _plain(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).split()).casefold()


def _listed(labels: Iterable[str], counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label!r} ({counts[label]:,} row{'s' * (counts[label] != 1)})" for label in labels)
