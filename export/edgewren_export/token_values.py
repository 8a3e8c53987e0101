"""What a model's tensors are for real tokens, one tensor after the other, each computed from those before it.

For a model that is being changed from its inputs on: computing each tensor from the start took nearly three
times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren.session import feed
from edgewren_export.editing import EditableGraph
from edgewren_export.ranges import plain_session

_BATCH_TOKENS = 512
_KEPT = 4  # tensors: what a transformer layer's last sums need


class TokenValues:
    """Tensors of one model over the same token rows.

    Args:
        rows: token ids.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        plan = batching.plan([len(row) for row in rows], _BATCH_TOKENS)
        self._batches = [np.array([rows[index] for index in batch], dtype=np.int64) for batch in plan]
        self._known: dict[str, list[NDArray[np.float32]]] = {}  # per batch, the oldest first

    def of(self, graph: EditableGraph, name: str) -> NDArray[np.float32]:
        """Return a tensor, float32 [tokens, features], tokens in the same order for all.

        Args:
            graph: the model as it is now. Up to the last few tensors that were asked for, it is as it was then, or
                `forget` was told.
        """
        self.forget(name)
        shapes = {
            known: (*(None for _ in parts[0].shape[1:]), parts[0].shape[-1]) for known, parts in self._known.items()
        }
        model = graph.until([name], given=shapes)
        session = plain_session(model)
        inputs = {entry.name for entry in session.get_inputs()}
        parts: list[NDArray[np.float32]] = []
        for index, batch in enumerate(self._batches):
            before = {known: values[index] for known, values in self._known.items() if known in inputs}
            parts += session.run([name], {**feed(batch, inputs), **before})
        self._known[name] = parts
        if len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]
        return np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])

    def forget(self, name: str) -> None:
        """Compute this tensor anew for those behind it: it has changed."""
        self._known.pop(name, None)
