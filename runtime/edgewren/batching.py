"""Which token rows are computed together. Pure: knows lists of token ids, nothing of tokenizers, sessions or files.

Rows of one batch have exactly the same number of tokens. So no row is ever padded, no mask changes a result, and a
text's logits cannot depend on its neighbours. (Static models, whose sums are exact whatever is padded, may mix
lengths.) Measured on 1,300 tweets (2 cores, MiniLM, fp32): random batches of 32 compute 1.79 times the useful tokens,
equal-length batches 1.0.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CPU_TOKENS_PER_BATCH = 450
"""Tokens of one batch on a CPU core, at most: 6 to 12 tweets. Larger batches leave the core's caches; smaller ones
fetch the weights for too few. MiniLM int8, µs a token: 80 tokens 89, 150 80, 200 to 450 76 to 79, 600 82, 1,200 88."""

CHEAP_TOKENS_PER_BATCH = 16_384
"""The same for models that look numbers up instead of multiplying: there, calls cost more than caches give. A static
model: 300 tokens 0.81 to 0.87 of the bare tokenizer's speed, 4 k 0.87 to 0.89, 16 k and 64 k 0.82 to 0.92 (two runs
each, on a busy machine)."""

CUDA_TOKENS_PER_BATCH = 65_536
"""Tokens of one batch on a CUDA device. Thousand tweets/s of MiniLM fp16 on an H100: 16 k tokens 167, 32 k 186,
64 k 196, 128 k 202, 256 k 197; memory grows with it."""


STAGED_TOKENS_PER_BATCH = 2400
"""The same where the model computes in stages, eight steps of 300 tokens: about three of them survive, enough to fill
the next stage's steps."""


def tokens_per_batch(device: str, *, table: bool, staged: bool) -> int:
    """Return the upper bound on the tokens of a batch.

    Args:
        device: "cpu" or "cuda".
        table: the model is a static one.
        staged: it computes in stages.
    """
    if device == "cuda":
        return CUDA_TOKENS_PER_BATCH
    if table:
        return CHEAP_TOKENS_PER_BATCH
    return STAGED_TOKENS_PER_BATCH if staged else CPU_TOKENS_PER_BATCH


def ranges(starts: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the numbers from each start on, as many as its count says, end to end."""
    before = np.cumsum(counts) - counts
    numbers: NDArray[np.intp] = np.repeat(starts - before, counts) + np.arange(counts.sum())
    return numbers


_HASHED_AT_ONCE = 2_048  # rows: some 80,000 tokens, which stay in a core's caches
_FEW_ROWS = 256  # for fewer, two dozen calls of numpy cost more than they bring
_ONE = np.uint64(1)
_WEIGHTS = np.frombuffer(os.urandom(8 * 8_192), dtype=np.uint64) | _ONE


@dataclass(frozen=True)
class TokenRows:
    """Token ids of many texts end to end: two arrays, however many texts there are.

    Attributes:
        ids: int32 [all tokens].
        bounds: int64 [n + 1]; row i is ids[bounds[i] : bounds[i + 1]], never empty.
    """

    ids: NDArray[np.int32]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> TokenRows:
        """Return the same rows end to end."""
        bounds = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)), out=bounds[1:])
        return cls(np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=int(bounds[-1])), bounds)

    @classmethod
    def joined(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """Return the rows of all parts, in order."""
        ends = np.cumsum([0, *(len(part.ids) for part in parts)])
        bounds = [part.bounds[1:] + end for part, end in zip(parts, ends[:-1], strict=True)]
        return cls(np.concatenate([part.ids for part in parts]), np.concatenate([ends[:1], *bounds]))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per row, int64 [n]."""
        return np.diff(self.bounds)

    def matrix(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return these rows, all of one length, as int64 [rows, length]: what a model takes."""
        starts = self.bounds[rows]
        length = int(self.bounds[rows[0] + 1] - starts[0])
        matrix: NDArray[np.int64] = self.ids[starts[:, None] + np.arange(length)].astype(np.int64)
        return matrix

    def padded(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return these rows, of any lengths, as int64 [rows, longest], zeros behind shorter ones, and their mask."""
        starts = self.bounds[rows]
        lengths = self.bounds[rows + 1] - starts
        places = np.arange(int(lengths.max()))
        mask = places < lengths[:, None]
        ids = self.ids[np.minimum(starts[:, None] + places, len(self.ids) - 1)]
        return np.where(mask, ids, 0).astype(np.int64), mask.astype(np.int64)

    def distinct(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return where each distinct row first appears, in that order, and for each row the index of its twin there."""
        count = len(self)
        if count <= _FEW_ROWS:
            return self._distinct_by_bytes()
        hashes = self._hashes()
        order = np.argsort(hashes, kind="stable")  # so that of equal hashes the first row comes first
        is_new = np.diff(hashes[order], prepend=0) != 0
        is_new[:1] = True
        firsts = order[is_new]
        first = np.sort(firsts)
        inverse = np.empty(count, dtype=np.intp)
        inverse[order] = np.searchsorted(first, firsts)[np.cumsum(is_new) - 1]
        return (first, inverse) if self._are_equal(first[inverse]) else self._distinct_by_bytes()

    def _hashes(self) -> NDArray[np.uint64]:
        """Return a number for each row, uint64 [n]: equal for equal rows, and for others by chance alone.

        Each place of a row counts with a weight that is drawn anew in each process: nobody can craft rows that collide.
        """
        hashes = np.empty(len(self), dtype=np.uint64)
        for start in range(0, len(self), _HASHED_AT_ONCE):
            bounds = self.bounds[start : start + _HASHED_AT_ONCE + 1]
            lengths = np.diff(bounds)
            places = ranges(np.zeros_like(lengths), lengths)
            terms = _WEIGHTS.take(places, mode="wrap") * (self.ids[bounds[0] : bounds[-1]].astype(np.uint64) + _ONE)
            hashes[start : start + len(lengths)] = np.add.reduceat(terms, bounds[:-1] - bounds[0])
        return hashes

    def _are_equal(self, twins: NDArray[np.intp]) -> bool:
        """Whether each row has the very ids of its twin."""
        rows = np.flatnonzero(twins != np.arange(len(self)))
        lengths = self.lengths[rows]
        if not np.array_equal(lengths, self.lengths[twins[rows]]):
            return False
        own, others = (self.ids[ranges(self.bounds[each], lengths)] for each in (rows, twins[rows]))
        return np.array_equal(own, others)

    def _distinct_by_bytes(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """As `distinct`, for few rows, and for those of which different ones have one hash.

        Keyed on bytes, whose hash Python seeds at random per process.
        """
        data = self.ids.tobytes()
        ends = (self.bounds * self.ids.itemsize).tolist()
        known: dict[bytes, int] = {}
        inverse = np.fromiter(
            (known.setdefault(data[start:end], len(known)) for start, end in itertools.pairwise(ends)),
            dtype=np.intp,
            count=len(self),
        )
        first = np.zeros(len(known), dtype=np.intp)
        first[inverse[::-1]] = np.arange(len(self) - 1, -1, -1)  # backwards: the first of equal rows is written last
        return first, inverse


def distinct(rows: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], NDArray[np.intp]]:
    """Return the distinct token rows, in order of first appearance, and for each row the index of its twin there.

    Archives are full of retweets, and texts that differ only in what the tokenizer drops are one row too.
    """
    first: dict[tuple[int, ...], int] = {}
    inverse = np.fromiter((first.setdefault(tuple(row), len(first)) for row in rows), dtype=np.intp, count=len(rows))
    return list(first), inverse


def plan(
    lengths: Sequence[int] | NDArray[np.int64], tokens_per_batch: int, *, mixed: bool = False
) -> list[NDArray[np.intp]]:
    """Cut rows into batches, the longest first.

    Args:
        lengths: tokens per row, each at least 1.
        tokens_per_batch: upper bound on rows x length of a batch; a single longer row is a batch of its own.
        mixed: rows of different lengths may share a batch, which is then bounded by its longest.

    Returns:
        One array of row indices per batch. Each index occurs exactly once; rows of a batch share one length, or, mixed,
        are the next ones by length. Longest first, so that the last batches are short and parallel workers finish
        together.
    """
    size = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-size, kind="stable")
    steps = np.flatnonzero(np.diff(size[order])) + 1  # where the length changes
    batches: list[NDArray[np.intp]] = []
    for bucket in [order] if mixed else np.split(order, steps):
        start = 0
        while start < len(bucket):
            most = max(1, tokens_per_batch // int(size[bucket[start]]))
            rows = next_share(len(bucket) - start, most)
            batches.append(bucket[start : start + rows])
            start += rows
    return batches


def next_share(left: int, most: int) -> int:
    """Return how many of the rows left to take next, no more than `most`, so that all batches are about as large.

    A full batch and a small rest take longer than two halves.
    """
    return -(-left // -(-left // most))
