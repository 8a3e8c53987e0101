"""The texts that the gates run on: the training texts or given ones, as token rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewren.errors import BundleError
from edgewren_export.proof import Say
from edgewren_export.trained_model import TrainedModel

PARITY_TEXTS = 500
"""Texts that the gates want; with fewer, all there are take part, and the card says how many."""

_MOST_PARITY_TEXTS = 2000


@dataclass(frozen=True)
class GateTexts:
    """Texts of the gates.

    Attributes:
        ids: token rows.
        truth: the label of each, for training texts.
        step: every step-th training text takes part; None where other texts were given.
    """

    ids: list[list[int]]
    truth: list[str] | None
    step: int | None


def gate_texts(model: TrainedModel, texts: Sequence[str] | None, say: Say) -> GateTexts:
    """Return the texts of the gates: `texts`, or the model's training texts.

    Raises:
        BundleError: there are none.
    """
    real = list(model.texts if texts is None else texts)
    if not real:
        raise BundleError(f"{model.folder} has no train.jsonl. Give texts for the parity gates with --texts FILE.")
    if len(real) < PARITY_TEXTS:
        say(f"note: parity is checked on {len(real)} texts; {PARITY_TEXTS} or more say more (--texts FILE)")
    if texts is not None:
        return GateTexts(model.tokenizer.encode(real).ids, truth=None, step=None)
    step = max(1, -(-len(model.texts) // _MOST_PARITY_TEXTS))
    return GateTexts(model.tokenizer.encode(real[::step]).ids, truth=list(model.text_labels[::step]), step=step)
