"""Rows left out together: the closed form is what fits without them say, and the alpha is the one for new texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeClassifierCV, RidgeCV

from edgewren_train.left_out import LeftOut
from edgewren_train.ridge import WIDE_GRID, cross_validate, fit, fit_values
from edgewren_train.together import Together


def material(rows, width, outputs, seed=0):
    """Features, standardised, some rows of which are equal, and values that the first of them says something of."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(rows, width))
    features[1::7] = features[::7][: len(features[1::7])]
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return features, features[:, :1] + draw.normal(size=(rows, outputs))


def by_refitting(features, wanted, units, weights, alpha):
    errors = np.empty_like(wanted)
    for unit in np.unique(units):
        out = units == unit
        fitted = Ridge(alpha).fit(features[~out], wanted[~out])
        errors[out] = wanted[out] - fitted.predict(features[out]).reshape(-1, wanted.shape[1])
    return float(weights @ (errors**2).mean(axis=1))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(60, 12, 1), (30, 50, 3), (200, 6, 2)]),
    st.sampled_from([1, 2, 3, 9, 25]),
    st.booleans(),
    st.sampled_from([1e-3, 1.0, 1e3, 1e6]),
    st.integers(0, 5),
)
def test_errors_are_those_of_fits_without_the_group(shape, units, grouped, alpha, seed):
    features, wanted = material(*shape, seed)
    draw = np.random.default_rng(seed)
    copies = draw.integers(0, max(2, len(features) // 2), size=len(features))
    together = Together(copies, draw.integers(0, units + 1, size=len(features)) if grouped else None)
    if len(np.unique(together.units)) < 2:
        return
    expected = by_refitting(features, wanted, together.units, together.weights, alpha)
    # 1e-7: at alpha 1e-3 and fewer rows than features, both ways lose nine of sixteen digits.
    assert LeftOut(features, wanted, together).squared_error(alpha) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("shape", [(60, 12, 1), (30, 50, 3)])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
def test_rows_left_out_alone_have_scikit_learns_errors(shape, alpha):
    features, wanted = material(*shape)
    theirs = RidgeCV(alphas=[alpha], store_cv_results=True).fit(features, wanted).cv_results_.mean()
    ours = LeftOut(features, wanted, Together(np.arange(len(features)))).squared_error(alpha)
    assert ours == pytest.approx(theirs, rel=1e-8)


@pytest.mark.parametrize("shape", [(60, 12, 1), (30, 50, 3)])
@pytest.mark.parametrize("grouped", [False, True])
def test_copies_with_the_same_features_are_one_row_with_a_weight(shape, grouped, monkeypatch):
    """Exactly, whatever their values are, and at the price of the rows that differ."""
    features, wanted = material(*shape)
    rows = np.array([*range(len(features)), *[3] * 100, *[4, 5] * 20])
    copies = rows.copy()
    copies[-1] = 4  # a near copy, with another link
    wanted = wanted[rows] + np.random.default_rng(1).normal(size=(len(rows), 1))
    together = Together(copies, rows % 4 if grouped else None)
    decomposed = []
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda it, **options: decomposed.append(len(it)) or svd(it, **options))
    left = LeftOut(features[rows], wanted, together)
    for alpha in (1.0, 1e3):
        expected = by_refitting(features[rows], wanted, together.units, together.weights, alpha)
        assert left.squared_error(alpha) == pytest.approx(expected, rel=1e-8)
    assert decomposed == [len(features) + 1]


def test_features_of_nothing_but_zeros_leave_the_mean_of_the_others():
    wanted = np.array([[1.0], [1.0], [4.0], [4.0]])
    left = LeftOut(np.zeros((4, 2)), wanted, Together(np.array([0, 0, 1, 1])))
    assert left.squared_error(1.0) == pytest.approx(9.0)


def noisy(classes=2, texts=120, width=200, seed=4):
    draw = np.random.default_rng(seed)
    index = np.arange(texts) % classes
    features = (draw.normal(size=(classes, width))[index] * 0.4 + draw.normal(size=(texts, width))).astype(np.float32)
    return features, [f"c{place}" for place in index]


@pytest.mark.parametrize("classes", [2, 4])
def test_without_copies_a_head_is_bit_for_bit_what_it_was(classes):
    features, labels = noisy(classes)
    plain, told = fit(features, labels), fit(features, labels, together=Together(np.arange(len(labels))))
    for name in ("mean", "scale", "coef", "intercept"):
        np.testing.assert_array_equal(getattr(told, name), getattr(plain, name))
    assert (told.alpha, told.alphas, told.scores) == (plain.alpha, plain.alphas, plain.scores)


@pytest.mark.parametrize("classes", [2, 4])
def test_every_text_three_times_is_every_text_once_at_a_third_of_the_alpha(classes):
    """Three copies weigh against the penalty three times. Where single rows were left out, it was next to nothing."""
    features, labels = noisy(classes)
    once = fit(features, labels, alphas=WIDE_GRID)
    thrice = Together(np.tile(np.arange(len(labels)), 3))
    alphas = [3 * alpha for alpha in WIDE_GRID]
    head = fit(np.tile(features, (3, 1)), labels * 3, alphas=alphas, together=thrice)
    assert head.alpha == pytest.approx(3 * once.alpha)
    np.testing.assert_allclose(head.scores, once.scores, rtol=1e-8)
    np.testing.assert_allclose(head.coef, once.coef, atol=1e-9)
    assert fit(np.tile(features, (3, 1)), labels * 3).alpha < once.alpha / 1000, "the control: rows left out alone"


def test_a_text_with_many_copies_does_not_choose_the_alpha():
    features, labels = noisy(texts=200)
    rows = np.array([*range(200), *[0] * 300])
    head = fit(features[rows], [labels[row] for row in rows], together=Together(rows))
    alone = fit(features, labels)
    assert alone.alpha / 4 < head.alpha < alone.alpha * 4


def test_values_of_copies_are_left_out_together_too():
    features, _ = noisy()
    values = features[:, 0] + np.random.default_rng(1).normal(size=len(features))
    thrice = Together(np.tile(np.arange(len(features)), 3))
    head = fit_values(np.tile(features, (3, 1)), np.tile(values, 3), together=thrice)
    once = fit_values(features, values, alphas=[head.alpha / 3], extend=False)
    assert head.error == pytest.approx(once.error)


def test_groups_are_left_out_whole():
    """Each author has a place of his own in the features: knowing some of his rows is knowing the others' label."""
    draw = np.random.default_rng(2)
    groups = np.repeat(np.arange(14), 40)
    places = draw.normal(size=(14, 40))[groups]
    features = (places + 0.3 * draw.normal(size=(560, 40))).astype(np.float32)
    labels = np.array(["a", "b"])[draw.permutation(14)[groups] % 2].tolist()
    alone = fit(features, labels, together=Together(np.arange(560)))
    whole = fit(features, labels, together=Together(np.arange(560), groups))
    assert alone.error < 0.5 < 0.9 < whole.error
    assert whole.alpha > 10 * alone.alpha


def test_one_unit_of_all_rows_is_left_out_by_nobody():
    features, labels = noisy()
    told = fit(features, labels, together=Together(np.arange(120), np.zeros(120, dtype=np.int64)))
    assert told.scores == fit(features, labels).scores


def test_cross_validation_chooses_its_alphas_without_copies():
    features, labels = noisy()
    thrice = Together(np.tile(np.arange(120), 3))
    held_out = cross_validate(np.tile(features, (3, 1)), labels * 3, folds=5, seed=0, together=thrice)
    part = held_out.folds != held_out.folds[0]
    head = fit(
        np.tile(features, (3, 1))[part], np.tile(labels, 3)[part].tolist(), together=thrice.of(np.flatnonzero(part))
    )
    np.testing.assert_allclose(held_out.logits[0], head.logits(features[:1])[0])
    theirs = RidgeClassifierCV(alphas=[head.alpha]).fit((features - head.mean) / head.scale, labels)
    assert np.abs(theirs.coef_).max() < 1, "shrunk: not the weights of a model that memorises"
