"""Repeated cross-validation: which rows train and which are held out. Knows labels and groups, no texts, no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import InputError, UsageError
from edgewren_train.out_of_fold import Split
from edgewren_train.together import Together, apart


@dataclass(frozen=True)
class Fold:
    """One part held out: `train` and `held_out` are row indices, int [n]; `repeat` and `number` count from 0."""

    repeat: int
    number: int
    train: NDArray[np.intp]
    held_out: NDArray[np.intp]


def repeated_folds(
    labels: Sequence[str],
    *,
    folds: int,
    repeats: int,
    seed: int,
    together: Together | None = None,
) -> list[Fold]:
    """Return `repeats` shuffled stratified cross-validations of `folds` parts each, the same for the same seed.

    Args:
        labels: of each row; every part has about the same shares of them.
        together: rows that lie in the same part: all of a group, so that nobody is in both, and without groups all
            copies of a text. None: rows are independent.

    Raises:
        UsageError: fewer than 2 folds, or no repeat.
        InputError: a class, or the groups of a class, are fewer than the folds; or a part would lack a class.
    """
    if folds < 2 or repeats < 1:
        raise UsageError(f"folds is {folds} and repeats {repeats}, expected at least 2 and 1.")
    names = np.asarray(labels)
    together = together or apart(len(labels))
    _check_counts(labels, together, folds)
    seeds = [(seed + repeat) % 2**32 for repeat in range(repeats)]  # scikit-learn takes none beyond
    out = [
        Fold(repeat, number, train, held_out)
        for repeat, own_seed in enumerate(seeds)
        for number, (train, held_out) in enumerate(Split(folds=folds).parts(labels, own_seed, together))
    ]
    for fold in out:
        missing = sorted(set(labels) - set(names[fold.train])) or sorted(set(labels) - set(names[fold.held_out]))
        if missing:
            raise InputError(
                f"With {folds} folds by group, one part has no row of {missing[0]!r}: its rows are in few groups. "
                "Take fewer --folds, or leave out --group-column."
            )
    return out


def check_share(share: float) -> None:
    """Raise UsageError unless a share of rows to hold out is one."""
    if not 0 < share < 1:
        raise UsageError(f"validation is {share}, expected a share between 0 and 1, for example 0.15.")


def one_split(
    labels: Sequence[str],
    *,
    share: float,
    seed: int,
    together: Together | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return row indices (train, held out) with about `share` of the rows held out, stratified, and with rows
    that belong together in one part.

    Raises:
        UsageError: share is not between 0 and 1.
        InputError: a class has too few rows to be in both parts.
    """
    check_share(share)
    together = together or apart(len(labels))
    _check_counts(labels, together, 2)
    try:
        train, held_out = next(Split(share=share).parts(labels, seed, together))
    except InputError as error:
        raise InputError(
            f"{len(labels)} rows cannot be split with a share of {share:g} held out: {error} Take another share."
        ) from error
    return np.sort(train), np.sort(held_out)


def _check_counts(labels: Sequence[str], together: Together, folds: int) -> None:
    if len(together.units) != len(labels):
        raise InputError(f"There are {len(labels)} labels, but {len(together.units)} groups. Pass one of each per row.")
    label, units = together.rarest(labels)
    if units < folds:
        raise InputError(
            f"The class {label!r} is in {units} {together.what}, fewer than the {folds} folds. Take fewer --folds, or "
            "label more texts of this class."
        )
