"""The fp16 variant for NVIDIA GPUs: fused for CUDA's kernels, for batches without padding.

Scoring only ever makes batches of equal length, so attention needs no mask, and without one onnxruntime takes fused
kernels. The input attention_mask is left out altogether: whoever would feed padded rows gets an error instead
of wrong scores. Passes over memory are what a GPU has least time for, so those that a graph can do without go:
the mask's in mean pooling, the isolation of rows, and the biases of key (softmax cancels it) and value (attention's
weights sum to 1, so it moves into the next bias). Pooling and head stay fp32. Measurements on an H100 stand in
docs/log.md.

(`onnxruntime.transformers.float16` converts graphs too, but where some nodes stay fp32 its result mixes types and does
not load; its optimiser does not know the graphs of torch's exporter.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewren_export.attention import AttentionPattern, attention_bias, attribute, find_attention
from edgewren_export.biases import added_bias, biased_product
from edgewren_export.editing import EditableGraph
from edgewren_export.isolation import join_rows

if TYPE_CHECKING:
    import onnx

_MASK = "attention_mask"
_LARGEST = float(np.finfo(np.float16).max)
_MICROSOFT = "com.microsoft"
_KEEPING_ONES = ("Unsqueeze", "Expand", "Cast", "Slice", "Reshape", "Identity")
_FLOAT = 1  # onnx.TensorProto.FLOAT, without importing onnx


def half_for_cuda(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an optimised fp32 model as fp16 model for CUDA, with the only input input_ids.

    An architecture whose attention is not understood keeps it unfused, in fp16.
    """
    from onnx import numpy_helper

    graph = EditableGraph(model)
    join_rows(graph)
    shape = graph.define("Shape", ["input_ids"], "mask_shape")
    graph.define("ConstantOfShape", [shape], _MASK, value=numpy_helper.from_array(np.array([1], np.int64), "value"))
    _drop_ones(graph)
    for pattern in find_attention(graph):
        _fuse_attention(graph, pattern)
    for node in graph.nodes():
        if node.op_type == "LayerNormalization":
            _fuse_residual(graph, node)
            _fuse_embeddings(graph, node)
    _to_half(graph)
    finished = graph.finish()
    kept = [entry for entry in finished.graph.input if entry.name != _MASK]
    del finished.graph.input[:]
    finished.graph.input.extend(kept)
    return finished


def _drop_ones(graph: EditableGraph) -> None:
    """Take the mask out of mean pooling: times ones, hidden states stay as they are; ones sum up to the tokens."""
    ones = {_MASK}
    consumers = graph.consumers()
    for node in graph.nodes():
        if node.op_type == "Shape" and node.input[0] == _MASK:
            node.input[0] = "input_ids"
        elif node.op_type in _KEEPING_ONES and node.input[0] in ones:
            ones.add(node.output[0])
        elif node.op_type == "Mul":
            others = [name for name in node.input if name not in ones]
            if len(others) == 1 and graph.value(others[0]) is None:
                for user in consumers.get(node.output[0], []):
                    _replace_input(user, node.output[0], others[0])
        elif node.op_type == "ReduceSum" and node.input[0] in ones:
            users = consumers.get(node.output[0], [])
            if all(user.op_type in ("Clip", "Max", "Div") for user in users):
                count = graph.define("Shape", ["input_ids"], f"{node.output[0]}_tokens", start=1, end=2)
                graph.define("Cast", [count], node.output[0], to=_FLOAT)


def _replace_input(node: onnx.NodeProto, old: str, new: str) -> None:
    for position, name in enumerate(node.input):
        if name == old:
            node.input[position] = new


def _fuse_attention(graph: EditableGraph, pattern: AttentionPattern) -> None:
    """One operator per layer, with as few biases added before it as the arithmetic allows."""
    key = biased_product(graph, pattern.key)
    inputs = [pattern.query, pattern.key if key is None else key.product.output[0], pattern.value]
    value = biased_product(graph, pattern.value)
    if value is not None and _move_bias(graph, pattern.context, value.bias):
        inputs[2] = value.product.output[0]
    if any(_learned(graph, term) for term in pattern.scores.terms):
        inputs += ["", "", attention_bias(graph, pattern)]
    graph.define(
        "MultiHeadAttention",
        inputs,
        pattern.context,
        domain=_MICROSOFT,
        num_heads=pattern.heads,
        scale=float(pattern.scale),
    )


def _move_bias(graph: EditableGraph, context: str, bias: NDArray[np.float32]) -> bool:
    """Add a bias of the attention's result to that of the product behind it; tell whether there is one."""
    consumers = graph.consumers()
    users = consumers.get(context, [])
    weight = graph.value(users[0].input[1]) if len(users) == 1 and users[0].op_type == "MatMul" else None
    added = None if weight is None else added_bias(graph, consumers, users[0].output[0])
    if weight is None or added is None or added.node.op_type != "Add" or bias.shape != weight.shape[:1]:
        return False
    total = added.value + bias.astype(np.float64) @ weight.astype(np.float64)
    _replace_input(
        added.node, added.name, graph.constant(f"cuda_{added.node.output[0]}_moved", total.astype(np.float32))
    )
    return True


def _fuse_embeddings(graph: EditableGraph, norm: onnx.NodeProto) -> None:
    """Make the sum of embeddings and their LayerNormalization one operator.

    Understood: word + position, and word + type + position with a type that is always 0, which joins the positions.
    """
    found = _gathers(graph, norm.input[0])
    if found is None or len(norm.input) != 3:
        return
    always = [node for node in found if _always_zero(graph, node.input[1])]
    found = [node for node in found if not any(node is other for other in always)]
    words = [node for node in found if node.input[1] == "input_ids"]
    positions = [node for node in found if node.input[1] != "input_ids"]
    if len(words) != 1 or len(positions) != 1:
        return
    table = graph.value(positions[0].input[0])
    rows = [graph.value(node.input[0]) for node in always]
    if table is None or any(row is None or row.shape[1:] != table.shape[1:] for row in rows):
        return
    total = table + sum((row[0] for row in rows if row is not None), np.zeros(table.shape[1:], np.float32))
    place = f"cuda_{norm.output[0]}_positions"
    graph.define("Gather", [graph.constant(f"{place}_table", total), positions[0].input[1]], place, axis=0)
    inputs = [words[0].output[0], place, norm.input[1], norm.input[2]]
    epsilon = attribute(norm, "epsilon", 1e-5)
    graph.define("SkipLayerNormalization", inputs, norm.output[0], domain=_MICROSOFT, epsilon=epsilon)


def _gathers(graph: EditableGraph, name: str) -> list[onnx.NodeProto] | None:
    """Return the Gathers from constant tables of which a tensor is the sum, None where it is something else."""
    node = graph.producer(name)
    if node is None:
        return None
    if node.op_type == "Gather" and graph.value(node.input[0]) is not None:
        return [node]
    if node.op_type != "Add":
        return None
    parts = [_gathers(graph, entry) for entry in node.input]
    return None if any(part is None for part in parts) else [gather for part in parts if part for gather in part]


def _always_zero(graph: EditableGraph, name: str) -> bool:
    """Whether an index tensor is cut and spread out of constant zeros."""
    node = graph.producer(name)
    while node is not None and node.op_type in ("Expand", "Slice", "Gather", "GatherElements", "Unsqueeze"):
        name = node.input[0]
        node = graph.producer(name)
    value = graph.value(name)
    return value is not None and value.size > 0 and not value.any()


def _learned(graph: EditableGraph, name: str) -> bool:
    """Whether a term of the scores has parameters (a position bias), so that it is more than the mask."""
    names = {name, *(entry for node in graph.nodes([name]) for entry in node.input)}
    values = [value for entry in names if (value := graph.value(entry)) is not None]
    return any(value.dtype == np.float32 and value.size > 1 for value in values)


def _fuse_residual(graph: EditableGraph, norm: onnx.NodeProto) -> None:
    """Make bias, residual and LayerNormalization one operator: one pass over memory instead of three."""
    total = graph.producer(norm.input[0])
    if total is None or total.op_type != "Add" or len(norm.input) != 3:
        return
    for branch, residual in (total.input, reversed(total.input)):
        biased = biased_product(graph, branch)
        if biased is None or graph.value(residual) is not None:
            continue
        bias = graph.constant(f"cuda_{branch}_bias", biased.bias)
        epsilon = attribute(norm, "epsilon", 1e-5)
        inputs = [biased.product.output[0], residual, norm.input[1], norm.input[2], bias]
        graph.define("SkipLayerNormalization", inputs, norm.output[0], domain=_MICROSOFT, epsilon=epsilon)
        return


def _to_half(graph: EditableGraph) -> None:
    """Turn everything up to the last normalised hidden states into fp16; what follows them stays fp32."""
    from onnx import TensorProto, numpy_helper

    norms = [node for node in graph.nodes() if node.op_type in ("LayerNormalization", "SkipLayerNormalization")]
    if not norms:
        return
    last = norms[-1]
    hidden = last.output[0]
    half_hidden = f"half_{hidden}"
    for node in graph.nodes([hidden]):
        for index, name in enumerate(node.input):
            value = graph.value(name)
            if value is not None and value.dtype == np.float32:
                node.input[index] = graph.constant(f"half_{name}", _halved(value))
        for entry in node.attribute:
            if node.op_type == "Cast" and entry.name == "to" and entry.i == TensorProto.FLOAT:
                entry.i = TensorProto.FLOAT16
            if entry.name == "value" and entry.t.data_type == TensorProto.FLOAT:
                entry.t.CopyFrom(numpy_helper.from_array(_halved(numpy_helper.to_array(entry.t)), "value"))
    graph.rename_output(last, half_hidden)
    graph.define("Cast", [half_hidden], hidden, to=TensorProto.FLOAT)


def _halved(value: NDArray[np.float32]) -> NDArray[np.float16]:
    return np.clip(value, -_LARGEST, _LARGEST).astype(np.float16)
