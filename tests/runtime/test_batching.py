"""Scheduling: every row exactly once, within the budget, and padded only where a model may be asked to."""

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


@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, 900))
def test_rows_of_one_length_are_shared_out_evenly_over_as_few_batches_as_can_be(rows, length, budget):
    sizes = [len(batch) for batch in batching.plan([length] * rows, budget)]
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-rows // max(1, budget // length))


@given(lengths, st.integers(1, 200))
def test_plan_is_longest_first_and_keeps_order_within_a_length(sizes, budget):
    order = np.concatenate([np.empty(0, np.intp), *batching.plan(sizes, budget)]).tolist()
    assert order == sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))


@given(lengths, st.integers(1, 200))
def test_mixed_batches_take_rows_by_length_within_the_budget(sizes, budget):
    batches = batching.plan(sizes, budget, mixed=True)
    order = np.concatenate([np.empty(0, np.intp), *batches]).tolist()
    assert order == sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(sizes[index] for index in batch) <= budget


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=12), st.randoms())
def test_padded_rows_are_the_rows_and_zeros_without_mask(rows, random):
    chosen = np.array(random.choices(range(len(rows)), k=5))
    ids, mask = batching.TokenRows.of(rows).padded(chosen)
    assert ids.shape == mask.shape == (5, max(len(rows[index]) for index in chosen))
    assert (ids.dtype, mask.dtype) == (np.int64, np.int64)
    for row, index in enumerate(chosen):
        assert ids[row, mask[row] == 1].tolist() == rows[index]
        assert mask[row].tolist() == sorted(mask[row], reverse=True)
        assert not ids[row, mask[row] == 0].any()


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=40))
def test_distinct_rows_and_inverse_give_back_all_rows(rows):
    unique, inverse = batching.distinct(rows)
    assert [list(unique[index]) for index in inverse] == rows
    assert len(set(unique)) == len(unique)
    assert list(dict.fromkeys(map(tuple, rows))) == unique


def test_nothing_is_planned_for_nothing():
    assert batching.plan([], 100) == []
    assert batching.distinct([])[0] == []
