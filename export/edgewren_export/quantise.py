"""int8 that never depends on a text's neighbours, from stock operators.

Hidden states are centred first (`centring`). What enters a product is quantised with one calibrated scale, or behind
Gelu with a scale per token, taken from that token alone (`grids`); where that is not close enough, features behind Gelu
that grow large get a product of their own (`gelu_split`). Weights have one scale per column, and are rounded for the
inputs that they meet (`rounding`). Word embeddings have one scale per row.

(The usual dynamic quantisation has one scale per tensor: a text's score then moves with the batch around it.) Knows
ONNX graphs, nothing of texts. Measurements stand in docs/log.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import BundleError
from edgewren_export.attention import fuse_attention
from edgewren_export.biases import Consumers, added_bias
from edgewren_export.centring import centre
from edgewren_export.editing import EditableGraph
from edgewren_export.gelu_split import split_gelu
from edgewren_export.grids import GELU, Grid, fixed
from edgewren_export.ranges import Range, channel_ranges
from edgewren_export.rounding import Rounded, observe, round_for, round_to_nearest
from edgewren_export.token_values import TokenValues

if TYPE_CHECKING:
    import onnx

_SMALLEST = 16  # columns of a weight
_GELU_OPERATORS = ("Gelu", "BiasGelu", "FastGelu")
_TABLE_ROWS = 1000  # embedding tables with fewer rows are not worth it
_SCALES_AND_BIAS = (3, 6)  # inputs of MatMulIntegerToFloat: the weight's scales per column, and the bias
_OPSET = 21  # QuantizeLinear in blocks
_ROUNDING_TOKENS = 20_000  # about 700 tweets


@dataclass(frozen=True)
class Product:
    """A matrix product of activations with a constant weight, float32 [inputs, outputs]."""

    node: onnx.NodeProto
    weight: NDArray[np.float32]

    @property
    def output(self) -> str:
        return str(self.node.output[0])


@dataclass(frozen=True)
class Calibrated:
    """A model ready to be quantised.

    Attributes:
        model: fp32, with attention in one operator and centred hidden states.
        ranges: of every input of a product.
        texts: token rows for which smoothing is chosen and weights are rounded; none: the usual share, to nearest.
    """

    model: onnx.ModelProto
    ranges: Mapping[str, Range]
    texts: Sequence[Sequence[int]] = ()


def calibrate(
    model: onnx.ModelProto, rows: Sequence[Sequence[int]], *, texts: Sequence[Sequence[int]] = ()
) -> Calibrated:
    """Prepare an optimised fp32 model and measure its ranges on token rows.

    Args:
        texts: real texts as token rows, on which the weights will be rounded.

    Raises:
        BundleError: the model has nothing to quantise.
    """
    fused = EditableGraph(fuse_attention(model)[0]).finish(opset=_OPSET)
    inputs = products(EditableGraph(fused))
    if not inputs:
        raise BundleError(
            "The graph has no matrix products with constant weights: int8 would change nothing. Export without it: "
            "--precision fp32."
        )
    return Calibrated(*centre(fused, channel_ranges(fused, list(inputs), rows)), texts)


def quantise(calibrated: Calibrated, *, large_apart: bool = False) -> onnx.ModelProto:
    """Return the model with int8 products and word embeddings.

    Args:
        calibrated: may be quantised in both ways; it stays as it is.
        large_apart: give the features behind Gelu that grow large a product of their own. Closer to fp32, and 4 to 8 %
            slower.
    """
    model = calibrated.model
    if large_apart:
        model = split_gelu(model, calibrated.ranges, narrowest=_SMALLEST)
    graph = EditableGraph(model)
    consumers = graph.consumers()
    _quantise_tables(graph)
    rows = _some(calibrated.texts)
    exact, exact_values, seen_values = EditableGraph(model), TokenValues(rows), TokenValues(rows)
    for name, group in products(graph).items():
        values = exact_values.of(exact, name) if rows else None
        grid = _grid(graph, name, group, calibrated.ranges, values)
        # What enters the products in the graph, which is int8 up to there.
        seen = None if values is None else seen_values.of(graph, name)
        rounded = _rounded([grid.scaled(product.weight) for product in group], grid, values, seen)
        if grid.step is None:
            _quantise_per_token(graph, name, group, grid, rounded)
        else:
            _quantise_fixed(graph, consumers, name, group, grid, grid.step, rounded)
        if _averaged(graph, consumers, name) is not None:
            seen_values.forget(name)
    return graph.finish()


def _grid(
    graph: EditableGraph,
    name: str,
    group: Sequence[Product],
    ranges: Mapping[str, Range],
    values: NDArray[np.float32] | None,
) -> Grid:
    node = graph.producer(name)
    if node is not None and node.op_type in _GELU_OPERATORS:
        return GELU
    return fixed([product.weight for product in group], ranges[name].magnitude, values)


def _some(rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Return evenly spread rows with about as many tokens as are looked at, at most half: the gate sees others, too."""
    return list(rows[:: max(2, sum(map(len, rows)) // _ROUNDING_TOKENS)])


def _rounded(
    weights: Sequence[NDArray[np.float32]],
    grid: Grid,
    exact: NDArray[np.float32] | None,
    seen: NDArray[np.float32] | None,
) -> list[Rounded]:
    """Round smoothed weights for their common input over real tokens; without tokens, to nearest."""
    if exact is None or seen is None:
        return [round_to_nearest(weight) for weight in weights]
    inputs = observe(grid.smoothed(exact), grid.quantised(grid.smoothed(seen)))
    return [round_for(weight, inputs) for weight in weights]


def products(graph: EditableGraph) -> dict[str, list[Product]]:
    """Return the products worth quantising by the name of their common input (query, key and value share one).

    The head is none of them, however many labels it has: exits find it by its values, and it costs nothing in fp32.
    """
    found: dict[str, list[Product]] = {}
    head = _head(graph)
    for node in graph.nodes():
        if node.op_type != "MatMul" or node.output[0] == head or graph.value(node.input[0]) is not None:
            continue
        weight = graph.value(node.input[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or min(weight.shape) < _SMALLEST:
            continue
        found.setdefault(node.input[0], []).append(Product(node, weight))
    return found


def _head(graph: EditableGraph) -> str | None:
    """Return what the last product before the logits gives; only operators with one computed input come after it."""
    name = "logits"
    while (node := graph.producer(name)) is not None and node.op_type not in ("MatMul", "Gemm"):
        computed = [entry for entry in node.input if entry and graph.value(entry) is None]
        if len(computed) != 1:
            return None
        name = computed[0]
    return None if node is None else name


def _quantise_fixed(
    graph: EditableGraph,
    consumers: Consumers,
    source: str,
    group: Sequence[Product],
    grid: Grid,
    step: np.float32,
    rounded: Sequence[Rounded],
) -> None:
    """Quantise one input with one scale, and multiply it with each of its weights; biases are added on the way."""
    prefix = f"int8_{source}"
    zero_point = _zero_point(graph, grid.point)
    scale = graph.constant(f"{prefix}_scale", np.asarray(step))
    smoothed = _smooth(graph, consumers, source, grid)
    quantised = graph.define("QuantizeLinear", [smoothed, scale, zero_point], f"{prefix}_quantised")
    for product, weight in zip(group, rounded, strict=True):
        added = added_bias(graph, consumers, product.output)
        if added is None or added.value.shape != weight.scales.shape:
            _product(graph, product, weight, quantised, (scale, zero_point), product.output)
            continue
        gelu = added.node.op_type == "BiasGelu"
        output = added.node.output[0]
        target = f"int8_biased_{product.output}" if gelu else output
        _product(graph, product, weight, quantised, (scale, zero_point), target, bias=added.value)
        if gelu:
            graph.define("Gelu", [target], output, domain="com.microsoft")


def _quantise_per_token(
    graph: EditableGraph, source: str, group: Sequence[Product], grid: Grid, rounded: Sequence[Rounded]
) -> None:
    """Quantise one input, a scale per token, and multiply it with each of its weights."""
    from onnx import numpy_helper

    prefix, point = f"int8_{source}", grid.point
    last = graph.constant("int8_last_axis", np.array([-1]))
    largest = graph.define("ReduceMax", [source, last], f"{prefix}_largest", keepdims=1)
    step = graph.constant(f"int8_step_{point}", np.array(1 / (255 - point), np.float32))
    raw = graph.define("Mul", [largest, step], f"{prefix}_scale_raw")
    lowest = graph.constant(f"int8_floor_{point}", np.array(grid.floor, np.float32))
    scale = graph.define("Max", [raw, lowest], f"{prefix}_scale")
    shape = graph.define("Shape", [scale], f"{prefix}_scale_shape")
    value = numpy_helper.from_array(np.array([point], np.uint8), "value")
    zeros = graph.define("ConstantOfShape", [shape], f"{prefix}_zeros", value=value)
    # Blocks of as many features as there are: a scale for each token, without flattening the batch and back.
    features = group[0].weight.shape[0]
    operands, name = [source, scale, zeros], f"{prefix}_quantised"
    quantised = graph.define("QuantizeLinear", operands, name, axis=-1, block_size=features)
    for product, weight in zip(group, rounded, strict=True):
        _product(graph, product, weight, quantised, (scale, _zero_point(graph, point)), product.output)


def _smooth(graph: EditableGraph, consumers: Consumers, source: str, grid: Grid) -> str:
    """Divide a tensor's features by their factors; attention's context by way of the values that it is a mean of."""
    if grid.smooth is None:
        return source
    factors = np.float32(1) / grid.smooth
    value = _averaged(graph, consumers, source)
    if value is not None:
        for position in _SCALES_AND_BIAS:
            constant = graph.value(value.input[position]) if position < len(value.input) else None
            if constant is not None:
                name = f"{value.input[position]}_smooth"
                value.input[position] = graph.constant(name, np.asarray(constant * factors, np.float32))
        return source
    return graph.define("Mul", [source, graph.constant(f"int8_{source}_smoothing", factors)], f"int8_{source}_smooth")


def _averaged(graph: EditableGraph, consumers: Consumers, source: str) -> onnx.NodeProto | None:
    """Return the int8 product of which attention's context is a mean; None for other tensors."""
    node = graph.producer(source)
    if node is None or node.op_type != "Attention" or len(consumers[node.input[2]]) != 1:
        return None
    value = graph.producer(node.input[2])
    return value if value is not None and value.op_type == "MatMulIntegerToFloat" else None


def _product(
    graph: EditableGraph,
    product: Product,
    weight: Rounded,
    quantised: str,
    quantisation: tuple[str, str],
    output: str,
    *,
    bias: NDArray[np.float32] | None = None,
) -> None:
    """Define the int8 product of a quantised input, given its scale and zero point.

    Args:
        bias: with one scale only; of a scale per row, onnxruntime 1.32 multiplies the bias with that, too.
    """
    scale, zero_point = quantisation
    operands = [
        quantised,
        graph.constant(f"int8_weight_{product.output}", weight.values),
        scale,
        graph.constant(f"int8_weight_scales_{product.output}", weight.scales),
        zero_point,
        *(["", graph.constant(f"int8_bias_{product.output}", bias)] if bias is not None else []),
    ]
    graph.define("MatMulIntegerToFloat", operands, output, domain="com.microsoft")


def _zero_point(graph: EditableGraph, value: int) -> str:
    return graph.constant(f"int8_zero_{value}", np.array(value, np.uint8))


def _quantise_tables(graph: EditableGraph) -> None:
    """Store large embedding tables as int8 with one scale per row."""
    from onnx import TensorProto

    for old in graph.nodes():
        table = graph.value(old.input[0]) if old.op_type == "Gather" else None
        if table is None or table.ndim != 2 or table.dtype != np.float32 or table.shape[0] < _TABLE_ROWS:
            continue
        rounded = round_to_nearest(table.T)
        (name, ids), output = old.input, old.output[0]
        rows = graph.constant(f"int8_{name}", np.ascontiguousarray(rounded.values.T))
        row_scales = graph.constant(f"int8_{name}_scales", rounded.scales[:, None])
        taken = graph.define("Gather", [rows, ids], f"int8_{output}")
        number = graph.define("Cast", [taken], f"int8_{output}_float", to=TensorProto.FLOAT)
        scale = graph.define("Gather", [row_scales, ids], f"int8_{output}_scales")
        graph.define("Mul", [number, scale], output)
