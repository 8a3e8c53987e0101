"""An ONNX graph that can be edited by giving a tensor a new producer. What nothing needs any more falls away.

Knows nodes and constants, nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx


class EditableGraph:
    """A copy of a model's graph. `define` gives a tensor its producer, new or instead of the old one; `finish` returns
    the model with the nodes that its outputs need, sorted, and only the constants that those use.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._producers = {output: node for node in self._model.graph.node for output in node.output if output}
        self._constants = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._shapes: list[onnx.ValueInfoProto] = []

    def nodes(self, names: Sequence[str] | None = None, *, given: Collection[str] = ()) -> list[onnx.NodeProto]:
        """Return the nodes that tensors need, by default the outputs; each after those that it needs.

        Args:
            given: tensors that are there without their producers.
        """
        ordered: list[onnx.NodeProto] = []
        done: set[int] = set()
        wanted = [output.name for output in self._model.graph.output] if names is None else names
        stack = [(node, False) for node in self._needed(wanted, given)]
        while stack:
            node, complete = stack.pop()
            if id(node) in done:
                continue
            if complete:
                done.add(id(node))
                ordered.append(node)
            else:
                stack.append((node, True))
                stack += [(needed, False) for needed in self._needed(node.input, given) if id(needed) not in done]
        return ordered

    def _needed(self, names: Sequence[str], given: Collection[str]) -> list[onnx.NodeProto]:
        return [self._producers[name] for name in names if name in self._producers and name not in given]

    def producer(self, name: str) -> onnx.NodeProto | None:
        return self._producers.get(name)

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """Return the consumers of every tensor, as the graph now stands."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes():
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    def computed(self, node: onnx.NodeProto) -> list[str]:
        """Return the inputs of a node that are no constants."""
        return [name for name in node.input if name not in self._constants]

    def value(self, name: str) -> NDArray[Any] | None:
        """Return a constant's value, None where the tensor is computed."""
        from onnx import numpy_helper

        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add a constant, or find the one of that name again; return its name."""
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def define(self, operator: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """Make a node the producer of a tensor; return the tensor's name."""
        from onnx import helper

        node = helper.make_node(operator, list(inputs), [output], name=f"{output}_node", domain=domain, **attributes)
        self._producers[output] = node
        return output

    def rename_output(self, node: onnx.NodeProto, name: str) -> None:
        """Give a node's first output another name; the tensor of the old name needs a new producer."""
        node.output[0], node.name = name, f"{name}_node"
        self._producers[name] = node

    def cut(self, name: str) -> None:
        """Take a tensor's producer away: it is an input now."""
        self._producers.pop(name, None)

    def extend_outputs(self, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """Return the edited model with further outputs. The graph must not be used after it."""
        self._model.graph.output.extend(outputs)
        return self.finish()

    def declare(self, name: str, shape: Sequence[str | int | None]) -> None:
        """State a float32 tensor's shape where onnxruntime infers a wrong one."""
        from onnx import TensorProto, helper

        self._shapes.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def until(
        self, names: Sequence[str], *, given: Mapping[str, Sequence[int | None]] | None = None
    ) -> onnx.ModelProto:
        """Return a model of its own with these tensors as outputs, of the graph as it now stands.

        Args:
            given: float32 tensors that become inputs where they are needed, and their shapes (None: any size).
        """
        import onnx

        given = given or {}
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph, nodes = model.graph, self.nodes(names, given=given)
        used = {name for node in nodes for name in node.input}
        del graph.node[:], graph.initializer[:], graph.value_info[:], graph.output[:]
        graph.node.extend(nodes)
        graph.initializer.extend(tensor for name, tensor in self._constants.items() if name in used)
        graph.value_info.extend(shape for shape in self._shapes if shape.name not in given)
        graph.input.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in given.items()
            if name in used
        )
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        _import_microsoft(model)
        return model

    def finish(self, *, opset: int | None = None) -> onnx.ModelProto:
        """Return the edited model, of at least this opset where one is given. The graph must not be used after it."""
        import onnx

        graph = self._model.graph
        nodes = self.nodes()
        used = {name for node in nodes for name in node.input}
        constants = [tensor for name, tensor in self._constants.items() if name in used]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.initializer.extend(constants)
        graph.value_info.extend(self._shapes)
        domains = {entry.domain: entry for entry in self._model.opset_import}
        if opset is not None and domains[""].version < opset:
            domains[""].version = opset
            self._model.ir_version = max(self._model.ir_version, onnx.helper.find_min_ir_version_for([domains[""]]))
        _import_microsoft(self._model)
        return self._model


def _import_microsoft(model: onnx.ModelProto) -> None:
    import onnx

    if "com.microsoft" not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
