"""Scheduling: every row exactly once, never padded, within the budget."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgewren import batching

lengths = st.lists(st.integers(1, 60), max_size=80)


@given(lengths, st.integers(1, 200))
def test_plan_has_every_row_once_in_batches_of_one_length_within_the_budget(sizes, budget):
    batches = batching.plan(sizes, budget)
    assert sorted(index for batch in batches for index in batch.tolist()) == list(range(len(sizes)))
    for batch in batches:
        found = {sizes[index] for index in batch}
        assert len(found) == 1
        assert len(batch) == 1 or len(batch) * found.pop() <= budget


@given(lengths, st.integers(1, 200))
def test_plan_is_longest_first_and_keeps_order_within_a_length(sizes, budget):
    order = np.concatenate([np.empty(0, np.intp), *batching.plan(sizes, budget)]).tolist()
    assert order == sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=40))
def test_distinct_rows_and_inverse_give_back_all_rows(rows):
    unique, inverse = batching.distinct(rows)
    assert [list(unique[index]) for index in inverse] == rows
    assert len(set(unique)) == len(unique)
    assert list(dict.fromkeys(map(tuple, rows))) == unique


def test_nothing_is_planned_for_nothing():
    assert batching.plan([], 100) == []
    assert batching.distinct([])[0] == []
