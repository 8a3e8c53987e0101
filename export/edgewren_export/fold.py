"""Folds StandardScaler and ridge into one affine map, and checks the result against an independent converter.

    decision = ((x - mean) / scale) @ coef.T + intercept  =  x @ weight.T + bias

Binary: logits are [-s d/2, +s d/2] for decision value d, so softmax gives sigmoid(s d), the label is scikit-learn's
(d > 0), and d can be had back as (logit1 - logit0) / s. s is the temperature; there is never a bias beside it, which
would move the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import BundleError, ParityError

CROSS_CHECK_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Head:
    """A fitted ridge head as stored, float64: mean, scale [d], coef [1 or classes, d], intercept [1 or classes]."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def scikit_learn(self, labels: tuple[str, ...]) -> Any:
        """Return the same head as a fitted scikit-learn Pipeline(StandardScaler, RidgeClassifier)."""
        from sklearn.linear_model import RidgeClassifier
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import StandardScaler

        # Fitted to one row per label first: what else a fit leaves behind differs between releases.
        rows = np.zeros((len(labels), len(self.mean)))
        scaler, classifier = StandardScaler().fit(rows), RidgeClassifier().fit(rows, list(labels))
        scaler.mean_, scaler.scale_, scaler.var_ = self.mean, self.scale, self.scale**2
        classifier.coef_, classifier.intercept_ = self.coef, self.intercept
        return Pipeline([("scaler", scaler), ("ridge", classifier)])


def load_head(path: Path) -> Head:
    """Read head.safetensors.

    Raises:
        BundleError: it is damaged, a tensor is missing, or shapes do not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} cannot be read: {error}. Train again.") from error
    try:
        head = Head(**{name: np.asarray(tensors[name], dtype=np.float64) for name in Head.__annotations__})
    except KeyError as error:
        raise BundleError(f"{path} lacks the tensor {error}. Train again.") from error
    if head.coef.shape != (len(head.intercept), len(head.mean)) or head.scale.shape != head.mean.shape:
        raise BundleError(f"{path} holds tensors whose shapes do not fit together. Train again.")
    return head


def fold(head: Head, *, temperature: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight, float32 [labels, d], and bias, float32 [labels], with logits = x @ weight.T + bias."""
    weight = head.coef / head.scale
    bias = head.intercept - weight @ head.mean
    if len(weight) == 1:
        half = np.array([[-0.5], [0.5]])
        weight, bias = half @ weight, half[:, 0] * bias
    return (temperature * weight).astype(np.float32), (temperature * bias).astype(np.float32)


def logits_from_decision(decision: NDArray[Any], *, temperature: float) -> NDArray[np.float64]:
    """Return logits, float64 [n, labels], for scikit-learn's decision values."""
    if decision.ndim == 1:
        half = 0.5 * temperature * np.asarray(decision, dtype=np.float64)
        return np.stack([-half, half], axis=1)
    return temperature * np.asarray(decision, dtype=np.float64)


def cross_check(head: Head, labels: tuple[str, ...], embeddings: NDArray[np.float32]) -> float:
    """Compare the folded map with skl2onnx's conversion of the fitted pipeline; return the largest difference.

    skl2onnx's second output is, for this pipeline, the raw decision value ([n, 1] or [n, labels]).

    Raises:
        ParityError: they differ by more than 1e-4.
    """
    from skl2onnx import to_onnx

    from edgewren.device import import_onnxruntime

    pipeline = head.scikit_learn(labels)
    model = to_onnx(pipeline, embeddings[:1].astype(np.float32), options={id(pipeline.steps[-1][1]): {"zipmap": False}})
    onnxruntime = import_onnxruntime()
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3  # it warns that skl2onnx declares [n, 2] for that output
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet, providers=["CPUExecutionProvider"])
    theirs = np.asarray(session.run(None, {session.get_inputs()[0].name: embeddings.astype(np.float32)})[1])
    weight, bias = fold(head, temperature=1.0)
    ours = embeddings @ weight.T + bias
    decision = ours[:, 1:] - ours[:, :1] if len(head.intercept) == 1 else ours
    if theirs.shape[1] != decision.shape[1]:  # some releases give both signs for two classes
        theirs = theirs[:, -decision.shape[1] :]
    difference = float(np.abs(theirs - decision).max())
    if not difference <= CROSS_CHECK_TOLERANCE:
        raise ParityError(
            f"The folded head differs from skl2onnx's conversion by {difference:.2e}, more than "
            f"{CROSS_CHECK_TOLERANCE:.0e}. Nothing was exported; please report this with the versions of scikit-learn "
            "and skl2onnx."
        )
    return difference
