"""Biases in an optimised graph: which constant is added to a matrix product, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgewren_export.editing import EditableGraph

if TYPE_CHECKING:
    import onnx

Consumers = Mapping[str, Sequence["onnx.NodeProto"]]


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
