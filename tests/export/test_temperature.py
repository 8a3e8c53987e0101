"""Calibration on the shipped precision, shared weights of ensembles, and the card's figures."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from huggingface_hub import ModelCard
from onnx import TensorProto, helper, numpy_helper

from edgewren.errors import ParityError
from edgewren.manifest import Manifest
from edgewren.metrics import evaluate
from edgewren_export.card import model_card
from edgewren_export.ensemble import share_equal_weights
from edgewren_export.temperature import HeldOut, check_temperature, held_out_rows


@pytest.fixture
def held_out():
    """Calibrated logits of 400 of 800 gate texts."""
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(400, 2))
    chance = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    return HeldOut(np.arange(400) * 2, (draw.random(400) < chance).astype(int), logits)


def test_small_rounding_passes_and_is_told(held_out):
    reference = np.zeros((800, 2))
    variant = reference + np.random.default_rng(1).normal(size=(800, 2)) * 0.01
    checked = check_temperature("int8", held_out, reference, variant)
    assert checked.rows == 400
    assert 0.98 * checked.log_loss_fp32 < checked.log_loss < 1.02 * checked.log_loss_fp32
    assert checked.refitted == pytest.approx(1, abs=0.25)
    exact = check_temperature("int8", held_out, reference, reference)
    assert (exact.log_loss, exact.ece, exact.labels_changed) == (exact.log_loss_fp32, exact.ece_fp32, 0)


def test_rounding_that_spoils_scores_is_refused(held_out):
    reference = np.zeros((800, 2))
    variant = np.random.default_rng(1).normal(size=(800, 2)) * 2
    with pytest.raises(ParityError, match=r"costs .* nats of log loss on 400 held-out rows.*Nothing was written"):
        check_temperature("int8", held_out, reference, variant)


def test_held_out_rows_are_found_among_every_nth_text(ridge_model):
    count = len(ridge_model.texts)
    logits = {row: [-row / 10, row / 10] for row in range(0, count, 2)}
    model = dataclasses.replace(
        ridge_model, held_out=logits, temperature=2.0, training={**ridge_model.training, "calibration": {"rows": 1}}
    )
    whole = held_out_rows(model, 1)
    assert whole.places.tolist() == list(range(0, count, 2))
    np.testing.assert_allclose(whole.logits[3], [-1.2, 1.2])  # row 6, twice its logits
    assert [model.labels[index] for index in whole.true] == list(model.text_labels[::2])
    assert held_out_rows(model, 4) is None, "too few"
    assert held_out_rows(ridge_model, 1) is None, "not calibrated"


def test_equal_weights_are_stored_once():
    first, second = (np.arange(64, dtype=np.float32).reshape(8, 8) + shift for shift in (0, 1))
    weights = {"a": first, "b": first.copy(), "c": second}
    nodes = [helper.make_node("MatMul", ["x", name], [f"y_{name}"]) for name in weights]
    outputs = [helper.make_tensor_value_info(f"y_{name}", TensorProto.FLOAT, ["n", 8]) for name in weights]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, tensors))
    assert share_equal_weights(model) == 256
    assert [tensor.name for tensor in model.graph.initializer] == ["a", "c"]
    assert [node.input[1] for node in model.graph.node] == ["a", "a", "c"]
    onnx.checker.check_model(model)


@pytest.fixture
def manifest():
    def figure(value):
        return {"value": value, "low": value - 0.02, "high": value + 0.02}

    figures = {key: figure(0.1) for key in ("ece", "log_loss", "brier")}
    bands = [
        {"threshold": threshold / 100, "coverage": 1 - threshold / 100, "rows": 50, "accuracy": figure(0.8)}
        for threshold in range(99)
    ]
    account = {"temperature": 2.5, "on": "3-fold cross-validation", "rows": 90, "labels_changed": 0}
    account |= {"before": figures, "after": figures, "difference": figures, "coverage": bands}
    evaluation = evaluate(["a", "b"] * 10, ["a", "b"] * 9 + ["b", "b"], ["a", "b"], resamples=50).as_dict()
    names = (
        "3-fold cross-validation",
        "test file, before training",
        "5-fold cross-validation (before distillation)",
        "training rows (optimistic)",
        "test file",
    )
    return Manifest(
        labels=("a", "b"),
        kind="ridge",
        max_length=32,
        normaliser="http",
        temperature=2.5,
        variants={},
        files={},
        encoder={"id": "tiny", "sha256": "0" * 64},
        training={"data": {"file": "t.csv", "rows": 90}, "test_data": {"file": "held.csv"}, "calibration": account},
        evaluation=dict.fromkeys(names, evaluation),
    )


def test_card_gives_model_hubs_the_honest_results_alone(manifest):
    card = ModelCard(model_card(manifest, "my-bundle"))
    assert card.data.model_name == "my-bundle"
    found = {(result.dataset_name, result.dataset_split, result.metric_name) for result in card.data.eval_results}
    metrics = ("Accuracy", "Balanced accuracy", "Macro-F1")
    assert found == {
        *(("t.csv", "3-fold cross-validation", name) for name in metrics),
        *(("held.csv", "test file", name) for name in metrics),
    }
    assert {result.metric_value for result in card.data.eval_results} <= {0.95, 0.9499}
    assert card.data.pipeline_tag == "text-classification"


def test_card_tells_calibration_and_what_abstaining_brings(manifest):
    card = model_card(manifest, "my-bundle", notes="Ours.")
    for part in (
        "Logits are multiplied by 2.5, fitted on 90 held-out rows (3-fold cross-validation)",
        "| ECE (15 bins) | 0.100 [0.080, 0.120]",
        "| 0.80 | 20.0% | 0.800",
        "| none | 100.0% |",
        "Scores are calibrated (temperature 2.5)",
        "## From the publisher\n\nOurs.",
    ):
        assert part in card
    plain = model_card(dataclasses.replace(manifest, temperature=1.0, training={}), "my-bundle")
    assert "Scores are not calibrated" in plain
