"""Edits of the optimised graph: the same logits, with and without padding, from fewer or cheaper operators."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
import tiny_models

from edgewren.session import ModelSession, feed
from edgewren_export import graph
from edgewren_export.attention import fuse_attention
from edgewren_export.centring import centre
from edgewren_export.editing import EditableGraph
from edgewren_export.first_token import first_token_only
from edgewren_export.gelu_split import split_gelu
from edgewren_export.optimise import operators, optimise
from edgewren_export.quantise import calibrate, products, quantise
from edgewren_export.ranges import channel_ranges, vocabulary_rows
from edgewren_export.token_values import TokenValues
from edgewren_export.trained_model import read_trained_model

MODELS = [
    pytest.param("ridge", "bert", marks=pytest.mark.slow),
    ("lora", "bert"),
    pytest.param("ridge", "mpnet", marks=pytest.mark.slow),
    pytest.param("lora", "mpnet", marks=pytest.mark.slow),
    pytest.param("lora", "roberta", marks=pytest.mark.slow),
    pytest.param("lora", "distilbert", marks=pytest.mark.slow),
    pytest.param("lora", "xlm-roberta", marks=pytest.mark.slow),
]
# Narrow embeddings with a projection, and ALBERT's layers are one with another Gelu: parts of it stay as they are.
FURTHER = [
    pytest.param("lora", "electra", marks=pytest.mark.slow),
    pytest.param("lora", "albert", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def optimised(train_model):
    """Return a function: recipe and architecture to the optimised graph and real token rows."""

    @functools.cache
    def make(recipe, architecture):
        model = read_trained_model(train_model(recipe, architecture))
        module = graph.scoring_module(model, graph.load(model))
        fp32 = optimise(graph.to_onnx(module, len(model.labels)))
        return with_random_biases(fp32), model.tokenizer.encode(tiny_models.MIXED_TEXTS).ids

    return make


def with_random_biases(model):
    """Fresh encoders have zero biases, which would hide mistakes in moving them."""
    edited = EditableGraph(model)
    random = np.random.default_rng(3)
    for node in edited.nodes():
        for index, name in enumerate(node.input):
            value = edited.value(name)
            if node.op_type in ("Add", "BiasGelu", "LayerNormalization") and value is not None and value.ndim == 1:
                noise = (value + random.normal(size=value.shape) * 0.3).astype(np.float32)
                node.input[index] = edited.constant(f"random_{node.output[0]}_{index}", noise)
    return edited.finish()


def run(model, ids, mask=None, *, output="logits"):
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    if output != "logits":
        watched.graph.output.append(onnx.ValueInfoProto(name=output))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = feed(np.array(ids, dtype=np.int64), {entry.name for entry in session.get_inputs()})
    if mask is not None:
        values["attention_mask"] = np.array(mask, dtype=np.int64)
    return session.run([output], values)[0]


def assert_same_run(model, edited, rows):
    """Alone, in a batch, and padded."""
    for row in rows:
        expected = run(model, [row])
        np.testing.assert_allclose(run(edited, [row]), expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(run(edited, [row, row]), np.repeat(expected, 2, axis=0), atol=1e-5, rtol=1e-5)
    short, long = sorted(rows, key=len)[1], max(rows, key=len)
    pad = len(long) - len(short)
    batch, mask = [long, [*short, *[1] * pad]], [[1] * len(long), [1] * len(short) + [0] * pad]
    np.testing.assert_allclose(run(edited, batch, mask), run(model, batch, mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("recipe", "architecture"), [*MODELS, *FURTHER])
def test_attention_is_one_operator_and_computes_the_same(optimised, recipe, architecture):
    model, rows = optimised(recipe, architecture)
    fused, layers = fuse_attention(model)
    assert layers == operators(model)["Softmax"] == operators(fused)["Attention"]
    assert "Softmax" not in operators(fused)
    onnx.checker.check_model(fused)
    assert_same_run(model, fused, rows)


def with_inferred_heads(model):
    """Split into heads as transformers 5 writes it: sizes of batch and sequence, then -1, then the size of a head."""
    edited = EditableGraph(model)
    inferred = edited.constant("inferred", np.array([-1], np.int64))
    batch, sequence = (
        edited.define("Shape", ["input_ids"], f"size_{axis}", start=axis, end=axis + 1) for axis in (0, 1)
    )
    splits = 0
    for node in edited.nodes():
        shape = edited.producer(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or shape.op_type != "Concat" or len(shape.input) != 4:
            continue
        sizes = [batch, sequence, inferred, shape.input[3]]
        edited.define("Concat", sizes, f"{node.output[0]}_sizes", axis=0)
        edited.define("Reshape", [node.input[0], f"{node.output[0]}_sizes"], node.output[0], allowzero=1)
        splits += 1
    return edited.finish(), splits


def test_heads_that_the_graph_leaves_to_be_inferred_are_understood(optimised):
    model, rows = optimised("lora", "bert")
    model, splits = with_inferred_heads(model)
    layers = operators(model)["Softmax"]
    assert splits == 3 * layers
    fused, count = fuse_attention(model)
    assert count == layers
    assert_same_run(model, fused, rows)
    edited, changed = first_token_only(model)
    assert changed
    assert_same_run(model, edited, rows)
    fused, count = fuse_attention(edited)
    assert count == layers
    assert_same_run(model, fused, rows)


def product_ranges(model, rows):
    """Ranges of what enters products."""
    return channel_ranges(model, list(products(EditableGraph(model))), rows)


@pytest.mark.parametrize(("recipe", "architecture"), MODELS)
def test_hidden_states_are_centred_and_the_model_computes_the_same(optimised, recipe, architecture):
    model, rows = optimised(recipe, architecture)
    before = product_ranges(model, rows)
    centred, ranges = centre(model, before)
    assert operators(centred) == operators(model)
    assert_same_run(model, centred, rows)
    measured = product_ranges(centred, rows)
    assert ranges.keys() == before.keys() == measured.keys()
    norms = [name for name in ranges if EditableGraph(model).producer(name).op_type == "LayerNormalization"]
    assert len(norms) == 2 * operators(model)["Softmax"]
    for name, found in measured.items():
        np.testing.assert_allclose(ranges[name].low, found.low, atol=1e-4)
        np.testing.assert_allclose(ranges[name].high, found.high, atol=1e-4)
        if name in norms:
            np.testing.assert_allclose(found.low, -found.high, atol=1e-4)
            assert found.magnitude.sum() < 0.95 * before[name].magnitude.sum()


@pytest.mark.parametrize(("recipe", "architecture"), FURTHER)
def test_edits_leave_what_they_do_not_know_and_the_model_computes_the_same(optimised, recipe, architecture):
    model, rows = optimised(recipe, architecture)
    ranges = product_ranges(model, rows)
    assert_same_run(model, centre(model, ranges)[0], rows)
    assert_same_run(model, split_gelu(model, ranges, narrowest=16), rows)
    edited, changed = first_token_only(model)
    assert changed
    assert_same_run(model, fuse_attention(edited)[0], rows)


def test_hidden_states_that_something_else_reads_too_are_not_moved(optimised):
    model, rows = optimised("ridge", "bert")
    before = product_ranges(model, rows)
    name = next(name for name in before if EditableGraph(model).producer(name).op_type == "LayerNormalization")
    edited = EditableGraph(model)
    edited.define("Identity", [name], "watched")
    read_twice = edited.extend_outputs([onnx.ValueInfoProto(name="watched")])
    centred, ranges = centre(read_twice, before)
    assert (ranges[name].low == before[name].low).all()
    assert (
        sum((ranges[other].low != before[other].low).any() for other in before) == 2 * operators(model)["Softmax"] - 1
    )
    np.testing.assert_array_equal(
        run(centred, [rows[0]], output="watched"), run(read_twice, [rows[0]], output="watched")
    )


def gelu_ranges(model, rows):
    """Ranges of what Gelu puts out, and of nothing else."""
    names = [node.output[0] for node in model.graph.node if node.op_type == "BiasGelu"]
    return channel_ranges(model, names, rows)


@pytest.mark.parametrize(("recipe", "architecture"), MODELS)
def test_large_features_behind_gelu_are_apart_and_the_model_computes_the_same(optimised, recipe, architecture):
    model, rows = optimised(recipe, architecture)
    ranges = gelu_ranges(model, rows)
    split = split_gelu(model, ranges, narrowest=16)
    onnx.checker.check_model(split)
    assert_same_run(model, split, rows)
    for name, whole in ranges.items():
        parts = channel_ranges(split, [f"{name}_large", f"{name}_others"], rows)
        large, others = (parts[f"{name}_{part}"].high for part in ("large", "others"))
        assert 16 <= len(large) < len(whole.high) == len(large) + len(others)
        assert large.min() >= others.max() - 1e-5
    assert not any(name in entry.input for entry in split.graph.node for name in ranges)


def test_gelu_that_something_else_reads_too_stays_whole(optimised):
    model, rows = optimised("lora", "bert")
    ranges = gelu_ranges(model, rows)
    first, *rest = ranges
    edited = EditableGraph(model)
    edited.define("Identity", [first], "watched")
    read_twice = edited.extend_outputs([onnx.ValueInfoProto(name="watched")])
    assert operators(split_gelu(read_twice, ranges, narrowest=16))["BiasGelu"] == 1 + 2 * len(rest)


@pytest.mark.parametrize(("recipe", "architecture"), [entry for entry in MODELS if "lora" in str(entry)])
def test_last_layer_computes_the_first_token_only_where_pooling_reads_only_that(optimised, recipe, architecture):
    model, rows = optimised(recipe, architecture)
    edited, changed = first_token_only(model)
    assert changed
    assert_same_run(model, edited, rows)
    fused = fuse_attention(edited)[0]
    assert_same_run(model, centre(fused, product_ranges(fused, rows))[0], rows)
    names = [node.output[0] for node in edited.graph.node if node.op_type == "BiasGelu"]
    row = max(rows, key=len)
    ranges = channel_ranges(edited, names, [row])
    assert len(ranges) == len(names)
    assert tokens_computed(edited, names[-1], row) == 2 < len(row) == tokens_computed(model, names[-1], row)


def tokens_computed(model, name, row):
    return run(model, [row], output=name).shape[1]


def test_mean_pooling_keeps_the_last_layer_whole(optimised):
    model, _ = optimised("ridge", "bert")
    edited, changed = first_token_only(model)
    assert not changed
    assert edited is model


@pytest.mark.parametrize("architecture", ["bert", pytest.param("mpnet", marks=pytest.mark.slow)])
def test_first_token_only_is_bit_identical_alone_and_in_a_batch(optimised, architecture):
    model, rows = optimised("lora", architecture)
    session = ModelSession(first_token_only(model)[0].SerializeToString())
    for row in rows:
        alone = session.run(np.array([row], dtype=np.int64))
        for batch in (2, 7, 32):
            assert (session.run(np.array([row] * batch, dtype=np.int64)) == alone).all()


def test_vocabulary_rows_hold_every_word_once_between_the_special_tokens():
    rows = vocabulary_rows(1000, [101, 102], 64)
    assert {len(row) for row in rows[:-1]} == {64}
    assert all(row[0] == 101 and row[-1] == 102 for row in rows)
    assert sorted(word for row in rows for word in row[1:-1]) == list(range(1000))
    assert rows == vocabulary_rows(1000, [101, 102], 64)
    assert sum(len(row) for row in vocabulary_rows(250_000, [], 128)) == 32_768


def test_ranges_cover_every_value_of_a_channel(optimised):
    model, rows = optimised("ridge", "bert")
    name = next(node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization")
    one, all_rows = channel_ranges(model, [name], rows[:1])[name], channel_ranges(model, [name], rows)[name]
    assert (all_rows.low <= one.low).all()
    assert (all_rows.high >= one.high).all()
    assert (all_rows.magnitude == np.maximum(-all_rows.low, all_rows.high)).all()


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("recipe", "architecture"), MODELS)
def test_values_that_go_on_from_earlier_ones_are_those_computed_from_the_start(
    optimised, recipe, architecture, apart, monkeypatch
):
    model, rows = optimised(recipe, architecture)
    calibrated = calibrate(model, rows, texts=rows)
    names, computed = [], []

    def watched(self, graph, name):
        values = of(self, graph, name)
        names.append(name)
        computed.append(values)
        return values

    of = TokenValues.of
    monkeypatch.setattr(TokenValues, "of", watched)
    going_on = quantise(calibrated, large_apart=apart)
    monkeypatch.setattr("edgewren_export.token_values._KEPT", 0)
    from_the_start = quantise(calibrated, large_apart=apart)
    assert going_on.SerializeToString(deterministic=True) == from_the_start.SerializeToString(deterministic=True)
    half = len(names) // 2
    assert names[:half] == names[half:]
    assert half == 2 * len(products(EditableGraph(calibrated.model))) + (
        2 * operators(model)["BiasGelu"] if apart else 0
    )
    for values, again in zip(computed[:half], computed[half:], strict=True):
        assert (values == again).all()


def test_values_go_on_from_the_last_tensors_unless_they_are_forgotten(optimised):
    model, rows = optimised("lora", "bert")
    graph = EditableGraph(fuse_attention(model)[0])
    first, second, third, *_ = products(graph)
    values = TokenValues(rows)
    before = values.of(graph, first)
    expected = values.of(graph, second)
    norm = graph.producer(first)
    norm.input[2] = graph.constant("moved", graph.value(norm.input[2]) + np.float32(1))
    assert (values.of(graph, second) == expected).all()
    values.forget(first)
    assert not np.allclose(values.of(graph, second), expected)
    np.testing.assert_allclose(values.of(graph, first), before + 1, atol=1e-5)
    shape = ["batch", None, before.shape[1]]
    model = graph.until([third], given={first: shape, second: shape})
    assert {entry.name for entry in model.graph.input} >= {first, second}
    assert "Gather" not in operators(model)
    assert {"Gather", "Attention"} <= set(operators(graph.until([third])))


def test_edited_graph_drops_what_nothing_needs_and_keeps_the_order():
    helper = onnx.helper
    value = functools.partial(helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT, shape=[2])
    nodes = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [value("x")], [value("y")]))
    edited = EditableGraph(model)
    edited.define("Add", ["late", edited.constant("one", np.ones(2, np.float32))], "y")
    edited.define("Exp", ["x"], "late")
    edited.constant("unused", np.ones(3, np.float32))
    result = edited.finish(opset=23)
    assert [node.op_type for node in result.graph.node] == ["Exp", "Add"]
    assert [tensor.name for tensor in result.graph.initializer] == ["one"]
    assert [node.op_type for node in model.graph.node] == ["Abs", "Neg"], "the original is untouched"
    onnx.checker.check_model(result)
