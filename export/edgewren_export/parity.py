"""Do two stages of an export agree? Pure numpy: logits in, verdict out. A stage that disagrees fails the export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import ParityError
from edgewren.metrics import evaluate

LOGIT_TOLERANCE = 1e-4
"""fp32 sums in another order differ by about 1e-6 here; 1e-4 leaves room for deep encoders and catches any mistake."""

HALF_TOLERANCE = 2e-3
"""fp16 carries three digits: allowed per logit, times the largest |logit| where that is above 1."""

LABEL_MARGIN = 1e-3
"""Labels must be equal wherever the reference's two largest logits differ by more than this."""

TIE = float(np.finfo(np.float32).eps)
"""Two logits whose difference is no more than float32's rounding, times the largest |logit| where that is above 1, are
equal: which of them a sum in another order makes the larger is no label that changed."""

MOST_FLIPS = 0.005
"""Share of labels that quantisation may change."""

MOST_F1_LOSS = 0.005
"""Loss of macro-F1 that quantisation may cost."""

QUANTISED_TEXTS = 1000
"""Texts that it takes to tell 0.5 % of flips from chance."""


@dataclass(frozen=True)
class Stage:
    """The comparison of one stage with the one before it.

    Attributes:
        name: for example "torch -> onnx fp32".
        texts: number of texts compared.
        max_difference: largest |difference| of any logit.
        label_flips: texts whose label differs, but for ties (`TIE`).
        label_flips_beyond_margin: of those, the ones where the reference was sure by more than the margin.
        tolerance: the bound that max_difference had to keep.
    """

    name: str
    texts: int
    max_difference: float
    label_flips: int
    label_flips_beyond_margin: int
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    name: str,
    reference: NDArray[Any],
    candidate: NDArray[Any],
    *,
    tolerance: float = LOGIT_TOLERANCE,
    margin: float = LABEL_MARGIN,
) -> Stage:
    """Compare logits [n, labels] of two stages, and refuse what does not agree.

    Raises:
        ParityError: a logit is not finite or differs by more than `tolerance`, or a label differs that should not.
    """
    if reference.shape != candidate.shape:
        raise ParityError(f"{name}: logits have shape {candidate.shape}, expected {reference.shape}.")
    difference = np.abs(np.asarray(candidate, np.float64) - np.asarray(reference, np.float64))
    top_two = np.sort(np.asarray(reference, np.float64), axis=1)[:, -2:]
    lead = top_two[:, 1] - top_two[:, 0]
    tied = lead <= TIE * np.maximum(1.0, np.abs(reference).max(axis=1))
    flips = (reference.argmax(axis=1) != candidate.argmax(axis=1)) & ~tied
    sure = lead > margin
    stage = Stage(
        name=name,
        texts=len(reference),
        max_difference=float(difference.max()),
        label_flips=int(flips.sum()),
        label_flips_beyond_margin=int((flips & sure).sum()),
        tolerance=tolerance,
    )
    if not stage.max_difference <= tolerance or stage.label_flips_beyond_margin:
        raise ParityError(
            f"{name}: logits differ by up to {stage.max_difference:.2e} (allowed {tolerance:.0e}) and "
            f"{stage.label_flips_beyond_margin} of {stage.texts} labels changed, first at text "
            f"{int(difference.max(axis=1).argmax())}. The export was refused; nothing was written."
        )
    return stage


@dataclass(frozen=True)
class QuantisedStage:
    """The comparison of a quantised variant with fp32.

    Attributes:
        name: for example "fp32 -> int8".
        texts: number of texts compared.
        max_difference, mean_difference: of any logit.
        label_flips: texts whose label differs.
        macro_f1_fp32, macro_f1: of both against `truth`.
        truth: what they were judged against, "labels" or, where none were given, "fp32's labels".
        allowed: the bounds, in words.
    """

    name: str
    texts: int
    max_difference: float
    mean_difference: float
    label_flips: int
    macro_f1_fp32: float
    macro_f1: float
    truth: str
    allowed: str = f"{MOST_FLIPS:.1%} of labels, {MOST_F1_LOSS * 100:.1f} points of macro-F1"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_quantised(
    name: str,
    reference: NDArray[Any],
    candidate: NDArray[Any],
    labels: Sequence[str],
    truth: Sequence[str] | None,
) -> QuantisedStage:
    """Compare logits [n, labels] of a quantised variant with fp32's, and refuse one that decides too differently.

    Args:
        truth: the true label of each text; None: fp32's labels take their place.

    Raises:
        ParityError: too few texts, a logit is not finite, too many labels changed, or too much macro-F1 was lost.
    """
    check_enough_texts(name, len(reference))
    if not np.isfinite(candidate).all():
        raise ParityError(f"{name}: a logit is not finite. Nothing was written.")
    before = [labels[index] for index in reference.argmax(axis=1)]
    after = [labels[index] for index in candidate.argmax(axis=1)]
    judge = before if truth is None else list(truth)
    difference = np.abs(np.asarray(candidate, np.float64) - np.asarray(reference, np.float64))
    stage = QuantisedStage(
        name=name,
        texts=len(reference),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        label_flips=sum(a != b for a, b in zip(before, after, strict=True)),
        macro_f1_fp32=evaluate(judge, before, labels).macro_f1.value,
        macro_f1=evaluate(judge, after, labels).macro_f1.value,
        truth="fp32's labels" if truth is None else "labels",
    )
    lost = stage.macro_f1_fp32 - stage.macro_f1
    if stage.label_flips > MOST_FLIPS * stage.texts or lost > MOST_F1_LOSS + 1e-9:  # 1e-9: the subtraction rounds
        raise ParityError(
            f"{name} changes {stage.label_flips} of {stage.texts:,} labels and macro-F1 from {stage.macro_f1_fp32:.4f} "
            f"to {stage.macro_f1:.4f}; allowed are {stage.allowed}. Nothing was written. Export with --precision fp32, "
            "or train on more rows: few labels should hang on a hair."
        )
    return stage


def check_enough_texts(name: str, texts: int) -> None:
    """Refuse to judge a quantised variant by too few texts.

    Raises:
        ParityError: fewer than `QUANTISED_TEXTS`.
    """
    if texts < QUANTISED_TEXTS:
        raise ParityError(
            f"{name} is only proved on {QUANTISED_TEXTS:,} texts or more, and there are {texts:,}. Nothing was "
            "written. Give more with --texts FILE (no labels needed), or export with --precision fp32."
        )


def table(stages: Sequence[dict[str, Any]]) -> str:
    """Return the stages as a Markdown table."""
    lines = ["| stage | texts | max \\|Δ logit\\| | allowed | labels changed |", "|---|---|---|---|---|"]
    lines += [
        f"| {s['name']} | {s['texts']:,} | {s['max_difference']:.1e} | {_allowed(s)} | {s['label_flips']} |"
        for s in stages
    ]
    return "\n".join(lines)


def _allowed(stage: dict[str, Any]) -> str:
    return str(stage["allowed"]) if "allowed" in stage else f"{stage['tolerance']:.0e}"
