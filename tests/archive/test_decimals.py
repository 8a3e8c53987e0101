"""The fewest digits that give the same float32 back."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgewren.archive.decimals import shortest


def test_the_texts_are_numpys_own():
    chance = np.random.default_rng(0)
    values = np.concatenate(
        [
            chance.random(20_000).astype(np.float32),
            (10 ** chance.uniform(-12, 0, 20_000)).astype(np.float32),
            1 - (10 ** chance.uniform(-8, 0, 20_000)).astype(np.float32),
            np.array([0, 1, 0.5, 0.25, 1e-4, 0.99999994, 1e-45], np.float32),
        ]
    )
    assert shortest(values) == [str(value) for value in values]


@given(st.lists(st.floats(0, 1, width=32)))
def test_every_bit_comes_back(values):
    array = np.array(values, np.float32)
    np.testing.assert_array_equal(np.array(shortest(array), dtype=object).astype(np.float32), array)
