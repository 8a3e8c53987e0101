"""What a transformers classifier makes of token rows: its logits, and its hidden states' means after some layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren_train.embedding import planned
from edgewren_train.progress import Progress, unseen


def predict_logits(
    model: Any, ids: Sequence[Sequence[int]], *, device: str = "cpu", progress: Progress = unseen
) -> NDArray[np.float32]:
    """Return logits, float32 [n, classes], of token rows, computed in equal-length batches."""
    return predict_layers(model, ids, (), device=device, progress=progress)[0]


def predict_layers(
    model: Any,
    ids: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    device: str = "cpu",
    progress: Progress = unseen,
) -> tuple[NDArray[np.float32], dict[int, NDArray[np.float32]]]:
    """Return logits as `predict_logits`, and what stands after each of `layers` (0: the embeddings).

    The latter is the mean over the tokens of each row, float32 [n, width] each.
    """
    import torch

    rows, inverse = batching.distinct(ids)
    model = model.to(device).eval()
    logits: list[NDArray[np.float32]] = []
    means: dict[int, list[NDArray[np.float32]]] = {layer: [] for layer in layers}
    batches = planned(rows)
    with progress(len(rows), "classifying") as advance:
        for batch in batches:
            input_ids = torch.tensor([rows[index] for index in batch], dtype=torch.long, device=device)
            with torch.inference_mode():
                out = model(
                    input_ids=input_ids, attention_mask=torch.ones_like(input_ids), output_hidden_states=bool(layers)
                )
            logits.append(out.logits.float().cpu().numpy())
            for layer, values in means.items():
                values.append(out.hidden_states[layer].mean(dim=1).float().cpu().numpy())
            advance(len(batch))
    place = np.argsort(np.concatenate(batches))[inverse]
    return np.concatenate(logits)[place], {layer: np.concatenate(values)[place] for layer, values in means.items()}
