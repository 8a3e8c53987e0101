"""Early exits in an ONNX graph: heads at earlier layers, and the graph cut there into stages.

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
    model: onnx.ModelProto,
    head: Affine | None,
    exits: Mapping[int, Affine],
    *,
    like: onnx.ModelProto | None = None,
) -> onnx.ModelProto:
    """Return the model with an output exit_K for each layer K.

    Args:
        model: its only output logits.
        head: the folded head of the whole model, found in the graph by its values: an exit is what the graph does with
            its last layer, with a head of its own. None: an exit is its head on the mean over tokens.
        exits: the folded head of each layer.
        like: the fp32 graph of which `model` was made. Where hidden states were centred (see `centring`), the exits
            move them back.

    Raises:
        BundleError: the layers of this architecture cannot be told apart, or the head is not found.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = EditableGraph(model)
    hidden = _layer_outputs(graph.nodes())
    last = max(hidden)
    reference = None if like is None else _betas(like)
    tail = None if head is None else _Tail(graph, hidden[last], head)
    for layer, own in exits.items():
        if layer not in hidden or layer == last:
            raise BundleError(f"there is no exit after layer {layer}: the graph has {last} layers.")
        shift = np.zeros(0, np.float32) if reference is None else _beta(graph, hidden[layer]) - reference[layer]
        if tail is None:
            weight, bias = own
            moved = (bias - weight @ shift).astype(np.float32) if shift.any() else bias
            _mean_of_decisions(graph, hidden[layer], layer, (weight, moved))
        else:
            tail.repeat(hidden[layer], layer, own, shift)
    labels = len(next(iter(exits.values()))[1])
    extended = graph.extend_outputs(
        [helper.make_tensor_value_info(f"exit_{layer}", TensorProto.FLOAT, ["batch", labels]) for layer in exits]
    )
    onnx.checker.check_model(extended)
    return extended


class _Tail:
    """What a graph does with its last layer: pooling, the head, and all between."""

    def __init__(self, graph: EditableGraph, last: str, head: Affine) -> None:
        self._graph, self._last = graph, last
        self._nodes = _depending(graph.nodes(), last)
        constants = {name for node in self._nodes for name in node.input if graph.value(name) is not None}
        self._weight, self._bias = _find(graph, constants, head[0].T), _find(graph, constants, head[1])

    def repeat(self, source: str, layer: int, head: Affine, shift: NDArray[np.float32]) -> None:
        """Do the same with another layer, less `shift`, and another head."""
        from onnx import helper

        graph = self._graph
        if shift.any():
            source = graph.define(
                "Sub", [source, graph.constant(f"exit_{layer}_shift", shift)], f"exit_{layer}_unshifted"
            )
        renamed = {
            self._last: source,
            self._weight: graph.constant(f"exit_{layer}_weight", np.ascontiguousarray(head[0].T)),
            self._bias: graph.constant(f"exit_{layer}_bias", head[1]),
            "logits": f"exit_{layer}",
        }
        for node in self._nodes:
            renamed.update({name: f"exit_{layer}_{name}" for name in node.output if name not in renamed})
        for node in self._nodes:
            attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
            graph.define(
                node.op_type,
                [renamed.get(name, name) for name in node.input],
                renamed[node.output[0]],
                domain=node.domain,
                **attributes,
            )


def _mean_of_decisions(graph: EditableGraph, source: str, layer: int, head: Affine) -> None:
    """Add a head on the mean over the tokens that the mask keeps: the mean of its values for each token, being affine.

    In this order no kernel depends on the batch: the head sees rows of tokens, never a single row (see `isolation`),
    and the mean is a product of each text's own.
    """
    name = f"exit_{layer}"
    axis, one = graph.constant("exit_axis", np.array([1], np.int64)), graph.constant("exit_one", np.float32(1))
    mask = graph.define("Cast", ["attention_mask"], f"{name}_mask", to=1)
    count = graph.define("Max", [graph.define("ReduceSum", [mask, axis], f"{name}_sum", keepdims=1), one], f"{name}_n")
    shares = graph.define("Unsqueeze", [graph.define("Div", [mask, count], f"{name}_share"), axis], f"{name}_shares")
    weight = graph.constant(f"{name}_weight", np.ascontiguousarray(head[0].T))
    values = graph.define("MatMul", [source, weight], f"{name}_values")
    mean = graph.define("Squeeze", [graph.define("MatMul", [shares, values], f"{name}_row"), axis], f"{name}_mean")
    graph.define("Add", [mean, graph.constant(f"{name}_bias", head[1])], name)


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

    The mask of fused attention takes it from the first layer's query, [batch, sequence, features] like these. (That of
    a last layer for the first token only asks its own query, which has fewer tokens and is in the stage anyway.)
    """
    nodes = graph.nodes(outputs)
    own = {name for node in _depending(nodes, hidden) for name in node.output}
    for node in nodes:
        places = {entry.name: entry.i for entry in node.attribute}
        if node.op_type == "Shape" and places == {"start": 1, "end": 2} and node.input[0] not in own:
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
