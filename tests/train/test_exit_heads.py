"""Heads of early exits: fitted to what the full model decides of texts and their halves, and asked only about rows that
neither of them saw."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgewren.errors import InputError, UsageError
from edgewren_train import exit_heads, ridge
from edgewren_train.exit_heads import ExitHeads
from edgewren_train.exit_plan import ExitPlan
from edgewren_train.prediction import predict_layers, predict_logits
from edgewren_train.ridge_run import run_ridge
from edgewren_train.ridge_settings import RidgeSettings
from edgewren_train.together import belonging

ROWS = 240


def bert(layers: int = 2, classes: int = 2):
    """A random BERT that classifies."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
        num_labels=classes,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def material(classes: int, seed: int = 0):
    """Labelled rows with features by layer, of the rows and then of their halves, two each.

    Those of the whole encoder, -1, say most of the label.
    """
    draw = np.random.default_rng(seed)
    data = tiny_models.labelled(
        [f"text {row}" for row in range(ROWS)], [f"c{index}" for index in draw.integers(classes, size=ROWS)]
    )
    centres = draw.normal(size=(classes, 12))[data.class_indices]
    whole = 0.5 * centres + draw.normal(size=(ROWS, 12))
    whole = np.concatenate([whole, whole.repeat(2, axis=0) + draw.normal(scale=0.5, size=(2 * ROWS, 12))])
    features = {
        layer: (whole + draw.normal(scale=spread, size=whole.shape)).astype(np.float32)
        for layer, spread in ((0, 0.6), (1, 0.4), (-1, 0.0))
    }
    return data, features


def scikit_learn(estimator, features, wanted):
    alphas = list(ridge.WIDE_GRID)
    return make_pipeline(StandardScaler(), estimator(alphas=alphas)).fit(features.astype(np.float64), wanted)


@pytest.mark.parametrize("classes", [2, 4])
def test_held_out_rows_are_asked_of_heads_that_imitate_a_model_which_did_not_see_them(classes):
    data, features = material(classes)
    labels = np.asarray(data.labels)
    heads = ExitHeads(ExitPlan((0, 1), allowed=0.1), bert(), data)
    whole = ridge.cross_validate(features[-1][:ROWS], data.labels, folds=3, seed=0, extend=False)

    def fit(values, names, *, together):
        return ridge.fit(values, names, extend=False, together=together)

    exit_heads.hold_out_ridge(heads, features, features[-1], fit, whole, data.labels)
    for part in range(3):
        rows, training = whole.rows[whole.folds == part], whole.rows[whole.folds != part]
        full = scikit_learn(RidgeClassifierCV, features[-1][training], labels[training])
        taught = [*training, *(ROWS + 2 * row + half for row in training for half in (0, 1))]
        decided = full.decision_function(features[-1][taught].astype(np.float64))
        for layer in (0, 1):
            imitated = scikit_learn(RidgeCV, features[layer][taught], decided).predict(
                features[layer][rows].astype(np.float64)
            )
            told = heads._logits[layer][rows]
            told = told[:, 1] - told[:, 0] if classes == 2 else told
            np.testing.assert_allclose(told, imitated, atol=1e-4)  # heads may extend their grid of alphas, sklearn not
            if classes > 2:  # one against the rest: as many targets of -1 as there are other classes
                np.testing.assert_allclose(told.sum(axis=1), 2 - classes, atol=1e-3)
            assert (heads._errors[layer][rows] == heads._errors[layer][rows[0]]).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Jobs  bill passed\nthe House", ("Jobs bill", "passed the House")),
        ("Vote today", ("Vote", "today")),
        ("東京都知事", ("東京", "都知事")),
        (" ! ", ()),
        ("", ()),
    ],
)
def test_texts_are_halved_between_words_or_characters(text, expected):
    assert exit_heads.halves(text) == expected


def test_halves_are_taught_with_their_own_row_only():
    """Rows without halves (one character, none) shift nothing."""
    data, features = material(2)
    texts = ["a b", "!", "", *(f"text {row}" for row in range(3, ROWS))]
    heads = ExitHeads(ExitPlan((0,), allowed=0.1), bert(), tiny_models.labelled(texts, data.labels))
    assert heads.halves[:4] == ("a", "b", "text", "3")
    assert len(heads.halves) == 2 * (ROWS - 2)
    seen, held_out = np.arange(100), np.arange(100, ROWS)
    early = features[0][: ROWS + len(heads.halves)]
    full = np.stack([-early[:, 0], early[:, 0]], axis=1)
    of_others = np.r_[held_out, ROWS + 2 * 98 : len(early)]  # 98 of the first 100 rows have halves
    spoilt = full.copy()
    spoilt[of_others] *= -100
    told = []
    for values in (full, spoilt):
        heads.hold_out({0: early}, values, seen, held_out)
        told.append(heads._logits[0].copy())
    np.testing.assert_array_equal(told[0], told[1])
    assert np.isfinite(told[0][held_out]).all()


def test_heads_agree_with_the_full_model_more_than_heads_fitted_to_labels():
    """Labels are noisy, what the full model makes of them is not. (Over four seeds 0.742 against 0.706.)"""
    draw = np.random.default_rng(3)
    whole = draw.normal(size=(2000, 40)).astype(np.float32)
    early = (whole + draw.normal(size=whole.shape)).astype(np.float32)
    partisan = whole @ draw.normal(size=40) + draw.normal(scale=16.0, size=2000) > 0
    seen, unseen = slice(0, 1000), slice(1000, None)
    labels = ["b" if one else "a" for one in partisan[seen]]
    full = ridge.fit(whole[seen], labels).logits(whole)
    imitating = ridge.fit_values(early[seen], exit_heads._decisions(full[seen]))
    learning = ridge.fit(early[seen], labels)
    agree = [
        (head.logits(early[unseen]).argmax(axis=1) == full[unseen].argmax(axis=1)).mean()
        for head in (imitating, learning)
    ]
    assert agree[0] > agree[1] + 0.02


def test_what_all_logits_of_a_row_have_in_common_is_not_learnt_but_its_mean():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    common = np.linspace(-9, 11, 50)[:, None]
    decisions = exit_heads._decisions(logits - logits.mean(axis=1, keepdims=True) + common)
    np.testing.assert_allclose(decisions.mean(axis=1), 1.0)
    np.testing.assert_allclose(np.diff(decisions), np.diff(logits))


def test_thresholds_are_in_units_of_each_heads_own_error():
    data, features = material(2, seed=3)
    heads = ExitHeads(ExitPlan((0, 1), allowed=0.1), bert(), data)
    held_out = ridge.cross_validate(features[-1][:ROWS], data.labels, folds=4, seed=0)
    exit_heads.hold_out_ridge(heads, features, features[-1], ridge.fit, held_out, data.labels)
    said = []
    full = ridge.fit(features[-1][:ROWS], data.labels).logits(features[-1])
    found = heads.finish(features, full, held_out, say=said.append)
    assert [entry.threshold for entry in found.exits] == pytest.approx(
        [found.errors_apart * entry.head.error for entry in found.exits]
    )
    assert found.exits[1].head.error < found.exits[0].head.error
    assert "early exit on 240 rows out of fold" in said[0]
    differing = np.asarray(heads.predicted(held_out)) != np.asarray(held_out.predicted(data.classes))
    assert differing.sum() == found.differing


def test_means_after_layers_are_those_of_each_row_alone():
    import torch

    model = bert(layers=3)
    rows = [[2, 7, 9, 3], [2, 8, 3], [2, 7, 9, 3], [2, 11, 12, 13, 14, 3]]
    logits, means = predict_layers(model, rows, (0, 2))
    for place, row in enumerate(rows):
        with torch.inference_mode():
            states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
        for layer in (0, 2):
            np.testing.assert_allclose(means[layer][place], states[layer][0].mean(dim=0).numpy(), atol=1e-6)
    assert (logits == predict_logits(model, rows)).all()


@pytest.mark.parametrize("name", ["Albert", "ModernBert", "DebertaV2"])
def test_layout_that_no_graph_can_be_cut_in_is_refused_before_training(name):
    import transformers

    sizes = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    further = {
        "Albert": {"embedding_size": 8, "num_hidden_layers": 2},
        "ModernBert": {"num_hidden_layers": 2, "pad_token_id": 0},
        "DebertaV2": {"num_hidden_layers": 2, "relative_attention": True, "norm_rel_ebd": "layer_norm"},
    }[name]
    config = getattr(transformers, f"{name}Config")(**sizes, **further)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(InputError, match="--exits out"):
        ExitHeads(ExitPlan((0, 1)), model, material(2)[0])


def test_embeddings_narrower_than_the_layers_are_refused_before_training(tmp_path):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_models.encoder(tmp_path / "e", "electra", layers=2))
    with pytest.raises(InputError, match=r"as wide as each other\), and ElectraModel has another\. Leave --exits out"):
        ExitHeads(ExitPlan((1,)), model, material(2)[0])


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta", "mpnet", "distilbert"])
def test_layouts_like_berts_are_taken(architecture, tmp_path):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_models.encoder(tmp_path / "e", architecture, layers=2))
    assert ExitHeads(ExitPlan(), model, material(2)[0]).layers == (0, 1)


@pytest.mark.parametrize(("folds", "message"), [(0, "--folds 2 or more"), (10, "240 rows out of fold")])
def test_exits_that_cannot_be_proved_are_refused_before_any_work(tmp_path, folds, message):
    with pytest.raises(UsageError, match=message):
        run_ridge(material(2)[0], tmp_path / "m", RidgeSettings("nowhere", folds=folds), exits=ExitPlan())


def test_copies_and_their_halves_are_left_out_together_where_a_heads_alpha_is_chosen():
    """Copies differ in links alone: heads whose rows are left out one by one choose next to no penalty, and then
    believe themselves nearly without error, which is what thresholds are measured in."""
    draw = np.random.default_rng(2)
    texts = [f"text {row % 80} https://t.co/{row}" for row in range(240)]
    data = tiny_models.labelled(texts, ["a", "b"] * 120)
    rows = np.tile(np.arange(80), 3)
    examples = np.concatenate([rows, np.stack([80 + 2 * rows, 81 + 2 * rows], axis=1).ravel()])
    values = draw.normal(size=(240, 300)).astype(np.float32)[examples]
    full = (values[:, :2] + 2 * draw.normal(size=(240, 2))[examples]).astype(np.float64)
    errors = {}
    for name, together in (("alone", None), ("together", belonging(data))):
        heads = ExitHeads(ExitPlan((0,), allowed=0.1), bert(), data, together)
        heads.hold_out({0: values}, full, np.flatnonzero(rows >= 16), np.flatnonzero(rows < 16))
        errors[name] = heads._errors[0][0]
    assert errors["alone"] < 0.1 * errors["together"]
