"""Several models as one graph: the mean of their calibrated logits, times the ensemble's own temperature.

What members have in common is stored once, and onnxruntime's optimiser then computes it once: two heads on one frozen
encoder cost one encoder pass. A LoRA fine-tune changes every layer but its word embeddings, so beside another model it
costs a pass of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import onnx


class EnsembleGraph(torch.nn.Module):
    """(input_ids, attention_mask) -> logits, from members that already multiply by their own temperatures."""

    def __init__(self, members: Sequence[torch.nn.Module], temperature: float) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(members)
        self.factor = temperature / len(members)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        first, *others = self.members
        total: torch.Tensor = first(input_ids, attention_mask)
        for member in others:
            total = total + member(input_ids, attention_mask)
        return total * self.factor


def share_equal_weights(model: onnx.ModelProto) -> int:
    """Let nodes that read equal constants read the same one, in place. Returns the bytes that this saves."""
    kept: dict[tuple[object, ...], str] = {}
    renamed: dict[str, str] = {}
    saved = 0
    for tensor in model.graph.initializer:
        if not tensor.raw_data:  # small constants of other encodings are not worth it
            continue
        key = (tensor.data_type, tuple(tensor.dims), hashlib.sha256(tensor.raw_data).digest())
        if kept.setdefault(key, tensor.name) != tensor.name:
            renamed[tensor.name] = kept[key]
            saved += len(tensor.raw_data)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name in renamed:
                node.input[position] = renamed[name]
    left = [tensor for tensor in model.graph.initializer if tensor.name not in renamed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(left)
    return saved
