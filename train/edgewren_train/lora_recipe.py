"""The settings of a LoRA run, checked. Knows numbers and names, nothing of models."""

from __future__ import annotations

from dataclasses import dataclass

from edgewren.errors import UsageError

USUAL_LENGTH = 256
"""Tokens that LoRA keeps of a text where none are asked for, or what the encoder's positions allow."""


@dataclass(frozen=True)
class LoraRecipe:
    """Settings of a LoRA run; the defaults are the recipe of docs/design.md.

    Attributes:
        rank, alpha, dropout: of the adapters; their output is scaled by alpha / rank.
        target_modules: names of linear layers that get adapters; empty: query and value, found by architecture.
        adapt_layers: adapters only in so many uppermost layers of the encoder; 0: in all.
        epochs, learning_rate, batch_size: learning rate falls linearly to 0 over `epochs`.
        stop_after: end after so many epochs, on the schedule of `epochs` (how a model is retrained on all rows with the
            number of epochs that a validation part chose); None: after all.
        class_weights: "none", or "balanced": a row counts inversely to how frequent its class is.
        max_length: tokens kept of a text; None: see `USUAL_LENGTH`.
        seed: of head, dropout and order.
        precision: "bf16" autocast, "fp32", or "auto" (bf16 where the processor multiplies it natively).
        padding: "dynamic" (to the longest of a batch of similar lengths) or "max" (every text to max_length, as many
            notebooks do; many times slower).
        maximum_steps: stop after so many optimiser steps, for timing; None: all epochs.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ()
    adapt_layers: int = 0
    epochs: int = 15
    learning_rate: float = 2e-4
    batch_size: int = 64
    stop_after: int | None = None
    class_weights: str = "none"
    max_length: int | None = None
    seed: int = 0
    precision: str = "auto"
    padding: str = "dynamic"
    maximum_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name.replace('_', '-')} is {getattr(self, name)}, expected a positive number.")
        if self.maximum_steps is not None and self.maximum_steps <= 0:
            raise UsageError(f"max-steps is {self.maximum_steps}, expected a positive number.")
        if self.stop_after is not None and not 1 <= self.stop_after <= self.epochs:
            raise UsageError(
                f"stop-after is {self.stop_after}, expected 1 to the {self.epochs} epochs of the schedule."
            )
        if self.adapt_layers < 0:
            raise UsageError(f"adapt-layers is {self.adapt_layers}, expected 0 (all) or a number of layers.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}, expected 0 up to (not including) 1.")
        for name, allowed in (
            ("precision", ("auto", "bf16", "fp32")),
            ("padding", ("dynamic", "max")),
            ("class_weights", ("none", "balanced")),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name.replace('_', '-')} is {getattr(self, name)!r}, expected {', '.join(allowed[:-1])} or "
                    f"{allowed[-1]}."
                )
