"""Where the adapters go: the linear layers of an encoder, whatever its architecture calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewren.errors import InputError, UsageError

_QUERY_VALUE_NAMES = (
    ("query", "value"),  # BERT, RoBERTa, XLM-R, ELECTRA
    ("q", "v"),  # MPNet
    ("q_lin", "v_lin"),  # DistilBERT
    ("query_proj", "value_proj"),  # DeBERTa v2, v3
    ("in_proj",),  # DeBERTa v1: one matrix for all three
    ("q_proj", "v_proj"),  # decoder-style encoders
    ("Wqkv",),  # ModernBERT: one matrix for all three
)


def default_target_modules(model: Any) -> tuple[str, ...]:
    """Return the names of the query and value projections, whatever the architecture calls them.

    Raises:
        InputError: none of the known names is there; the message lists the linear layers that are.
    """
    present = _linear_names(model)
    for names in _QUERY_VALUE_NAMES:
        if set(names) <= present:
            return names
    raise InputError(
        f"No query and value projections were found in {type(model).__name__}. Its linear layers are called: "
        f"{', '.join(sorted(present))}. Choose some with --target-modules."
    )


def check_target_modules(model: Any, targets: Sequence[str]) -> None:
    """Refuse names that no linear layer has.

    Raises:
        InputError: the message lists the linear layers that are there.
    """
    present = _linear_names(model)
    unknown = [name for name in targets if name not in present]
    if unknown:
        raise InputError(
            f"{type(model).__name__} has no linear layer called {', '.join(unknown)}. "
            f"Its linear layers are called: {', '.join(sorted(present))}."
        )


def adapted_layers(model: Any, count: int) -> list[int] | None:
    """Return the indices of the `count` uppermost layers of an encoder, or None for all (count 0).

    Raises:
        UsageError: the encoder has fewer layers, or does not say how many.
    """
    if count == 0:
        return None
    layers = getattr(model.config, "num_hidden_layers", None)
    if not isinstance(layers, int) or count > layers:
        raise UsageError(
            f"adapt-layers is {count}, but {type(model).__name__} has {layers or 'an unknown number of'} layers."
        )
    return list(range(layers - count, layers))


def _linear_names(model: Any) -> set[str]:
    import torch

    return {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
