"""Early exits in a bundle: stages that hand on hidden states give the whole model's answers, whoever the neighbours."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import staged_models
import tiny_models

from edgewren import Classifier
from edgewren.bundle import Bundle
from edgewren.errors import BundleError, BundleModelError, ParityError
from edgewren.staged import Stage, StagedSession
from edgewren.verification import verify
from edgewren_export import exits
from edgewren_export.pipeline import export
from edgewren_export.trained_model import read_trained_model
from edgewren_train import exit_heads
from edgewren_train.exit_plan import ExitPlan
from edgewren_train.ridge_run import run_ridge
from edgewren_train.ridge_settings import RidgeSettings

pytestmark = pytest.mark.slow  # each bundle takes torch's exporter some seconds
TEXTS = [*tiny_models.MIXED_TEXTS, *tiny_models.toy_texts(300, seed=3)[0]]


@pytest.fixture(scope="module")
def exit_model(tmp_path_factory):
    """Three layers, exits after 0 and 1; a loose promise, since random encoders know little early."""
    folder = tmp_path_factory.mktemp("exits")
    source = tiny_models.sentence_transformer(folder / "encoder", layers=3)
    data = tiny_models.labelled(*tiny_models.toy_texts(400, seed=2))
    plan = ExitPlan((0, 1), allowed=0.05)
    settings = RidgeSettings(str(source), max_length=24, folds=4, alphas=(1.0, 100.0), extend=False)
    run_ridge(data, folder / "model", settings, exits=plan)
    return folder / "model"


@pytest.fixture(scope="module")
def exit_bundle(exit_model, tmp_path_factory):
    return export(exit_model, tmp_path_factory.mktemp("bundle") / "b").folder


def test_default_on_a_cpu_lets_texts_leave_and_says_where(exit_bundle):
    classifier = Classifier.load(exit_bundle)
    assert classifier.variant == "fp32_exit"
    scores = classifier.score(TEXTS)
    assert set(np.unique(scores.layers)) <= {0, 1, 3}
    assert (scores.layers < 3).mean() > 0
    whole = Classifier.load(exit_bundle, variant="fp32").score(TEXTS)
    assert whole.layers is None
    stayed = scores.layers == 3
    np.testing.assert_allclose(scores.logits[stayed], whole.logits[stayed], atol=1e-5)


def test_graph_that_exits_do_not_fit_is_refused_in_words(tmp_path, monkeypatch):
    """Training refuses an ELECTRA with narrow embeddings; should another layout slip through, export must not crash."""
    monkeypatch.setattr(exit_heads, "check_layout", lambda _: None)
    source = tiny_models.sentence_transformer(tmp_path / "encoder", "electra", layers=2)
    data = tiny_models.labelled(*tiny_models.toy_texts(400, seed=2))
    settings = RidgeSettings(str(source), max_length=24, folds=2, alphas=(1.0, 100.0), extend=False)
    run_ridge(data, tmp_path / "model", settings, exits=ExitPlan((0,), allowed=0.5))
    with pytest.raises(BundleError, match=r"exits do not fit this architecture's graph\. Train without --exits"):
        export(tmp_path / "model", tmp_path / "b")


def test_nobody_leaving_means_the_whole_model(exit_bundle):
    ids = list(Classifier.load(exit_bundle)._scheduler.tokenizer.encode(TEXTS).ids)
    logits, layers = exits.answers(staged_models.session_of(exit_bundle), ids, complete=True)
    assert set(layers) == {3}
    whole = Classifier.load(exit_bundle, variant="fp32").score(TEXTS).logits
    np.testing.assert_allclose(logits, whole, atol=1e-5)


def test_bits_and_layers_never_depend_on_neighbours(exit_bundle):
    session = staged_models.session_of(exit_bundle)
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 90, (70, 9))
    logits, layers = session.answer(ids)
    assert len(set(layers.tolist())) > 1
    for size in (1, 3, 64):
        order = rng.permutation(70)
        parts = [session.answer(ids[order[start : start + size]]) for start in range(0, 70, size)]
        assert (np.concatenate([part[0] for part in parts]) == logits[order]).all()
        assert (np.concatenate([part[1] for part in parts]) == layers[order]).all()


def test_scheduler_and_stream_give_the_same_bits_in_any_cut(exit_bundle):
    classifier = Classifier.load(exit_bundle, threads=2)
    scores = classifier.score(TEXTS)
    windows = list(classifier.score_windows([TEXTS[:7], TEXTS[7:90], TEXTS[90:]]))
    assert (np.concatenate([w.logits for w in windows]) == scores.logits).all()
    assert (np.concatenate([w.layers for w in windows]) == scores.layers).all()
    alone = Classifier.load(exit_bundle, threads=1)
    assert all(
        (alone.score([text]).logits[0] == row).all() for text, row in zip(TEXTS[:30], scores.logits, strict=False)
    )


def test_stages_hold_each_weight_once(exit_bundle):
    manifest = Bundle.open(exit_bundle).manifest
    whole = manifest.variants["fp32"].bytes
    stages = manifest.variants["fp32_exit"].stages
    sizes = [(exit_bundle / stage.file).stat().st_size for stage in stages]
    assert [stage.layer for stage in stages] == [0, 1, 3]
    assert sum(sizes) < 1.3 * whole, "tiny graphs repeat their mask, large ones nothing that counts"


def test_manifest_says_what_was_promised_and_what_was_found(exit_bundle):
    manifest = Bundle.open(exit_bundle).manifest
    promise = manifest.training["exits"]
    assert promise["bound"] <= promise["allowed"] == 0.05
    assert "2110.01052" in promise["method"]
    found = manifest.parity["exits"]["fp32_exit"]
    assert sum(found["left_after_layer"].values()) == pytest.approx(1)
    assert found["alone_or_in_batch"].startswith("bit-identical")
    assert [s["name"] for s in manifest.parity["stages"]][2:] == [
        "scikit-learn -> exit after layer 0",
        "scikit-learn -> exit after layer 1",
    ]


def test_verify_replays_all_variants(exit_bundle):
    result = verify(exit_bundle)
    assert result.ok, result.failures
    assert [(replay.variant, replay.moved) for replay in result.replays] == [("fp32", None), ("fp32_exit", 0)]


def test_int8_stages_are_the_int8_model(exit_model, tmp_path, many_texts, monkeypatch):
    from edgewren_export import parity

    monkeypatch.setattr(parity, "MOST_FLIPS", 0.2)
    monkeypatch.setattr(parity, "MOST_F1_LOSS", 0.2)
    folder = export(exit_model, tmp_path / "b", precisions=["int8"], texts=many_texts).folder
    assert Classifier.load(folder).variant == "int8_exit"
    session = staged_models.session_of(folder, "int8_exit")
    classifier = Classifier.load(folder, variant="int8")
    ids = classifier._scheduler.tokenizer.encode(many_texts[:200]).ids
    assert (exits.answers(session, ids, complete=True)[0] == classifier.score(many_texts[:200]).logits).all()


def test_exit_head_that_is_not_the_fitted_one_fails_its_gate(exit_model, tmp_path, monkeypatch):
    read = exits.read_exits

    def shifted(model):
        first, *others = read(model)
        moved = dataclasses.replace(first.head, intercept=first.head.intercept + 0.01)
        return (dataclasses.replace(first, head=moved), *others)

    attach = exits.attach
    monkeypatch.setattr(
        exits, "attach", lambda model, found, graph, **options: attach(model, shifted(model), graph, **options)
    )
    with pytest.raises(ParityError, match="scikit-learn -> exit after layer 0"):
        export(exit_model, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_promise_that_the_gates_texts_break_refuses_the_export(exit_model, tmp_path):
    model = shutil.copytree(exit_model, tmp_path / "model")
    described = json.loads((model / "model.json").read_text())
    described["training"]["exits"]["allowed"] = 1e-6
    for stage in described["training"]["exits"]["stages"]:
        stage["threshold"] = 0.0
    (model / "model.json").write_text(json.dumps(described))
    with pytest.raises(ParityError, match="early exit changes"):
        export(model, tmp_path / "b", texts=[" ".join(t.split()[::-1]) for t in TEXTS])


def test_damaged_exits_are_refused(exit_model, tmp_path):
    model = shutil.copytree(exit_model, tmp_path / "model")
    (model / "exits.safetensors").write_bytes(b"x")
    with pytest.raises(BundleError, match="Train again"):
        exits.read_exits(read_trained_model(model))


def test_stages_in_the_wrong_order_are_refused(exit_bundle):
    bundle = Bundle.open(exit_bundle)
    first, second, third = (
        Stage(bundle.read(s.file), s.layer, s.threshold) for s in bundle.manifest.variants["fp32_exit"].stages
    )
    with pytest.raises(BundleModelError, match="do not fit"):
        StagedSession.of([second, first, third])
    with pytest.raises(BundleModelError, match="do not fit"):
        StagedSession.of([first, third])


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": -1},
        {"threshold": "0"},
        {"threshold": None},
        {"layer": 7},
        {"file": "onnx/other.onnx"},
        {"file": "../evil.onnx"},
    ],
)
def test_manifest_with_a_bad_stage_is_refused(exit_bundle, tmp_path, change):
    folder = shutil.copytree(exit_bundle, tmp_path / "b")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["variants"]["fp32_exit"]["stages"][0].update(change)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError):
        Bundle.open(folder)
