"""Logits of token rows by the runtime's own session, and whether they depend on a text's neighbours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edgewren import batching
from edgewren.device import granted_cores
from edgewren.errors import ParityError
from edgewren.session import ModelSession
from edgewren_export import parity

_NEIGHBOUR_TEXTS = 200


def run(session: ModelSession, ids: list[list[int]]) -> NDArray[np.float32]:
    """Return logits, float32 [n, labels], computed in batches of equal length."""
    rows, inverse = batching.distinct(ids)
    batches = batching.plan([len(row) for row in rows], batching.CPU_TOKENS_PER_BATCH)

    def compute(batch: NDArray[np.intp]) -> NDArray[np.float32]:
        return session.run(np.array([rows[index] for index in batch], dtype=np.int64))

    with ThreadPoolExecutor(granted_cores()) as pool:
        parts = list(pool.map(compute, batches))
    out = np.empty((len(rows), parts[0].shape[1]), dtype=np.float32)
    out[np.concatenate(batches)] = np.concatenate(parts)
    return out[inverse]


def check_neighbours(
    session: ModelSession, ids: list[list[int]], in_batches: NDArray[np.float32], *, exact: bool = False
) -> str:
    """Score the first texts one by one, compare with the same texts in batches, bit by bit, and return the verdict.

    Args:
        in_batches: what `run` gave for `ids`.
        exact: refuse any difference, not only one above `parity.LOGIT_TOLERANCE`.

    Raises:
        ParityError: they differ by more than that.
    """
    ids = ids[:_NEIGHBOUR_TEXTS]
    alone = np.concatenate([session.run(np.array([row], dtype=np.int64)) for row in ids])
    differing = int((alone != in_batches[: len(ids)]).any(axis=1).sum())
    if not differing:
        return f"bit-identical ({len(ids)} texts)"
    largest = float(np.abs(alone - in_batches[: len(ids)]).max())
    if exact or largest > parity.LOGIT_TOLERANCE:
        raise ParityError(
            f"{differing} of {len(ids)} texts score differently alone and in a batch, by up to {largest:.1e}."
        )
    return f"{differing} of {len(ids)} texts differ by at most {largest:.1e}"
