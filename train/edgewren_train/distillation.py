"""Distillation: fit a static model's table to the logits that a teacher gives to unlabelled texts.

What the table does not know yet is learnt by ridge regression on the share that each vocabulary entry has of a text
(scikit-learn, sparse conjugate gradients). The penalty is on the change alone, so a word that the texts hardly hold
keeps the value of the undistilled table. Knows shares and decision values, nothing of texts, bundles or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import UsageError

STRENGTHS = tuple(float(f"{alpha:.3g}") for alpha in np.logspace(-3, 2, 11))
"""Strengths tried: 0.001 to 100, two steps a decade. On 23,000 tweets the best lies between 0.03 and 0.1; few texts
want more."""

MINIMUM_TEXTS = 100
_ITERATIONS = 1000


@dataclass(frozen=True)
class Distilled:
    """What distillation adds: decision = scale * undistilled decision + shares @ coef.T + intercept.

    Attributes:
        scale: the teacher's decision values per undistilled decision value, by least squares.
        coef: float64 [outputs, vocabulary], the change per vocabulary entry.
        intercept: float64 [outputs].
        strength: chosen ridge penalty.
        strengths, losses: every strength tried, and its mean squared error on held-out texts.
        undistilled_loss: that of the scaled undistilled table.
        held_out: float64 [n, outputs], each text's decision values by a table that did not see it.
    """

    scale: float
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    strength: float
    strengths: tuple[float, ...]
    losses: tuple[float, ...]
    undistilled_loss: float
    held_out: NDArray[np.float64]


def distil(
    shares: Any,
    undistilled: NDArray[np.float64],
    teacher: NDArray[np.float64],
    *,
    copies: NDArray[np.int64] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    seed: int = 0,
) -> Distilled:
    """Fit the change of the table; the strength of the penalty is the best on held-out texts.

    Args:
        shares: scipy CSR [n, vocabulary], distinct texts.
        undistilled: decision values of the undistilled table, [n, outputs].
        teacher: decision values of the teacher, [n, outputs].
        copies: the same number for texts that are held out together (`duplicates.copies`): near copies with other links
            are distinct texts, too. None: each alone.

    Raises:
        UsageError: fewer than `MINIMUM_TEXTS` texts.
    """
    from sklearn.model_selection import KFold

    distinct, text = np.unique(np.arange(shares.shape[0]) if copies is None else copies, return_inverse=True)
    count = len(distinct)
    if count < MINIMUM_TEXTS:
        raise UsageError(f"There are {count} distinct texts to distil from, expected at least {MINIMUM_TEXTS}.")
    tried = sorted(set(strengths))
    held_out = np.empty((len(tried), *teacher.shape))
    plain = np.empty_like(teacher)
    for _, texts in KFold(folds, shuffle=True, random_state=seed).split(distinct):
        inside = np.isin(text, texts)
        train, rest = np.flatnonzero(~inside), np.flatnonzero(inside)
        scale = _scale(undistilled[train], teacher[train])
        plain[rest] = scale * undistilled[rest]
        for index, strength in enumerate(tried):
            model = _ridge(shares[train], teacher[train] - scale * undistilled[train], strength)
            held_out[index, rest] = plain[rest] + _decided(model, shares[rest])
    losses = ((held_out - teacher) ** 2).mean(axis=(1, 2))
    best = int(losses.argmin())
    scale = _scale(undistilled, teacher)
    model = _ridge(shares, teacher - scale * undistilled, tried[best])
    return Distilled(
        scale=scale,
        coef=np.atleast_2d(np.asarray(model.coef_, dtype=np.float64)),
        intercept=np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64)),
        strength=tried[best],
        strengths=tuple(tried),
        losses=tuple(losses.tolist()),
        undistilled_loss=float(((plain - teacher) ** 2).mean()),
        held_out=held_out[best],
    )


def _scale(undistilled: NDArray[np.float64], teacher: NDArray[np.float64]) -> float:
    power = float((undistilled**2).sum())
    return float((undistilled * teacher).sum()) / power if power > 0 else 1.0


def _ridge(shares: Any, wanted: NDArray[np.float64], strength: float) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=strength, solver="sparse_cg", max_iter=_ITERATIONS, tol=1e-6).fit(shares, wanted)


def _decided(model: Any, shares: Any) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(model.predict(shares), dtype=np.float64).reshape(shares.shape[0], -1)
    return values
