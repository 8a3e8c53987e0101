"""From logits to probabilities, and how far probabilities can be trusted. Pure numpy; knows class indices, no names."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewren.errors import InputError, UsageError


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return probabilities, float32 [n, C], of logits [n, C]; computed in float64 and safe for logits of any size."""
    wide = np.asarray(logits, dtype=np.float64)
    exponentials = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32)


def expected_calibration_error(probabilities: ArrayLike, true_indices: ArrayLike, *, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy, 0 (calibrated) to 1.

    Rows fall into `bins` bins of equal width (low, high] by their highest probability; the gaps between mean confidence
    and accuracy are averaged, weighted by rows. Source: Guo et al. 2017, "On Calibration of Modern Neural Networks",
    equation 3.

    Raises:
        InputError: `probabilities` is not [n, C] of probabilities, or `true_indices` does not fit it.
        UsageError: `bins` is below 1.
    """
    if bins < 1:
        raise UsageError(f"bins is {bins}, expected at least 1.")
    scores, true = _checked_probabilities(probabilities, true_indices)
    confidence = scores.max(axis=1)
    surplus = (scores.argmax(axis=1) == true) - confidence
    position = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(position, weights=surplus)).sum() / len(true))


def log_loss(probabilities: ArrayLike, true_indices: ArrayLike) -> float:
    """Return the mean of -ln(probability of the true class), in nats.

    Probabilities are kept at least one machine epsilon of their dtype above 0, as scikit-learn does, so that one row
    with probability 0 does not make the figure infinite.

    Raises:
        InputError: `probabilities` is not [n, C] of probabilities, or `true_indices` does not fit it.
    """
    scores, true = _checked_probabilities(probabilities, true_indices)
    dtype = np.asarray(probabilities).dtype
    epsilon = float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)
    return float(-np.log(np.clip(scores[np.arange(len(true)), true], epsilon, 1.0)).mean())


def brier(probabilities: ArrayLike, true_indices: ArrayLike) -> float:
    """Return the Brier score in its original multi-class form, 0 (perfect) to 2.

    The mean over rows of the sum over classes of (probability - 1 if true class else 0)². For two classes this is twice
    the figure of scikit-learn's `brier_score_loss`. Source: Brier 1950, "Verification of Forecasts Expressed in Terms
    of Probability".

    Raises:
        InputError: `probabilities` is not [n, C] of probabilities, or `true_indices` does not fit it.
    """
    errors, true = _checked_probabilities(probabilities, true_indices)
    errors[np.arange(len(true)), true] -= 1.0
    return float(np.square(errors).sum(axis=1).mean())


def class_indices(name: str, values: ArrayLike, classes: int) -> NDArray[np.int64]:
    indices = np.asarray(values)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise InputError(
            f"{name} is {indices.dtype} of shape {list(indices.shape)}, expected whole numbers of shape [n]."
        )
    outside = np.flatnonzero((indices < 0) | (indices >= classes))
    if outside.size:
        raise InputError(
            f"Row {outside[0] + 1} of {name} is {indices[outside[0]]}, expected a label index from 0 to {classes - 1}."
        )
    return indices.astype(np.int64)


def _checked_probabilities(
    probabilities: ArrayLike, true_indices: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return a float64 copy of the probabilities and the indices, once they fit each other."""
    scores = np.array(probabilities, dtype=np.float64)
    if scores.ndim != 2 or scores.size == 0:
        raise InputError(f"probabilities has shape {list(scores.shape)}, expected [n, classes] with n at least 1.")
    true = class_indices("true_indices", true_indices, scores.shape[1])
    if len(true) != len(scores):
        raise InputError(f"probabilities has {len(scores)} rows, but true_indices has {len(true)}. Pass one per text.")
    # 1e-3: what half-precision probabilities may miss in their sum; logits miss by more. NaN fails every comparison.
    valid = (scores >= 0).all(axis=1) & (np.abs(scores.sum(axis=1) - 1) <= 1e-3)
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        more = " and so on" if scores.shape[1] > 5 else ""
        raise InputError(
            f"Row {row + 1} of probabilities is {scores[row, :5].tolist()}{more}, expected values from 0 to 1 that sum "
            "to 1. Pass logits through softmax first."
        )
    return scores, true
