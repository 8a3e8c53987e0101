"""What an operator may be given where onnxruntime looks too little: it ends the process, or reads and writes beyond.

Found by giving each listed operator other inputs, shapes and attributes (onnxruntime 1.32). What is asked for here,
every exported model has. Knows names and shapes, no protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_WITHOUT_GAPS = frozenset({"Concat", "Einsum", "Max", "Mean", "Min", "Sum"})
"""Any number of inputs, each of which is followed without asking whether it is there."""

_QUANTISED: Mapping[str, tuple[tuple[int, ...], int]] = {
    "DynamicQuantizeMatMul": ((2, 3), 4),
    "MatMulIntegerToFloat": ((3, 5), 6),
}
"""Products with a stored weight as second input: where its scales and zero points come, and where the bias. They are
read once per column, however many there are."""

_TAKEN: Mapping[str, Mapping[str, frozenset[int]]] = {
    "ai.onnx": {"Attention": frozenset(range(4))},
    "com.microsoft": {
        "Attention": frozenset({0, 1, 2, 3, 5}),
        "EmbedLayerNormalization": frozenset(range(8)),
        "MultiHeadAttention": frozenset(range(6)),
    },
}
"""Inputs that it takes in an encoder. The others are positions, and what a model that writes keeps of earlier words."""


def objection(
    domain: str,
    operator: str,
    inputs: Sequence[str],
    outputs: int,
    attributes: Mapping[str, int | None],
    shapes: Mapping[str, tuple[int, ...]],
) -> str | None:
    """Return why a node may not have these operands, or None.

    Args:
        domain: "ai.onnx" or "com.microsoft".
        inputs: names; empty for one that is left out.
        outputs: how many.
        attributes: by name, with their values where these are integers.
        shapes: of the tensors that the file stores, by name.
    """
    taken = _TAKEN[domain].get(operator)
    foreign = [name for index, name in enumerate(inputs) if name and taken is not None and index not in taken]
    if foreign:
        return f"takes {foreign[0]!r} where no exported model gives it anything"
    if domain == "com.microsoft":
        return _of_product(operator, inputs, shapes) if operator in _QUANTISED else None
    if operator in _WITHOUT_GAPS and "" in inputs:
        return "leaves out an input"
    if operator == "Split" and attributes.get("num_outputs", outputs) != outputs:
        return f"splits into {attributes.get('num_outputs')} and has {outputs} outputs"
    return None


def _of_product(operator: str, inputs: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    scales, bias = _QUANTISED[operator]
    weight = shapes.get(inputs[1], ()) if len(inputs) > 1 else ()
    if len(weight) != 2 or not all(weight):
        return "has a weight that is no stored matrix"
    columns = weight[1]
    for index in (*scales, bias):
        name = inputs[index] if index < len(inputs) else ""
        one_for_all = index != bias and shapes.get(name) in ((), (1,))
        if name and shapes.get(name) != (columns,) and not one_for_all:
            return f"takes {name!r} for {columns} columns, which is no stored tensor of that length"
    return None
