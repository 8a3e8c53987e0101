"""Rows that belong together wherever some are held out: copies of a text, and rows of one group, such as an author.

Knows numbers of rows, not why they belong together: copies are found in `duplicates`, groups are a column of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import InputError
from edgewren_train.duplicates import copies


@dataclass(frozen=True)
class Together:
    """Which rows belong together.

    Attributes:
        copies: int64 [n], the same number for rows with the same text (`duplicates.copies`).
        groups: int64 [n], the same number for rows of one group; they alone are kept together then, copies where they
            are of one group. None: rows are independent, but for copies.
    """

    copies: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    @property
    def units(self) -> NDArray[np.int64]:
        """The same number for rows that are held out together, int64 [n]."""
        return self.copies if self.groups is None else self.groups

    @property
    def weights(self) -> NDArray[np.float64]:
        """What each row counts where every text counts once, float64 [n], summing to 1."""
        _, text, counts = np.unique(self.copies, return_inverse=True, return_counts=True)
        weights: NDArray[np.float64] = 1 / counts[text] / len(counts)
        return weights

    @property
    def what(self) -> str:
        """What is held out, in the plural, for people."""
        if self.groups is not None:
            return "groups"
        return "rows" if len(np.unique(self.copies)) == len(self.copies) else "distinct texts"

    def of(self, rows: NDArray[np.integer]) -> Together:
        """Return the same of some rows, in their order."""
        return Together(self.copies[rows], None if self.groups is None else self.groups[rows])

    def fewest(self, labels: Sequence[str]) -> int:
        """Return how many units the label has that has fewest of them."""
        return self.rarest(labels)[1]

    def rarest(self, labels: Sequence[str]) -> tuple[str, int]:
        """Return the label that has fewest units, of several the first by name, and how many it has."""
        counts = Counter(label for label, _ in set(zip(labels, self.units.tolist(), strict=True)))
        label = min(counts, key=lambda name: (counts[name], name))
        return label, counts[label]


def apart(rows: int) -> Together:
    """Return that none of so many rows belong together."""
    return Together(np.arange(rows))


def among(texts: Sequence[str], groups: Sequence[str] | None = None) -> Together:
    """Return which rows belong together, by their texts and, where there are any, their groups."""
    return Together(copies(texts), numbered(groups))


def numbered(groups: Sequence[str] | None) -> NDArray[np.int64] | None:
    """Return groups as numbers, int64 [n]."""
    return None if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)


def belonging(data: LabelledTexts, group_column: str | None = None) -> Together:
    """Return which rows of a labelled file belong together.

    Args:
        group_column: column whose equal values stay together, read with the file; None: copies alone do.

    Raises:
        InputError: a label is in one group alone: nothing could be learnt of it while that is held out.
    """
    found = among(data.texts, data.others[group_column] if group_column else None)
    groups = found.groups
    if groups is None or found.fewest(data.labels) > 1:
        return found
    alone = next(
        name for index, name in enumerate(data.classes) if len(np.unique(groups[data.class_indices == index])) == 1
    )
    raise InputError(
        f"{data.path}: all rows of {alone!r} have one value of {group_column!r}, at least two are needed to hold "
        "one out. Leave out --group-column, or label texts of others, too."
    )
