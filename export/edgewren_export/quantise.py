"""Per-token int8 from stock operators: every row of a matrix product gets its own scale, taken from that row alone.

So a text's logits don't depend on its neighbours, and no calibration fixes a range. (The usual dynamic quantisation has
one scale per tensor: a text's score then moves with the batch around it.) Weights have one scale per column, the word
embeddings one per row. Before it, features are smoothed as in SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): what is
large in the activations is divided out and multiplied into the weights, exact but for rounding.

Knows ONNX graphs, nothing of texts. Measurements stand in docs/log.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewren.device import import_onnxruntime
from edgewren.errors import BundleError

if TYPE_CHECKING:
    import onnx

SMOOTHING = 0.5
"""Share of an activation channel's range that moves into the weights. Flips of 1,300 tweets, ridge and LoRA: none 8 and
6, 0.5 3 and 4, 0.7 6 and 3."""

_SMALLEST = 16  # columns of a weight: the head's few cost nothing in fp32
_TINY = 1e-12
_GELU_OPERATORS = ("Gelu", "BiasGelu", "FastGelu")
# Gelu is never below -0.17. With 32 of 256 steps for that, positive values get 223 instead of 127.
_GELU_ZERO_POINT = 32
_GELU_FLOOR = 0.17 / _GELU_ZERO_POINT
_TABLE_ROWS = 1000  # embedding tables with fewer rows are not worth it


@dataclass(frozen=True)
class Product:
    """A matrix product of activations with a constant weight, float32 [inputs, outputs]."""

    node: onnx.NodeProto
    weight: NDArray[np.float32]


def products(model: onnx.ModelProto) -> dict[str, list[Product]]:
    """Return the products worth quantising by the name of their common input (query, key and value share one)."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, list[Product]] = {}
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in constants or node.input[0] in constants:
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        if weight.ndim == 2 and weight.dtype == np.float32 and min(weight.shape) >= _SMALLEST:
            found.setdefault(node.input[0], []).append(Product(node, weight))
    return found


def channel_ranges(model: onnx.ModelProto, rows: Sequence[Sequence[int]]) -> dict[str, NDArray[np.float32]]:
    """Return the largest |value| of each channel, float32 [inputs], of every product's input over token rows.

    Raises:
        BundleError: the model has nothing to quantise.
    """
    import onnx

    names = list(products(model))
    if not names:
        raise BundleError("The graph has no matrix products with constant weights: int8 would change nothing.")
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {entry.name for entry in session.get_inputs()}
    ranges: dict[str, NDArray[np.float32]] = {}
    for row in rows:
        ids = np.array([row], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        values = session.run(names, {name: value for name, value in feed.items() if name in inputs})
        for name, value in zip(names, values, strict=True):
            largest = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            ranges[name] = np.maximum(ranges[name], largest) if name in ranges else largest
    return ranges


def quantise(model: onnx.ModelProto, ranges: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """Return the model with int8 weights and word embeddings, and activations quantised per token.

    Args:
        model: optimised fp32 model.
        ranges: as `channel_ranges` gives them, for the smoothing; inputs that it lacks are not smoothed.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    rewriter = _Rewriter(result)
    gelu_outputs = {node.output[0] for node in result.graph.node if node.op_type in _GELU_OPERATORS}
    for name, group in products(result).items():
        # After Gelu smoothing made it worse: 223 steps for the positive values already serve the large channels.
        smooth = None if name in gelu_outputs else _smoothing(group, ranges.get(name))
        rewriter.rewrite_group(name, group, smooth, after_gelu=name in gelu_outputs)
    rewriter.rewrite_tables()
    rewriter.finish()
    if not any(entry.domain == "com.microsoft" for entry in result.opset_import):
        result.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return result


def _smoothing(group: Sequence[Product], largest: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Return the factors, float32 [inputs], by which activations are divided and weight rows multiplied."""
    if largest is None:
        return None
    weights = np.max([np.abs(product.weight).max(axis=1) for product in group], axis=0)
    factors = np.maximum(largest, _TINY) ** SMOOTHING / np.maximum(weights, _TINY) ** (1 - SMOOTHING)
    factors = np.clip(factors / np.exp(np.log(factors).mean()), 1e-3, 1e3)  # a common factor would change nothing
    return np.asarray(factors, dtype=np.float32)


def quantise_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 [inputs, outputs] and scales, float32 [outputs]: symmetric, rounded to nearest."""
    scales = np.maximum(np.abs(weight).max(axis=0), _TINY).astype(np.float32) / np.float32(127)
    return np.rint(weight / scales).astype(np.int8), scales


class _Rewriter:
    """Collects new nodes, in front of the old node that they replace, and new constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import helper, numpy_helper

        self._model = model
        self._make_node = helper.make_node
        self._to_array = numpy_helper.to_array
        self._from_array = numpy_helper.from_array
        self._helper = helper
        self._before: dict[str, list[onnx.NodeProto]] = {}
        self._replaced: dict[str, list[onnx.NodeProto]] = {}
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self._constants.setdefault(name, self._from_array(value, name))
        return name

    def rewrite_group(
        self, source: str, group: Sequence[Product], smooth: NDArray[np.float32] | None, *, after_gelu: bool
    ) -> None:
        """Quantise one input once, and multiply it with each of its weights."""
        prefix = f"int8_{source}"
        node = self._make_node
        width = self.constant(f"int8_rows_{group[0].weight.shape[0]}", np.array([-1, group[0].weight.shape[0]]))
        flat = f"{prefix}_rows"
        nodes = [node("Reshape", [source, width], [flat])]
        if smooth is not None:
            factors = self.constant(f"{prefix}_smoothing", np.float32(1) / smooth)
            nodes.append(node("Mul", [flat, factors], [f"{prefix}_smooth"]))
            flat = f"{prefix}_smooth"
        if after_gelu:
            # Rows are bounded below by the floor of the scale: one zero point serves all of them.
            zero, steps, floor = np.uint8(_GELU_ZERO_POINT), 255 - _GELU_ZERO_POINT, _GELU_FLOOR
            magnitude = flat
        else:
            zero, steps, floor = np.uint8(128), 127, _TINY
            magnitude = f"{prefix}_magnitude"
            nodes.append(node("Abs", [flat], [magnitude]))
        columns = self.constant("int8_axis_columns", np.array([1]))
        largest, scale, scales = f"{prefix}_largest", f"{prefix}_scale", f"{prefix}_scales"
        nodes += [
            node("ReduceMax", [magnitude, columns], [largest], keepdims=1),
            node(
                "Mul", [largest, self.constant(f"int8_step_{steps}", np.array(1 / steps, np.float32))], [f"{scale}_raw"]
            ),
            node("Max", [f"{scale}_raw", self.constant(f"int8_floor_{steps}", np.array(floor, np.float32))], [scale]),
            node("Reshape", [scale, self.constant("int8_flat", np.array([-1]))], [scales]),
            node("Shape", [scales], [f"{prefix}_count"]),
            node(
                "ConstantOfShape",
                [f"{prefix}_count"],
                [f"{prefix}_zeros"],
                value=self._from_array(np.array([zero]), "value"),
            ),
            node("QuantizeLinear", [flat, scales, f"{prefix}_zeros"], [f"{prefix}_quantised"], axis=0),
            node("Shape", [source], [f"{prefix}_leading"], end=-1),
            node(
                "Concat",
                [f"{prefix}_leading", self.constant("int8_flat", np.array([-1]))],
                [f"{prefix}_shape"],
                axis=0,
            ),
        ]
        zero_point = self.constant(f"int8_zero_{int(zero)}", np.array(zero))
        self._before[group[0].node.output[0]] = nodes
        for product in group:
            weight = product.weight if smooth is None else product.weight * smooth[:, None]
            values, weight_scales = quantise_columns(weight)
            output = product.node.output[0]
            operands = [
                f"{prefix}_quantised",
                self.constant(f"int8_weight_{output}", values),
                scale,
                self.constant(f"int8_weight_scales_{output}", weight_scales),
                zero_point,
            ]
            self._replaced[output] = [
                node("MatMulIntegerToFloat", operands, [f"int8_product_{output}"], domain="com.microsoft"),
                node("Reshape", [f"int8_product_{output}", f"{prefix}_shape"], [output]),
            ]

    def rewrite_tables(self) -> None:
        """Store large embedding tables as int8 with one scale per row."""
        constants = {tensor.name: tensor for tensor in self._model.graph.initializer}
        for old in self._model.graph.node:
            if old.op_type != "Gather" or old.input[0] not in constants:
                continue
            table = self._to_array(constants[old.input[0]])
            if table.ndim != 2 or table.dtype != np.float32 or table.shape[0] < _TABLE_ROWS:
                continue
            values, scales = quantise_columns(table.T)
            name, output, node = old.input[0], old.output[0], self._make_node
            self._replaced[output] = [
                node("Gather", [self.constant(f"int8_{name}", np.ascontiguousarray(values.T)), old.input[1]],
                     [f"int8_{output}"]),
                node("Cast", [f"int8_{output}"], [f"int8_{output}_float"], to=self._helper.TensorProto.FLOAT),
                node("Gather", [self.constant(f"int8_{name}_scales", scales[:, None]), old.input[1]],
                     [f"int8_{output}_scales"]),
                node("Mul", [f"int8_{output}_float", f"int8_{output}_scales"], [output]),
            ]  # fmt: skip

    def finish(self) -> None:
        """Put the new nodes into place and drop what nothing uses any more."""
        graph = self._model.graph
        nodes = []
        for old in graph.node:
            output = old.output[0] if old.output else ""
            nodes += self._before.get(output, [])
            nodes += self._replaced.get(output, [old])
        del graph.node[:]
        graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend([*kept, *self._constants.values()])
        del graph.value_info[:]  # the optimiser's shapes; some tensors are gone
