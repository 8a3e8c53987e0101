"""One model in stages: after each, texts that are sure leave with its logits; the others go on from where they are.

A stage hands its hidden states to the next, so nothing is computed twice. Survivors of one length are put together
again: rows of a batch are of equal length, and each row's numbers are its own, so neither a text's logits nor the layer
after which it leaves depends on its neighbours. Knows tensors, not texts or labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgewren.batching import CPU_TOKENS_PER_BATCH, next_share
from edgewren.errors import BundleModelError
from edgewren.session import ModelSession, feed


@dataclass(frozen=True)
class Stage:
    """One stage's ONNX file.

    Attributes:
        model: its bytes.
        layer: it ends after this layer of the encoder.
        threshold: a text leaves where its two largest logits are further apart; None for the last stage.
    """

    model: bytes
    layer: int
    threshold: float | None


class StagedSession:
    """Runs a model's stages one after the other. Safe to call from several threads at once.

    Args:
        sessions: of the stages, in their order.
        layers, thresholds: where each stage ends, and when a text leaves there, as in `Stage`.

    Raises:
        BundleModelError: the stages do not fit together.
    """

    def __init__(
        self, sessions: Sequence[ModelSession], layers: Sequence[int], thresholds: Sequence[float | None]
    ) -> None:
        self._sessions = list(sessions)
        self.layers = tuple(layers)
        self.thresholds = tuple(np.inf if threshold is None else threshold for threshold in thresholds)
        self.providers = self._sessions[0].providers
        self.outputs = self._sessions[-1].outputs
        handed: set[str] = set()
        self._handed: list[str | None] = []
        for session, layer in zip(self._sessions, self.layers, strict=True):
            given = set(session.given) - {"logits"}
            fits = set(session.inputs) - {"input_ids", "attention_mask", "token_type_ids"} == handed
            last = layer == self.layers[-1]
            if not fits or len(given) != (0 if last else 1):
                raise BundleModelError(
                    f"The stage that ends after layer {layer} has inputs {list(session.inputs)} and outputs "
                    f"{list(session.given)}, which do not fit the stage before it ({sorted(handed)}). Export the "
                    "bundle again."
                )
            handed = given
            self._handed.append(next(iter(given), None))

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> Self:
        """Make the sessions of stages, for a CPU.

        Raises:
            BundleModelError: as above, or onnxruntime cannot load a stage.
        """
        sessions = [ModelSession(stage.model, stage=True) for stage in stages]
        return cls(sessions, [stage.layer for stage in stages], [stage.threshold for stage in stages])

    def close(self) -> None:
        """Give the models' memory back as soon as the last running call returns."""
        for session in self._sessions:
            session.close()

    def run(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return logits, float32 [batch, labels], of token rows of equal length, int64 [batch, sequence]."""
        return self.answer(input_ids)[0]

    def answer(
        self, input_ids: NDArray[np.int64], *, complete: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Return logits, float32 [batch, labels], and the layer after which each row left, int16 [batch].

        Args:
            input_ids: token rows of equal length, int64 [batch, sequence].
            complete: let no row leave before the last stage.
        """
        rows = np.arange(len(input_ids))
        most = max(1, CPU_TOKENS_PER_BATCH // max(1, input_ids.shape[1]))
        layers = np.full(len(rows), self.layers[-1], dtype=np.int16)
        parts: list[tuple[NDArray[np.intp], NDArray[np.float32]]] = []
        hidden: NDArray[np.float32] | None = None
        for stage, layer in enumerate(self.layers):
            last = stage == len(self.layers) - 1
            staying: list[NDArray[np.intp]] = []
            handed_on: list[NDArray[np.float32]] = []
            end = 0
            while end < len(rows):
                start, end = end, end + next_share(len(rows) - end, most)
                chosen = rows[start:end]
                before = None if hidden is None else hidden[start:end]
                logits, after = self._step(stage, input_ids[chosen], before)
                if last:
                    leaves = np.ones(len(chosen), dtype=np.bool_)
                else:
                    leaves = (margins(logits) > self.thresholds[stage]) & (not complete)
                if leaves.any():
                    parts.append((chosen[leaves], logits[leaves]))
                    layers[chosen[leaves]] = layer
                if after is not None and not leaves.all():
                    staying.append(chosen[~leaves])
                    handed_on.append(after[~leaves])
            if last or not staying:
                break
            rows, hidden = np.concatenate(staying), np.concatenate(handed_on)
        out = np.empty((len(input_ids), parts[0][1].shape[1]), dtype=np.float32)
        for chosen, logits in parts:
            out[chosen] = logits
        return out, layers

    def _step(
        self, stage: int, input_ids: NDArray[np.int64], hidden: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        inputs = self._sessions[stage].inputs
        values: dict[str, NDArray[Any]] = {k: v for k, v in feed(input_ids, inputs).items() if k in inputs}
        if hidden is not None:
            values[str(self._handed[stage - 1])] = hidden
        handed = self._handed[stage]
        results = self._sessions[stage].call(["logits"] if handed is None else ["logits", handed], values)
        return results[0], None if handed is None else results[1]


def margins(logits: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return how far each row's two largest logits are apart, [n]."""
    if logits.shape[1] == 2:
        return np.abs(logits[:, 1] - logits[:, 0])
    top_two = np.partition(logits, -2, axis=1)[:, -2:]
    apart: NDArray[np.floating[Any]] = top_two[:, 1] - top_two[:, 0]
    return apart
