"""The fp16 variant for CUDA: fused, without a mask, and the same scores. Here on a CPU, which computes it in fp32."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
import tiny_models

from edgewren import Classifier
from edgewren.errors import ParityError
from edgewren.session import ModelSession
from edgewren.verification import verify
from edgewren_export import graph, parity
from edgewren_export.cuda import half_for_cuda
from edgewren_export.optimise import operators, optimise
from edgewren_export.pipeline import export
from edgewren_export.trained_model import read_trained_model

ARCHITECTURES = [
    pytest.param("ridge", "bert", marks=pytest.mark.slow),
    ("lora", "bert"),
    pytest.param("ridge", "mpnet", marks=pytest.mark.slow),
    pytest.param("lora", "mpnet", marks=pytest.mark.slow),
    pytest.param("ridge", "roberta", marks=pytest.mark.slow),
    pytest.param("ridge", "distilbert", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def fp16_bundle(open_gate_bundle):
    """Return a function: recipe and architecture to a bundle with fp16. The gate has a test of its own."""
    return functools.partial(open_gate_bundle, "fp16")


@pytest.mark.parametrize(("recipe", "architecture"), ARCHITECTURES)
def test_fp16_is_fused_for_cuda_and_computes_the_same(fp16_bundle, recipe, architecture):
    bundle = fp16_bundle(recipe, architecture)
    model = onnx.load(bundle / "onnx" / "model_fp16.onnx")
    counted = operators(model)
    assert not counted.get("Softmax")
    layers = counted["MultiHeadAttention"]
    assert layers >= 1
    assert counted["SkipLayerNormalization"] == 2 * layers + 1, "two residuals per layer, and the embeddings"
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    half = {entry.name: entry.dims for entry in model.graph.initializer if entry.data_type == onnx.TensorProto.FLOAT16}
    added = [name for node in model.graph.node if node.op_type == "Add" for name in node.input if name in half]
    assert [len(half[name]) for name in added].count(1) == layers, "the query's bias, but not the key's or value's"
    pooled = [node for node in model.graph.node if node.op_type == "ReduceSum"]
    assert [made_by[node.input[0]] for node in pooled] == (["Cast"] if recipe == "ridge" else []), "no mask in pooling"
    assert not any(name.endswith("_padded") for name in made_by), "rows are not isolated"
    assert [entry.name for entry in model.graph.input] == ["input_ids"]
    assert (bundle / "onnx" / "model_fp16.onnx").stat().st_size < 0.7 * (bundle / "onnx" / "model.onnx").stat().st_size

    texts = [*tiny_models.toy_texts(60, seed=8)[0], *tiny_models.MIXED_TEXTS]
    fp32 = Classifier.load(bundle, device="cpu", variant="fp32").score(texts).logits
    fp16 = Classifier.load(bundle, device="cpu", variant="fp16").score(texts).logits
    assert np.abs(fp16 - fp32).max() > 0
    assert np.corrcoef(fp16.ravel(), fp32.ravel())[0, 1] > 0.999


POOLINGS = [{"pooling": kind} for kind in ("cls", "max", "weightedmean", "mean_sqrt_len_tokens", "lasttoken")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [*POOLINGS, {"pooling": "mean", "dense": 16}, {"pooling": "mean", "normalize": False}], ids=str
)
def test_every_pooling_computes_the_same_without_its_mask(train_model, options):
    model = read_trained_model(train_model("ridge", **options))
    fp32 = optimise(graph.to_onnx(graph.scoring_module(model, graph.load(model)), len(model.labels)))
    fp16 = half_for_cuda(fp32)
    exact, halved = ModelSession(fp32.SerializeToString()), ModelSession(fp16.SerializeToString())
    rows = model.tokenizer.encode(tiny_models.MIXED_TEXTS).ids
    answers = [
        (session.run(np.array([row])), session.run(np.array([row] * 3))) for session in (exact, halved) for row in rows
    ]
    expected = np.concatenate([alone for alone, _ in answers[: len(rows)]])
    for found in zip(*answers[len(rows) :], strict=True):
        for logits, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(logits, np.broadcast_to(wanted, logits.shape), atol=0.05)
    assert np.ptp(expected, axis=0).max() > 0.05, "all texts alike: this test would prove nothing"


def test_a_cpu_does_not_choose_fp16_and_verify_says_why_it_is_left_out(fp16_bundle):
    bundle = fp16_bundle("ridge", "bert")
    assert Classifier.load(bundle, device="cpu").variant == "fp32"
    verified = verify(bundle)
    assert verified.ok, verified.failures
    (replay,) = [replay for replay in verified.replays if replay.variant == "fp16"]
    assert "meant for CUDA" in replay.skipped
    assert "fp32 -> fp16" in (bundle / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_fp16_that_computes_something_else_is_refused(train_model, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "HALF_TOLERANCE", 1e-9)
    with pytest.raises(ParityError, match="fp32 -> fp16"):
        export(train_model("ridge"), tmp_path / "b", precisions=["fp32", "fp16"])
    assert list(tmp_path.iterdir()) == []
