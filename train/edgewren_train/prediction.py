"""What a transformers classifier makes of token rows: its logits, and its hidden states' means after some layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren_train.embedding import TORCH_TOKENS_PER_BATCH


def predict_logits(model: Any, ids: Sequence[Sequence[int]], *, device: str = "cpu") -> NDArray[np.float32]:
    """Return logits, float32 [n, classes], of token rows, computed in equal-length batches."""
    return _in_batches(model, ids, lambda out: {0: out.logits}, device)[0]


def layer_means(
    model: Any, ids: Sequence[Sequence[int]], layers: Sequence[int], *, device: str = "cpu"
) -> dict[int, NDArray[np.float32]]:
    """Return the hidden states after each of `layers` (0: the embeddings), their mean over the tokens of each row.

    float32 [n, width] each, in equal-length batches.
    """
    return _in_batches(
        model,
        ids,
        lambda out: {layer: out.hidden_states[layer].mean(dim=1) for layer in layers},
        device,
        output_hidden_states=True,
    )


def _in_batches(
    model: Any, ids: Sequence[Sequence[int]], take: Callable[[Any], dict[int, Any]], device: str, **options: Any
) -> dict[int, NDArray[np.float32]]:
    import torch

    rows, inverse = batching.distinct(ids)
    model = model.to(device).eval()
    found: dict[int, NDArray[np.float32]] = {}
    for batch in batching.plan([len(row) for row in rows], TORCH_TOKENS_PER_BATCH):
        input_ids = torch.tensor([rows[index] for index in batch], dtype=torch.long, device=device)
        with torch.inference_mode():
            taken = take(model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **options))
        for name, values in taken.items():
            numbers = values.float().cpu().numpy()
            found.setdefault(name, np.empty((len(rows), numbers.shape[1]), dtype=np.float32))[batch] = numbers
    return {name: values[inverse] for name, values in found.items()}
