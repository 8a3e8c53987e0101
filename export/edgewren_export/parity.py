"""Do two stages of an export agree? Pure numpy: logits in, verdict out. A stage that disagrees fails the export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import ParityError

LOGIT_TOLERANCE = 1e-4
"""fp32 sums in another order differ by about 1e-6 here; 1e-4 leaves room for deep encoders and catches any mistake."""

LABEL_MARGIN = 1e-3
"""Labels must be equal wherever the reference's two largest logits differ by more than this."""


@dataclass(frozen=True)
class Stage:
    """The comparison of one stage with the one before it.

    Attributes:
        name: for example "torch -> onnx fp32".
        texts: number of texts compared.
        max_difference: largest |difference| of any logit.
        label_flips: texts whose label differs.
        label_flips_beyond_margin: of those, the ones where the reference was sure by more than 1e-3.
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
    name: str, reference: NDArray[Any], candidate: NDArray[Any], *, tolerance: float = LOGIT_TOLERANCE
) -> Stage:
    """Compare logits [n, labels] of two stages, and refuse what does not agree.

    Raises:
        ParityError: a logit is not finite or differs by more than `tolerance`, or a label differs that should not.
    """
    if reference.shape != candidate.shape:
        raise ParityError(f"{name}: logits have shape {candidate.shape}, expected {reference.shape}.")
    difference = np.abs(np.asarray(candidate, np.float64) - np.asarray(reference, np.float64))
    top_two = np.sort(reference, axis=1)[:, -2:]
    flips = reference.argmax(axis=1) != candidate.argmax(axis=1)
    sure = (top_two[:, 1] - top_two[:, 0]) > LABEL_MARGIN
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


def table(stages: Sequence[dict[str, Any]]) -> str:
    """Return the stages as a Markdown table."""
    lines = ["| stage | texts | max \\|Δ logit\\| | allowed | labels changed |", "|---|---|---|---|---|"]
    lines += [
        f"| {s['name']} | {s['texts']:,} | {s['max_difference']:.1e} | {s['tolerance']:.0e} | {s['label_flips']} |"
        for s in stages
    ]
    return "\n".join(lines)
