"""Early exits in an ONNX graph: the head's subgraph once more at earlier layers, and the graph cut there into stages.

The heads are attached to the optimised fp32 graph, so that whatever follows (int8) sees one graph with several outputs;
it is cut last. Each stage computes what the ones before it did not, and takes their hidden states as an input. Knows
ONNX graphs, nothing of texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import BundleError
from edgewren_export.editing import EditableGraph

if TYPE_CHECKING:
    import onnx

Affine = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight [labels, d] and bias [labels] of a folded head."""

_NORMS_PER_LAYER = 2


def attach_exits(
    model: onnx.ModelProto, head: Affine, exits: Mapping[int, Affine], *, like: onnx.ModelProto | None = None
) -> onnx.ModelProto:
    """Return the model with an output exit_K for each layer K: pooling and all that follows, on that layer's output.

    Args:
        model: its only output logits.
        head: the folded head of the whole model, which is found in the graph by its values.
        exits: the folded head of each layer.
        like: the fp32 graph of which `model` was made. Where the biases of residual branches have moved into
            LayerNormalization (see `residual`), the exits take them off again.

    Raises:
        BundleError: the layers of this architecture cannot be told apart, or the head is not found.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = EditableGraph(model)
    nodes = graph.nodes()
    hidden = _layer_outputs(nodes)
    last = max(hidden)
    reference = None if like is None else _betas(like)
    tail = _depending(nodes, hidden[last])
    constants = {name for node in tail for name in node.input if graph.value(name) is not None}
    weight = _find(graph, constants, head[0].T)
    bias = _find(graph, constants, head[1])
    for layer, (own_weight, own_bias) in exits.items():
        if layer not in hidden or layer == last:
            raise BundleError(f"there is no exit after layer {layer}: the graph has {last} layers.")
        shift = np.zeros(0, np.float32) if reference is None else _beta(graph, hidden[layer]) - reference[layer]
        source = hidden[layer]
        if shift.any():
            source = graph.define(
                "Sub", [source, graph.constant(f"exit_{layer}_shift", shift)], f"exit_{layer}_unshifted"
            )
        renamed = {
            hidden[last]: source,
            weight: graph.constant(f"exit_{layer}_weight", np.ascontiguousarray(own_weight.T)),
            bias: graph.constant(f"exit_{layer}_bias", own_bias),
            "logits": f"exit_{layer}",
        }
        for node in tail:
            renamed.update({name: f"exit_{layer}_{name}" for name in node.output if name not in renamed})
        for node in tail:
            attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
            graph.define(
                node.op_type,
                [renamed.get(name, name) for name in node.input],
                renamed[node.output[0]],
                domain=node.domain,
                **attributes,
            )
    shape = ["batch", len(head[1])]
    extended = graph.extend_outputs(
        [helper.make_tensor_value_info(f"exit_{layer}", TensorProto.FLOAT, shape) for layer in exits]
    )
    onnx.checker.check_model(extended)
    return extended


def hidden_names(model: onnx.ModelProto) -> dict[int, str]:
    """Return the tensor after each layer, 0 being the embeddings.

    Raises:
        BundleError: the layers of this architecture cannot be told apart.
    """
    return _layer_outputs(EditableGraph(model).nodes(["logits"]))


def split(model: onnx.ModelProto, hidden: Mapping[int, str], layers: Sequence[int]) -> list[onnx.ModelProto]:
    """Cut a model with exits into stages: the first ends after layers[0], the last has no exit.

    Each but the last has the outputs logits (its exit's) and hidden_K; each but the first the input hidden_K of the
    one before it.

    Args:
        model: with the outputs logits and exit_K for each of `layers`; may be quantised.
        hidden: the tensor after each layer.
        layers: ascending.
    """
    width = _width(model)
    stages = []
    for index, layer in enumerate([*layers, None]):
        before = layers[index - 1] if index else None
        stages.append(_stage(model, hidden, width, before, layer))
    return stages


def _stage(
    model: onnx.ModelProto, hidden: Mapping[int, str], width: int, before: int | None, layer: int | None
) -> onnx.ModelProto:
    import onnx
    from onnx import TensorProto, helper

    shape = ["batch", "sequence", width]
    outputs = ["logits" if layer is None else f"exit_{layer}", *([hidden[layer]] if layer is not None else [])]
    graph = EditableGraph(model)
    if before is not None:
        graph.cut(hidden[before])
        _measure_sequence_on(graph, outputs, hidden[before])
    nodes = graph.nodes(outputs)
    renamed = {hidden[place]: f"hidden_{place}" for place in (before, layer) if place is not None}
    renamed[outputs[0]] = "logits"
    kept = []
    for node in nodes:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [renamed.get(name, name) for name in node.input]
        copied.output[:] = [renamed.get(name, name) for name in node.output]
        kept.append(copied)
    used = {name for node in kept for name in node.input}
    labels = next(o for o in model.graph.output if o.name == "logits").type.tensor_type.shape.dim[1].dim_value
    stage = onnx.ModelProto()
    stage.CopyFrom(model)
    del stage.graph.node[:], stage.graph.initializer[:], stage.graph.value_info[:]
    del stage.graph.input[:], stage.graph.output[:]
    stage.graph.node.extend(kept)
    stage.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in used)
    stage.graph.input.extend(entry for entry in model.graph.input if entry.name in used)
    if before is not None:
        stage.graph.input.append(helper.make_tensor_value_info(f"hidden_{before}", TensorProto.FLOAT, shape))
    stage.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels]))
    if layer is not None:
        stage.graph.output.append(helper.make_tensor_value_info(f"hidden_{layer}", TensorProto.FLOAT, shape))
    onnx.checker.check_model(stage)
    return stage


def _measure_sequence_on(graph: EditableGraph, outputs: Sequence[str], hidden: str) -> None:
    """Let whoever asks an earlier layer for the number of tokens ask the hidden states: no layer is kept for that.

    The mask of fused attention takes it from the first layer's query, [batch, sequence, features] like these.
    """
    for node in graph.nodes(outputs):
        places = {entry.name: entry.i for entry in node.attribute}
        if node.op_type == "Shape" and places == {"start": 1, "end": 2}:
            node.input[0] = hidden


def _layer_outputs(nodes: Sequence[onnx.NodeProto]) -> dict[int, str]:
    """Return the tensors after the embeddings (0) and each layer: every second LayerNormalization from the first."""
    norms = [node.output[0] for node in nodes if node.op_type == "LayerNormalization"]
    if len(norms) < 1 + _NORMS_PER_LAYER or len(norms) % _NORMS_PER_LAYER != 1:
        raise BundleError(
            f"early exits need BERT's layout (a LayerNormalization after the embeddings and two per layer), and this "
            f"graph has {len(norms)} of them. Train without --exits."
        )
    return dict(enumerate(norms[::_NORMS_PER_LAYER]))


def _betas(model: onnx.ModelProto) -> dict[int, NDArray[np.float32]]:
    graph = EditableGraph(model)
    return {layer: _beta(graph, name) for layer, name in _layer_outputs(graph.nodes(["logits"])).items()}


def _beta(graph: EditableGraph, normalised: str) -> NDArray[np.float32]:
    """Return what a LayerNormalization adds last."""
    node = graph.producer(normalised)
    beta = graph.value(node.input[2]) if node is not None and len(node.input) == 3 else None
    if beta is None:
        raise BundleError(f"the LayerNormalization of {normalised} has no constant offset. Train without --exits.")
    return beta


def _depending(nodes: Sequence[onnx.NodeProto], name: str) -> list[onnx.NodeProto]:
    reached = {name}
    found = []
    for node in nodes:
        if reached & set(node.input):
            found.append(node)
            reached.update(node.output)
    return found


def _find(graph: EditableGraph, names: set[str], value: NDArray[np.float32]) -> str:
    for name in sorted(names):
        constant = graph.value(name)
        if constant is not None and constant.shape == value.shape and np.array_equal(constant, value):
            return name
    raise BundleError(
        "the head is not found in the exported graph, so no exits can be attached. Train without --exits."
    )


def _width(model: onnx.ModelProto) -> int:
    """Return the number of features of the hidden states: the length of any LayerNormalization's scale."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and node.input[1] in constants:
            return int(constants[node.input[1]].dims[0])
    raise BundleError("the graph has no LayerNormalization, so its hidden states cannot be handed on.")
