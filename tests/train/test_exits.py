"""Early exits: the threshold is the lowest that is proved safe, and the proof holds on data never seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from edgewren.errors import UsageError
from edgewren_train import exits

LAYERS = (0, 2, 4)


def as_logits(decisions: np.ndarray) -> np.ndarray:
    return np.stack([-decisions / 2, decisions / 2], axis=1)


def simulated(rows: int, seed: int, spread: float = 0.3) -> tuple[dict, dict, np.ndarray]:
    """Decision values of three heads, each the full model's and its own noise, as binary logits; their errors."""
    rng = np.random.default_rng(seed)
    full = rng.normal(scale=0.5, size=rows)
    errors = {layer: np.full(rows, spread * (1 - layer / 6)) for layer in LAYERS}
    shallow = {layer: full + rng.normal(scale=errors[layer]) for layer in LAYERS}
    return {layer: as_logits(value) for layer, value in shallow.items()}, errors, as_logits(full)


def differ(t: float, logits: dict, errors: dict, full: np.ndarray) -> np.ndarray:
    """Which labels differ where texts leave at more than t errors, written down once more, without the search."""
    labels = full.argmax(axis=1)
    for layer in reversed(LAYERS):
        sure = np.abs(logits[layer][:, 1] - logits[layer][:, 0]) > t * errors[layer]
        labels = np.where(sure, logits[layer].argmax(axis=1), labels)
    return labels != full.argmax(axis=1)


def test_bound_is_clopper_pearsons_and_below_what_is_allowed():
    logits, errors, full = simulated(1200, 0)
    found = exits.find_threshold(logits, errors, full)
    assert found.bound <= 0.005
    assert found.differing == differ(found.value, logits, errors, full).sum()
    assert binom.cdf(found.differing, 1200, found.bound) == pytest.approx(0.05, abs=1e-6)
    assert (found.left < 3).mean() > 0.2, "some leave"


def test_next_lower_threshold_would_not_be_proved():
    logits, errors, full = simulated(1200, 1)
    found = exits.find_threshold(logits, errors, full)
    assert binom.cdf(differ(found.value, logits, errors, full).sum(), 1200, 0.005) <= 0.05
    assert binom.cdf(differ(found.value - 0.02, logits, errors, full).sum(), 1200, 0.005) > 0.05


def test_heads_that_know_more_let_texts_leave_that_are_less_far_apart():
    """One t for all heads, but each in errors of its own: the deeper head decides closer to the boundary."""
    logits, errors, full = simulated(1200, 2)
    apart = {layer: np.abs(values[:, 1] - values[:, 0]) for layer, values in logits.items()}
    left = exits.find_threshold(logits, errors, full).left
    nearest = [apart[layer][left == place].min() for place, layer in enumerate(LAYERS)]
    assert nearest[0] > 1.3 * nearest[1] > 1.3 * 1.3 * nearest[2]


def test_promise_is_broken_in_at_most_one_of_twenty_samples():
    population = simulated(50_000, 99)
    broken = 0
    for seed in range(40):
        value = exits.find_threshold(*simulated(600, seed), allowed=0.01).value
        broken += differ(value, *population).mean() > 0.01
    # 40 trials at 5 %: 6 or fewer with 99.3 % probability
    assert broken <= 6


def test_too_few_rows_prove_nothing():
    with pytest.raises(UsageError, match=r"597 rows .* 598 or more"):
        exits.find_threshold(*simulated(597, 0))
    with pytest.raises(UsageError, match=r"298 rows .* 299 or more"):
        exits.find_threshold(*simulated(298, 0), allowed=0.01)


def test_exits_that_know_nothing_let_nobody_leave():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1000, 1)) * np.array([[-2.0, 2.0]])
    full = rng.normal(size=(1000, 1)) * np.array([[-2.0, 2.0]])
    true = (full[:, 1] > 0).astype(int)
    errors = {0: np.ones(1000)}
    found = exits.find_threshold({0: noise}, errors, full)
    assert (found.left == 0).mean() < 0.02
    assert exits.fit_exits({0: Head()}, {0: noise * 1e-3}, errors, full, true, 6) is None


def test_head_without_any_error_is_taken_at_its_word():
    full = as_logits(np.random.default_rng(0).normal(size=1000))
    found = exits.find_threshold({0: full}, {0: np.zeros(1000)}, full)
    assert (found.left == 0).all()
    assert found.differing == 0


class Head:
    alpha = 1.0
    error = 0.5


def test_leavers_get_a_temperature_of_their_own():
    logits, errors, full = simulated(1200, 3)
    rng = np.random.default_rng(4)
    true = (rng.random(1200) < 1 / (1 + np.exp(-3 * (full[:, 1] - full[:, 0])))).astype(int)
    fitted = exits.fit_exits(dict.fromkeys(LAYERS, Head()), logits, errors, full, true, 6)
    assert [entry.layer for entry in fitted.exits] == [0, 2, 4]
    assert all(1 < entry.temperature < 9 for entry in fitted.exits if entry.share > 0.1)
    assert sum(entry.share for entry in fitted.exits) < 1
    assert fitted.as_dict()["rows"] == 1200
    assert [entry.threshold for entry in fitted.exits] == [0.5 * fitted.errors_apart] * 3


@pytest.mark.parametrize("layers", [[], [6], [-1], [0, 7]])
def test_exit_must_lie_before_the_last_layer(layers):
    with pytest.raises(UsageError, match="expected some of 0 to 5"):
        exits.checked_layers(layers, 6)


@pytest.mark.parametrize(("depth", "layers"), [(6, (0, 2, 4)), (12, (0, 4, 8)), (2, (0, 1)), (1, (0,))])
def test_default_exits_lie_after_the_embeddings_and_each_third(depth, layers):
    assert exits.default_layers(depth) == layers
