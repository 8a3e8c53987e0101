"""The ridge head: scikit-learn's pipeline, with a grid that reaches far enough and says what it chose."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifierCV, RidgeCV
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.fixtures.tiny_models import labelled

from edgewren.errors import UsageError
from edgewren_train.ridge import CLASSIC_GRID, WIDE_GRID, cross_validate, fit, fit_values
from edgewren_train.ridge_settings import RidgeSettings

NAMES = ("a", "b", "c", "d", "e")


def data(classes=2, rows=150, width=20, noise=2.0, seed=1):
    draw = np.random.default_rng(seed)
    index = np.arange(rows) % classes
    features = draw.normal(size=(classes, width))[index] + draw.normal(size=(rows, width)) * noise
    return (features * draw.uniform(0.01, 3, size=width) + 5).astype(np.float32), [NAMES[i] for i in index]


def scikit_learn(features, labels, alphas):
    pipeline = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=list(alphas)))
    return pipeline.fit(features.astype(np.float64), labels)


@pytest.mark.parametrize("alphas", [CLASSIC_GRID, WIDE_GRID], ids=["classic", "wide"])
@pytest.mark.parametrize("classes", [2, 5])
def test_head_is_scikit_learns_pipeline(classes, alphas):
    features, labels = data(classes)
    unseen = data(classes, seed=2)[0]
    theirs = scikit_learn(features, labels, alphas)
    head = fit(features, labels, alphas=alphas, extend=False)
    assert head.alpha == theirs[-1].alpha_
    assert head.alphas == pytest.approx(tuple(alphas))
    assert not head.extended
    expected = theirs.decision_function(unseen.astype(np.float64))
    assert head.decision(unseen).shape == expected.shape
    # 1e-9: the same float64 arithmetic; only the order of one multiplication differs.
    np.testing.assert_allclose(head.decision(unseen), expected, atol=1e-9)
    assert head.predict(unseen, NAMES[:classes]) == theirs.predict(unseen.astype(np.float64)).tolist()


@pytest.mark.parametrize("classes", [2, 5])
def test_only_the_choice_of_alpha_goes_another_way_than_scikit_learns_classifier(classes):
    features, labels = data(classes)
    theirs = scikit_learn(features, labels, WIDE_GRID)[-1]
    head = fit(features, labels)
    np.testing.assert_array_equal(head.coef, np.atleast_2d(theirs.coef_))
    np.testing.assert_array_equal(head.intercept, theirs.intercept_)


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_are_the_leave_one_out_errors_by_which_the_alpha_is_chosen(classes):
    features, labels = data(classes, rows=60)
    head = fit(features, labels, alphas=[1.0, 100.0, 10_000.0], extend=False)
    assert len(head.scores) == 3
    assert head.alpha == head.alphas[int(np.argmax(head.scores))]
    one = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=[100.0])).fit(features.astype(np.float64), labels)
    assert head.scores[1] == pytest.approx(one[-1].best_score_)


@pytest.mark.parametrize("outputs", [(), (4,)], ids=["one", "four"])
def test_head_of_values_is_scikit_learns_ridge(outputs):
    features, _ = data()
    unseen = data(seed=2)[0].astype(np.float64)
    draw = np.random.default_rng(3)
    values = features @ draw.normal(size=(20, *outputs)) + draw.normal(size=(150, *outputs))
    theirs = make_pipeline(StandardScaler(), RidgeCV(alphas=list(WIDE_GRID))).fit(features.astype(np.float64), values)
    head = fit_values(features, values, extend=False)
    assert head.alpha == theirs[-1].alpha_
    np.testing.assert_allclose(head.decision(unseen), theirs.predict(unseen), atol=1e-9)


def test_error_of_a_head_is_that_of_leaving_each_row_out():
    features, _ = data(rows=60)
    values = features[:, 0] + np.random.default_rng(4).normal(size=60)
    head = fit_values(features, values)
    standardised = StandardScaler().fit_transform(features.astype(np.float64))
    left_out = cross_val_predict(Ridge(head.alpha), standardised, values, cv=LeaveOneOut())
    assert head.error == pytest.approx(np.sqrt(((left_out - values) ** 2).mean()), rel=1e-6)


def test_grid_goes_on_beyond_its_upper_edge_while_the_best_lies_there():
    # Labels that features say next to nothing about: the more shrinkage, the better.
    draw = np.random.default_rng(0)
    features = draw.normal(size=(120, 60)).astype(np.float32)
    labels = ["a", "b"] * 60
    head = fit(features, labels, alphas=(0.1, 1.0))
    assert head.extended
    assert head.alpha > 1.0
    assert max(head.alphas) > 1.0
    assert head.alpha == head.alphas[int(np.argmax(head.scores))]
    assert len(head.scores) == len(head.alphas)
    assert list(head.alphas) == sorted(set(head.alphas))
    assert {0.1, 1.0} <= set(head.alphas)
    # What comes out is scikit-learn's fit with that alpha, although it was found in another round.
    theirs = scikit_learn(features, labels, [head.alpha])
    np.testing.assert_allclose(head.decision(features), theirs.decision_function(features.astype(float)), atol=1e-9)


def test_grid_goes_on_below_its_lower_edge_too():
    draw = np.random.default_rng(0)
    features = draw.normal(size=(200, 5)).astype(np.float32)
    labels = ["a" if value > 0 else "b" for value in features @ draw.normal(size=5)]
    features[:, 0] *= 1000
    head = fit(features, labels, alphas=(1e4, 1e5))
    assert head.extended
    assert head.alpha < 1e4
    assert not head.on_edge


def test_extension_ends_at_its_bounds():
    features = np.zeros((40, 3), dtype=np.float32)  # nothing to learn: every alpha is as good, the largest wins
    head = fit(features, ["a", "b"] * 20, alphas=(1.0, 10.0))
    assert np.isfinite(head.scores).all()
    assert head.alpha <= 1e14


def test_best_inside_the_grid_is_not_extended():
    features, labels = data()
    head = fit(features, labels)
    assert not head.extended
    assert not head.on_edge
    assert head.alphas == WIDE_GRID


def test_constant_feature_does_no_harm():
    features, labels = data()
    features[:, 3] = 0.25
    head = fit(features, labels)
    assert np.isfinite(head.decision(features)).all()


def test_classic_grid_is_that_of_published_notebooks():
    assert CLASSIC_GRID == (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


def test_wide_grid_is_log_spaced_from_a_thousandth_to_a_million():
    assert (WIDE_GRID[0], WIDE_GRID[-1], len(WIDE_GRID)) == (1e-3, 1e6, 37)
    np.testing.assert_allclose(np.diff(np.log10(WIDE_GRID)), 0.25, atol=1e-3)


@pytest.mark.parametrize("alphas", [[], [0.0], [-1.0, 1.0], [float("nan")], [1.0, float("nan")], [float("inf")]])
def test_alphas_that_are_not_positive_numbers_are_refused(alphas):
    features, labels = data(rows=20)
    with pytest.raises(UsageError, match="alphas are .* expected at least one value, all positive and finite"):
        fit(features, labels, alphas=alphas)


def test_cross_validation_does_not_leak():
    """With more features than rows, anything fitted on the held-out rows would be right far more often than chance."""
    draw = np.random.default_rng(8)
    features = draw.normal(size=(200, 400)).astype(np.float32)
    labels = draw.permutation(["a", "b"] * 100).tolist()
    predicted = cross_validate(features, labels, folds=10, seed=0).predicted(("a", "b"))
    right = np.mean(np.array(predicted) == np.array(labels))
    assert 0.35 < right < 0.65  # 4 standard errors around chance
    assert (
        np.mean(np.array(fit(features, labels, alphas=[1.0]).predict(features, ("a", "b"))) == labels) > 0.8
    )  # the control: on rows that it has seen


def test_copies_of_a_text_do_not_leak():
    """600 rows of 200 texts without any signal, each three times with other links: 1.000 [1.000, 1.000] before."""
    draw = np.random.default_rng(8)
    features = np.tile(draw.normal(size=(200, 400)).astype(np.float32), (3, 1))
    labels = draw.permutation(["a", "b"] * 100).tolist() * 3
    texts = [f"text {row % 200} https://t.co/{row}" for row in range(600)]
    told = []
    held_out = RidgeSettings("minilm").cross_validate(features, labelled(texts, labels), told.append)
    assert 0.35 < np.mean(np.array(held_out.predicted(("a", "b"))) == np.array(labels)) < 0.65
    (note,) = told
    assert "400 of 600 rows repeat an earlier row's text" in note


def test_cross_validated_labels_are_those_of_heads_fitted_without_the_row():
    features, labels = data(classes=5, rows=100, noise=1.0)
    held_out = cross_validate(features, labels, folds=5, seed=3)
    assert held_out.rows.tolist() == list(range(100))
    predicted = held_out.predicted(sorted(set(labels)))
    assert np.mean(np.array(predicted) == np.array(labels)) > 0.5
    row = 7
    without = held_out.folds != held_out.folds[row]
    head = fit(features[without], [label for label, kept in zip(labels, without, strict=True) if kept])
    np.testing.assert_allclose(held_out.logits[row], head.logits(features[row : row + 1])[0])


def test_cross_validation_is_deterministic_by_seed():
    features, labels = data(rows=80, noise=4.0)
    first = cross_validate(features, labels, folds=4, seed=1)
    again = cross_validate(features, labels, folds=4, seed=1)
    np.testing.assert_array_equal(again.logits, first.logits)
    np.testing.assert_array_equal(again.folds, first.folds)
    assert (cross_validate(features, labels, folds=4, seed=2).folds != first.folds).any()


@pytest.mark.parametrize("classes", [2, 5])
def test_largest_logit_is_the_predicted_label(classes):
    features, labels = data(classes, rows=100, noise=2.0)
    head = fit(features, labels)
    names = sorted(set(labels))
    assert [names[index] for index in head.logits(features).argmax(axis=1)] == head.predict(features, names)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("pairs", [1, 40], ids=["few", "most of all"])
def test_features_that_only_rounding_moves_have_no_weight(classes, pairs):
    features, labels = data(classes)
    draw = np.random.default_rng(3)
    dead = 2 * pairs
    tiny = draw.normal(size=(len(features), dead)) * ([2e-33, 1e-9] * pairs) + [1e-32, 0.0] * pairs
    head = fit(np.concatenate([features, tiny.astype(np.float32)], axis=1), labels)
    alone = fit(features, labels)
    assert pairs == 1 or dead > features.shape[1], "the median feature is a dead one"
    assert (head.coef[:, -dead:] == 0).all()
    assert (head.scale[-dead:] == 1).all()
    np.testing.assert_allclose(head.coef[:, :-dead], alone.coef, atol=1e-12)
    assert head.alpha == alone.alpha
