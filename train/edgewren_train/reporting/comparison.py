"""A report's facts for a comparison: the JSON document of `edgewren compare` or `edgewren evaluate --against`.

Reads only what it needs, and names what is missing. Knows the documents; draws nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewren.errors import InputError


@dataclass(frozen=True)
class Candidate:
    """One of the things compared; speed in texts/s and megabytes are None where unknown."""

    name: str
    balanced_accuracy: Mapping[str, float]
    macro_f1: Mapping[str, float]
    texts_per_s: float | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class ComparisonFacts:
    """What a comparison's report shows.

    Attributes:
        title, how: what was compared, and on what.
        candidates: best first.
        tests: rows of a table of paired tests: pair, difference with interval, p in words.
        failures: candidates that could not be judged, with reasons.
    """

    title: str
    how: str
    candidates: Sequence[Candidate]
    tests: Sequence[tuple[str, str, str]]
    failures: Sequence[tuple[str, str]] = ()

    @property
    def front(self) -> set[str]:
        """Names of candidates that none beats in speed and quality both."""
        known = [entry for entry in self.candidates if entry.texts_per_s is not None]
        return {
            one.name
            for one in known
            if not any(
                (other.texts_per_s or 0) >= (one.texts_per_s or 0)
                and other.balanced_accuracy["value"] >= one.balanced_accuracy["value"]
                and other is not one
                for other in known
            )
        }


def read_comparison(path: str | Path) -> ComparisonFacts:
    """Read a comparison's JSON document.

    Raises:
        InputError: it cannot be read, or is no such document.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    try:
        if "against" in document:
            return _of_evaluate(document)
        if "candidates" in document:
            return _of_compare(document, Path(path).absolute().parent.name)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"has something else than a comparison has: {error}"
        raise InputError(f"{path} {what}. Expected what 'edgewren compare' or 'edgewren evaluate' wrote.") from error
    raise InputError(
        f"{path} is no comparison. Expected comparison.json of 'edgewren compare', or what 'edgewren evaluate' prints "
        "with --against and --json."
    )


def _of_compare(document: Mapping[str, Any], name: str) -> ComparisonFacts:
    """Read comparison.json, written by `edgewren compare` with the best candidate first."""
    candidates = [
        Candidate(
            name=_text(entry["name"]),
            balanced_accuracy=_estimate(entry["balanced_accuracy"]),
            macro_f1=_estimate(entry["macro_f1"]),
            texts_per_s=None if entry["texts_per_s"] is None else _number(entry["texts_per_s"]),
            megabytes=None if entry["megabytes"] is None else _number(entry["megabytes"]),
        )
        for entry in document["candidates"]
    ]
    if not candidates:
        raise ValueError("no candidates")
    tests = []
    for pair in document["pairs"]:
        chances = (
            f"p = {_number(pair['p_holm']):.3f} (after Holm); better {_number(pair['p_better']):.0%}, as good as equal "
            f"{_number(pair['p_equal']):.0%}, worse {_number(pair['p_worse']):.0%}"
        )
        tests.append((f"{pair['a']} minus {pair['b']}, balanced accuracy", _signed(pair["difference"]), chances))
    return ComparisonFacts(
        title=name,
        how=f"{_number(document['rows']):,} rows, {_number(document['repeats'])} x {_number(document['folds'])}-fold "
        "cross-validation; intervals and tests: corrected resampled t (Nadeau & Bengio 2003), chances: Corani & "
        "Benavoli 2015",
        candidates=candidates,
        tests=tests,
        failures=[(name, _text(reason)) for name, reason in document["failures"].items()],
    )


def _of_evaluate(document: Mapping[str, Any]) -> ComparisonFacts:
    sides = [document, document["against"]]
    names = [Path(side["model"]["path"]).name for side in sides]
    candidates = [
        Candidate(name, _estimate(side["evaluation"]["balanced_accuracy"]), _estimate(side["evaluation"]["macro_f1"]))
        for name, side in zip(names, sides, strict=True)
    ]
    compared = document["against"]["comparison"]
    tests = [
        (
            f"{names[0]} minus {names[1]}, {title}",
            _signed(compared[key]),
            f"p = {_number(compared['p_' + key]):.3f}",
        )
        for key, title in (("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro-F1"))
    ]
    tests.append(
        (
            f"only {names[0]} right / only {names[1]} right",
            f"{_number(compared['only_a_right'])} / {_number(compared['only_b_right'])} rows",
            f"McNemar's exact test p = {_number(compared['mcnemar_p']):.3f}",
        )
    )
    return ComparisonFacts(
        title=f"{names[0]} and {names[1]}",
        how=f"{_number(document['rows']):,} rows of {Path(document['data']['path']).name}, both models on the same "
        "rows; paired stratified bootstrap",
        candidates=sorted(candidates, key=lambda entry: -entry.balanced_accuracy["value"]),
        tests=tests,
    )


def _signed(estimate: Mapping[str, float]) -> str:
    value, low, high = _estimate(estimate).values()
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _estimate(figure: Mapping[str, Any]) -> dict[str, float]:
    value, low, high = (_number(figure[name]) for name in ("value", "low", "high"))
    if not low <= high:  # of few resamples, the value itself may lie outside
        raise ValueError(f"{low} to {high} is no interval")
    return {"value": value, "low": low, "high": high}


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"{value!r:.40} is not a number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value
