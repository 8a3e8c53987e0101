"""Folds: every row held out once per repeat, classes in every part, groups never in both, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewren.errors import InputError, UsageError
from edgewren_train.folds import one_split, repeated_folds
from edgewren_train.together import Together, numbered

LABELS = ["x", "y", "y"] * 20


def test_each_repeat_holds_every_row_out_once_with_the_shares_of_the_classes():
    folds = repeated_folds(LABELS, folds=5, repeats=3, seed=0)
    assert [(fold.repeat, fold.number) for fold in folds] == [(r, f) for r in range(3) for f in range(5)]
    for repeat in range(3):
        held_out = np.concatenate([fold.held_out for fold in folds if fold.repeat == repeat])
        assert sorted(held_out) == list(range(60))
    for fold in folds:
        assert not set(fold.train) & set(fold.held_out)
        assert Counter(LABELS[row] for row in fold.held_out) == {"x": 4, "y": 8}


def test_repeats_differ_and_the_seed_decides():
    first, again, other = (repeated_folds(LABELS, folds=5, repeats=2, seed=seed) for seed in (0, 0, 7))
    assert all(np.array_equal(a.held_out, b.held_out) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].held_out, first[5].held_out)
    assert not np.array_equal(first[0].held_out, other[0].held_out)


def test_repeats_of_the_largest_seed_go_on_from_0():
    folds = repeated_folds(LABELS, folds=5, repeats=2, seed=2**32 - 1)
    assert np.array_equal(folds[5].held_out, repeated_folds(LABELS, folds=5, repeats=1, seed=0)[0].held_out)


def test_copies_of_a_text_are_in_one_part():
    copies = np.arange(60) % 30
    folds = repeated_folds(LABELS, folds=5, repeats=2, seed=0, together=Together(copies))
    train, held_out = one_split(LABELS, share=0.3, seed=0, together=Together(copies))
    for part, rest in [(fold.train, fold.held_out) for fold in folds] + [(train, held_out)]:
        assert not set(copies[part]) & set(copies[rest])
        assert sorted([*part, *rest]) == list(range(60))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 11), min_size=60, max_size=60))
def test_nobody_is_in_both_parts(seed, authors):
    groups = [str(author) for author in authors]
    together = Together(np.arange(60), numbered(groups))
    try:
        folds = repeated_folds(LABELS, folds=3, repeats=2, seed=seed, together=together)
        train, held_out = one_split(LABELS, share=0.3, seed=seed, together=together)
    except InputError:  # too few authors for these folds
        return
    for part, rest in [(fold.train, fold.held_out) for fold in folds] + [(train, held_out)]:
        assert not {groups[row] for row in part} & {groups[row] for row in rest}
        assert {LABELS[row] for row in part} == {LABELS[row] for row in rest} == {"x", "y"}


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (["x"] * 20 + ["y"] * 3, None, r"'y' is in 3 rows, fewer than the 5 folds"),
        (["x", "y"] * 20, ["a", "b"] * 20, r"'x' is in 1 groups, fewer than the 5 folds"),
        (["x", "y"] * 20, ["a"], "40 labels, but 1 groups"),
    ],
)
def test_too_few_rows_or_groups_are_refused_with_what_to_do(labels, groups, message):
    with pytest.raises(InputError, match=message):
        together = Together(np.arange(len(labels)), numbered(groups))
        repeated_folds(labels, folds=5, repeats=1, seed=0, together=together)


def test_copies_count_once_where_folds_are_refused():
    labels, copies = ["x"] * 20 + ["y"] * 9, np.array([*range(20), *[20, 21, 22] * 3])
    with pytest.raises(InputError, match=r"'y' is in 3 distinct texts, fewer than the 5 folds. Take fewer --folds"):
        repeated_folds(labels, folds=5, repeats=1, seed=0, together=Together(copies))


def test_counts_that_make_no_folds_are_refused():
    with pytest.raises(UsageError, match="folds is 1"):
        repeated_folds(LABELS, folds=1, repeats=1, seed=0)
    with pytest.raises(UsageError, match="validation is 1"):
        one_split(LABELS, share=1.0, seed=0)
    with pytest.raises(InputError, match="cannot be split with a share of 0.01"):
        one_split(LABELS, share=0.01, seed=0)


def test_one_split_keeps_the_shares():
    train, held_out = one_split(LABELS, share=0.2, seed=3)
    assert Counter(LABELS[row] for row in held_out) == {"x": 4, "y": 8}
    assert sorted([*train, *held_out]) == list(range(60))
