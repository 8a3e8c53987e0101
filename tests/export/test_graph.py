"""One ONNX graph per trained model: equal to torch for every architecture, pooling and shape, and free of traces."""

from __future__ import annotations

import functools
import getpass
import io
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_models
import torch

from edgewren.errors import BundleError
from edgewren_export import graph
from edgewren_export.trained_model import read_trained_model

# Random encoders with wide weights: float32 sums in another order differ by some 1e-6 of logits of about 1.
TOLERANCE = 2e-5

RIDGE = [
    {"pooling": "mean"},
    {"pooling": "cls", "normalize": False},
    {"pooling": "max"},
    {"pooling": "weightedmean", "normalize": False},
    {"pooling": "lasttoken"},
    {"pooling": "mean", "dense": 16},
]


def name(options):
    return "-".join(str(value) for value in options.values())


def onnx_session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def padded(rows, pad):
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


@functools.cache
def exported(folder):
    """Export once per model; whoever wants a fresh one calls `exported.__wrapped__`."""
    model = read_trained_model(folder)
    loaded = graph.load(model)
    module = graph.scoring_module(model, loaded)
    return model, module, graph.to_onnx(module, len(model.labels))


def assert_equals_torch(folder, pad):
    model, module, onnx_model = exported(folder)
    session = onnx_session(onnx_model)
    rows = model.tokenizer.encode(tiny_models.MIXED_TEXTS).ids
    batches = [padded([row], pad) for row in rows] + [padded(rows, pad), padded(rows[2:5], pad)]
    answers = []
    for ids, mask in batches:
        with torch.inference_mode():
            expected = module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=TOLERANCE)
        answers.append(logits)
    # The texts of one padded batch score as alone: padding does not leak through mask or pooling.
    alone = np.concatenate(answers[: len(rows)])
    np.testing.assert_allclose(answers[len(rows)], alone, atol=TOLERANCE, rtol=TOLERANCE)
    assert np.ptp(alone, axis=0).max() > 0.05, "all texts alike: this test would prove nothing"
    return onnx_model


@pytest.mark.parametrize("options", RIDGE, ids=name)
@pytest.mark.slow
def test_every_pooling_and_what_follows_it_survives(train_model, options):
    assert_equals_torch(train_model("ridge", **options), pad=0)


@pytest.mark.slow
def test_mpnet_survives_with_mixed_lengths(train_model):
    assert_equals_torch(train_model("ridge", "mpnet", layers=2), pad=1)


@pytest.mark.slow
def test_roberta_with_byte_level_bpe_survives(train_model):
    assert_equals_torch(train_model("lora", "roberta"), pad=1)


@pytest.mark.slow
def test_distilbert_survives(train_model):
    assert_equals_torch(train_model("lora", "distilbert"), pad=0)


@pytest.mark.slow
def test_bert_with_a_classification_head_survives(train_model):
    assert_equals_torch(train_model("lora", "bert"), pad=0)


@pytest.mark.slow
def test_five_classes_survive(train_model):
    model = assert_equals_torch(train_model("ridge", classes=5), pad=0)
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 5


def test_inputs_and_output_are_the_bundles_contract(train_model):
    _, _, model = exported(train_model("ridge"))
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "logits": ["batch", 2],
    }
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {onnx.TensorProto.INT64}


@pytest.mark.parametrize(
    ("recipe", "architecture", "options"),
    [
        ("ridge", "bert", {}),
        pytest.param("ridge", "bert", {"pooling": "cls", "normalize": False}, marks=pytest.mark.slow),
        pytest.param("lora", "roberta", {}, marks=pytest.mark.slow),
    ],
    ids=["ridge-mean", "ridge-cls", "lora-roberta"],
)
def test_logits_of_a_text_do_not_depend_on_the_batch_bit_by_bit(train_model, recipe, architecture, options):
    _, _, onnx_model = exported(train_model(recipe, architecture, **options))
    session = onnx_session(onnx_model)
    draw = np.random.default_rng(3)
    for length in (3, 9, 24):
        ids = draw.integers(5, 90, size=(32, length), dtype=np.int64)
        feed = lambda part: {"input_ids": part, "attention_mask": np.ones_like(part)}  # noqa: E731
        alone = np.concatenate([session.run(None, feed(ids[i : i + 1]))[0] for i in range(32)])
        for size in (2, 7, 32):
            together = np.concatenate([session.run(None, feed(ids[i : i + size]))[0] for i in range(0, 32, size)])
            assert (together == alone).all(), f"batches of {size}, length {length}"


@pytest.mark.slow
def test_without_isolated_rows_the_batch_would_show(train_model, monkeypatch):
    """Guards the test above: the same model, exported without isolate_rows, does depend on the batch."""
    monkeypatch.setattr(graph, "isolate_rows", lambda _: None)
    _, _, onnx_model = exported.__wrapped__(train_model("ridge"))
    session = onnx_session(onnx_model)
    ids = np.random.default_rng(3).integers(5, 90, size=(64, 9), dtype=np.int64)
    feed = lambda part: {"input_ids": part, "attention_mask": np.ones_like(part)}  # noqa: E731
    alone = np.concatenate([session.run(None, feed(ids[i : i + 1]))[0] for i in range(64)])
    assert (session.run(None, feed(ids))[0] != alone).any()


def test_no_stack_traces_and_no_paths_of_this_machine_in_the_file(train_model):
    _, _, model = exported(train_model("ridge"))
    data = model.SerializeToString()
    places = {str(Path.home()), str(Path.cwd()), sys.prefix, "site-packages", "/tmp/", ".py", "File "}
    places |= {f"/{getpass.getuser()}/"}
    found = [place for place in places if place.encode() in data]
    assert not found
    assert b"stack_trace" not in data


@pytest.mark.slow
def test_export_prints_nothing(train_model, capfd):
    capfd.readouterr()
    exported.__wrapped__(train_model("ridge"))
    assert capfd.readouterr() == ("", "")


def test_architecture_that_torch_cannot_export_is_refused_in_one_line():
    class Unexportable(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            buffer = io.StringIO()
            print(input_ids.sum().item() > 3, file=buffer)
            return torch.ones(len(buffer.getvalue()), 2) * float(input_ids[0, 0].item())

    with pytest.raises(BundleError, match=r"\Atorch cannot export this architecture to ONNX: [^\n]+\Z"):
        graph.to_onnx(Unexportable().eval(), 2)


def test_what_went_wrong_first_is_told_without_colours_and_nothing_is_printed(capfd):
    class Unexportable(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return input_ids.float() if input_ids.sum().item() > 3 else attention_mask.float()

    capfd.readouterr()
    with pytest.raises(BundleError, match=r"ONNX: (?!Failed to export)[^\n\x1b]+ Train with another encoder\.\Z"):
        graph.to_onnx(Unexportable().eval(), 2)
    assert capfd.readouterr() == ("", "")
