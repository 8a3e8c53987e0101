"""`edgewren.metrics` and `paired_comparison` against scikit-learn, scipy, an explicit bootstrap, and figures worked out by hand."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk

from edgewren.errors import InputError, UsageError
from edgewren.metrics import Estimate, Evaluation, confusion_matrix, evaluate
from edgewren.paired_comparison import compare, mcnemar_exact
from edgewren.probabilities import expected_calibration_error

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating]
Columns = tuple[IntArray, IntArray, IntArray]

LABELS = ("left", "centre", "right", "none")

# Labels of either column are drawn on their own, so classes are often missing in one of them or in both.
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40)
triples = st.lists(st.tuples(*[st.sampled_from(LABELS)] * 3), min_size=1, max_size=40)


def noisy_copy(true: IntArray, classes: int, share_right: float, seed: int) -> IntArray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(true)) < share_right, true, rng.integers(0, classes, len(true)))


def named(indices: IntArray, labels: tuple[str, ...] = LABELS) -> list[str]:
    return [labels[index] for index in indices]


@pytest.fixture(scope="module")
def columns() -> Columns:
    """True labels, a better and a worse model: 400 rows, three of four classes occur, unevenly."""
    true = np.random.default_rng(1).choice(3, size=400, p=[0.6, 0.3, 0.1])
    return true, noisy_copy(true, 3, 0.7, 2), noisy_copy(true, 3, 0.5, 3)


# --- figures ---


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_point_figures_equal_those_of_scikit_learn(rows: list[tuple[str, str]]) -> None:
    true, predicted = zip(*rows, strict=True)
    got = evaluate(true, predicted, LABELS, resamples=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of predicted classes that no row has
        balanced = sk.balanced_accuracy_score(true, predicted)
    assert got.accuracy.value == pytest.approx(sk.accuracy_score(true, predicted), abs=1e-12)
    assert got.balanced_accuracy.value == pytest.approx(balanced, abs=1e-12)
    assert got.macro_f1.value == pytest.approx(
        sk.f1_score(true, predicted, average="macro", zero_division=0), abs=1e-12
    )
    expected = sk.precision_recall_fscore_support(true, predicted, labels=LABELS, zero_division=0)
    rows_got = [(row.precision.value, row.recall.value, row.f1.value, row.support) for row in got.classes]
    np.testing.assert_allclose(np.transpose(rows_got), expected, atol=1e-12)
    assert [row.predicted for row in got.classes] == [predicted.count(label) for label in LABELS]
    assert got.confusion == tuple(map(tuple, sk.confusion_matrix(true, predicted, labels=LABELS).tolist()))


@given(pairs)
@settings(max_examples=30, deadline=None)
def test_every_evaluation_is_finite_ordered_and_survives_json(rows: list[tuple[str, str]]) -> None:
    true, predicted = zip(*rows, strict=True)
    evaluation = evaluate(true, predicted, LABELS, resamples=20)
    plain = evaluation.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    figures = [evaluation.accuracy, evaluation.balanced_accuracy, evaluation.macro_f1]
    figures += [figure for row in evaluation.classes for figure in (row.precision, row.recall, row.f1)]
    assert all(0 <= figure.low <= figure.high <= 1 and 0 <= figure.value <= 1 for figure in figures)


def test_confusion_matrix_has_true_classes_as_rows() -> None:
    counts = confusion_matrix([0, 0, 2], [1, 1, 2], 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]
    assert confusion_matrix([], [], 2).tolist() == [[0, 0], [0, 0]]


# --- intervals ---


def resample_rows(true: IntArray, *predicted: IntArray, resamples: int) -> list[tuple[IntArray, ...]]:
    """The bootstrap as a textbook has it: rows, with replacement, within each true class."""
    rng = np.random.default_rng(99)
    groups = [np.flatnonzero(true == label) for label in np.unique(true)]
    draws = (np.concatenate([rng.choice(group, len(group)) for group in groups]) for _ in range(resamples))
    return [tuple(column[rows] for column in (true, *predicted)) for rows in draws]


def textbook_figures(true: IntArray, predicted: IntArray) -> tuple[float, float, float]:
    """Accuracy, balanced accuracy and macro-F1, written out: scikit-learn takes milliseconds for each."""
    counts = np.bincount(true * 4 + predicted, minlength=16).reshape(4, 4)
    hits, support, given_ = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    occurs, present = support > 0, support + given_ > 0
    f1 = 2 * hits[present] / (support + given_)[present]
    return hits.sum() / len(true), (hits[occurs] / support[occurs]).mean(), f1.mean()


def test_intervals_are_those_of_jeffreys_posterior(columns: Columns) -> None:
    true, predicted, _ = columns
    rng = np.random.default_rng(99)
    counts = np.bincount(true * 4 + predicted, minlength=16).reshape(4, 4)
    drawn = np.stack(
        [
            rng.dirichlet(row + np.where(np.arange(4) == c, 1 / 2, 1 / 6), 4000) * row.sum()
            for c, row in enumerate(counts)
        ],
        axis=1,
    )
    hits, given_ = drawn.diagonal(axis1=1, axis2=2), drawn.sum(axis=1)
    support = counts.sum(axis=1)
    present = support + counts.sum(axis=0) > 0
    f1 = (2 * hits / (support + given_))[:, present]
    recall = hits[:, support > 0] / support[support > 0]
    draws = np.stack([hits.sum(axis=1) / len(true), recall.mean(axis=1), f1.mean(axis=1)], axis=1)
    for confidence in (0.5, 0.8, 0.95):
        got = evaluate(named(true), named(predicted), LABELS, resamples=4000, confidence=confidence)
        expected = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        bounds = [(figure.low, figure.high) for figure in (got.accuracy, got.balanced_accuracy, got.macro_f1)]
        # The 2.5 % quantile of 4,000 normal draws has a standard error of 0.043 sd; two of them differ by less than
        # 0.06 sd in 2 of 3 cases and by less than 0.24 sd nearly always (4 of these). Inner quantiles vary less.
        deviations = np.abs(np.transpose(bounds) - expected) / draws.std(axis=0)
        assert deviations.max() < 0.24


@pytest.mark.parametrize("right", [0, 1, 5, 9, 10])
def test_a_recalls_interval_is_jeffreys(right: int) -> None:
    from scipy.stats import beta

    predicted = [*"a" * right, *"b" * (10 - right), *"b" * 20]
    recall = evaluate([*"a" * 10, *"b" * 20], predicted, ("a", "b"), resamples=20_000).classes[0].recall
    low, high = beta.ppf([0.025, 0.975], right + 0.5, 10.5 - right)
    # 20,000 draws: a standard error of 0.0023 where the density of ten rows' recall is lowest.
    assert recall.low == pytest.approx(low if right else 0.0, abs=0.012)
    assert recall.high == pytest.approx(high if right < 10 else 1.0, abs=0.012)


@pytest.mark.parametrize(
    ("support", "recalls"), [((3, 97), (0.6, 0.95)), ((20, 280), (0.98, 0.98)), ((6, 70, 70, 70, 84), (0.7,) * 5)]
)
def test_balanced_accuracys_interval_holds_with_few_rows_of_a_class(support: Any, recalls: Any) -> None:
    """Percentile intervals of rows drawn anew held the truth in 73, 58 and 90 % of such evaluations."""
    rng, classes = np.random.default_rng(5), len(support)
    labels, held = LABELS[:2] if classes == 2 else [*"abcde"], 0
    true = np.repeat(np.arange(classes), support)
    for _ in range(300):
        wrong = (true + rng.integers(1, classes, size=len(true))) % classes
        predicted = np.where(rng.random(len(true)) < np.repeat(recalls, support), true, wrong)
        got = evaluate(named(true, labels), named(predicted, labels), labels, resamples=400)
        held += got.balanced_accuracy.low <= np.mean(recalls) <= got.balanced_accuracy.high
    assert held / 300 >= 0.91  # 300 trials: a true 95 % shows less than this once in 500 times


def test_intervals_of_a_difference_agree_with_a_paired_bootstrap_of_rows(columns: Columns) -> None:
    true, a, b = columns
    draws = np.array(
        [
            np.subtract(textbook_figures(rows, drawn_a), textbook_figures(rows, drawn_b))
            for rows, drawn_a, drawn_b in resample_rows(true, a, b, resamples=4000)
        ]
    )
    got = compare(named(true), named(a), named(b), LABELS, resamples=4000)
    bounds = [(figure.low, figure.high) for figure in (got.accuracy, got.balanced_accuracy, got.macro_f1)]
    deviations = np.abs(np.transpose(bounds) - np.quantile(draws, [0.025, 0.975], axis=0)) / draws.std(axis=0)
    assert deviations.max() < 0.24  # as above


def test_a_95_percent_interval_holds_the_truth_about_95_times_in_100() -> None:
    true, accuracy, covered = np.repeat([0, 1], [120, 80]), 0.8, 0
    for seed in range(300):
        right = np.random.default_rng(seed).random(200) < accuracy
        got = evaluate(named(true), named(np.where(right, true, 1 - true)), LABELS[:2], resamples=400, seed=seed)
        covered += got.accuracy.low <= accuracy <= got.accuracy.high
    # 300 trials at 0.95 have a standard error of 0.013.
    assert 0.90 <= covered / 300 <= 0.99


def test_many_draws_are_made_in_blocks_without_a_seam(monkeypatch: pytest.MonkeyPatch, columns: Columns) -> None:
    true, predicted, _ = columns
    monkeypatch.setattr("edgewren.bootstrap._CELLS_AT_ONCE", 30)
    in_blocks = evaluate(named(true), named(predicted), LABELS, resamples=3001)
    monkeypatch.undo()
    assert in_blocks == evaluate(named(true), named(predicted), LABELS, resamples=3001)


def test_same_seed_gives_same_intervals_and_another_seed_gives_others(columns: Columns) -> None:
    true, a, b = map(named, columns)
    assert evaluate(true, a, LABELS, seed=5) == evaluate(true, a, LABELS, seed=5)
    assert evaluate(true, a, LABELS, seed=5).macro_f1 != evaluate(true, a, LABELS, seed=6).macro_f1
    assert compare(true, a, b, LABELS, seed=5) == compare(true, a, b, LABELS, seed=5)
    assert compare(true, a, b, LABELS, seed=5).macro_f1 != compare(true, a, b, LABELS, seed=6).macro_f1


def test_a_wider_confidence_gives_a_wider_interval(columns: Columns) -> None:
    true, predicted, _ = map(named, columns)
    narrow, wide = (evaluate(true, predicted, LABELS, confidence=share).accuracy for share in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_an_interval_is_made_of_draws_and_holds_the_figure(columns: Columns) -> None:
    true, predicted, _ = map(named, columns)
    once = evaluate(true, predicted, LABELS, resamples=1).accuracy
    assert once.low < once.high
    assert once.value in (once.low, once.high)


def test_a_perfect_model_may_be_wrong_of_other_rows() -> None:
    evaluation = evaluate(["left", "right"] * 9, ["left", "right"] * 9, ("left", "right"))
    assert (evaluation.accuracy.value, evaluation.accuracy.high) == (1.0, 1.0)
    assert 0.7 < evaluation.accuracy.low < 0.95


def test_labels_without_rows_stay_out_of_the_means() -> None:
    two = evaluate([*"aabb"] * 5, [*"abab"] * 5, ("a", "b"))
    more = evaluate([*"aabb"] * 5, [*"abab"] * 5, ("a", "b", "c", "d"))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        first, second = getattr(two, name), getattr(more, name)
        assert second.value == first.value
        assert second.low == pytest.approx(first.low, abs=0.03)
        assert second.high == pytest.approx(first.high, abs=0.03)
    absent = more.classes[3]
    assert {*absent.precision.as_dict().values(), *absent.recall.as_dict().values()} == {0.0}


# --- two models ---


@given(triples)
@settings(max_examples=40, deadline=None)
def test_a_comparison_holds_the_differences_of_two_evaluations(rows: list[tuple[str, str, str]]) -> None:
    true, a, b = zip(*rows, strict=True)
    got = compare(true, a, b, LABELS, resamples=10)
    of_a, of_b = (evaluate(true, predicted, LABELS, resamples=1) for predicted in (a, b))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        difference = getattr(of_a, name).value - getattr(of_b, name).value
        assert getattr(got, name).value == pytest.approx(difference, abs=1e-12)
    assert got.only_a_right == sum(y == p != q for y, p, q in rows)
    assert got.only_b_right == sum(y == q != p for y, p, q in rows)
    assert json.loads(json.dumps(got.as_dict(), allow_nan=False)) == got.as_dict()


def test_a_model_does_not_differ_from_itself(columns: Columns) -> None:
    true, a, _ = map(named, columns)
    got = compare(true, a, a, LABELS)
    for figure in (got.accuracy, got.balanced_accuracy, got.macro_f1):
        assert figure.as_dict() == {"value": 0, "low": 0, "high": 0}
    assert (got.p_accuracy, got.p_balanced_accuracy, got.p_macro_f1, got.mcnemar_p) == (1, 1, 1, 1)
    assert got.only_a_right == got.only_b_right == 0


def test_swapping_the_models_turns_the_signs(columns: Columns) -> None:
    true, a, b = map(named, columns)
    forth, back = compare(true, a, b, LABELS), compare(true, b, a, LABELS)
    assert forth.accuracy.value == -back.accuracy.value > 0
    assert (forth.only_a_right, forth.only_b_right) == (back.only_b_right, back.only_a_right)
    assert forth.mcnemar_p == back.mcnemar_p


def test_a_much_better_model_gets_the_smallest_p_values_that_the_draws_allow(columns: Columns) -> None:
    true, good = columns[0], noisy_copy(columns[0], 3, 0.95, 7)
    got = compare(named(true), named(good), named(columns[2]), LABELS, resamples=999)
    assert got.p_accuracy == got.p_balanced_accuracy == got.p_macro_f1 == pytest.approx(2 / 1000)
    assert got.accuracy.low > 0
    assert got.mcnemar_p < 1e-9


def test_models_of_equal_skill_rarely_look_different() -> None:
    low = 0
    true = np.repeat([0, 1, 2], 60)
    for seed in range(200):
        a, b = noisy_copy(true, 3, 0.6, 2 * seed), noisy_copy(true, 3, 0.6, 2 * seed + 1)
        low += compare(named(true), named(a), named(b), LABELS, resamples=300, seed=seed).p_macro_f1 < 0.05
    # 200 trials at 0.05: mean 10, standard deviation 3; the bootstrap is a little too sure at 180 rows.
    assert 2 <= low <= 24


@given(st.integers(0, 400), st.integers(0, 400))
@settings(deadline=None)
def test_mcnemar_equals_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar_exact(only_a, only_b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(0, 0), (1, 0), (5000, 5000), (4900, 5100), (20_000, 20_500), (0, 5000)]
)
def test_mcnemar_stays_exact_at_the_extremes(only_a: int, only_b: int) -> None:
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    # lgamma of 40,500 is about 4e5, so its last digit is 6e-11 of the result
    assert mcnemar_exact(only_a, only_b) == pytest.approx(expected, rel=1e-9)


# --- probabilities ---


# --- reports ---


def long_report(classes: int) -> tuple[Evaluation, str]:
    labels = tuple(f"{index}: a label of many words that ends in {index}" for index in range(classes))
    true = np.arange(50 * classes) % classes
    evaluation = evaluate(named(true, labels), named(noisy_copy(true, classes, 0.6, 4), labels), labels, resamples=50)
    return evaluation, evaluation.as_text()


@pytest.mark.parametrize("classes", [2, 9, 20, 60])
def test_the_report_fits_120_columns_and_names_every_class_in_full(classes: int) -> None:
    evaluation, text = long_report(classes)
    legend = text.split("Names in full:")[1]
    assert max(map(len, text.splitlines())) <= 120
    for number, label in enumerate(evaluation.labels, 1):
        assert f"{number} {label}" in legend


@pytest.mark.parametrize("classes", [9, 60])
def test_the_report_shows_the_whole_confusion_matrix(classes: int) -> None:
    evaluation, text = long_report(classes)
    matrix = text.split("Confusion matrix")[1].split("Names in full")[0]
    counts: dict[int, list[int]] = {}
    for line in matrix.splitlines()[1:]:
        if "…" in line:
            number, tail = int(line.split()[0]), line.split(" in ")[-1] if " in " in line else line
            counts.setdefault(number, []).extend(int(cell.replace(".", "0")) for cell in tail.split()[1:])
    assert [counts[number] for number in range(1, classes + 1)] == [list(row) for row in evaluation.confusion]


def test_the_report_opens_with_the_headline_figures() -> None:
    text = evaluate(["a", "a", "b", "b"], ["a", "b", "b", "b"], ("a", "b"), resamples=100).as_text()
    lines = text.splitlines()
    assert lines[0] == "4 rows, 2 classes. In brackets: 95 % intervals"
    assert [line.split("0.")[0].strip() for line in lines[3:6]] == ["accuracy", "balanced accuracy", "macro-F1"]
    assert lines[3].startswith("accuracy           0.750 [0.378, 0.915]")
    assert lines[-2:] == ["1 a 1 1", "2 b . 2"]


def test_a_class_of_which_no_row_is_right_has_an_interval_with_width():
    """Three rows, none of them right, read as recall 0.000 [0.000, 0.000]: as sure as could be."""
    recall = evaluate([*"aaabbbbbbb"], [*"bbbbbbbbba"], ("a", "b")).classes[0].recall
    assert (recall.value, recall.low) == (0.0, 0.0)
    assert 0.5 < recall.high < 0.6, "Jeffreys' upper end is 0.54"


def test_a_label_cannot_break_the_report() -> None:
    text = evaluate(["a\n\x1b[31m"], ["a\n\x1b[31m"], ("a\n\x1b[31m", "b")).as_text()
    assert "\x1b" not in text
    assert "1 a??[31m" in text


def test_the_comparison_report_shows_signs_and_p_values(columns: Columns) -> None:
    true, a, b = map(named, columns)
    near = compare(true[:50], a[:50], b[:50], LABELS)
    lines = near.as_text().splitlines()
    assert lines[0] == "A minus B on 50 rows. In brackets: 95 % intervals"
    assert near.p_accuracy > 0.001
    assert lines[3] == f"accuracy           {near.accuracy.as_text(signed=True)}  p = {near.p_accuracy:.3f}"
    assert near.accuracy.as_text(signed=True).startswith("+0.")
    far = compare(true, true, b, LABELS).as_text()
    assert far.endswith("McNemar's exact test p < 0.001")


def test_a_difference_that_rounds_to_nothing_has_no_minus_sign() -> None:
    assert Estimate(-1e-9, -0.0, 0.25).as_text(signed=True) == "+0.000 [+0.000, +0.250]"


def test_a_long_label_is_cut_in_its_middle_to_24_characters() -> None:
    label = "politics, written by left-leaning people"
    row = evaluate([label], [label], (label, "b")).as_text().splitlines()[-5]
    assert row == "1 politics, wr…ning people 1 ."


# --- refusals ---


def test_an_unknown_label_is_named_with_its_row_and_the_labels_known() -> None:
    with pytest.raises(InputError, match=r"Row 2 of true has the label 'up'.*known: 'left', 'right'\. Correct"):
        evaluate(["left", "up"], ["left", "left"], ["left", "right"])
    with pytest.raises(InputError, match="Row 1 of predicted has the label 'Left'"):
        evaluate(["left"], ["Left"], ["left", "right"])
    with pytest.raises(InputError, match="Row 1 of predicted has the label 'Left'"):
        # like a pandas Series, a column need not be indexed by position
        evaluate(["left"], {"Left": 0}.keys(), ["left", "right"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Row 1 of predicted_b has the label None"):
        compare(["left"], ["left"], [None], ["left", "right"])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"'19' and 80 more\. Correct"):
        evaluate(["x"], ["0"], list(map(str, range(100))))


def test_columns_of_different_lengths_and_empty_ones_are_refused() -> None:
    with pytest.raises(InputError, match="true has 2 rows, but predicted has 1"):
        evaluate(["a", "b"], ["a"], ["a", "b"])
    with pytest.raises(InputError, match="true has 2 rows, but predicted_b has 3"):
        compare(["a", "b"], ["a", "b"], ["a", "b", "a"], ["a", "b"])
    with pytest.raises(InputError, match="no rows to evaluate"):
        evaluate([], [], ["a", "b"])
    with pytest.raises(InputError, match="true has 1 rows, but predicted has 2"):
        confusion_matrix([0], [0, 1], 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, "resamples is 0, expected at least 1"),
        ({"resamples": 10**9}, "resamples is 1,000,000,000, expected at most 10,000,000 here, for memory"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"confidence": 95}, "confidence is 95, expected between 0 and 1"),
    ],
)
def test_an_option_out_of_range_is_refused_with_what_was_expected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(["a"], ["a"], ["a", "b"], **options)


def test_a_label_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="labels names 'a' twice"):
        evaluate(["a"], ["a"], ["a", "b", "a"])


def test_what_is_not_a_label_index_is_refused() -> None:
    with pytest.raises(InputError, match="Row 2 of true is 2, expected a label index from 0 to 1"):
        confusion_matrix([0, 2], [0, 0], 2)
    with pytest.raises(InputError, match="Row 1 of predicted is -1"):
        confusion_matrix([0], [-1], 2)
    with pytest.raises(InputError, match="true is float64 of shape"):
        confusion_matrix([0.5], [0], 2)
    with pytest.raises(UsageError, match="bins is 0"):
        expected_calibration_error([[0.5, 0.5]], [0], bins=0)
