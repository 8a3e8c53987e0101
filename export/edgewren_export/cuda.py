"""The fp16 variant for NVIDIA GPUs: fused for CUDA's kernels, for batches without padding.

Scoring only ever makes batches of equal length, so attention needs no mask, and without one onnxruntime takes cuDNN's
flash attention. The input attention_mask is left out altogether: whoever would feed padded rows gets an error instead
of wrong scores. Pooling and head stay fp32. Measurements on an H100 stand in docs/log.md.

(`onnxruntime.transformers.float16` converts graphs too, but where some nodes stay fp32 its result mixes types and does
not load; its optimiser does not know the graphs of torch's exporter.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewren_export.attention import AttentionPattern, attention_bias, attribute, find_attention
from edgewren_export.editing import EditableGraph
from edgewren_export.residual import biased_product

if TYPE_CHECKING:
    import onnx

_MASK = "attention_mask"
_LARGEST = float(np.finfo(np.float16).max)
_MICROSOFT = "com.microsoft"


def half_for_cuda(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an optimised fp32 model as fp16 model for CUDA, with the only input input_ids.

    An architecture whose attention is not understood keeps it unfused, in fp16.
    """
    from onnx import numpy_helper

    graph = EditableGraph(model)
    shape = graph.define("Shape", ["input_ids"], "mask_shape")
    graph.define("ConstantOfShape", [shape], _MASK, value=numpy_helper.from_array(np.array([1], np.int64), "value"))
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


def _fuse_attention(graph: EditableGraph, pattern: AttentionPattern) -> None:
    """One operator per layer; where query, key and value have one source, with their three products as one."""
    learned = any(_learned(graph, term) for term in pattern.scores.terms)
    sizes = {"num_heads": pattern.heads, "scale": float(pattern.scale)}
    merged = None if learned else _merged_products(graph, pattern)
    if merged is not None:
        graph.define("Attention", merged, pattern.context, domain=_MICROSOFT, **sizes)
        return
    inputs = [pattern.query, pattern.key, pattern.value]
    if learned:
        inputs += ["", "", attention_bias(graph, pattern)]
    graph.define("MultiHeadAttention", inputs, pattern.context, domain=_MICROSOFT, **sizes)


def _merged_products(graph: EditableGraph, pattern: AttentionPattern) -> list[str] | None:
    """Return common source, weight and bias of query, key and value side by side, None where they have none."""
    sources, weights, biases = set(), [], []
    for name in (pattern.query, pattern.key, pattern.value):
        biased = biased_product(graph, name)
        weight = graph.value(biased.product.input[1]) if biased is not None else None
        if biased is None or weight is None or biased.bias.shape != weight.shape[1:]:
            return None
        sources.add(biased.product.input[0])
        weights.append(weight)
        biases.append(biased.bias)
    if len(sources) != 1:
        return None
    weight_name = graph.constant(f"cuda_{pattern.context}_weight", np.concatenate(weights, axis=1))
    bias_name = graph.constant(f"cuda_{pattern.context}_bias", np.concatenate(biases))
    return [*sources, weight_name, bias_name]


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
