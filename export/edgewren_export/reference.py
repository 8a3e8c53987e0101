"""What the training libraries themselves answer: the logits that the first ONNX graph is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren_export import fold, graph
from edgewren_export.proof import Proof
from edgewren_export.trained_model import TrainedModel

_LIBRARY = {"ridge": "scikit-learn", "lora": "torch", "ensemble": "members"}


def origin(model: TrainedModel) -> str:
    """Return the name of what `reference_logits` asks."""
    return _LIBRARY[model.kind]


def reference_logits(model: TrainedModel, loaded: Any, ids: list[list[int]], proof: Proof) -> NDArray[Any]:
    """Return torch's logits [n, labels]; for ridge, scikit-learn's on torch's embeddings; for an ensemble, the mean of
    its members' answers.

    Args:
        loaded: what `graph.load` returned.
    """
    if model.kind == "ensemble":
        answers = [
            reference_logits(member, part, ids, proof) for member, part in zip(model.members, loaded, strict=True)
        ]
        return np.asarray(model.temperature * np.mean(answers, axis=0))
    if model.kind == "lora":
        return graph.run_torch(graph.scoring_module(model, loaded), ids)
    embeddings = graph.run_torch(loaded, ids)
    head = fold.load_head(model.folder / "head.safetensors")
    proof.found["skl2onnx_difference"] = fold.cross_check(head, model.labels, embeddings)
    decision = head.scikit_learn(model.labels).decision_function(embeddings.astype(np.float64))
    return fold.logits_from_decision(decision, temperature=model.temperature)
