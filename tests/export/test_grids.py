"""How the inputs of int8 products are quantised: what is cut, what is searched, and what a row's own scale gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgewren_export.grids import GELU, HEADROOM, fixed
from edgewren_export.rounding import round_to_nearest


@pytest.fixture
def made():
    """Weight [96, 32] and values [4000, 96] of which some features reach much further than others."""
    random = np.random.default_rng(5)
    spread = np.exp(random.normal(size=96) * 1.5)
    values = (random.normal(size=(4000, 96)) * spread).astype(np.float32)
    return random.normal(size=(96, 32)).astype(np.float32), values


def error(grid, weight, values):
    rounded = round_to_nearest(weight * grid.smooth[:, None])
    product = grid.quantised(grid.smoothed(values)) @ (rounded.values * rounded.scales)
    return float(np.square(product - values @ weight).mean())


def test_the_search_finds_a_grid_that_is_closer_than_the_usual_one_on_other_tokens():
    random = np.random.default_rng(5)
    values = (random.normal(size=(4000, 96)) * np.exp(random.normal(size=96) * 0.1)).astype(np.float32)
    values[::40, :4] *= 60  # smoothing that much would cost the weights more than it saves
    weight = random.normal(size=(96, 32)).astype(np.float32)
    magnitude = np.abs(values).max(axis=0)
    searched, usual = fixed([weight], magnitude, values[:2000]), fixed([weight], magnitude, None)
    assert error(searched, weight, values[2000:]) < 0.9 * error(usual, weight, values[2000:])


def test_nothing_within_the_calibrated_range_is_cut(made):
    weight, values = made
    grid = fixed([weight[:, :16], weight[:, 16:]], np.abs(values).max(axis=0), values)
    smoothed = grid.smoothed(values)
    assert np.abs(grid.quantised(smoothed) - smoothed).max() <= grid.step / 2 + 1e-6
    assert 127 * grid.step == pytest.approx(HEADROOM * np.abs(smoothed).max(), rel=1e-5)


def test_features_that_are_always_zero_do_no_harm(made):
    weight, values = made
    values[:, 7] = 0
    weight[9] = 0
    grid = fixed([weight], np.abs(values).max(axis=0), values)
    assert np.isfinite(grid.smooth).all()
    assert np.isfinite(error(grid, weight, values))


def test_behind_gelu_each_row_has_a_scale_of_its_own(made):
    _, values = made
    gelu = np.maximum(values, -0.17)
    gelu[3] = -0.1
    steps = np.maximum(gelu.max(axis=1) / 223, 0.17 / 32)
    assert (np.abs(GELU.quantised(gelu) - gelu) <= steps[:, None] / 2 + 1e-5).all()
    assert (GELU.quantised(gelu[:1]) == GELU.quantised(gelu)[:1]).all()
