"""Texts that occur twice, or almost: inside one set of labelled texts, and across two. Knows texts, no models.

Two steps. Same: equal after lower-casing, unescaping, and replacing links and @names, which differ between copies of
one post. Near: Jaccard similarity of the sets of five-character pieces at or above a threshold, computed exactly with
scikit-learn's sparse vectors (no MinHash: for the sizes that people label, exact is fast enough).
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewren.copies import LINK, without_links
from edgewren.errors import UsageError

THRESHOLD = 0.6
MOST_TEXTS = 50_000
"""Beyond this many texts only equal ones are looked for: the pairs grow with the square."""

_PIECE = 5
_BLOCK = 512
_NAME = re.compile(r"@\w+")
_SPACE = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Pair:
    """Two texts, by their places, and how alike they are: 1 where they are the same after normalisation."""

    first: int
    second: int
    similarity: float


def normalised(text: str) -> str:
    """Return what is left of a text when links, names, case, entities, punctuation and spacing don't count."""
    plain = _NAME.sub(" ", LINK.sub(" ", html.unescape(text).lower()))
    words = _SPACE.sub(" ", plain).strip()
    return words or " ".join(text.split())  # a text of nothing else is only like itself


def copies(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return for each text the place of the first that is the same but for links, entities and spacing, int64 [n].

    Stricter than `normalised`: these are the copies of a post that a classifier would recognise in a held-out part.
    """
    plain = [without_links(text) for text in texts]
    firsts = _firsts(plain)
    return np.array([firsts[text] for text in plain], dtype=np.int64)


def within(texts: Sequence[str], *, threshold: float = THRESHOLD) -> list[Pair]:
    """Return pairs of alike texts, first < second, the most alike first. Of texts that are the same, each is paired
    with the first of them alone: a retweet that occurs 10,000 times is 9,999 pairs, not 50 million.
    """
    return _pairs(texts, texts, threshold, same=True)


def across(texts: Sequence[str], others: Sequence[str], *, threshold: float = THRESHOLD) -> list[Pair]:
    """Return pairs of alike texts, `first` in `texts` and `second` in `others`, the most alike first. `first` is the
    first of those in `texts` that are the same.
    """
    return _pairs(texts, others, threshold, same=False)


def _pairs(texts: Sequence[str], others: Sequence[str], threshold: float, *, same: bool) -> list[Pair]:
    if not 0 < threshold <= 1:
        raise UsageError(f"the similarity threshold is {threshold}, expected above 0, at most 1.")
    left = [normalised(text) for text in texts]
    right = left if same else [normalised(text) for text in others]
    firsts = _firsts(left)
    found = {
        (firsts[text], j): 1.0 for j, text in enumerate(right) if text in firsts and not (same and firsts[text] == j)
    }
    distinct, places = list(firsts), list(firsts.values())
    if max(len(distinct), len(distinct) if same else len(right)) <= MOST_TEXTS:
        for i, j, similarity in _near(distinct, distinct if same else right, threshold, same=same):
            found.setdefault((places[i], places[j] if same else j), similarity)
    pairs = [Pair(i, j, similarity) for (i, j), similarity in found.items()]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _firsts(texts: Sequence[str]) -> dict[str, int]:
    """Return each distinct text with the place where it comes first."""
    places: dict[str, int] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, place)
    return places


def _near(left: Sequence[str], right: Sequence[str], threshold: float, *, same: bool) -> list[tuple[int, int, float]]:
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(analyzer="char_wb", ngram_range=(_PIECE, _PIECE), binary=True, dtype=np.int32)
    try:
        vectorizer.fit([*left, *([] if same else right)])
    except ValueError:  # no text has a piece of five characters
        return []
    rows = vectorizer.transform(left)
    columns = rows if same else vectorizer.transform(right)
    row_sizes, column_sizes = rows.sum(axis=1).A1, columns.sum(axis=1).A1
    transposed = columns.T.tocsc()
    out: list[tuple[int, int, float]] = []
    for start in range(0, rows.shape[0], _BLOCK):
        common = (rows[start : start + _BLOCK] @ transposed).tocoo()
        i, j = common.row + start, common.col
        similarity = common.data / (row_sizes[i] + column_sizes[j] - common.data)
        kept = (similarity >= threshold) & ((i < j) if same else True)
        out += zip(i[kept].tolist(), j[kept].tolist(), similarity[kept].tolist(), strict=True)
    return out
