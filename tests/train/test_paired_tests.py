"""Paired tests against scipy, published formulas and simulated null data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgewren.errors import UsageError
from edgewren_train.paired_tests import all_pairs, holm, mean_score, paired_test

A = [0.74, 0.71, 0.78, 0.75, 0.73, 0.77, 0.70, 0.76, 0.74, 0.75]
B = [0.72, 0.72, 0.74, 0.74, 0.70, 0.75, 0.71, 0.73, 0.71, 0.74]
ROWS = 100
"""Of a part: such scores move in steps of 0.01."""


def test_without_overlap_it_is_the_paired_t_test_of_scipy():
    test = paired_test(A, B, held_out_per_trained=0, rows_held_out=ROWS)
    known = stats.ttest_rel(A, B)
    assert test.p == pytest.approx(known.pvalue, rel=1e-12)
    low, high = known.confidence_interval(0.95)
    assert (test.difference.low, test.difference.high) == pytest.approx((low, high), rel=1e-12)


def test_variance_is_corrected_as_nadeau_and_bengio_say():
    difference = np.subtract(A, B)
    t = difference.mean() / math.sqrt((1 / 10 + 1 / 4) * difference.var(ddof=1))
    test = paired_test(A, B, held_out_per_trained=1 / 4, rows_held_out=ROWS)
    assert test.p == pytest.approx(2 * stats.t.sf(t, 9), rel=1e-12)
    assert test.p > paired_test(A, B, held_out_per_trained=0, rows_held_out=ROWS).p


def test_posterior_is_the_students_t_of_corani_and_benavoli():
    difference = np.subtract(A, B)
    rho = 1 / 5  # of five folds; their rho / (1 - rho) is the share held out per trained
    scale = math.sqrt((1 / 10 + rho / (1 - rho)) * difference.var(ddof=1))
    draws = stats.t(9, difference.mean(), scale).rvs(400_000, random_state=1)
    test = paired_test(A, B, held_out_per_trained=1 / 4, rows_held_out=ROWS, negligible=0.01)
    assert test.p_better == pytest.approx((draws > 0.01).mean(), abs=0.003)
    assert test.p_worse == pytest.approx((draws < -0.01).mean(), abs=0.003)
    assert test.p_better + test.p_equal + test.p_worse == pytest.approx(1)


def test_without_a_region_the_posterior_and_the_p_value_agree():
    """With a flat prior, one minus the one-sided p-value is the posterior of being better."""
    test = paired_test(A, B, held_out_per_trained=1 / 4, rows_held_out=ROWS, negligible=0)
    assert test.p_better == pytest.approx(1 - test.p / 2, rel=1e-9)


@pytest.mark.parametrize("rows", [4, 20, 500])
def test_differences_without_spread_are_as_sure_as_if_they_spread_by_one_row(rows):
    """Ties of few folds come by chance: a spread of 0 is no proof."""
    shift = 3 / rows
    test = paired_test([score + shift for score in A], A, held_out_per_trained=1 / 4, rows_held_out=rows)
    t = shift / (math.sqrt(1 / 10 + 1 / 4) / rows)
    assert test.p == pytest.approx(2 * stats.t.sf(t, 9), rel=1e-9)
    assert test.p > 0
    assert test.p_better < 1
    assert test.difference.value == pytest.approx(shift)
    assert test.difference.high - test.difference.low == pytest.approx(2 * stats.t.ppf(0.975, 9) * shift / t)


def test_two_folds_that_differ_by_the_same_row_prove_nothing():
    test = paired_test([0.75, 0.75], [0.70, 0.70], held_out_per_trained=1, rows_held_out=20)
    assert test.p > 0.5
    assert test.difference.low < 0 < test.difference.high
    assert mean_score([0.75, 0.75], held_out_per_trained=1, rows_held_out=20).low < 0.5


def test_equal_scores_are_equal():
    test = paired_test(A, A, held_out_per_trained=1 / 4, rows_held_out=ROWS)
    assert (test.p, test.difference.value) == (1.0, 0.0)
    assert test.p_better == pytest.approx(test.p_worse)


@pytest.mark.parametrize("rows", [40, 100, 1000])
@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_two_equal_classifiers_seldom_differ_however_few_the_folds(folds, rows):
    """Each is right alone on a twentieth of the rows. With 2 folds of 20 rows a spread of 0 had p = 0 in a tenth."""
    draw = np.random.default_rng(0)
    held_out = rows // folds
    right = draw.multinomial(held_out, [0.05, 0.05, 0.9], size=(500, folds))[..., :2] / held_out
    p_values = [paired_test(*pair.T, held_out_per_trained=1 / (folds - 1), rows_held_out=held_out).p for pair in right]
    assert np.mean(np.less(p_values, 0.05)) <= 0.05
    assert min(p_values) > 1e-6


def test_the_corrected_test_keeps_its_level_where_the_plain_one_does_not():
    """5 x 5-fold cross-validation of two equal classifiers: scores of a repeat share their rows' luck."""
    draw = np.random.default_rng(0)
    wrongly = {0.0: 0, 0.25: 0}
    for _ in range(200):
        easy = draw.normal(size=(2, 250))  # which rows suit which of the two
        scores = []
        for model in easy:
            rows = [np.array_split(draw.permutation(250), 5) for _ in range(5)]
            scores.append([float((model[part] > 0).mean()) for repeat in rows for part in repeat])
        for ratio in wrongly:
            wrongly[ratio] += paired_test(*scores, held_out_per_trained=ratio, rows_held_out=50).p < 0.05
    assert wrongly[0.25] <= 0.09 * 200
    assert wrongly[0.0] > 0.25 * 200


def test_holm_is_that_of_r():
    """p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") in R: 0.03 0.06 0.06 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= min(1.0, len(p_values) * p) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.asarray(adjusted)[order]) >= 0).all()


def test_all_pairs_are_tested_in_order_and_adjusted_for_all():
    parts = {"held_out_per_trained": 1 / 4, "rows_held_out": ROWS}
    scores = {"a": A, "b": B, "c": [score - 0.03 for score in B]}
    pairs = all_pairs(scores, **parts)
    assert [(pair.a, pair.b) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.test for pair in pairs] == [paired_test(scores[pair.a], scores[pair.b], **parts) for pair in pairs]
    assert [pair.p_holm for pair in pairs] == holm([pair.test.p for pair in pairs])


def test_mean_score_is_the_interval_of_the_difference_from_zero():
    alone = mean_score(A, held_out_per_trained=0.25, rows_held_out=ROWS)
    against = paired_test(A, [0.0] * 10, held_out_per_trained=0.25, rows_held_out=ROWS).difference
    assert (alone.value, alone.low, alone.high) == pytest.approx((against.value, against.low, against.high))


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (A, A[:-1], {}, "A has 10 scores, B has 9"),
        ([0.5], [0.5], {}, "at least two finite numbers"),
        ([0.5, math.nan], [0.5, 0.5], {}, "at least two finite numbers"),
        (A, B, {"held_out_per_trained": -1}, "held out per trained is -1"),
        (A, B, {"rows_held_out": 0}, "rows held out is 0"),
        (A, B, {"negligible": -0.1}, "negligible difference is -0.1"),
        (A, B, {"confidence": 95}, "confidence is 95"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, options, message):
    with pytest.raises(UsageError, match=message):
        paired_test(a, b, **{"held_out_per_trained": 0.25, "rows_held_out": ROWS, **options})
