"""A hash table of words in numpy arrays: thousands of lookups in one call, without Python's lock for most of it.

Knows bytes and numbers, nothing of texts or tokenizers. Not for several threads at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST = 16
"""Bytes of a word that fits: two numbers of 64 bits hold it whole, so equal keys mean equal words."""

MOST_WORDS = 12_288
"""Words kept, 0.9 MB in all; then the table begins anew. The common words of a language soon are back."""

_BITS = 15  # places: nearly three times as many as words
_PROBES = 8  # places tried from a word's own onwards
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)  # of golden ratio and of xxHash: odd
_MASKS = np.array([(1 << 8 * count) - 1 for count in range(9)], dtype=np.uint64)
_SHORT = 8  # bytes of a word that is its own key


class WordTable:
    """Which numbers belong to a word.

    Attributes:
        values: int32, the numbers of all words end to end; a word's are `values[first : first + count]`.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all words."""
        self._keys = np.zeros(1 << _BITS, dtype=np.uint64)  # no word of up to eight bytes has 0, since none holds a NUL
        self._rest = np.zeros(1 << _BITS, dtype=np.uint64)  # of words of more than eight bytes
        self._first = np.zeros(1 << _BITS, dtype=np.int32)
        self._count = np.zeros(1 << _BITS, dtype=np.int32)
        self.values = np.zeros(0, dtype=np.int32)
        self._words = 0

    def find(
        self, data: bytes, starts: NDArray[np.intp], lengths: NDArray[np.intp], *, but: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.intp]]:
        """Look words up.

        Args:
            data: bytes without NUL that hold the words, and 16 more behind the last one.
            starts, lengths: where each word is, [words]; lengths from 1.
            but: words that are not to be known, bool [words].

        Returns:
            First and count of each, int32 [words], as of `values`, and the indices of those that are not known.
        """
        keys, rests = _keys_of(data, starts, lengths)
        places = _places(keys)
        missing = np.flatnonzero(~self._matches(places, keys, rests))
        for _ in range(_PROBES - 1):
            if not len(missing):
                break
            places[missing] = (places[missing] + 1) % (1 << _BITS)
            missing = missing[~self._matches(places[missing], keys[missing], rests[missing])]
        unknown = lengths > LONGEST
        unknown[missing] = True
        if but is not None:
            unknown |= but
        return self._first.take(places), self._count.take(places), np.flatnonzero(unknown)

    def add(self, words: Sequence[bytes], values: Sequence[Sequence[int]]) -> None:
        """Keep the numbers of words that are not known yet and fit; a crowded place may leave no room for one."""
        fitting = [index for index, word in enumerate(words) if len(word) <= LONGEST]
        if self._words + len(fitting) > MOST_WORDS:
            self.clear()
            fitting = fitting[:MOST_WORDS]
        if not fitting:
            return
        lengths = np.array([len(words[index]) for index in fitting], dtype=np.intp)
        data = b"".join(words[index] for index in fitting) + bytes(LONGEST)
        keys, rests = _keys_of(data, np.cumsum(lengths) - lengths, lengths)
        count = np.array([len(values[index]) for index in fitting], dtype=np.int32)
        first = len(self.values) + np.cumsum(count, dtype=np.int32) - count
        self._put(keys, rests, first, count)
        self._words += len(fitting)
        new = [number for index in fitting for number in values[index]]
        self.values = np.concatenate([self.values, np.array(new, dtype=np.int32)])

    def _put(
        self, keys: NDArray[np.uint64], rests: NDArray[np.uint64], first: NDArray[np.int32], count: NDArray[np.int32]
    ) -> None:
        places, left = _places(keys), np.arange(len(first), dtype=np.int32)
        for _ in range(_PROBES):
            applicants = left[self._keys[places[left]] == 0]
            self._first[places[applicants]] = applicants  # of several for one place, one is written last
            chosen = applicants[self._first[places[applicants]] == applicants]
            self._keys[places[chosen]], self._rest[places[chosen]] = keys[chosen], rests[chosen]
            self._first[places[chosen]], self._count[places[chosen]] = first[chosen], count[chosen]
            left = left[~np.isin(left, chosen)]
            places[left] = (places[left] + 1) % (1 << _BITS)

    def _matches(
        self, places: NDArray[np.intp], keys: NDArray[np.uint64], rests: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = (self._keys.take(places) == keys) & (self._rest.take(places) == rests)
        return same


def _keys_of(
    data: bytes, starts: NDArray[np.intp], lengths: NDArray[np.intp]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return each word's key, and its ninth to sixteenth byte, uint64 [words] each.

    Both together are the word. A long one's key is mixed of both halves, so that its place depends on both.
    """
    eights = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))  # overlapping, at every byte
    keys = eights.take(starts) & _MASKS.take(lengths, mode="clip")
    rests = np.zeros(len(keys), dtype=np.uint64)
    long = np.flatnonzero(lengths > _SHORT)
    rest = eights.take(starts[long] + _SHORT) & _MASKS.take(lengths[long] - _SHORT, mode="clip")
    keys[long] ^= rest * _FACTORS[1]
    rests[long] = rest
    return keys, rests


def _places(keys: NDArray[np.uint64]) -> NDArray[np.intp]:
    mixed = keys * _FACTORS[0]  # modulo 2^64; the highest bits depend on all
    places: NDArray[np.intp] = (mixed >> np.uint64(64 - _BITS)).astype(np.intp)
    return places
