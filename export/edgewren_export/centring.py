"""Centres hidden states: each feature's range around zero, where a product with one scale rounds it best.

    y = LN(x); z = y + (branch(y) + bias)   becomes   y' = LN(x) - c; z = y' + (branch(y' + c) + bias + c)

where the shift of the branch's input moves on into the biases of its first products. Exact but for rounding, and free
where biases are added by the products themselves. In MiniLM single tokens reach far to one side in single features, and
that side set the step for all. (A shift per feature, as in Outlier Suppression+, Wei et al. 2023, arXiv:2304.09145.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewren_export.biases import AddedBias, Consumers, added_bias, biased_product
from edgewren_export.editing import EditableGraph
from edgewren_export.ranges import Range

if TYPE_CHECKING:
    import onnx


def centre(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> tuple[onnx.ModelProto, dict[str, Range]]:
    """Return the model with every LayerNormalization centred whose surroundings are understood, and the new ranges.

    Args:
        ranges: of the inputs of products, by name.
    """
    graph = EditableGraph(model)
    consumers = graph.consumers()  # of what is read here, no shift changes any
    moved = dict(ranges)
    for node in graph.nodes():
        name = node.output[0]
        if node.op_type != "LayerNormalization" or len(node.input) != 3 or name not in ranges:
            continue
        middle = (ranges[name].low + ranges[name].high) / np.float32(2)
        if not _shift(graph, consumers, node, middle):
            continue
        cuts = [user.output[0] for user in consumers[name] if user.op_type == "Slice"]
        for shifted in (name, *cuts):
            if shifted in ranges:
                moved[shifted] = Range(ranges[shifted].low - middle, ranges[shifted].high - middle)
    return graph.finish(), moved


def _shift(graph: EditableGraph, consumers: Consumers, norm: onnx.NodeProto, shift: NDArray[np.float32]) -> bool:
    """Take `shift` off what a normalisation puts out, and add it again behind; tell whether that was possible."""
    beta = graph.value(norm.input[2])
    readers = _readers(consumers, norm.output[0])
    sums = [reader for reader in readers if reader.op_type == "Add"]
    branch = _branch(graph, consumers, sums[0]) if len(sums) == 1 else None
    if beta is None or branch is None:
        return False
    moved = [(branch, np.asarray(branch.value + shift, np.float32))]
    for product in [reader for reader in readers if reader not in sums]:
        weight = graph.value(product.input[1]) if product.op_type == "MatMul" else None
        bias = None if weight is None else added_bias(graph, consumers, product.output[0])
        if weight is None or bias is None or bias.value.shape != weight.shape[1:]:
            return False
        total = bias.value + shift.astype(np.float64) @ weight.astype(np.float64)
        moved.append((bias, np.asarray(total, np.float32)))
    for bias, value in moved:
        position = list(bias.node.input).index(bias.name)
        bias.node.input[position] = graph.constant(f"centred_{bias.node.output[0]}", value)
    norm.input[2] = graph.constant(f"centred_{norm.output[0]}", beta - shift)
    return True


def _readers(consumers: Consumers, name: str) -> list[onnx.NodeProto]:
    """Return what reads a tensor, all of it or some of its tokens."""
    users = consumers.get(name, [])
    whole = [user for user in users if user.op_type != "Slice"]
    return whole + [user for cut in users if cut.op_type == "Slice" for user in consumers.get(cut.output[0], [])]


def _branch(graph: EditableGraph, consumers: Consumers, residual: onnx.NodeProto) -> AddedBias | None:
    """Return the bias of the branch in a residual sum."""
    for name in residual.input:
        biased = biased_product(graph, name)
        if biased is not None:
            return added_bias(graph, consumers, biased.product.output[0])
    return None
