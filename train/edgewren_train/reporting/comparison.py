"""A report's facts for a comparison: the JSON document of `edgewren compare` or `edgewren evaluate --against`.

Reads only what it needs, and names what is missing. Knows the documents; draws nothing.
"""

from __future__ import annotations

import json
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
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} lacks {error}. Expected the output of 'edgewren compare --json'.") from error
    raise InputError(
        f"{path} is no comparison. Expected comparison.json of 'edgewren compare', or what 'edgewren evaluate' prints "
        "with --against and --json."
    )


def _of_compare(document: Mapping[str, Any], name: str) -> ComparisonFacts:
    """Read comparison.json, written by `edgewren compare` with the best candidate first."""
    candidates = [
        Candidate(
            name=entry["name"],
            balanced_accuracy=entry["balanced_accuracy"],
            macro_f1=entry["macro_f1"],
            texts_per_s=entry["texts_per_s"],
            megabytes=entry["megabytes"],
        )
        for entry in document["candidates"]
    ]
    tests = []
    for pair in document["pairs"]:
        chances = (
            f"p = {pair['p_holm']:.3f} (after Holm); better {pair['p_better']:.0%}, as good as equal "
            f"{pair['p_equal']:.0%}, worse {pair['p_worse']:.0%}"
        )
        tests.append((f"{pair['a']} minus {pair['b']}, balanced accuracy", _signed(pair["difference"]), chances))
    return ComparisonFacts(
        title=name,
        how=f"{document['rows']:,} rows, {document['repeats']} x {document['folds']}-fold cross-validation; intervals "
        "and tests: corrected resampled t (Nadeau & Bengio 2003), chances: Corani & Benavoli 2015",
        candidates=candidates,
        tests=tests,
        failures=list(document["failures"].items()),
    )


def _of_evaluate(document: Mapping[str, Any]) -> ComparisonFacts:
    sides = [document, document["against"]]
    names = [Path(side["model"]["path"]).name for side in sides]
    candidates = [
        Candidate(name, side["evaluation"]["balanced_accuracy"], side["evaluation"]["macro_f1"])
        for name, side in zip(names, sides, strict=True)
    ]
    compared = document["against"]["comparison"]
    tests = [
        (
            f"{names[0]} minus {names[1]}, {title}",
            _signed(compared[key]),
            f"p = {compared['p_' + key]:.3f}",
        )
        for key, title in (("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro-F1"))
    ]
    tests.append(
        (
            f"only {names[0]} right / only {names[1]} right",
            f"{compared['only_a_right']} / {compared['only_b_right']} rows",
            f"McNemar's exact test p = {compared['mcnemar_p']:.3f}",
        )
    )
    return ComparisonFacts(
        title=f"{names[0]} and {names[1]}",
        how=f"{document['rows']:,} rows of {Path(document['data']['path']).name}, both models on the same rows; "
        "paired stratified bootstrap",
        candidates=sorted(candidates, key=lambda entry: -entry.balanced_accuracy["value"]),
        tests=tests,
    )


def _signed(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:+.3f} [{estimate['low']:+.3f}, {estimate['high']:+.3f}]"
