"""Depth as a dial: an encoder cut after its first layers, and the shallowest depth that is as good as the best.

Knows encoders and losses, nothing of recipes or files.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import InputError, UsageError
from edgewren_train.encoders import Encoder, weights_sha256


def layers_of(transformer: Any) -> Any:
    """Return the list of a transformers model's layers, a torch ModuleList.

    Raises:
        InputError: none is found, or more than one (encoder and decoder).
    """
    import torch

    count = getattr(transformer.config, "num_hidden_layers", None)
    found = [m for m in transformer.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        raise InputError(
            f"{type(transformer).__name__} has {len(found)} lists of {count} layers, expected one. Leave --depth and "
            "--exits out."
        )
    return found[0]


def cut_layers(transformer: Any, depth: int) -> None:
    """Cut a transformers model after `depth` layers, in place: what is saved really has that many.

    Raises:
        UsageError: depth is not within 0 and the number of layers.
    """
    layers = layers_of(transformer)
    if not 0 <= depth <= len(layers):
        raise UsageError(f"depth is {depth}, expected 1 to {len(layers)} for this encoder (0: 'train static').")
    del layers[depth:]
    config = transformer.config
    config.num_hidden_layers = depth
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types)[:depth]


def check_layout(transformer: Any) -> None:
    """Refuse a transformers model whose layers an exported graph cannot be cut between, as early exits need it.

    The cut is found by LayerNormalizations: one after the embeddings, then two per layer, each with an offset (BERT),
    all of one width (an ELECTRA with smaller embeddings projects them behind the first).

    Raises:
        InputError: it has others.
    """
    import torch

    layers = layers_of(transformer)

    def norms_in(module: Any) -> list[Any]:
        return [m for m in module.modules() if isinstance(m, torch.nn.LayerNorm) and m.bias is not None]

    norms = norms_in(transformer.base_model)
    if (
        any(len(norms_in(layer)) != 2 for layer in layers)
        or len(norms) != 1 + 2 * len(layers)
        or len({norm.normalized_shape for norm in norms}) != 1
    ):
        raise InputError(
            f"early exits need BERT's layout (a LayerNormalization after the embeddings and two per layer, as wide as "
            f"each other), and {type(transformer.base_model).__name__} has another. Leave --exits out."
        )


def depth_of(encoder: Encoder) -> int:
    """Return how many layers a sentence encoder has."""
    return len(layers_of(encoder.model[0].auto_model))


def cut(encoder: Encoder, depth: int) -> Encoder:
    """Return a copy of a sentence encoder cut after `depth` layers; pooling and what follows stay.

    Raises:
        InputError: its layers cannot be found.
        UsageError: it has fewer layers.
    """
    if depth == depth_of(encoder):
        return encoder
    model = copy.deepcopy(encoder.model)
    cut_layers(model[0].auto_model, depth)
    return replace(encoder, model=model, sha256=weights_sha256(model[0].auto_model.state_dict()))


@dataclass(frozen=True)
class Choice:
    """The depth that was chosen, and why.

    Attributes:
        depth: the shallowest whose mean loss is at most the best's plus one standard error of the best's.
        best: the depth with the lowest mean loss.
        losses, errors: mean held-out loss of each depth, and its standard error over rows.
    """

    depth: int
    best: int
    losses: dict[int, float]
    errors: dict[int, float]

    def as_text(self) -> str:
        table = ", ".join(f"{depth}: {self.losses[depth]:.4f} ± {self.errors[depth]:.4f}" for depth in self.losses)
        bound = self.losses[self.best] + self.errors[self.best]
        return (
            f"held-out squared error by depth: {table}. Chosen: {self.depth} layers, the shallowest within one "
            f"standard error of the best ({self.best} layers; {bound:.4f})"
        )


def choose(losses: Mapping[int, NDArray[np.floating[Any]]]) -> Choice:
    """Choose a depth by the one-standard-error rule (Breiman, Friedman, Olshen & Stone 1984, section 3.4.3).

    Args:
        losses: held-out loss of each row, by depth.
    """
    means = {depth: float(np.mean(values)) for depth, values in sorted(losses.items())}
    errors = {depth: float(np.std(losses[depth], ddof=1) / np.sqrt(len(losses[depth]))) for depth in means}
    best = min(means, key=lambda depth: (means[depth], depth))
    chosen = min(depth for depth in means if means[depth] <= means[best] + errors[best])
    return Choice(chosen, best, means, errors)


def squared_errors(logits: NDArray[np.floating[Any]], true: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return each row's squared error, [n], of what ridge was fitted to: +1 for the true class, -1 for the others.

    Args:
        logits: of a ridge head before any temperature, [n, classes]; for two classes [-d/2, d/2].
        true: class index of each row.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.shape[1] == 2:
        return (values[:, 1] - values[:, 0] - np.where(true == 1, 1.0, -1.0)) ** 2
    targets = np.where(np.arange(values.shape[1]) == true[:, None], 1.0, -1.0)
    squared: NDArray[np.float64] = ((values - targets) ** 2).mean(axis=1)
    return squared
