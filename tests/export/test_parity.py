"""The gate between two stages of an export."""

from __future__ import annotations

import numpy as np
import pytest

from edgewren.errors import ParityError
from edgewren_export.parity import compare, table

LOGITS = np.array([[1.0, -1.0], [-0.3, 0.3], [0.0001, -0.0001]])


def test_stages_that_agree_pass_and_report_the_largest_difference():
    stage = compare("a -> b", LOGITS, LOGITS + np.array([[0, 3e-5], [0, 0], [-1e-5, 0]]))
    assert stage.texts == 3
    assert stage.max_difference == pytest.approx(3e-5)
    assert stage.label_flips == stage.label_flips_beyond_margin == 0


def test_difference_above_the_tolerance_is_refused():
    with pytest.raises(ParityError, match=r"a -> b: logits differ by up to 2\.00e-04 .*first at text 1.*nothing was"):
        compare("a -> b", LOGITS, LOGITS + np.array([[0, 0], [0, 2e-4], [0, 0]]))


def test_labels_may_flip_only_where_the_reference_was_unsure():
    turned = LOGITS.copy()
    turned[2] = turned[2, ::-1]
    stage = compare("a -> b", LOGITS, turned, tolerance=1e-3)
    assert (stage.label_flips, stage.label_flips_beyond_margin) == (1, 0)
    turned[1] = turned[1, ::-1]
    with pytest.raises(ParityError, match="1 of 3 labels changed"):
        compare("a -> b", LOGITS, turned, tolerance=10)


def test_ties_are_no_labels_that_change_and_all_else_is():
    tied = np.array([[1e-29, -1e-29], [0.0, 0.0], [8.0, 8.0 - 5e-7], [0.3, 0.3 - 1e-7], [0.3, 0.3 - 2e-7]])
    assert compare("a -> b", tied, tied[:, ::-1]).label_flips == 1  # only the last lead is more than rounding


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_logits_that_are_not_finite_are_refused(value, side):
    broken = LOGITS.copy()
    broken[0, 0] = value
    pair = (broken, LOGITS) if side == "reference" else (LOGITS, broken)
    with pytest.raises(ParityError):
        compare("a -> b", *pair)


def test_the_same_infinity_on_both_sides_is_refused_too():
    broken = LOGITS.copy()
    broken[0, 0] = np.inf
    with pytest.raises(ParityError), np.errstate(invalid="ignore"):
        compare("a -> b", broken, broken)


def test_different_shapes_are_refused():
    with pytest.raises(ParityError, match=r"shape \(3, 1\), expected \(3, 2\)"):
        compare("a -> b", LOGITS, LOGITS[:, :1])


def test_table_shows_each_stage_with_what_was_allowed():
    text = table([compare("a -> b", LOGITS, LOGITS).as_dict()])
    assert text.splitlines()[-1] == "| a -> b | 3 | 0.0e+00 | 1e-04 | 0 |"
