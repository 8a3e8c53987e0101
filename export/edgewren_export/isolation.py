"""Makes a text's logits independent of the batch size, bit by bit, and undoes it where that buys nothing.

Two operators of onnxruntime's CPU provider take another kernel when the batch is 1, and sum in another order: products
of [batch, features] with a weight (a matrix-vector kernel), and sums over the tokens of [batch, sequence, features]
(mean pooling). Of 400 tweets scored alone and in batches, 380 differed in the last bit. So before each of them the
first row is appended once more, and dropped after it: one text takes the same kernel as many.

(Summing over the last axis of a transposed tensor does not help: onnxruntime's optimiser undoes the transposition.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgewren_export.editing import EditableGraph

if TYPE_CHECKING:
    import onnx

_PREFIX = "isolate_rows"


def isolate_rows(model: onnx.ModelProto) -> None:
    """Append and drop a row around every operator whose kernel depends on the number of texts, in place."""
    import onnx
    from onnx import helper, numpy_helper

    inferred = onnx.shape_inference.infer_shapes(model)
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    zero, one, end = (f"{_PREFIX}_{name}" for name in ("zero", "one", "end"))
    nodes: list[Any] = []
    for index, node in enumerate(model.graph.node):
        if not _mixes_rows(node, ranks, constants):
            nodes.append(node)
            continue
        first, padded, result = (f"{_PREFIX}_{index}_{name}" for name in ("first", "padded", "result"))
        source, target = node.input[0], node.output[0]
        node.input[0], node.output[0] = padded, result
        nodes += [
            helper.make_node("Slice", [source, zero, one, zero], [first], name=f"{first}_node"),
            helper.make_node("Concat", [source, first], [padded], name=f"{padded}_node", axis=0),
            node,
            helper.make_node("Slice", [result, zero, end, zero], [target], name=f"{result}_node"),
        ]
    for name, value in ((zero, 0), (one, 1), (end, -1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _mixes_rows(node: Any, ranks: dict[str, int], constants: dict[str, Any]) -> bool:
    """Whether this node's kernel depends on how many texts there are."""
    from onnx import numpy_helper

    rank = ranks.get(node.input[0]) if node.input else None
    if node.op_type in ("MatMul", "Gemm"):
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return rank == 2 and node.input[1] in constants and not turned
    if node.op_type in ("ReduceSum", "ReduceMean") and rank == 3 and len(node.input) == 2:
        axes = constants.get(node.input[1])
        return axes is not None and 1 in numpy_helper.to_array(axes).ravel()
    return False


def join_rows(graph: EditableGraph) -> None:
    """Undo `isolate_rows`: for devices whose kernels depend on the batch anyway, the copies are wasted time."""
    for node in graph.nodes():
        for position, name in enumerate(node.input):
            padded = graph.producer(name)
            if padded is not None and name.startswith(_PREFIX) and padded.op_type == "Concat":
                node.input[position] = padded.input[0]
    for node in graph.nodes():
        if node.op_type == "Slice" and node.input[0].startswith(_PREFIX):
            cut = graph.producer(node.input[0])
            if cut is not None:
                graph.rename_output(cut, node.output[0])
