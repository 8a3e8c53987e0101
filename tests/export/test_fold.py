"""The folded affine map: equal to scikit-learn, and to an independent converter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgewren.errors import BundleError, ParityError
from edgewren_export.fold import Head, cross_check, fold, load_head, logits_from_decision

NAMES = ("a", "b", "c", "d", "e")


def fitted(classes: int):
    """Return a pipeline fitted by scikit-learn, its head as we store it, and features that it has not seen."""
    draw = np.random.default_rng(5)
    centres = draw.normal(size=(classes, 24))
    index = np.arange(200) % classes
    features = (centres[index] + draw.normal(size=(200, 24)) * 2).astype(np.float32) * 0.05 + 0.3
    pipeline = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=[1.0, 100.0]))
    pipeline.fit(features.astype(np.float64), np.array(NAMES)[index])
    scaler, ridge = pipeline[0], pipeline[1]
    head = Head(scaler.mean_, scaler.scale_, np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_))
    unseen = (draw.normal(size=(300, 24)) * 0.1 + 0.3).astype(np.float32)
    return pipeline, head, unseen


@pytest.mark.parametrize("temperature", [1.0, 2.75])
@pytest.mark.parametrize("classes", [2, 5])
def test_folded_map_is_scikit_learns_decision_times_the_temperature(classes, temperature):
    pipeline, head, unseen = fitted(classes)
    weight, bias = fold(head, temperature=temperature)
    logits = unseen @ weight.T + bias
    decision = pipeline.decision_function(unseen.astype(np.float64))
    assert logits.shape == (300, classes)
    # 1e-5: float32 products of 24 terms against float64.
    np.testing.assert_allclose(logits, logits_from_decision(decision, temperature=temperature), atol=1e-5)
    recovered = (logits[:, 1] - logits[:, 0]) / temperature if classes == 2 else logits / temperature
    np.testing.assert_allclose(recovered, decision, atol=1e-5)
    labels = np.array(NAMES)[logits.argmax(axis=1)]
    assert labels.tolist() == pipeline.predict(unseen.astype(np.float64)).tolist()


def test_binary_logits_are_exactly_antisymmetric():
    _, head, _ = fitted(2)
    weight, bias = fold(head, temperature=1.7)
    assert (weight[0] == -weight[1]).all()
    assert bias[0] == -bias[1]
    assert weight.dtype == bias.dtype == np.float32
    given = logits_from_decision(np.array([0.4, -3.0]), temperature=2.0)
    assert given.tolist() == [[-0.4, 0.4], [3.0, -3.0]]


@pytest.mark.parametrize("classes", [2, 5])
def test_rebuilt_scikit_learn_pipeline_answers_as_the_fitted_one(classes):
    pipeline, head, unseen = fitted(classes)
    rebuilt = head.scikit_learn(NAMES[:classes])
    x = unseen.astype(np.float64)
    np.testing.assert_array_equal(rebuilt.decision_function(x), pipeline.decision_function(x))
    assert rebuilt.predict(x).tolist() == pipeline.predict(x).tolist()


@pytest.mark.parametrize("classes", [2, 5])
def test_skl2onnx_agrees_with_the_folded_head(classes):
    _, head, unseen = fitted(classes)
    assert cross_check(head, NAMES[:classes], unseen) <= 1e-5


@pytest.mark.parametrize("classes", [2, 5])
def test_skl2onnx_cross_check_catches_a_wrong_fold(classes, monkeypatch):
    _, head, unseen = fitted(classes)
    tampered = dataclasses.replace(head, intercept=head.intercept + 0.01)
    monkeypatch.setattr("edgewren_export.fold.fold", lambda _, temperature: fold(tampered, temperature=temperature))
    with pytest.raises(ParityError, match=r"skl2onnx.*more than 1e-04"):
        cross_check(head, NAMES[:classes], unseen)


def test_head_file_lacking_a_tensor_is_named(tmp_path, train_model):
    tensors = load_file(train_model("ridge") / "head.safetensors")
    del tensors["scale"]
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(BundleError, match="lacks the tensor 'scale'"):
        load_head(tmp_path / "head.safetensors")


def test_head_file_whose_shapes_do_not_fit_is_refused(tmp_path, train_model):
    tensors = load_file(train_model("ridge") / "head.safetensors")
    tensors["intercept"] = np.zeros(3)
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(BundleError, match="do not fit together"):
        load_head(tmp_path / "head.safetensors")


def test_head_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / "head.safetensors").write_bytes(b"not tensors")
    with pytest.raises(BundleError, match=r"head\.safetensors"):
        load_head(tmp_path / "head.safetensors")
