"""The fp16 variant for NVIDIA GPUs: fused for CUDA's kernels, for batches without padding.

Scoring only ever makes batches of equal length, so attention needs no mask, and without one onnxruntime takes cuDNN's
flash attention. The input attention_mask is left out altogether: whoever would feed padded rows gets an error instead
of wrong scores. Pooling and head stay fp32. Measurements on an H100 stand in docs/log.md.

(`onnxruntime.transformers.float16` converts graphs too, but where some nodes stay fp32 its result mixes types and does
not load; its optimiser does not know the graphs of torch's exporter.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgewren_export.attention import AttentionPattern, attention_bias, find_attention
from edgewren_export.editing import EditableGraph

if TYPE_CHECKING:
    import onnx

_MASK = "attention_mask"
_LARGEST = float(np.finfo(np.float16).max)
_MICROSOFT = "com.microsoft"


class _Affine(NamedTuple):
    """A tensor that is product + bias, and the product source @ weight."""

    source: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    product: str


def half_for_cuda(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an optimised fp32 model as fp16 model for CUDA, with the only input input_ids.

    An architecture whose attention is not understood keeps it unfused, in fp16.
    """
    graph = EditableGraph(model)
    ids = graph.define("Shape", ["input_ids"], "mask_shape")
    one = _ones_value()
    graph.define("ConstantOfShape", [ids], _MASK, value=one)
    for pattern in find_attention(graph):
        _fuse_attention(graph, pattern)
    for node in graph.nodes():
        if node.op_type == "LayerNormalization":
            _fuse_residual(graph, node)
    _to_half(graph)
    finished = graph.finish()
    kept = [entry for entry in finished.graph.input if entry.name != _MASK]
    del finished.graph.input[:]
    finished.graph.input.extend(kept)
    return finished


def _ones_value() -> onnx.TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([1], np.int64), "value")


def _fuse_attention(graph: EditableGraph, pattern: AttentionPattern) -> None:
    """One operator per layer; where query, key and value have one source, with their three products as one."""
    learned = any(_learned(graph, term) for term in pattern.scores.terms)
    parts = [_affine(graph, name) for name in (pattern.query, pattern.key, pattern.value)]
    known = [part for part in parts if part is not None]
    sizes = {"num_heads": pattern.heads, "scale": float(pattern.scale)}
    if not learned and len(known) == 3 and len({part.source for part in known}) == 1:
        weight = graph.constant(f"cuda_{pattern.context}_weight", np.concatenate([part.weight for part in known], 1))
        bias = graph.constant(f"cuda_{pattern.context}_bias", np.concatenate([part.bias for part in known]))
        graph.define("Attention", [known[0].source, weight, bias], pattern.context, domain=_MICROSOFT, **sizes)
        return
    inputs = [pattern.query, pattern.key, pattern.value]
    if learned:
        inputs += ["", "", attention_bias(graph, pattern)]
    graph.define("MultiHeadAttention", inputs, pattern.context, domain=_MICROSOFT, **sizes)


def _learned(graph: EditableGraph, name: str) -> bool:
    """Whether a term of the scores has parameters (a position bias), so that it is more than the mask."""
    waiting, seen = [name], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        value = graph.value(current)
        if value is not None and value.dtype == np.float32 and value.size > 1:
            return True
        node = graph.producer(current)
        waiting += list(node.input) if node is not None else []
    return False


def _affine(graph: EditableGraph, name: str) -> _Affine | None:
    added = graph.producer(name)
    if added is None or added.op_type != "Add":
        return None
    for product, constant in (added.input, reversed(added.input)):
        bias, node = graph.value(constant), graph.producer(product)
        weight = graph.value(node.input[1]) if node is not None and node.op_type == "MatMul" else None
        if node is not None and bias is not None and weight is not None and bias.shape == weight.shape[1:]:
            return _Affine(node.input[0], weight, bias, product)
    return None


def _fuse_residual(graph: EditableGraph, norm: onnx.NodeProto) -> None:
    """Make bias, residual and LayerNormalization one operator: one pass over memory instead of three."""
    total = graph.producer(norm.input[0])
    if total is None or total.op_type != "Add" or len(norm.input) != 3:
        return
    for branch, residual in (total.input, reversed(total.input)):
        affine = _affine(graph, branch)
        if affine is None or graph.value(residual) is not None:
            continue
        bias = graph.constant(f"cuda_{branch}_bias", affine.bias)
        epsilon = next((entry.f for entry in norm.attribute if entry.name == "epsilon"), 1e-5)
        inputs = [affine.product, residual, norm.input[1], norm.input[2], bias]
        graph.define("SkipLayerNormalization", inputs, norm.output[0], domain=_MICROSOFT, epsilon=epsilon)
        return


def _to_half(graph: EditableGraph) -> None:
    """Turn everything up to the last normalised hidden states into fp16; what follows them stays fp32."""
    from onnx import TensorProto, numpy_helper

    order = graph.nodes()
    norms = [node for node in order if node.op_type in ("LayerNormalization", "SkipLayerNormalization")]
    if not norms:
        return
    last = norms[-1]
    hidden = last.output[0]
    half_hidden = f"half_{hidden}"
    needed, body = {hidden}, []
    for node in reversed(order):
        if needed.intersection(node.output):
            body.append(node)
            needed.update(node.input)
    for node in body:
        for index, name in enumerate(node.input):
            value = graph.value(name)
            if value is not None and value.dtype == np.float32:
                node.input[index] = graph.constant(f"half_{name}", _halved(value))
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(_halved(numpy_helper.to_array(attribute.t)), "value"))
    graph.rename_output(last, half_hidden)
    graph.define("Cast", [half_hidden], hidden, to=TensorProto.FLOAT)


def _halved(value: NDArray[np.float32]) -> NDArray[np.float16]:
    return np.clip(value, -_LARGEST, _LARGEST).astype(np.float16)
