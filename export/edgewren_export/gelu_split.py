"""Takes the features that grow large behind Gelu out of the others: two narrow products instead of a wide one, exact.

In a feed-forward block a few features reach 20 in a few tokens, where most stay below 3. Quantised together, the
largest one sets the step of all. Apart, rounding adds a third to two thirds of the squared error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgewren_export.biases import Consumers
from edgewren_export.editing import EditableGraph
from edgewren_export.ranges import Range

if TYPE_CHECKING:
    import onnx

_SHARE = 6  # a sixth of the features is taken out: 256 of MiniLM's 1,536. An eighth to a quarter are nearly level.


class _Block(NamedTuple):
    """A feed-forward block: a product, its bias with Gelu, a product. `name` is what Gelu puts out."""

    name: str
    up: onnx.NodeProto
    gelu: onnx.NodeProto
    down: onnx.NodeProto
    up_weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    down_weight: NDArray[np.float32]


def split_gelu(model: onnx.ModelProto, ranges: Mapping[str, Range], *, narrowest: int) -> onnx.ModelProto:
    """Return the model with every such block split that is understood.

    Args:
        ranges: of the inputs of products, by name; those that are not behind Gelu don't matter.
        narrowest: features of the smallest product that is worth quantising.
    """
    graph = EditableGraph(model)
    for block in list(_blocks(graph, graph.consumers(), ranges)):
        high = ranges[block.name].high
        count = max(narrowest, len(high) // _SHARE)
        if len(high) - count < narrowest:
            continue
        order = np.argsort(-high, kind="stable")
        large, others = np.sort(order[:count]), np.sort(order[count:])
        parts = [_narrow(graph, block, "large", large), _narrow(graph, block, "others", others)]
        graph.define("Add", parts, block.down.output[0])
    return graph.finish()


def _blocks(graph: EditableGraph, consumers: Consumers, ranges: Mapping[str, Range]) -> Iterator[_Block]:
    """Yield the blocks in which a measured output of BiasGelu comes from one product and goes into one."""
    for name in ranges:
        gelu, users = graph.producer(name), consumers.get(name, [])
        if gelu is None or gelu.op_type != "BiasGelu" or [user.op_type for user in users] != ["MatMul"]:
            continue
        up, bias, down = graph.producer(gelu.input[0]), graph.value(gelu.input[1]), users[0]
        if up is None or up.op_type != "MatMul":
            continue
        up_weight, down_weight = graph.value(up.input[1]), graph.value(down.input[1])
        if up_weight is not None and bias is not None and down_weight is not None:
            yield _Block(name, up, gelu, down, up_weight, bias, down_weight)


def _narrow(graph: EditableGraph, block: _Block, part: str, features: NDArray[np.intp]) -> str:
    """Define the block once more for some of its features; return the name of what it puts out."""
    product, activation, output = (f"{node.output[0]}_{part}" for node in (block.up, block.gelu, block.down))
    up_weight = graph.constant(f"{product}_weight", block.up_weight[:, features])
    graph.define("MatMul", [block.up.input[0], up_weight], product)
    bias = graph.constant(f"{activation}_bias", block.bias[features])
    graph.define(block.gelu.op_type, [product, bias], activation, domain=block.gelu.domain)
    down_weight = graph.constant(f"{output}_weight", block.down_weight[features])
    return graph.define("MatMul", [activation, down_weight], output)
