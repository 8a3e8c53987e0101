"""The golden texts' fp32 logits: what golden.jsonl holds, how far a variant is from them, and where texts leave it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewren.session import ModelSession
from edgewren.staged import StagedSession
from edgewren_export.exits import answers
from edgewren_export.golden import golden_texts
from edgewren_export.logits import run
from edgewren_export.trained_model import TrainedModel

FILE = "golden.jsonl"


@dataclass(frozen=True)
class Golden:
    """The golden texts, their token rows, and their logits, float32 [n, labels]."""

    texts: list[str]
    ids: list[list[int]]
    logits: NDArray[np.float32]

    def lines(self) -> bytes:
        """Return golden.jsonl."""
        rows = zip(self.texts, self.logits.tolist(), strict=True)
        return "".join(json.dumps({"text": text, "logits": values}) + "\n" for text, values in rows).encode()

    def difference(self, session: ModelSession) -> float:
        """Return the largest difference of a variant's logits."""
        return self._from(run(session, self.ids))

    def in_stages(self, session: StagedSession) -> tuple[float, list[int]]:
        """Return the largest difference of a variant's logits, and the layer after which each text leaves.

        Texts that leave early have another head's logits: replays elsewhere may differ by as much.
        """
        logits, layers = answers(session, self.ids)
        return self._from(logits), layers.tolist()

    def _from(self, logits: NDArray[np.float32]) -> float:
        return float(np.abs(logits - self.logits).max())


def golden_of(model: TrainedModel, session: ModelSession) -> Golden:
    """Answer the golden texts."""
    texts = golden_texts(model.max_length)
    ids = model.tokenizer.encode(texts).ids
    return Golden(texts, ids, run(session, ids))
