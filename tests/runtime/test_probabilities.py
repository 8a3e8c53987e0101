"""Probabilities: softmax, calibration error, log loss, Brier score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import special
from sklearn import metrics as sk

from edgewren.errors import InputError
from edgewren.probabilities import brier, expected_calibration_error, log_loss, softmax

FloatArray = NDArray[np.floating]


@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
@settings(deadline=None)
def test_softmax_equals_that_of_scipy_for_logits_of_any_size(logits: FloatArray) -> None:
    got = softmax(logits)
    assert got.dtype == np.float32
    # one rounding to float32
    np.testing.assert_allclose(got, special.softmax(logits.astype(np.float64), axis=1), rtol=6e-8, atol=1e-44)


def test_softmax_of_no_rows_is_no_rows_and_leaves_its_input_alone() -> None:
    assert softmax(np.zeros((0, 3), np.float32)).shape == (0, 3)
    logits = np.array([[1.0, 2.0]])
    softmax(logits)
    assert logits.tolist() == [[1.0, 2.0]]


def test_calibration_error_of_an_example_worked_out_by_hand() -> None:
    # Ten bins. (0.6, 0.7]: confidences 0.65 and 0.7, one of two right: |0.5 - 0.675| = 0.175.
    # (0.8, 0.9]: 0.9, right: 0.1. (0.9, 1]: 1.0, wrong: 1. Weighted: (2 * 0.175 + 0.1 + 1) / 4.
    probabilities = [[0.65, 0.35], [0.3, 0.7], [0.9, 0.1], [0.0, 1.0]]
    assert expected_calibration_error(probabilities, [0, 0, 0, 0], bins=10) == pytest.approx(1.45 / 4)


def test_calibration_error_is_zero_where_confidence_is_accuracy_and_one_at_worst() -> None:
    assert expected_calibration_error([[0.75, 0.25]] * 4, [0, 0, 0, 1]) == pytest.approx(0)
    assert expected_calibration_error(np.eye(3, dtype=np.float32), [1, 2, 0]) == 1


def test_calibration_error_does_not_let_bins_cancel_each_other() -> None:
    probabilities, true = [[0.6, 0.4]] * 5 + [[0.8, 0.2]] * 5, [0] * 4 + [1] + [0] * 3 + [1] * 2
    assert expected_calibration_error(probabilities, true, bins=1) == pytest.approx(0)
    assert expected_calibration_error(probabilities, true, bins=15) == pytest.approx(0.2)


@given(hnp.arrays(np.float64, (6, 4), elements=st.floats(-8, 8)), st.lists(st.integers(0, 3), min_size=6, max_size=6))
@settings(deadline=None)
def test_log_loss_and_brier_equal_their_definitions(logits: FloatArray, true: list[int]) -> None:
    probabilities = special.softmax(logits, axis=1)
    assert log_loss(probabilities, true) == pytest.approx(sk.log_loss(true, probabilities, labels=range(4)))
    assert brier(probabilities, true) == pytest.approx(((probabilities - np.eye(4)[true]) ** 2).sum() / 6)


def test_brier_of_two_classes_is_twice_that_of_scikit_learn() -> None:
    second = np.array([0.1, 0.8, 0.4])
    got = brier(np.stack([1 - second, second], axis=1), [0, 1, 1])
    assert got == pytest.approx(2 * sk.brier_score_loss([0, 1, 1], second))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_of_an_impossible_truth_is_finite_and_as_in_scikit_learn(dtype: type[np.floating]) -> None:
    probabilities = np.array([[1, 0], [1, 0]], dtype=dtype)
    got = log_loss(probabilities, [0, 1])
    assert math.isfinite(got)
    assert got == pytest.approx(sk.log_loss([0, 1], probabilities), rel=1e-6)  # scikit-learn stays in float32


@pytest.mark.parametrize("score", [expected_calibration_error, log_loss, brier])
def test_what_is_not_a_probability_for_every_class_is_refused(score: Callable[[Any, Any], float]) -> None:
    with pytest.raises(InputError, match=r"Row 2 of probabilities is \[2\.0, -1\.0\].*softmax first"):
        score([[0.5, 0.5], [2.0, -1.0]], [0, 1])
    with pytest.raises(InputError, match=r"Row 1 of probabilities is .*nan"):
        score([[float("nan"), 1.0]], [0])
    with pytest.raises(InputError, match=r"shape \[2\], expected \[n, classes\]"):
        score([0.5, 0.5], [0])
    with pytest.raises(InputError, match=r"shape \[0, 2\]"):
        score(np.zeros((0, 2)), [])
    with pytest.raises(InputError, match="probabilities has 1 rows, but true_indices has 2"):
        score([[0.5, 0.5]], [0, 1])
