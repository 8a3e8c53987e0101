"""int8 weights rounded for what they are multiplied with: closer products than rounding to nearest."""

from __future__ import annotations

import numpy as np
import pytest

from edgewren_export.rounding import observe, round_for, round_to_nearest


def correlated(tokens, inputs, seed):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(inputs // 4, inputs))
    return (rng.normal(size=(tokens, inputs // 4)) @ mixing + 0.1 * rng.normal(size=(tokens, inputs)) + 0.5).astype(
        np.float32
    )


@pytest.fixture
def weight():
    return np.random.default_rng(1).normal(size=(160, 24)).astype(np.float32)


def error(rounded, values, quantised, weight):
    product = quantised @ (rounded.values * rounded.scales)
    return float(np.square(product - values @ weight).mean())


def test_nearest_is_symmetric_within_half_a_step_and_survives_a_column_of_zeros(weight):
    weight[:, 3] = 0
    rounded = round_to_nearest(weight)
    assert rounded.values.dtype == np.int8
    assert rounded.values.min() >= -127
    assert (np.abs(rounded.values * rounded.scales - weight) <= rounded.scales / 2 + 1e-7).all()
    assert not rounded.values[:, 3].any()


def test_products_on_other_texts_come_closer_than_with_rounding_to_nearest(weight):
    seen, other = np.split(correlated(6000, 160, 2), 2)
    rounded = round_for(weight, observe(seen, seen))
    assert rounded.values.dtype == np.int8
    assert np.abs(rounded.values.astype(int)).max() <= 127
    assert error(rounded, other, other, weight) < 0.25 * error(round_to_nearest(weight), other, other, weight)


def test_systematic_errors_of_the_inputs_are_made_up_for(weight):
    values = correlated(4000, 160, 4)
    wrong = values * np.float32(0.97) + np.float32(0.05)
    rounded = round_for(weight, observe(values[:2000], wrong[:2000]))
    nearest = round_to_nearest(weight)
    assert error(rounded, values[2000:], wrong[2000:], weight) < 0.1 * error(
        nearest, values[2000:], wrong[2000:], weight
    )


def test_few_tokens_and_features_that_never_move_do_no_harm(weight):
    values = correlated(5, 160, 6)
    values[:, 7] = 0
    rounded = round_for(weight, observe(values, values))
    assert np.isfinite(rounded.scales).all()
    restored = rounded.values * rounded.scales
    assert np.abs(restored - weight).max() < 0.2 * np.abs(weight).max()
