"""The ridge recipe: StandardScaler, then RidgeClassifierCV fitted on the standardised features.

Knows features and labels, nothing of texts, encoders or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import UsageError
from edgewren_train.left_out import LeftOut
from edgewren_train.out_of_fold import OutOfFold, Split, hold_out
from edgewren_train.together import Together, apart

WIDE_GRID = tuple(float(f"{alpha:.4g}") for alpha in np.logspace(-3, 6, 37))
"""1e-3 to 1e6, four steps a decade. On standardised sentence embeddings the best alpha is often in the thousands."""

CLASSIC_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""The six values of published notebooks, kept to reproduce them; its best value is usually its edge."""

NO_SIGNAL = "Its labels don't follow from what it sees of the texts: look at them with 'edgewren analyse'."
"""What to do where a model answers one label to every text."""

_DEAD = 1e-6
"""A feature varies less than this share of what the largest does: only rounding. all-MiniLM-L6-v2 has three such
features (standard deviations of 2e-33, 3e-33 and 6e-9 over tweets, 0.05 elsewhere). Standardised, they would be noise
blown up to unit size, with weights of up to 1e30 on the features as they come. (Not of what the median feature does:
where most are dead, that is rounding, too. Live features lie close together: MiniLM's within a factor of 8.)"""

_EXTENSION = 100.0
_BOUNDS = (1e-9, 1e12)


@dataclass(frozen=True)
class RidgeHead:
    """A fitted head: z = (x - mean) / scale; decision = z @ coef.T + intercept.

    Attributes:
        mean, scale: float64 [dimension]; the scale of a dead feature, whose coefficient is 0, is 1.
        coef: float64 [1, dimension] for two classes, [classes, dimension] otherwise.
        intercept: float64 [1] or [classes].
        alpha: chosen regularisation strength.
        alphas, scores: every strength tried, ascending, and its leave-one-out score (minus the mean squared error,
            the higher the better): of each row left out in turn, or of all rows that belong together (`left_out`).
        extended: whether the grid was extended because the best value lay on its edge.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    alpha: float
    alphas: tuple[float, ...]
    scores: tuple[float, ...]
    extended: bool

    @property
    def error(self) -> float:
        """Root of the mean squared leave-one-out error of the decision values at the chosen alpha."""
        return math.sqrt(max(0.0, -self.scores[self.alphas.index(self.alpha)]))

    @property
    def on_edge(self) -> bool:
        """Whether the chosen alpha is the smallest or largest that was tried."""
        return self.alpha in (self.alphas[0], self.alphas[-1])

    def decision(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return decision values as RidgeClassifier's: [n] for two classes, [n, classes] otherwise."""
        values: NDArray[np.float64] = ((features - self.mean) / self.scale) @ self.coef.T + self.intercept
        return values[:, 0] if values.shape[1] == 1 else values

    def logits(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return logits, float64 [n, classes], before any temperature; of two classes [-d/2, d/2]."""
        values = self.decision(features)
        return np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values

    def predict(self, features: NDArray[np.floating[Any]], classes: Sequence[str]) -> list[str]:
        """Return the label of each row of features."""
        decision = self.decision(features)
        chosen = (decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(axis=1)
        return [classes[index] for index in chosen]


def fit(
    features: NDArray[np.float32],
    labels: Sequence[str],
    *,
    alphas: Sequence[float] = WIDE_GRID,
    extend: bool = True,
    together: Together | None = None,
) -> RidgeHead:
    """Fit the head; alpha is the one of `alphas` with the least error on rows that are left out in turn.

    Args:
        features: float32 [n, dimension].
        alphas: strengths to try, all positive.
        extend: go on beyond an edge of the grid while the best value lies on it (to 1e-9 or 1e12).
        together: rows that are left out together where alpha is chosen: with one copy of a text still in the fit, the
            weakest penalty foretells the other best. None: each row is left out alone.

    Raises:
        UsageError: no alpha, or one that is not positive.
    """
    from sklearn.preprocessing import LabelBinarizer

    targets = LabelBinarizer(neg_label=-1, pos_label=1).fit_transform(labels)  # as RidgeClassifierCV does it
    return _fit(features, targets, alphas, extend=extend, together=together)


def fit_values(
    features: NDArray[np.float32],
    values: NDArray[np.floating[Any]],
    *,
    alphas: Sequence[float] = WIDE_GRID,
    extend: bool = True,
    together: Together | None = None,
) -> RidgeHead:
    """Fit a head to another model's decision values, float [n] of two classes or [n, classes], instead of labels.

    Otherwise as `fit`.
    """
    return _fit(features, values, alphas, extend=extend, together=together)


def _fit(
    features: NDArray[np.float32],
    wanted: NDArray[Any],
    alphas: Sequence[float],
    *,
    extend: bool,
    together: Together | None,
) -> RidgeHead:
    """Standardise, choose alpha (`left_out`), and fit scikit-learn's RidgeCV to `wanted`, [n] or [n, classes]."""
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    grid = sorted(set(map(float, alphas)))
    if not grid or not all(0 < alpha < math.inf for alpha in grid):
        raise UsageError(f"alphas are {list(alphas)}, expected at least one value, all positive and finite.")
    exact = np.array(features, dtype=np.float64)  # a copy, standardised in place: of 50,000 rows it has 154 MB
    scaler = StandardScaler().fit(exact)
    deviation = np.sqrt(scaler.var_)
    dead = deviation < _DEAD * deviation.max()
    standardised = scaler.transform(exact, copy=False)
    standardised[:, dead] = 0.0
    left_out = _left_out(standardised, wanted, together)
    tried: dict[float, float] = {}
    pending = grid
    extended = False
    while True:
        tried.update((alpha, -left_out.squared_error(alpha)) for alpha in pending)
        best = max(tried, key=lambda alpha: (tried[alpha], alpha))
        beyond = _beyond_edge(best, sorted(tried)) if extend else []
        if not beyond:
            break
        pending, extended = beyond, True
    model = RidgeCV(alphas=np.asarray([best])).fit(standardised, wanted)
    order = sorted(tried)
    return RidgeHead(
        mean=np.asarray(scaler.mean_, dtype=np.float64),
        scale=np.where(dead, 1.0, scaler.scale_),
        coef=np.atleast_2d(np.asarray(model.coef_, dtype=np.float64)),
        intercept=np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64)),
        alpha=float(best),
        alphas=tuple(order),
        scores=tuple(tried[alpha] for alpha in order),
        extended=extended,
    )


def _left_out(standardised: NDArray[np.float64], wanted: NDArray[Any], together: Together | None) -> LeftOut:
    """Return what comes of leaving rows out: each alone where none belong together, or all do."""
    rows = len(standardised)
    if together is None or not 1 < len(np.unique(together.units)) < rows:
        together = apart(rows)
    return LeftOut(standardised, np.asarray(wanted, dtype=np.float64).reshape(rows, -1), together)


def cross_validate(
    features: NDArray[np.float32],
    labels: Sequence[str],
    *,
    folds: int,
    seed: int,
    alphas: Sequence[float] = WIDE_GRID,
    extend: bool = True,
    together: Together | None = None,
) -> OutOfFold:
    """Return the out-of-fold logits of each row. Scaler and alpha are fitted anew inside every training part.

    Stratified and shuffled by `seed`; every class must have at least `folds` rows (units, where rows belong
    `together`).
    """
    names = np.asarray(labels)

    def held_out_logits(training: NDArray[np.intp], held_out: NDArray[np.intp]) -> NDArray[np.float64]:
        kept = None if together is None else together.of(training)
        head = fit(features[training], names[training].tolist(), alphas=alphas, extend=extend, together=kept)
        return head.logits(features[held_out])

    return hold_out(labels, Split(folds=folds), seed, held_out_logits, together)


def _beyond_edge(best: float, tried: Sequence[float]) -> list[float]:
    """Return further alphas past the edge on which `best` lies, or nothing."""
    if best == tried[-1] and best < _BOUNDS[1]:
        return [float(f"{alpha:.4g}") for alpha in np.geomspace(best, best * _EXTENSION, 9)[1:]]
    if best == tried[0] and best > _BOUNDS[0]:
        return [float(f"{alpha:.4g}") for alpha in np.geomspace(best / _EXTENSION, best, 9)[:-1]]
    return []
