"""Corrected shares: right where the answer is known, as sure as they claim, and refused where nothing can be known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewren.errors import InputError, UsageError
from edgewren.quantification import ErrorRates, _least_squares, choose_evaluation, estimate_shares

TWO = np.array([[0.75, 0.25], [0.25, 0.75]])
"""About what a classifier of tweets reaches."""

FOUR = np.array([[0.6, 0.2, 0.1, 0.1], [0.3, 0.5, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.2, 0.2, 0.2, 0.4]])


def simulated(rates, prior, *, labelled, texts, archives, seed=1):
    """Draw archives of texts and evaluations; return how often intervals hold the true share, corrected and naive."""
    rng = np.random.default_rng(seed)
    prior = np.asarray(prior)
    held, held_naively = np.zeros(len(prior)), np.zeros(len(prior))
    for _ in range(archives):
        confusion = np.array([rng.multinomial(labelled, row) for row in rates])
        counts = sum(rng.multinomial(n, row) for n, row in zip(rng.multinomial(texts, prior), rates, strict=True))
        shares = estimate_shares(ErrorRates.measured(confusion), counts[None], resamples=400)
        held += (shares.low[0] <= prior) & (prior <= shares.high[0])
        low, high = wilson(counts, texts)
        held_naively += (low <= prior) & (prior <= high)
    return held / archives, held_naively / archives


def wilson(counts, rows, z=1.96):
    """Wilson's 95 % interval of a share, which knows of no errors of the classifier."""
    share = counts / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return middle - half, middle + half


# known answers


def test_two_classes_follow_rogan_and_gladens_formula():
    confusion = [[90, 10], [20, 80]]
    shares = estimate_shares(ErrorRates.measured(confusion), [[700, 300]])
    expected = (0.3 - 0.1) / (0.8 - 0.1)  # (counted share + specificity - 1) / (sensitivity + specificity - 1)
    assert shares.value[0] == pytest.approx([1 - expected, expected], abs=1e-9)


def test_counts_below_the_false_positives_give_a_share_of_zero():
    shares = estimate_shares(ErrorRates.measured([[90, 10], [20, 80]]), [[980, 20]])
    assert shares.value[0].tolist() == [1.0, 0.0]
    assert shares.doubtful[0], "with false positives at 10 %, 2 % of a thousand texts is too few"
    assert (shares.low[0, 1], shares.high[0, 1]) == (0.0, 0.02), "stretched to what was counted: no false certainty"


def test_true_shares_come_back_from_what_they_would_show():
    prior = np.array([0.7, 0.2, 0.08, 0.02])
    rates = ErrorRates.measured(np.round(FOUR * 1000))
    shares = estimate_shares(rates, [np.round(prior @ FOUR * 1e7)])
    assert shares.value[0] == pytest.approx(prior, abs=1e-5)
    assert not shares.doubtful.any()


@given(st.integers(2, 7), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_least_squares_on_the_simplex_is_exact(classes, seed):
    nnls = pytest.importorskip("scipy.optimize").nnls
    rng = np.random.default_rng(seed)
    rates = rng.dirichlet(np.full(classes, 0.5), classes)
    counted = rng.dirichlet(np.full(classes, 0.3), 5)
    found = _least_squares(rates, counted)
    assert (found >= 0).all()
    assert found.sum(axis=1) == pytest.approx(1)
    for target, shares in zip(counted, found, strict=True):
        # scipy knows no sum to 1: a heavy further row stands for it
        other, _ = nnls(np.vstack([rates.T, np.full(classes, 1e4)]), np.append(target, 1e4))
        other /= other.sum()
        assert np.square(rates.T @ shares - target).sum() <= np.square(rates.T @ other - target).sum() + 1e-12


# how sure


@pytest.mark.parametrize(
    ("rates", "prior", "labelled", "texts"),
    [(TWO, [0.9, 0.1], 300, 400), (FOUR, [0.7, 0.2, 0.08, 0.02], 300, 1000)],
    ids=["2 classes", "4 classes"],
)
def test_intervals_hold_the_true_share_as_often_as_they_say_and_naive_ones_do_not(rates, prior, labelled, texts):
    held, held_naively = simulated(rates, prior, labelled=labelled, texts=texts, archives=500)
    assert held.mean() >= 0.93
    assert held.min() >= 0.92  # 500 archives: a true 95 % shows less than this once in 500 times per class
    assert held_naively.min() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("labelled", "texts"), [(60, 100), (60, 5000)])
@pytest.mark.parametrize("prior", [[0.25] * 4, [0.97, 0.01, 0.01, 0.01], [1, 0, 0, 0]])
def test_intervals_of_four_classes_hold_also_with_few_rows_and_at_the_edges(prior, labelled, texts):
    held, _ = simulated(FOUR, prior, labelled=labelled, texts=texts, archives=300)
    assert held.mean() >= 0.93
    assert held.min() >= 0.88


@pytest.mark.slow
@pytest.mark.parametrize(("labelled", "texts"), [(50, 50), (600, 10**5)])
@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.98, 0.02], [1, 0]])
def test_intervals_of_two_classes_hold_also_with_few_rows_and_at_the_edges(prior, labelled, texts):
    held, _ = simulated(TWO, prior, labelled=labelled, texts=texts, archives=300)
    assert held.min() >= 0.92


@pytest.mark.parametrize(("classes", "texts"), [(5, 20), (8, 10)])
def test_intervals_of_many_classes_hold_for_groups_of_few_texts(classes, texts):
    """A class that none of the texts shows may be there all the same: 0.70 and 0.80 of such intervals held the share."""
    rates = np.full((classes, classes), 0.3 / (classes - 1))
    np.fill_diagonal(rates, 0.7)
    prior = np.array([0.02, *[0.98 / (classes - 1)] * (classes - 1)])
    held, _ = simulated(rates, prior, labelled=240, texts=texts, archives=300)
    assert held.mean() >= 0.93
    assert held.min() >= 0.91  # 300 archives: a true 95 % shows less than this once in 500 times per class


def test_a_class_that_no_text_of_a_small_group_shows_is_not_called_absent_for_certain():
    rates = np.full((5, 5), 0.075) + 0.625 * np.eye(5)
    shares = estimate_shares(ErrorRates.measured(np.round(240 * rates)), [[0, 5, 5, 5, 5], [0, 0, 25, 25, 0]])
    assert (shares.high > shares.low).all(), "the second group's intervals lie outside, and are stretched"
    few = estimate_shares(ErrorRates.measured([[75, 25], [25, 75]]), [[20, 0]])
    assert few.high[0, 1] > 0.05


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_chance_alone_seldom_makes_a_group_doubtful_however_many_the_classes(classes):
    """Groups of one class alone, which come nearest to impossible counts. At the level of one interval 11 % of those of
    five classes were doubtful."""
    rng = np.random.default_rng(3)
    rates = np.full((classes, classes), 0.25 / (classes - 1))
    np.fill_diagonal(rates, 0.75)
    doubtful = [
        estimate_shares(
            ErrorRates.measured([rng.multinomial(300, row) for row in rates]), rng.multinomial(1000, rates[:1])
        ).doubtful[0]
        for _ in range(500)
    ]
    assert np.mean(doubtful) <= 0.04  # 500 groups: a true 2.5 % shows more once in 60 times


def test_an_interval_outside_is_stretched_also_where_chance_may_have_brought_it_about():
    shares = estimate_shares(ErrorRates.measured([[90, 5, 5], [10, 80, 10], [10, 10, 80]]), [[920, 65, 15]])
    assert not shares.doubtful[0]
    assert (shares.low[0, 0], shares.high[0, 2]) == (0.92, 0.015)


def test_more_texts_and_more_labelled_rows_both_narrow_the_interval():
    def width(labelled, texts):
        shares = estimate_shares(ErrorRates.measured(np.round(TWO * labelled)), [[texts * 0.6, texts * 0.4]])
        return (shares.high - shares.low)[0, 1]

    assert width(600, 10000) < width(600, 200)
    assert width(600, 10000) < width(60, 10000)
    assert width(60, 10**8) > 0.1, "no number of texts makes up for a small evaluation"


def test_errors_never_seen_in_a_small_evaluation_are_still_possible():
    shares = estimate_shares(ErrorRates.measured([[30, 0], [0, 30]]), [[10000, 0]])
    assert shares.value[0, 1] == pytest.approx(0.0, abs=1e-9)
    assert shares.high[0, 1] > 0.0


def test_a_groups_figures_depend_on_neither_the_other_groups_nor_the_run():
    rates = ErrorRates.measured(np.round(FOUR * 100))
    groups = [[50, 20, 9, 3], [1, 0, 0, 0], [7, 7, 7, 7]]
    together = estimate_shares(rates, groups)
    for index, group in enumerate(groups):
        alone = estimate_shares(rates, [group])
        for name in ("value", "low", "high"):
            assert getattr(alone, name)[0].tolist() == getattr(together, name)[index].tolist()
    other_seed = estimate_shares(rates, groups, seed=1)
    assert other_seed.low.tolist() != together.low.tolist()
    assert other_seed.value.tolist() == together.value.tolist()


def test_intervals_hold_their_estimate_and_lie_between_0_and_1():
    rng = np.random.default_rng(0)
    rates = ErrorRates.measured(np.round(FOUR * 30))
    shares = estimate_shares(rates, rng.integers(0, 50, size=(40, 4)), resamples=200)
    assert ((shares.low >= 0) & (shares.low <= shares.value) & (shares.value <= shares.high)).all()
    assert (shares.high <= 1).all()
    assert shares.value.sum(axis=1) == pytest.approx(1)


def test_a_group_without_rows_has_no_shares():
    shares = estimate_shares(ErrorRates.measured([[30, 5], [5, 30]]), [[0, 0], [3, 4]])
    assert np.isnan(shares.value[0]).all()
    assert np.isfinite(shares.value[1]).all()


# what cannot be known


@pytest.mark.parametrize(
    ("confusion", "why"),
    [
        ([[300, 5], [4, 4]], "8 rows of 'b', at least 10"),
        ([[30, 0], [0, 0]], "0 rows of 'b'"),
        ([[10, 40], [40, 10]], "no better than chance"),
        ([[27, 23], [23, 27]], "cannot tell"),
    ],
)
def test_an_evaluation_that_tells_too_little_is_named_as_such(confusion, why):
    assert why in ErrorRates.measured(confusion).problem(["a", "b"])


def test_a_class_that_is_never_predicted_cannot_be_told_from_the_others():
    problem = ErrorRates.measured([[80, 20, 0], [20, 80, 0], [50, 50, 0]]).problem(["a", "b", "c"])
    assert "cannot tell 'a'" in problem
    assert "no bound at all" in problem


def test_the_bar_for_two_classes_is_two_standard_errors_above_chance():
    for right in (56, 58, 60, 62, 64):
        rates = ErrorRates.measured([[right, 100 - right], [100 - right, right]])
        above = 2 * right / 100 - 1
        error = (2 * (right / 100) * (1 - right / 100) / 100) ** 0.5
        assert (rates.problem(["a", "b"]) is None) == (above > 2 * error)


def test_a_good_evaluation_gives_neither_problem_nor_warning_and_a_small_one_a_warning():
    good = ErrorRates.measured(np.round(TWO * 600))
    assert good.problem(["a", "b"]) is None
    assert good.warning(["a", "b"]) is None
    small = ErrorRates.measured([[30, 20], [20, 30]])
    assert small.problem(["a", "b"]) is None
    assert "expect wide intervals" in small.warning(["a", "b"])


@pytest.mark.parametrize("confusion", [[[1]], [[1, 2]], [[1, -2], [3, 4]], [[1, 0.5], [3, 4]], [[1, np.nan], [3, 4]]])
def test_what_is_no_confusion_matrix_is_refused(confusion):
    with pytest.raises(InputError, match="confusion matrix"):
        ErrorRates.measured(confusion)


def test_options_out_of_range_and_counts_of_other_labels_are_refused():
    rates = ErrorRates.measured([[30, 5], [5, 30]])
    for options in ({"resamples": 0}, {"resamples": 10**9}, {"seed": -1}, {"confidence": 1.0}):
        with pytest.raises(UsageError, match="expected"):
            estimate_shares(rates, [[1, 2]], **options)
    with pytest.raises(InputError, match=r"expected counts \[groups, 2\]"):
        estimate_shares(rates, [[1, 2, 3]])


# which evaluation


def evaluation(count):
    return {"labels": ["a", "b"], "confusion": [[count, 1], [1, count]]}


def test_out_of_fold_predictions_come_before_a_test_file_and_that_before_validation():
    all_of_them = {
        "training rows (optimistic)": evaluation(1),
        "test file, before training": evaluation(2),
        "10-fold cross-validation (before distillation)": evaluation(6),
        "validation": evaluation(3),
        "test file": evaluation(4),
        "10-fold cross-validation": evaluation(5),
    }
    for expected in ("10-fold cross-validation", "test file", "validation"):
        name, rates = choose_evaluation(all_of_them, ["a", "b"])
        assert name == expected
        assert rates.confusion[0, 0] == all_of_them[expected]["confusion"][0][0]
        del all_of_them[expected]
    with pytest.raises(InputError, match=r"no evaluation on held-out rows; it has: 'training rows \(optimistic\)'"):
        choose_evaluation(all_of_them, ["a", "b"])


def test_an_evaluation_can_be_named_but_not_one_on_training_rows():
    known = {"10-fold cross-validation": evaluation(5), "test file": evaluation(4), "training rows": evaluation(9)}
    assert choose_evaluation(known, ["a", "b"], "test file")[0] == "test file"
    with pytest.raises(InputError, match="no evaluation 'x'"):
        choose_evaluation(known, ["a", "b"], "x")
    with pytest.raises(InputError, match="not on held-out rows"):
        choose_evaluation(known, ["a", "b"], "training rows")
    earlier = "3-fold cross-validation (before distillation)"
    with pytest.raises(InputError, match="not on held-out rows by the finished model"):
        choose_evaluation({**known, earlier: evaluation(7)}, ["a", "b"], earlier)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"confusion": 3},
        {"confusion": [[1, 2]]},
        {"confusion": [[1, 2], 3]},
        {"confusion": [[1], [2]]},
        {"confusion": [[1, "x"], [2, 3]]},
        {"labels": ["b", "a"], "confusion": [[1, 2], [3, 4]]},
    ],
)
def test_an_evaluation_without_a_sound_confusion_matrix_is_refused(entry):
    with pytest.raises(InputError, match="'test file'"):
        choose_evaluation({"test file": entry}, ["a", "b"])
