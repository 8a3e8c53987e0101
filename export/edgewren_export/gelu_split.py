"""Takes the features that grow large behind Gelu out of the others: two narrow products instead of a wide one, exact.

In a feed-forward block a few features reach 20 in a few tokens, where all others stay below 3. Quantised together, the
largest one sets the step of all. Apart, the step of the others is a third to two thirds as large in such tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgewren_export.calibration import Range
from edgewren_export.editing import EditableGraph
from edgewren_export.residual import Consumers, added_bias

if TYPE_CHECKING:
    import onnx

_SHARE = 6  # a sixth of the features is taken out: 256 of MiniLM's 1,536. An eighth to a quarter are nearly level.
_FEWEST = 16  # narrower products are not quantised


class _Block(NamedTuple):
    """A feed-forward block: product, bias and Gelu in one, product; `name` is what Gelu puts out."""

    name: str
    up: onnx.NodeProto
    gelu: onnx.NodeProto
    down: onnx.NodeProto
    up_weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    down_weight: NDArray[np.float32]


def split_gelu(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Return the model with every such block split that is understood.

    Args:
        ranges: of the inputs of products, by name; those that are not behind Gelu don't matter.
    """
    graph = EditableGraph(model)
    for block in list(_blocks(graph, graph.consumers(), ranges)):
        large, others = _parts(ranges[block.name])
        if len(others) < _FEWEST:
            continue
        output = block.down.output[0]
        parts = [_narrow(graph, block, "large", large), _narrow(graph, block, "others", others)]
        graph.define("Add", parts, output)
    return graph.finish()


def behind_gelu(graph: EditableGraph, name: str) -> bool:
    """Whether Gelu computes a tensor."""
    node = graph.producer(name)
    return node is not None and node.op_type in ("Gelu", "BiasGelu", "FastGelu")


def _blocks(graph: EditableGraph, consumers: Consumers, ranges: Mapping[str, Range]) -> Iterator[_Block]:
    """Yield the blocks in which a measured output of Gelu goes into one product, and comes from one with a bias."""
    for name in ranges:
        gelu, users = graph.producer(name), consumers.get(name, [])
        if gelu is None or not behind_gelu(graph, name) or [user.op_type for user in users] != ["MatMul"]:
            continue
        for up in filter(None, map(graph.producer, gelu.input)):
            up_weight = graph.value(up.input[1]) if up.op_type == "MatMul" else None
            added = added_bias(graph, consumers, up.output[0])
            down_weight = graph.value(users[0].input[1])
            if up_weight is not None and down_weight is not None and added is not None and added.node is gelu:
                yield _Block(name, up, gelu, users[0], up_weight, added.value, down_weight)


def _parts(measured: Range) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the features that grow largest, and the others, each ascending."""
    count = max(_FEWEST, len(measured.high) // _SHARE)
    order = np.argsort(-measured.high, kind="stable")
    return np.sort(order[:count]), np.sort(order[count:])


def _narrow(graph: EditableGraph, block: _Block, part: str, features: NDArray[np.intp]) -> str:
    """Define the block once more for some of its features; return the name of what it puts out."""
    product, activation, output = (f"{node.output[0]}_{part}" for node in (block.up, block.gelu, block.down))
    up_weight = graph.constant(f"{product}_weight", block.up_weight[:, features])
    graph.define("MatMul", [block.up.input[0], up_weight], product)
    bias = graph.constant(f"{activation}_bias", block.bias[features])
    graph.define(block.gelu.op_type, [product, bias], activation, domain=block.gelu.domain)
    down_weight = graph.constant(f"{output}_weight", block.down_weight[features])
    return graph.define("MatMul", [activation, down_weight], output)
