"""How an input of int8 products is quantised: how much is divided out first, its scale, its zero point.

Behind Gelu every row has a scale of its own, since a few tokens are far larger than all others. Elsewhere one scale
serves all tokens: such rows have a bounded range, which `ranges` measures. Their features are smoothed first as in
SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): what is large in a feature is divided out and multiplied into the
weights' rows, exact but for rounding. How much of it moves is searched for each input, by the error of the int8 product
over real tokens. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewren_export.rounding import round_to_nearest

SHARES = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of a feature's range that may move into the weights. Of MiniLM's inputs nearly all take 0.9 or 1."""

HEADROOM = 1.1
"""How far beyond the calibrated range values may go before they are cut: cutting costs far more than coarser steps."""

_USUAL_SHARE = 0.8  # where there are no tokens to search with
_TOKENS = 3000  # that the search looks at
_TINY = 1e-12
_ZERO_POINT = 128
# Gelu is never below -0.17. With 32 of 256 steps for that, positive values get 223 instead of 127.
_GELU_ZERO_POINT = 32
_GELU_FLOOR = 0.17 / _GELU_ZERO_POINT


@dataclass(frozen=True)
class Grid:
    """How one input is quantised.

    Attributes:
        point: zero point.
        step: the scale; None: one per row.
        smooth: factors by which features are divided first, float32 [inputs]; None: as they are.
        floor: the smallest scale of a row.
    """

    point: int
    step: np.float32 | None = None
    smooth: NDArray[np.float32] | None = None
    floor: float = _TINY

    def smoothed(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values if self.smooth is None else values * (np.float32(1) / self.smooth)

    def scaled(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a weight, [inputs, outputs], for smoothed values."""
        return weight if self.smooth is None else weight * self.smooth[:, None]

    def quantised(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what becomes of smoothed values, float32 [tokens, inputs], as the operators compute it."""
        step = self.step
        if step is None:
            largest = values.max(axis=1, keepdims=True)
            step = np.maximum(largest / np.float32(255 - self.point), np.float32(self.floor))
        return np.asarray((np.clip(np.rint(values / step) + self.point, 0, 255) - self.point) * step, np.float32)


GELU = Grid(_GELU_ZERO_POINT, floor=_GELU_FLOOR)
"""A scale per row for what Gelu puts out; never below 0.17 / 32, so one zero point serves all rows."""


def fixed(
    weights: Sequence[NDArray[np.float32]], magnitude: NDArray[np.float32], values: NDArray[np.float32] | None
) -> Grid:
    """Return the grid with one scale that serves the products of an input best.

    Args:
        weights: all that the input is multiplied with, [inputs, outputs] each.
        magnitude: the largest |value| of each feature, [inputs].
        values: what the input is for real tokens, [tokens, inputs]; None: the usual share is smoothed.
    """
    if values is None:
        return _fixed(weights, magnitude, _USUAL_SHARE)
    some = values[:: max(1, len(values) // _TOKENS)]
    weight = np.concatenate(weights, axis=1)
    exact = some @ weight

    def error(grid: Grid) -> float:
        rounded = round_to_nearest(grid.scaled(weight))
        product = grid.quantised(grid.smoothed(some)) @ (rounded.values * rounded.scales)
        return float(np.square(product - exact).mean())

    return min((_fixed(weights, magnitude, share) for share in SHARES), key=error)


def _fixed(weights: Sequence[NDArray[np.float32]], magnitude: NDArray[np.float32], share: float) -> Grid:
    rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    factors = np.maximum(magnitude, _TINY) ** share / np.maximum(rows, _TINY) ** (1 - share)
    # A common factor would change nothing.
    smooth = np.asarray(np.clip(factors / np.exp(np.log(factors).mean()), 1e-3, 1e3), np.float32)
    largest = HEADROOM * float((magnitude / smooth).max())
    return Grid(_ZERO_POINT, np.float32(max(largest, _TINY) / (255 - _ZERO_POINT)), smooth)
