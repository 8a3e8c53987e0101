"""Early exits: the threshold is the lowest that is proved safe, and the proof holds on data never seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from edgewren.errors import UsageError
from edgewren_train import exits


def simulated(rows: int, seed: int, spread: float = 0.3) -> tuple[dict, np.ndarray]:
    """Decision values of three heads, each the truth and its own noise, as binary logits."""
    rng = np.random.default_rng(seed)
    full = rng.normal(scale=0.5, size=rows)
    shallow = {layer: full + rng.normal(scale=spread * (1 - layer / 6), size=rows) for layer in (0, 2, 4)}
    as_logits = lambda d: np.stack([-d / 2, d / 2], axis=1)  # noqa: E731
    return {layer: as_logits(value) for layer, value in shallow.items()}, as_logits(full)


def test_bound_is_clopper_pearsons_and_below_what_is_allowed():
    logits, full = simulated(1200, 0)
    found = exits.find_threshold(logits, full)
    assert found.bound <= 0.01
    assert binom.cdf(found.differing, 1200, found.bound) == pytest.approx(0.05, abs=1e-6)
    assert (found.left < 3).mean() > 0.2, "some leave"


def test_next_lower_threshold_would_not_be_proved():
    logits, full = simulated(1200, 1)
    found = exits.find_threshold(logits, full)
    lower = found.value - 0.02
    apart = np.stack([np.abs(logits[layer][:, 1] - logits[layer][:, 0]) for layer in (0, 2, 4)])
    takes = apart > lower
    left = np.where(takes.any(axis=0), takes.argmax(axis=0), 3)
    labels = np.stack([*(logits[layer].argmax(axis=1) for layer in (0, 2, 4)), full.argmax(axis=1)])
    differing = (labels[left, np.arange(1200)] != full.argmax(axis=1)).sum()
    assert binom.cdf(differing, 1200, 0.01) > 0.05


def test_promise_is_broken_in_at_most_one_of_twenty_samples():
    population, truth = simulated(50_000, 99)
    broken = 0
    for seed in range(40):
        logits, full = simulated(600, seed)
        value = exits.find_threshold(logits, full).value
        takes = np.stack([np.abs(population[layer][:, 1] - population[layer][:, 0]) for layer in (0, 2, 4)]) > value
        left = np.where(takes.any(axis=0), takes.argmax(axis=0), 3)
        labels = np.stack([*(population[layer].argmax(axis=1) for layer in (0, 2, 4)), truth.argmax(axis=1)])
        broken += (labels[left, np.arange(len(left))] != truth.argmax(axis=1)).mean() > 0.01
    # 40 trials at 5 %: 6 or fewer with 99.3 % probability
    assert broken <= 6


def test_too_few_rows_prove_nothing():
    logits, full = simulated(298, 0)
    with pytest.raises(UsageError, match=r"298 rows .* 299 or more"):
        exits.find_threshold(logits, full)


def test_exits_that_know_nothing_let_nobody_leave():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1000, 1)) * np.array([[-2.0, 2.0]])
    full = rng.normal(size=(1000, 1)) * np.array([[-2.0, 2.0]])
    head = object()
    true = (full[:, 1] > 0).astype(int)
    found = exits.find_threshold({0: noise}, full)
    assert (found.left == 0).mean() < 0.02
    assert exits.fit_exits({0: head}, {0: noise * 1e-3}, full, true, 6) is None


def test_leavers_get_a_temperature_of_their_own():
    logits, full = simulated(1200, 3)
    rng = np.random.default_rng(4)
    true = (rng.random(1200) < 1 / (1 + np.exp(-3 * (full[:, 1] - full[:, 0])))).astype(int)

    class Head:
        alpha = 1.0

    fitted = exits.fit_exits(dict.fromkeys((0, 2, 4), Head()), logits, full, true, 6)
    assert [entry.layer for entry in fitted.exits] == [0, 2, 4]
    assert all(1 < entry.temperature < 9 for entry in fitted.exits if entry.share > 0.1)
    assert sum(entry.share for entry in fitted.exits) < 1
    assert fitted.as_dict()["rows"] == 1200


@pytest.mark.parametrize("layers", [[], [6], [-1], [0, 7]])
def test_exit_must_lie_before_the_last_layer(layers):
    with pytest.raises(UsageError, match="expected some of 0 to 5"):
        exits.checked_layers(layers, 6)


@pytest.mark.parametrize(("depth", "layers"), [(6, (0, 2, 4)), (12, (0, 4, 8)), (2, (0, 1)), (1, (0,))])
def test_default_exits_lie_after_the_embeddings_and_each_third(depth, layers):
    assert exits.default_layers(depth) == layers
