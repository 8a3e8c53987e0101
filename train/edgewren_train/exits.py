"""Early exits of a model: ridge heads after earlier layers, and thresholds with a bound on the labels that differ.

A head is fitted to the full model's decision values, since it is the full model that it must agree with, not the label.
A text leaves where its two largest decision values are further apart than t times the head's error (that of leaving one
out), the same t after every layer: one number leaves one fixed sequence to test. From a t at which nobody leaves, it
falls step by step; at each step the hypothesis "more than the allowed share of labels differs from the full model's"
is tested by the exact binomial test on out-of-fold rows (equivalently: the one-sided bound of Clopper & Pearson 1934
lies below the allowed share), and the first step that is not rejected ends the search. Testing a fixed sequence at full
level keeps the chance of any false rejection below 1 - confidence: Learn then Test (Angelopoulos, Bates, Candès, Jordan
& Lei 2021, arXiv:2110.01052). Knows logits, nothing of texts or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.calibration import MINIMUM_ROWS, fit_temperature
from edgewren.errors import UsageError
from edgewren.staged import margins
from edgewren_train.exit_plan import ALLOWED, CONFIDENCE
from edgewren_train.ridge import RidgeHead

_STEPS = tuple(np.round(np.arange(8.0, 0.0, -0.02), 2).tolist())
_TINY = 1e-12  # a head without any error


@dataclass(frozen=True)
class Exit:
    """An exit after one layer.

    Attributes:
        layer: after which layer of the encoder; 0: after the embeddings.
        head: the ridge head there.
        threshold: a text leaves where its two largest decision values are further apart (t times the head's error).
        temperature: factor for the logits of those who leave here, fitted on them.
        share: of the out-of-fold rows that left here.
    """

    layer: int
    head: RidgeHead
    threshold: float
    temperature: float
    share: float


@dataclass(frozen=True)
class Exits:
    """All exits of a model with what was proved of them.

    Attributes:
        exits: ascending by layer.
        layers: of the whole encoder.
        errors_apart: t, the threshold of every exit in errors of its head.
        allowed, confidence: with this confidence at most this share of labels differs from the full model's.
        rows: out-of-fold rows that it was tested on.
        differing: of those, the ones whose label differs.
        bound: upper bound of the differing share at that confidence, by Clopper and Pearson.
    """

    exits: tuple[Exit, ...]
    layers: int
    errors_apart: float
    allowed: float
    confidence: float
    rows: int
    differing: int
    bound: float

    @property
    def heads(self) -> dict[int, RidgeHead]:
        """The head of each exit, by layer."""
        return {entry.layer: entry.head for entry in self.exits}

    def as_dict(self) -> dict[str, Any]:
        """Return what model.json and the manifest keep."""
        return {
            "method": "fixed-sequence testing (Learn then Test, arXiv:2110.01052) with exact binomial tests",
            "heads": "ridge, fitted to the full model's decision values of the training texts and their halves",
            "errors_apart": self.errors_apart,
            "allowed": self.allowed,
            "confidence": self.confidence,
            "rows": self.rows,
            "differing": self.differing,
            "bound": self.bound,
            "layers": self.layers,
            "stages": [
                {
                    "layer": entry.layer,
                    "threshold": entry.threshold,
                    "temperature": entry.temperature,
                    "share": entry.share,
                    "alpha": entry.head.alpha,
                    "error": entry.head.error,
                }
                for entry in self.exits
            ],
        }


def as_text(found: Exits | None) -> str:
    """Return what people are told of a model's exits, or of there being none."""
    if found is None:
        return "early exit: no text may leave within the bound; the model has no exits"
    left = ", ".join(f"{entry.share:.1%} after layer {entry.layer}" for entry in found.exits)
    return (
        f"early exit on {found.rows:,} rows out of fold: {left}; labels that differ from the full model's: "
        f"{found.differing}, at most {found.bound:.2%} at {found.confidence:.0%} confidence (allowed: "
        f"{found.allowed:.2%})"
    )


@dataclass(frozen=True)
class Threshold:
    """The outcome of the search: the threshold (infinite: nobody leaves), where each row leaves, and the test.

    Attributes:
        value: t, in errors of the heads, the same for all exits.
        left: int64 [rows], position of the exit that each row takes, the number of exits for the full model.
        differing: rows whose label differs.
        bound: Clopper and Pearson's.
    """

    value: float
    left: NDArray[np.int64]
    differing: int
    bound: float


def checked_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the layers of the exits, ascending.

    Raises:
        UsageError: none, or one that is not before the last.
    """
    if not layers or not all(0 <= layer < depth for layer in layers):
        raise UsageError(f"exits after layers {list(layers)}: expected some of 0 to {depth - 1}.")
    return tuple(sorted(set(layers)))


def default_layers(depth: int) -> tuple[int, ...]:
    """Return where exits pay by experience: after the embeddings, and at each third of the depth."""
    return tuple(sorted({0, max(1, depth // 3), max(1, 2 * depth // 3)} - {depth}))


def check_rows(rows: int, *, allowed: float = ALLOWED, confidence: float = CONFIDENCE) -> None:
    """Refuse what no search can prove.

    Raises:
        UsageError: allowed or confidence out of range, or too few rows to prove anything.
    """
    if not 0 < allowed < 1 or not 0 < confidence < 1:
        raise UsageError(f"allowed is {allowed} and confidence {confidence}, expected numbers between 0 and 1.")
    needed = int(np.ceil(np.log(1 - confidence) / np.log(1 - allowed)))
    if rows < needed:
        raise UsageError(
            f"{rows} rows out of fold cannot prove that at most {allowed:.1%} of labels differ: {needed} or more can. "
            "Train on more rows, allow more with --exit-difference, or leave --exits out."
        )


def find_threshold(
    logits: Mapping[int, NDArray[np.floating[Any]]],
    errors: Mapping[int, NDArray[np.floating[Any]]],
    full: NDArray[np.floating[Any]],
    *,
    allowed: float = ALLOWED,
    confidence: float = CONFIDENCE,
) -> Threshold:
    """Search the lowest threshold that is proved safe.

    Args:
        logits: out-of-fold logits before any temperature of each exit, [rows, classes], by layer.
        errors: of the head that gave them, [rows], by layer.
        full: those of the full model, of the same folds.

    Raises:
        UsageError: allowed or confidence out of range, or too few rows to prove anything.
    """
    from scipy.stats import beta, binom

    rows = len(full)
    check_rows(rows, allowed=allowed, confidence=confidence)
    order = sorted(logits)
    apart = np.stack(
        [margins(np.asarray(logits[layer], np.float64)) / np.maximum(errors[layer], _TINY) for layer in order]
    )
    differs = np.stack([logits[layer].argmax(axis=1) != full.argmax(axis=1) for layer in order])
    differs = np.concatenate([differs, np.zeros((1, rows), dtype=np.bool_)])

    def leaving(t: float) -> NDArray[np.int64]:
        takes = apart > t
        return np.where(takes.any(axis=0), takes.argmax(axis=0), len(order))

    proved, left = np.inf, np.full(rows, len(order))
    for t in _STEPS:
        tried = leaving(t)
        if binom.cdf(int(differs[tried, np.arange(rows)].sum()), rows, allowed) > 1 - confidence:
            break
        proved, left = t, tried
    differing = int(differs[left, np.arange(rows)].sum())
    bound = float(beta.ppf(confidence, differing + 1, rows - differing))
    return Threshold(proved, left, differing, bound)


def fit_exits(
    heads: Mapping[int, RidgeHead],
    logits: Mapping[int, NDArray[np.floating[Any]]],
    errors: Mapping[int, NDArray[np.floating[Any]]],
    full: NDArray[np.floating[Any]],
    true: NDArray[np.integer[Any]],
    depth: int,
    *,
    allowed: float = ALLOWED,
    confidence: float = CONFIDENCE,
    calibrated: bool = True,
) -> Exits | None:
    """Return the exits with their thresholds and temperatures; None where no text may leave early.

    Args:
        heads: the head of each exit, fitted on all rows.
        logits, errors, full: as for `find_threshold`.
        true: class index of each row, for the temperatures.
    """
    found = find_threshold(logits, errors, full, allowed=allowed, confidence=confidence)
    exits = []
    for place, layer in enumerate(sorted(logits)):
        leavers = found.left == place
        if not leavers.any():
            continue
        enough = calibrated and int(leavers.sum()) >= MINIMUM_ROWS
        temperature = fit_temperature(np.asarray(logits[layer])[leavers], true[leavers]) if enough else 1.0
        threshold = found.value * heads[layer].error
        exits.append(Exit(layer, heads[layer], threshold, temperature, float(leavers.mean())))
    if not exits:
        return None
    return Exits(tuple(exits), depth, found.value, allowed, confidence, len(full), found.differing, found.bound)
