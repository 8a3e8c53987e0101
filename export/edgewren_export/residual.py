"""Moves the biases of residual branches into the LayerNormalization before the branch.

    y = LN(x); z = y + (branch(y) + bias)   becomes   y' = LN(x) + bias; z = y' + branch(y' - bias)

where the shift of the branch's input moves on into the biases of its first products. Exact but for rounding; saves two
passes over the hidden states per layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgewren_export.editing import EditableGraph

if TYPE_CHECKING:
    import onnx

Consumers = Mapping[str, Sequence["onnx.NodeProto"]]


def fold_residual_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every such bias moved whose surroundings are understood."""
    graph = EditableGraph(model)
    consumers = graph.consumers()  # of what is read here, no fold changes any
    for node in graph.nodes():
        if node.op_type == "LayerNormalization" and len(node.input) == 3:
            _fold(graph, consumers, node)
    return graph.finish()


def _fold(graph: EditableGraph, consumers: Consumers, norm: onnx.NodeProto) -> None:
    users = list(consumers.get(norm.output[0], []))
    for cut in [user for user in users if user.op_type == "Slice"]:  # some tokens of it are normalised too
        users.remove(cut)
        users += consumers.get(cut.output[0], [])
    branches = [(user, branch) for user in users if (branch := _biased_branch(graph, user)) is not None]
    beta = graph.value(norm.input[2])
    if len(branches) != 1 or beta is None:
        return
    residual, (position, product, bias) = branches[0]
    moved = []
    for user in users:
        if user is residual:
            continue
        weight = graph.value(user.input[1]) if user.op_type == "MatMul" else None
        added = None if weight is None else added_bias(graph, consumers, user.output[0])
        if weight is None or added is None or added.value.shape != (weight.shape[1],):
            return
        shift = bias.astype(np.float64) @ weight.astype(np.float64)
        moved.append((added.node, user.output[0], np.asarray(added.value - shift, np.float32)))
    for follower, name, shifted in moved:
        follower.input[:] = [name, graph.constant(f"folded_{follower.output[0]}", shifted)]
    norm.input[2] = graph.constant(f"folded_{norm.output[0]}", beta + bias)
    residual.input[position] = product


def _biased_branch(graph: EditableGraph, residual: onnx.NodeProto) -> tuple[int, str, NDArray[np.float32]] | None:
    """Return which input of a residual sum is product + bias, the product's name, and the bias."""
    if residual.op_type != "Add":
        return None
    for position, name in enumerate(residual.input):
        biased = biased_product(graph, name)
        if biased is not None:
            return position, biased.product.output[0], biased.bias
    return None


class BiasedProduct(NamedTuple):
    """A matrix product, and the bias, [outputs], that is added to it."""

    product: onnx.NodeProto
    bias: NDArray[np.float32]


def biased_product(graph: EditableGraph, name: str) -> BiasedProduct | None:
    """Return the product and the bias of which a tensor is the sum, None where it is something else."""
    node = graph.producer(name)
    if node is None or node.op_type != "Add":
        return None
    for product, other in (node.input, reversed(node.input)):
        bias, made_by = graph.value(other), graph.producer(product)
        if bias is not None and bias.ndim == 1 and made_by is not None and made_by.op_type == "MatMul":
            return BiasedProduct(made_by, bias)
    return None


class AddedBias(NamedTuple):
    """The node that adds a constant to a product (with or without Gelu), the constant's name and value."""

    node: onnx.NodeProto
    name: str
    value: NDArray[np.float32]


def added_bias(graph: EditableGraph, consumers: Consumers, product: str) -> AddedBias | None:
    """Return what adds a bias to a product, None where something else reads the product."""
    users = consumers.get(product, [])
    if len(users) != 1 or users[0].op_type not in ("Add", "BiasGelu"):
        return None
    (name,) = (entry for entry in users[0].input if entry != product)
    bias = graph.value(name)
    return None if bias is None else AddedBias(users[0], name, bias)
