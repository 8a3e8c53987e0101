"""Which values of a graph are sizes: integers that cannot be negative, however the graph is computed.

Shapes are asked for by Expand, Pad, Tile and ConstantOfShape. With a negative one, onnxruntime 1.32 infers an axis of
negative length, and a Slice after it ends the process (an assertion in its shape inference; found by fuzzing). With
large constants, one operator fills the memory. Works forwards, as the nodes come; knows no protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAXIMUM_FILLED = 2**24
"""Elements that one operator may make out of constants alone."""

_SHAPES: Mapping[str, tuple[int, ...]] = {"ConstantOfShape": (0,), "Expand": (1,), "Pad": (1,), "Tile": (1,)}
_COUNTS: Mapping[str, tuple[int, ...]] = {**_SHAPES, "Range": (0, 1, 2)}
_SAME = {"Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"}
_ALL = {"Add", "Concat", "Max", "Min", "Mul"}
_AXIS_BITS = 31
_MOST_BITS = 62
_INT64 = 7  # ONNX's number of the type


class Sizes:
    """What is known of the integers of one graph."""

    def __init__(self) -> None:
        self._bits: dict[str, int] = {}  # sizes -> how many bits they have at most
        self._elements: dict[str, int] = {}  # stored shapes -> elements of a tensor of that shape

    def store(self, name: str, numbers: Sequence[int]) -> None:
        """Take note of integers that the file holds."""
        elements = 1
        for number in numbers:
            elements *= max(1, abs(number))
        self._elements[name] = elements
        if min(numbers, default=0) >= 0:
            self._bits[name] = max(numbers, default=0).bit_length()

    def objection(self, operator: str, inputs: Sequence[str]) -> str | None:
        """Return why this node of ai.onnx may not have these inputs, or None."""
        for index in _COUNTS.get(operator, ()):
            if index < len(inputs) and self._elements.get(inputs[index], 0) > MAXIMUM_FILLED:
                return f"would make {self._elements[inputs[index]]} elements out of a constant"
        for index in _SHAPES.get(operator, ()):
            if index < len(inputs) and inputs[index] not in self._bits:
                return f"takes a shape from {inputs[index]!r}, which may be negative"
        return None

    def follow(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, int | None]
    ) -> None:
        """Take note of what a node of ai.onnx makes out of sizes. Integers of narrower types overflow: no sizes."""
        bits: int | None = None
        if operator == "Shape":
            bits = _AXIS_BITS
        elif inputs and (operator in _SAME or (operator == "Cast" and attributes.get("to") == _INT64)):
            bits = self._bits.get(inputs[0])
        elif operator == "Where" and len(inputs) == 3:
            bits = self._all(inputs[1:], operator)
        elif operator in _ALL:
            bits = self._all(inputs, operator)
        if bits is not None and bits <= _MOST_BITS:
            self._bits.update(dict.fromkeys(outputs, bits))

    def _all(self, inputs: Sequence[str], operator: str) -> int | None:
        known = [self._bits[name] for name in inputs if name in self._bits]
        if not known or len(known) != len(inputs):
            return None
        if operator == "Mul":
            return sum(known)
        return max(known) + (operator == "Add")
