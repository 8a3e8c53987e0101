"""int8 that never depends on a text's neighbours, from stock operators.

What enters a matrix product is quantised in one of two ways:

- After Gelu per token: every row gets its own scale, taken from that row alone, since a few tokens are far larger than
  all others.
- Elsewhere (after LayerNormalization, and attention's context) with one fixed scale: such rows have a bounded range,
  and calibration finds it. Where that is not exact enough, per token there too, and what Gelu puts out is split into
  features that grow large and others (`gelu_split`): an eighth slower, almost twice as close.

Outside Gelu, features are smoothed first as in SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): what is large in the
activations is divided out and multiplied into the weights, exact but for rounding.

(The usual dynamic quantisation has one scale per tensor: a text's score then moves with the batch around it.) Weights
have one scale per column; with scales per token throughout they are also rounded for the inputs that they meet
(`rounding`). Word embeddings have one scale per row. Knows ONNX graphs, nothing of texts. Measurements stand in
docs/log.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import BundleError
from edgewren_export.attention import fuse_attention
from edgewren_export.calibration import Range, channel_ranges, token_values
from edgewren_export.editing import EditableGraph
from edgewren_export.gelu_split import split_gelu
from edgewren_export.residual import Consumers, added_bias, fold_residual_biases
from edgewren_export.rounding import Inputs, Rounded, observe, round_for, round_to_nearest

if TYPE_CHECKING:
    import onnx

SMOOTHING = 0.8
"""Share of an activation channel's range that moves into the weights. Mean |difference| of logits from fp32, 1,300
tweets, ridge: 0.35 0.0088, 0.5 0.0056, 0.65 0.0046, 0.8 0.0042, 1.0 0.0043."""

HEADROOM = 1.1
"""How far beyond the calibrated range values may go before they are cut: cutting costs far more than coarser steps."""

_SMALLEST = 16  # columns of a weight: the head's few cost nothing in fp32
_TINY = 1e-12
_ZERO_POINT = 128
# Gelu is never below -0.17. With 32 of 256 steps for that, positive values get 223 instead of 127.
_GELU_ZERO_POINT = 32
_GELU_FLOOR = 0.17 / _GELU_ZERO_POINT
_GELU_OPERATORS = ("Gelu", "BiasGelu", "FastGelu")
_TABLE_ROWS = 1000  # embedding tables with fewer rows are not worth it
_LAYER = 5  # inputs of products in a transformer layer, where Gelu is split
_ROUNDING_TOKENS = 10_000  # about 350 tweets


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
        model: fp32, with attention in one operator and biases of residual branches moved.
        ranges: of every input of a product.
        texts: token rows on which weights are rounded; none: to nearest.
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
    fused = fold_residual_biases(fuse_attention(model)[0])
    graph = EditableGraph(fused)
    inputs = products(graph)
    if not inputs:
        raise BundleError("The graph has no matrix products with constant weights: int8 would change nothing.")
    return Calibrated(fused, channel_ranges(fused, list(inputs), rows), texts)


def quantise(calibrated: Calibrated, *, per_token: bool = False) -> onnx.ModelProto:
    """Return the model with int8 products and word embeddings.

    Args:
        calibrated: may be quantised in both ways; it stays as it is.
        per_token: give every input of a product a scale per token, not only those after Gelu, split what Gelu puts out,
            and round the weights for what enters the products. Closer to fp32, slower to run and to make.
    """
    model = split_gelu(calibrated.model, calibrated.ranges, narrowest=_SMALLEST) if per_token else calibrated.model
    graph = EditableGraph(model)
    consumers = graph.consumers()
    _quantise_tables(graph)
    groups = products(graph)
    names = list(groups)
    rows = _some(calibrated.texts) if per_token else []
    for start in range(0, len(names), _LAYER):
        layer = names[start : start + _LAYER]
        exact = token_values(EditableGraph(model).until(layer), layer, rows) if rows else {}
        for name in layer:
            grid = _grid(groups[name], None if _after_gelu(graph, name) else calibrated.ranges[name], per_token)
            inputs = _observe(graph, name, grid, exact.pop(name), rows) if rows else None
            rounded = [_rounded(product, grid, inputs) for product in groups[name]]
            if grid.step is None:
                _quantise_per_token(graph, name, groups[name], grid, rounded)
            else:
                _quantise_fixed(graph, consumers, name, groups[name], grid, rounded)
    return graph.finish()


@dataclass(frozen=True)
class _Grid:
    """How one input is quantised.

    Attributes:
        smooth: factors by which its features are divided first, float32 [inputs]; None after Gelu.
        step: the scale; None: one per token.
        point: zero point.
        floor: the smallest scale of a token.
    """

    smooth: NDArray[np.float32] | None
    step: np.float32 | None
    point: int
    floor: float = _TINY

    def smoothed(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values if self.smooth is None else values * (np.float32(1) / self.smooth)

    def quantised(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what becomes of smoothed values, float32 [tokens, inputs], as the operators compute it."""
        step = self.step
        if step is None:
            largest = (values if self.smooth is None else np.abs(values)).max(axis=1, keepdims=True)
            step = np.maximum(largest / np.float32(255 - self.point), np.float32(self.floor))
        return np.asarray((np.clip(np.rint(values / step) + self.point, 0, 255) - self.point) * step, np.float32)


def _grid(group: Sequence[Product], measured: Range | None, per_token: bool) -> _Grid:
    if measured is None:
        return _Grid(None, None, _GELU_ZERO_POINT, _GELU_FLOOR)
    smooth = _smoothing(group, measured.magnitude)
    largest = HEADROOM * float((measured.magnitude / smooth).max())
    step = None if per_token else np.float32(max(largest, _TINY) / (255 - _ZERO_POINT))
    return _Grid(smooth, step, _ZERO_POINT)


def _observe(
    graph: EditableGraph, name: str, grid: _Grid, exact: NDArray[np.float32], rows: Sequence[Sequence[int]]
) -> Inputs:
    """Return what enters the products of an input in the fp32 model and in the graph, which is int8 up to there."""
    seen = token_values(graph.until([name]), [name], rows)[name]
    return observe(grid.smoothed(exact), grid.quantised(grid.smoothed(seen)))


def _some(rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Return evenly spread rows with about as many tokens as are looked at."""
    return list(rows[:: max(1, sum(map(len, rows)) // _ROUNDING_TOKENS)])


def _rounded(product: Product, grid: _Grid, inputs: Inputs | None) -> Rounded:
    weight = product.weight if grid.smooth is None else product.weight * grid.smooth[:, None]
    return round_to_nearest(weight) if inputs is None else round_for(weight, inputs)


def products(graph: EditableGraph) -> dict[str, list[Product]]:
    """Return the products worth quantising by the name of their common input (query, key and value share one)."""
    found: dict[str, list[Product]] = {}
    for node in graph.nodes():
        if node.op_type != "MatMul" or graph.value(node.input[0]) is not None:
            continue
        weight = graph.value(node.input[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or min(weight.shape) < _SMALLEST:
            continue
        found.setdefault(node.input[0], []).append(Product(node, weight))
    return found


def _after_gelu(graph: EditableGraph, name: str) -> bool:
    node = graph.producer(name)
    return node is not None and node.op_type in _GELU_OPERATORS


def _smoothing(group: Sequence[Product], largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the factors, float32 [inputs], by which activations are divided and weight rows multiplied."""
    weights = np.max([np.abs(product.weight).max(axis=1) for product in group], axis=0)
    factors = np.maximum(largest, _TINY) ** SMOOTHING / np.maximum(weights, _TINY) ** (1 - SMOOTHING)
    factors = np.clip(factors / np.exp(np.log(factors).mean()), 1e-3, 1e3)  # a common factor would change nothing
    return np.asarray(factors, dtype=np.float32)


def _quantise_fixed(
    graph: EditableGraph,
    consumers: Consumers,
    source: str,
    group: Sequence[Product],
    grid: _Grid,
    rounded: Sequence[Rounded],
) -> None:
    """Quantise one input with one scale, and multiply it with each of its weights; biases are added on the way."""
    prefix = f"int8_{source}"
    zero_point = _zero_point(graph, grid.point)
    scale = graph.constant(f"{prefix}_scale", np.asarray(grid.step))
    smoothed = _smooth(graph, source, grid)
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
    graph: EditableGraph, source: str, group: Sequence[Product], grid: _Grid, rounded: Sequence[Rounded]
) -> None:
    """Quantise one input once, a scale per row, and multiply it with each of its weights."""
    from onnx import numpy_helper

    prefix, point = f"int8_{source}", grid.point
    inputs = group[0].weight.shape[0]
    shape = graph.constant(f"int8_rows_{inputs}", np.array([-1, inputs]))
    columns, flat = graph.constant("int8_axis_columns", np.array([1])), graph.constant("int8_flat", np.array([-1]))
    rows = graph.define("Reshape", [_smooth(graph, source, grid), shape], f"{prefix}_rows")
    # After Gelu, rows are bounded below by the floor of the scale: one zero point serves all of them.
    magnitudes = rows if grid.smooth is None else graph.define("Abs", [rows], f"{prefix}_magnitudes")
    largest = graph.define("ReduceMax", [magnitudes, columns], f"{prefix}_largest", keepdims=1)
    step = graph.constant(f"int8_step_{point}", np.array(1 / (255 - point), np.float32))
    raw = graph.define("Mul", [largest, step], f"{prefix}_scale_raw")
    lowest = graph.constant(f"int8_floor_{point}", np.array(grid.floor, np.float32))
    scale = graph.define("Max", [raw, lowest], f"{prefix}_scale")
    scales = graph.define("Reshape", [scale, flat], f"{prefix}_scales")
    count = graph.define("Shape", [scales], f"{prefix}_count")
    value = numpy_helper.from_array(np.array([point], np.uint8), "value")
    zeros = graph.define("ConstantOfShape", [count], f"{prefix}_zeros", value=value)
    quantised = graph.define("QuantizeLinear", [rows, scales, zeros], f"{prefix}_quantised", axis=0)
    leading = graph.define("Shape", [source], f"{prefix}_leading", end=-1)
    for product, weight in zip(group, rounded, strict=True):
        outputs = product.weight.shape[1]
        width = graph.constant(f"int8_width_{outputs}", np.array([outputs]))
        shape = graph.define("Concat", [leading, width], f"{prefix}_shape_{product.output}", axis=0)
        flat_product = f"int8_product_{product.output}"
        _product(graph, product, weight, quantised, (scale, _zero_point(graph, point)), flat_product)
        graph.define("Reshape", [flat_product, shape], product.output)


def _smooth(graph: EditableGraph, source: str, grid: _Grid) -> str:
    if grid.smooth is None:
        return source
    factors = graph.constant(f"int8_{source}_smoothing", np.float32(1) / grid.smooth)
    return graph.define("Mul", [source, factors], f"int8_{source}_smooth")


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
