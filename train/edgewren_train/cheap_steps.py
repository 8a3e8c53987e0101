"""Training steps that cost less on a CPU and learn the same: two changes to a model while it trains, undone after.

Measured with MiniLM, one thread with bf16, batches of 64 tweets of 30 tokens: docs/log.md has the figures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_LEVELS = 2**16
# Their classifier reads the first token only, and their layers have this shape.
_FIRST_TOKEN_POOLING = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}


@contextlib.contextmanager
def cheap_steps(model: Any, *, seed: int, device: str) -> Iterator[None]:
    """Make training steps of a classifier cheaper within the block.

    - The last layer computes everything behind its attention for the first token alone, the only one that the
      classifier reads: the same logits and gradients.
    - On a CPU, dropout draws its masks as 16-bit numbers from numpy's SFC64 instead of one Bernoulli number at a time,
      which takes torch longer than many a matrix product. Drop rates are multiples of 2^-16, masks depend on `seed`.
    """
    undo = [_first_token_only(model)]
    if device == "cpu":
        undo.append(_swap_dropout(model, np.random.Generator(np.random.SFC64(seed))))
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _first_token_only(model: Any) -> Any:
    """Let the last layer go on with the first token behind its attention; returns the function that undoes it."""
    config = model.config
    if getattr(config, "model_type", "") not in _FIRST_TOKEN_POOLING:
        return lambda: None
    last = f".encoder.layer.{config.num_hidden_layers - 1}.attention.output"
    modules = [module for name, module in model.named_modules() if name.endswith(last)]
    if len(modules) != 1:
        return lambda: None

    def first(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value[:, :1] for value in inputs)

    return modules[0].register_forward_pre_hook(first).remove


def _swap_dropout(model: Any, rng: np.random.Generator) -> Any:
    import torch

    class _Dropout(torch.nn.Module):
        """As torch.nn.Dropout; `p` is read by attention functions."""

        def __init__(self, p: float) -> None:
            super().__init__()
            self.p = p
            self._dropped = round(p * _LEVELS)

        def forward(self, values: Any) -> Any:
            if not self.training or not self._dropped:
                return values
            draws = np.frombuffer(rng.bytes(2 * values.numel()), dtype=np.uint16)
            kept = torch.from_numpy(draws >= self._dropped).view(values.shape).to(values.dtype)
            return values * kept.mul_(_LEVELS / (_LEVELS - self._dropped))

    swapped = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Dropout:
                replacement = _Dropout(child.p)
                replacement.train(child.training)
                parent._modules[name] = replacement  # noqa: SLF001  names of peft's dicts are no attributes
                swapped.append((parent, name, child))

    def restore() -> None:
        for parent, name, child in swapped:
            parent._modules[name] = child  # noqa: SLF001

    return restore
