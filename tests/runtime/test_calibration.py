"""The temperature: it finds what it should, never changes a label, and its effect is told honestly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgewren.calibration import (
    COVERAGE_STEPS,
    coverage,
    cross_fitted,
    cross_fitted_mean,
    fit_temperature,
    judge,
    reliability,
    wilson,
)
from edgewren.errors import InputError, UsageError
from edgewren.probabilities import brier, expected_calibration_error, log_loss, softmax


def drawn(factor: float, *, rows: int = 4000, classes: int = 2, seed: int = 0):
    """Logits whose classes were drawn from softmax(factor * logits): the best temperature is the factor."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(rows, classes))
    true = np.array([draw.choice(classes, p=row / row.sum()) for row in softmax(factor * logits).astype(np.float64)])
    return logits, true


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_temperature_is_the_factor_from_which_classes_were_drawn(factor, classes):
    logits, true = drawn(factor, classes=classes)
    assert fit_temperature(logits, true) == pytest.approx(factor, rel=0.12)  # 3 standard errors at 4,000 rows


def test_temperature_has_the_lowest_log_loss_of_all_factors():
    logits, true = drawn(2.5, rows=500, classes=3, seed=4)
    best = fit_temperature(logits, true)
    losses = [log_loss(softmax(factor * logits).astype(np.float64), true) for factor in (0.9 * best, best, 1.1 * best)]
    assert losses[1] < min(losses[0], losses[2])


def test_rows_without_a_mistake_give_a_finite_temperature_that_grows_with_their_number():
    few, many = (fit_temperature(np.tile([[-1.0, 1.0], [1.0, -1.0]], (rows, 1)), [1, 0] * rows) for rows in (15, 1500))
    assert 1 < few < many < 10
    assert softmax(np.array([[-few, few]]))[0, 1] == pytest.approx(31 / 32, abs=1e-3)  # (n + 1) / (n + C)


def test_logits_that_say_nothing_or_the_opposite_get_a_small_positive_temperature():
    assert fit_temperature([[0.0, 0.0]] * 30, [0, 1] * 15) > 0
    assert 0 < fit_temperature([[-1.0, 1.0], [1.0, -1.0]] * 20, [0, 1] * 20) < 1e-3


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(2, 20), st.integers(2, 6)), elements=st.floats(-50, 50, width=32)),
    st.randoms(use_true_random=False),
)
def test_labels_never_change(logits, random):
    true = [random.randrange(logits.shape[1]) for _ in logits]
    factor = np.float32(fit_temperature(logits, true))
    assert factor > 0
    scaled = logits * factor
    largest = np.take_along_axis(scaled, logits.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert (largest == scaled.max(axis=1)).all()


def test_no_row_takes_part_in_the_temperature_that_it_is_judged_by():
    logits, true = drawn(2.0, rows=60)
    folds = np.arange(60) % 3
    whole = cross_fitted(logits, true, folds)
    flipped = true.copy()
    flipped[folds == 1] = 1 - flipped[folds == 1]
    np.testing.assert_array_equal(cross_fitted(logits, flipped, folds)[folds == 1], whole[folds == 1])
    assert (cross_fitted(logits, flipped, folds)[folds == 0] != whole[folds == 0]).any()


def test_a_single_validation_part_is_parted_for_judging():
    logits, true = drawn(2.0, rows=100)
    factors = np.unique(np.round(cross_fitted(logits, true, np.zeros(100)) / logits, 9))
    assert len(factors) == 5


def test_copies_are_in_one_of_the_parts_of_a_single_validation_part():
    logits, true = drawn(2.0, rows=100)
    rows = np.array([*range(100), *[7] * 30, 8, 9])
    factors = (cross_fitted(logits[rows], true[rows], np.zeros(132), rows) / logits[rows])[:, 0]
    assert len(np.unique(np.round(factors, 9))) == 5
    for text in (7, 8, 9):
        np.testing.assert_allclose(factors[rows == text], factors[text])
    parted = (cross_fitted(logits[rows], true[rows], np.zeros(132)) / logits[rows])[:, 0]
    assert np.ptp(parted[rows == 7]) > 1e-6, "the control: row by row"
    np.testing.assert_array_equal(
        cross_fitted(logits, true, np.zeros(100), np.arange(100)), cross_fitted(logits, true, np.zeros(100))
    )
    with pytest.raises(InputError, match=r"together has shape \[99\], expected \[100\]"):
        cross_fitted(logits, true, np.zeros(100), rows[:99])


def test_the_mean_of_equal_members_is_calibrated_like_one_of_them():
    """Calibrating calibrated logits once more would undo it: factors of the other folds know the fold that is judged."""
    draw = np.random.default_rng(8)
    true, folds = draw.integers(0, 2, 900), np.arange(900) % 3
    margin = (2 * true - 1 + draw.normal(0, 2.0, 900)) * np.choose(folds, [0.4, 1.0, 2.5])  # folds of unlike sharpness
    logits = np.stack([-margin, margin], axis=1)
    alone = cross_fitted(logits, true, folds)
    np.testing.assert_allclose(cross_fitted_mean([logits, logits], true, folds), alone, rtol=1e-3)
    twice = cross_fitted(alone, true, folds)
    assert np.abs(twice / alone - 1).max() > 0.2


def test_each_row_of_a_mean_is_judged_by_factors_of_other_folds():
    draw = np.random.default_rng(9)
    true, folds = draw.integers(0, 3, 300), np.arange(300) % 3
    members = [draw.normal(0, 1, (300, 3)) + 2 * np.eye(3)[true] for _ in range(2)]
    before = cross_fitted_mean(members, true, folds)
    flipped = np.where(folds == 1, (true + 1) % 3, true)
    after = cross_fitted_mean(members, flipped, folds)
    np.testing.assert_array_equal(after[folds == 1], before[folds == 1])
    assert (after[folds == 0] != before[folds == 0]).any()


def test_figures_are_those_of_the_probabilities():
    logits, true = drawn(1.0, rows=300, classes=3)
    probabilities = softmax(logits).astype(np.float64)
    figures = judge(logits, true, resamples=50)
    # 1e-6: softmax rounds to float32
    assert figures.ece.value == pytest.approx(expected_calibration_error(probabilities, true), abs=1e-6)
    assert figures.log_loss.value == pytest.approx(log_loss(probabilities, true), abs=1e-6)
    assert figures.brier.value == pytest.approx(brier(probabilities, true), abs=1e-6)
    for figure in (figures.ece, figures.log_loss, figures.brier):
        assert figure.low <= figure.value <= figure.high
    assert judge(logits, true, resamples=50) == figures


def test_calibration_mends_what_is_too_sure_and_the_paired_difference_shows_it():
    logits, true = drawn(0.5, rows=1000)
    sure = 6 * logits
    mended = cross_fitted(sure, true, np.arange(1000) % 5)
    difference = judge(mended, true, against=sure, resamples=200)
    assert difference.ece.high < 0
    assert difference.log_loss.high < 0
    assert judge(sure, true, against=sure, resamples=20).brier.as_dict() == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_reliability_of_calibrated_scores_holds_the_diagonal():
    logits, true = drawn(1.0)
    bins = reliability(logits, true)
    assert len(bins) == 10
    assert sum(entry.rows for entry in bins) == 4000
    assert [entry.confidence for entry in bins] == sorted(entry.confidence for entry in bins)
    inside = sum(entry.accuracy.low <= entry.confidence <= entry.accuracy.high for entry in bins)
    assert inside >= 8


def test_coverage_starts_with_all_rows_and_keeps_what_scoring_would_keep():
    logits, true = drawn(3.0, rows=500)
    bands = coverage(logits, true)
    assert (bands[0].threshold, bands[0].coverage, bands[0].rows) == (0.0, 1.0, 500)
    assert [band.coverage for band in bands] == sorted((band.coverage for band in bands), reverse=True)
    confidence = softmax(logits).max(axis=1)
    for band in bands[1:]:
        assert band.threshold in COVERAGE_STEPS
        kept = confidence.astype(np.float64) >= band.threshold
        assert band.rows == kept.sum()
        assert band.accuracy.value == (logits.argmax(axis=1) == true)[kept].mean()
    assert bands[-1].accuracy.value > bands[0].accuracy.value


def test_interval_of_a_share_holds_for_none_and_all():
    assert wilson(0, 10).low == 0
    assert wilson(10, 10).high == 1
    assert wilson(0, 10).high == pytest.approx(0.2775, abs=1e-4)  # Wilson 1927's formula, by hand


@pytest.mark.parametrize(
    ("logits", "true", "message"),
    [
        ([[1.0, np.nan]], [0], "Row 1 of logits is"),
        ([[1.0], [2.0]], [0, 0], "at least one row and two"),
        ([[1.0, 2.0]], [0, 1], "1 rows, but true_indices has 2"),
        ([[1.0, 2.0]], [2], "label index from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(logits, true, message):
    with pytest.raises(InputError, match=message):
        fit_temperature(logits, true)
    with pytest.raises(InputError, match=message):
        judge(logits, true)


def test_options_out_of_range_are_refused():
    with pytest.raises(UsageError, match="resamples, seed and confidence are 0"):
        judge([[0.0, 1.0]], [0], resamples=0)
