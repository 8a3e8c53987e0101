"""`EdgewrenClassifier` in scikit-learn's own hands."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.validation import check_is_fitted

from edgewren import Classifier
from edgewren.errors import InputError
from edgewren.integrations.scikit_learn import EdgewrenClassifier

pd = pytest.importorskip("pandas")

TEXTS = ["good vote", "bad tax", "the senate", "awful cat", "great dog", "we support you", "against bill", "tax"] * 5


@pytest.fixture(scope="module")
def reversed_bundle(make_bundle, tmp_path_factory):
    """Its labels are not in alphabetical order, as scikit-learn's are."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "reversed", labels=("zebra", "ant"))


@pytest.fixture(scope="module")
def jumbled_bundle(make_bundle, tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "jumbled", labels=("c", "a", "b"))


def test_it_answers_as_the_bundle_does_without_fitting(tiny_bundle):
    model, plain = EdgewrenClassifier(tiny_bundle), Classifier.load(tiny_bundle)
    check_is_fitted(model)
    assert is_classifier(model)
    assert model.classes_.tolist() == list(plain.labels)
    assert model.predict(TEXTS).tolist() == plain.predict(TEXTS)
    assert np.array_equal(model.predict_proba(TEXTS), plain.predict_proba(TEXTS))
    assert np.array_equal(model.decision_function(TEXTS), plain.decision_function(TEXTS))


@pytest.mark.parametrize("bundle", ["reversed_bundle", "jumbled_bundle", "tiny_bundle", "three_class_bundle"])
def test_columns_follow_sorted_classes_whatever_the_bundles_order(bundle, request):
    model = EdgewrenClassifier(request.getfixturevalue(bundle))
    classes = model.classes_
    predicted = model.predict(TEXTS)
    assert classes.tolist() == sorted(classes.tolist())
    assert predicted.dtype == classes.dtype
    assert len(set(predicted.tolist())) > 1
    assert classes[model.predict_proba(TEXTS).argmax(axis=1)].tolist() == predicted.tolist()
    values = model.decision_function(TEXTS)
    places = (values > 0).astype(int) if len(classes) == 2 else values.argmax(axis=1)
    assert values.shape == ((len(TEXTS),) if len(classes) == 2 else (len(TEXTS), len(classes)))
    assert classes[places].tolist() == predicted.tolist()


@pytest.mark.parametrize("scoring", ["accuracy", "balanced_accuracy", "roc_auc", "neg_log_loss"])
def test_cross_val_score_measures_the_same_model_in_each_fold(reversed_bundle, scoring):
    model = EdgewrenClassifier(reversed_bundle)
    labels = model.predict(TEXTS)
    labels[:3] = labels[2::-1]  # not all right
    scores = cross_val_score(model, TEXTS, labels, cv=4, scoring=scoring)
    assert np.isfinite(scores).all()
    if scoring == "accuracy":
        assert scores.mean() == pytest.approx(accuracy_score(labels, model.predict(TEXTS)))


def test_cross_val_predict_gives_probabilities_in_the_order_of_classes(jumbled_bundle):
    model = EdgewrenClassifier(jumbled_bundle)
    labels = np.array(["a", "b", "c", "a"] * 10)
    out = cross_val_predict(model, TEXTS, labels, cv=4, method="predict_proba")
    assert np.array_equal(out, model.predict_proba(TEXTS))


def test_it_stands_at_the_end_of_a_pipeline_and_takes_columns_of_tables(tiny_bundle):
    model = EdgewrenClassifier(tiny_bundle)
    upper = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    assert make_pipeline(upper, model).fit(TEXTS).predict(TEXTS).tolist() == model.predict(TEXTS).tolist()
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"id": range(len(TEXTS)), "text": TEXTS})
    chosen = ColumnTransformer([("text", "passthrough", ["text"])])
    assert make_pipeline(chosen, model).fit(table).predict(table).tolist() == model.predict(TEXTS).tolist()
    assert model.predict(table["text"]).tolist() == model.predict(TEXTS).tolist()
    with pytest.raises(InputError, match=r"X has shape \[40, 2\], expected texts"):
        model.predict(table)


def test_a_vote_of_models_works(make_bundle, tmp_path, tiny_bundle):
    other = make_bundle(tmp_path / "other", seed=8)
    models = [("a", EdgewrenClassifier(tiny_bundle)), ("b", EdgewrenClassifier(other))]
    labels = models[0][1].predict(TEXTS)
    vote = VotingClassifier(models, voting="soft").fit(np.array(TEXTS, dtype=object), labels)
    mean = np.mean([model.predict_proba(TEXTS) for _, model in models], axis=0)
    assert vote.predict_proba(np.array(TEXTS, dtype=object)) == pytest.approx(mean)


def test_a_hard_vote_of_models_gives_the_majoritys_labels(make_bundle, tmp_path):
    models = [
        (str(seed), EdgewrenClassifier(make_bundle(tmp_path / str(seed), labels=("c", "a", "b"), seed=seed)))
        for seed in (1, 2, 3)
    ]
    labels = ["a", "b", "c", "a"] * 10
    votes = np.array([model.predict(TEXTS) for _, model in models]).T.tolist()
    expected = [max(sorted(set(row)), key=row.count) for row in votes]
    assert VotingClassifier(models).fit(TEXTS, labels).predict(TEXTS).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "y", "classes"),
    [
        (("zebra", "ant"), [0, 1] * 20, [0, 1]),  # places in sorted labels, as scikit-learn's encoder gives them
        (("3", "1", "2"), [1, 2, 3, 1] * 10, [1, 2, 3]),
        (("3", "1", "2"), [0, 1, 2, 0] * 10, [0, 1, 2]),
        (("9", "10"), np.array([9, 10] * 20), [9, 10]),
        (("1", "-1"), [1, -1] * 20, [-1, 1]),
        (("True", "False"), [True, False] * 20, [False, True]),
        (("true", "false"), [True, False] * 20, [False, True]),
        (("1", "0"), ["1", "0"] * 20, ["0", "1"]),
        (("3", "1", "2"), pd.Series([1, 2, 3, 1] * 10, dtype="Int64"), [1, 2, 3]),
        (("zebra", "ant"), pd.Series([0, 1] * 20, dtype="Int64"), [0, 1]),
        (("True", "False"), pd.Series([True, False] * 20, dtype="boolean"), [False, True]),
        (("3", "1", "2"), np.array([np.int64(number) for number in [1, 2, 3, 1] * 10], dtype=object), [1, 2, 3]),
        (("1.0", "0.0"), [0.0, 1.0] * 20, [0.0, 1.0]),
    ],
)
def test_after_fit_labels_are_as_y_has_them_in_all_answers(make_bundle, tmp_path, labels, y, classes):
    bundle = make_bundle(tmp_path / "bundle", labels=labels)
    plain = Classifier.load(bundle).predict(TEXTS)
    model = EdgewrenClassifier(bundle).fit(TEXTS, y)
    predicted = model.predict(TEXTS)
    of_label = (
        dict(zip(sorted(labels), classes, strict=True)) if 0 in classes else {str(name): name for name in classes}
    )
    assert model.classes_.tolist() == classes
    assert predicted.tolist() == [of_label[label] for label in plain]
    assert len(set(plain)) > 1
    assert model.classes_[model.predict_proba(TEXTS).argmax(axis=1)].tolist() == predicted.tolist()
    assert model.score(TEXTS, predicted) == 1
    assert pickle.loads(pickle.dumps(model)).predict(TEXTS).tolist() == predicted.tolist()
    assert clone(model).predict(TEXTS).tolist() == model.fit(TEXTS).predict(TEXTS).tolist() == plain


def test_places_whose_labels_are_unknown_are_refused(make_bundle, tmp_path, three_class_bundle):
    with pytest.raises(
        InputError, match="y holds the integers 0, 1. Integers are places of sorted labels, here a, b, c"
    ):
        EdgewrenClassifier(three_class_bundle).fit(TEXTS, [0, 1] * 20)  # a and b, or a and c: it was encoded before
    numbers = make_bundle(tmp_path / "numbers", labels=("9", "10"))
    with pytest.raises(InputError, match="y holds the label 0, which"):  # 9 by size, 10 by spelling
        EdgewrenClassifier(numbers).fit(TEXTS, [0, 1] * 20)


def test_set_params_forgets_what_was_fitted(tiny_bundle, three_class_bundle):
    model = EdgewrenClassifier(tiny_bundle).fit(TEXTS, [0, 1] * 20)
    assert model.set_params(model=three_class_bundle).predict(TEXTS[:1]).dtype.kind == "U"
    assert model.classes_.tolist() == ["a", "b", "c"]


def test_a_mistaken_y_is_named_and_leaves_the_model_as_it_was(tiny_bundle):
    model = EdgewrenClassifier(tiny_bundle)
    with pytest.raises(InputError, match="y holds the label None"):
        model.fit(TEXTS, ["neutral", None] * 20)
    with pytest.raises(InputError, match="y holds the label nan"):
        model.fit(TEXTS, np.array(["neutral", float("nan")] * 20, dtype=object))
    with pytest.raises(InputError, match="y holds the label True"):
        model.fit(TEXTS, [True, False] * 20)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[40, 3\]"):
        model.fit(TEXTS, ["neutral"] * 3)
    with pytest.raises(ValueError, match="y should be a 1d array"):
        model.fit(TEXTS, [["neutral", "partisan"]] * 40)
    assert model.classes_.tolist() == ["neutral", "partisan"]


def test_it_takes_columns_of_polars_tables(tiny_bundle):
    polars = pytest.importorskip("polars")
    table = polars.DataFrame({"id": range(len(TEXTS)), "text": TEXTS, "label": ["neutral", "partisan"] * 20})
    model = EdgewrenClassifier(tiny_bundle)
    expected = model.predict(TEXTS).tolist()
    assert model.fit(table[["text"]], table["label"]).predict(table[["text"]]).tolist() == expected
    assert model.predict(table["text"]).tolist() == expected
    with pytest.raises(InputError, match=r"X has shape \[40, 3\], expected texts"):
        model.predict(table)


def test_clone_shares_the_loaded_model_and_set_params_loads_anew(tiny_bundle, three_class_bundle):
    model = EdgewrenClassifier(tiny_bundle, threads=1)
    model.predict(TEXTS)
    copy = clone(model)
    assert copy.get_params() == {"model": tiny_bundle, "device": "auto", "threads": 1, "variant": None}
    assert copy._classifier() is model._classifier()
    copy.set_params(model=three_class_bundle)
    assert copy.classes_.tolist() == ["a", "b", "c"]
    assert model.classes_.tolist() == ["neutral", "partisan"]


def test_pickling_keeps_the_answers(tiny_bundle):
    model = EdgewrenClassifier(tiny_bundle)
    expected = model.predict_proba(TEXTS)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(TEXTS), expected)


def test_fit_trains_nothing_and_refuses_labels_that_the_bundle_does_not_know(tiny_bundle):
    model = EdgewrenClassifier(tiny_bundle)
    assert model.fit(TEXTS) is model
    assert model.fit(TEXTS, ["neutral", "partisan"] * 20) is model
    assert model.fit(TEXTS, [0, 1] * 20) is model
    with pytest.raises(InputError, match="y holds the label 'sarcastic'"):
        model.fit(TEXTS, ["neutral", "sarcastic"] * 20)
    with pytest.raises(InputError, match="y holds the label 2"):
        model.fit(TEXTS, [1, 2] * 20)


@pytest.mark.parametrize("texts", ["one text", [None], [1.5], ["fine", float("nan")], {"text": ["one"]}])
def test_what_is_no_list_of_texts_is_a_type_error(tiny_bundle, texts):
    with pytest.raises(TypeError):
        EdgewrenClassifier(tiny_bundle).predict(texts)


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_set_params",
        "check_no_attributes_set_in_init",
        "check_valid_tag_types",
        "check_do_not_raise_errors_in_init_or_set_params",
    ],
)
def test_scikit_learns_own_checks_pass(tiny_bundle, check):
    getattr(estimator_checks, check)("EdgewrenClassifier", EdgewrenClassifier(tiny_bundle))


def test_its_tags_tell_that_it_takes_strings_and_needs_no_fitting(tiny_bundle):
    tags = get_tags(EdgewrenClassifier(tiny_bundle))
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    assert not tags.requires_fit
    assert tags.estimator_type == "classifier"
