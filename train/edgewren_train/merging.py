"""The merge of LoRA's adapters into the encoder, and the proof that the merged model is the trained one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import InvariantError, UsageError
from edgewren_train.lora_model import Fitted, LoraBase, LoraResult
from edgewren_train.prediction import predict_logits
from edgewren_train.progress import Progress, unseen

MERGE_TOLERANCE = 1e-4
"""Largest difference of logits allowed between adapter and merged model: fp32 rounding of W + BA is about 1e-6."""

_RAN_AWAY = 1.5
"""Where the last epoch's loss is this many times that of guessing, the weights are to blame, not the merge."""


def merge(base: LoraBase, fitted: Fitted, ids: Sequence[Sequence[int]], *, progress: Progress = unseen) -> LoraResult:
    """Merge the adapters into the encoder, and prove on token rows that nothing was lost.

    Raises:
        UsageError: training ran away, to weights too large to be merged exactly.
        InvariantError: adapter and merged model disagree, or the merged head is not the trained one.
    """
    adapter_logits = predict_logits(fitted.model, ids, progress=progress)
    trained_head = _head_weights(fitted.model, base.fresh)
    merged = fitted.model.merge_and_unload().eval()
    try:
        difference = prove_merge(merged, ids, adapter_logits, trained_head, base, progress=progress)
    except InvariantError as error:
        guessing = math.log(base.model.config.num_labels)
        reached = fitted.loss[-1] if fitted.loss else guessing  # none: it was ended within the first epoch
        if np.isfinite(adapter_logits).all() and reached < _RAN_AWAY * guessing:
            raise
        raise UsageError(
            f"Training ran away: the last epoch's loss is {reached:.3g}, that of guessing {guessing:.3g}. Choose a "
            "lower --learning-rate (default: 0.0002). Nothing was saved."
        ) from error
    facts = {field.name: getattr(fitted, field.name) for field in dataclasses.fields(Fitted)}
    return LoraResult(**{**facts, "model": merged}, merge_difference=difference)


def prove_merge(
    merged: Any,
    ids: Sequence[Sequence[int]],
    adapter_logits: NDArray[np.float32],
    trained_head: dict[str, Any],
    base: LoraBase,
    *,
    progress: Progress = unseen,
) -> float:
    """Return the largest difference of any logit. Raises InvariantError as `merge` does."""
    import torch

    difference = float(np.abs(predict_logits(merged, ids, progress=progress) - adapter_logits).max())
    if not difference <= MERGE_TOLERANCE:
        raise InvariantError(
            f"The merged model's logits differ from the adapter's by {difference:.2e}, more than "
            f"{MERGE_TOLERANCE:.0e}. Nothing was saved; please report this with the versions of peft and transformers."
        )
    state = merged.state_dict()
    before = base.model.state_dict()
    if not trained_head or any(name not in state for name in trained_head):
        raise InvariantError(f"The merged model lacks the trained head ({', '.join(base.fresh)}). Please report this.")
    for name, value in trained_head.items():
        if not torch.equal(state[name], value):
            raise InvariantError(f"The merged model's {name} is not the one that was trained. Please report this.")
    if all(torch.equal(before[name], value) for name, value in trained_head.items()):
        raise InvariantError("The head did not change during training. Please report this.")
    return difference


def _head_weights(model: Any, fresh: Sequence[str]) -> dict[str, Any]:
    """Return copies of the trained head's tensors, by the names that they have in the merged model."""
    out = {}
    for name, value in model.state_dict().items():
        if ".modules_to_save.default." in name and any(f".{module}." in name for module in fresh):
            plain = name.removeprefix("base_model.model.").replace(".modules_to_save.default.", ".")
            out[plain] = value.detach().clone()
    return out
