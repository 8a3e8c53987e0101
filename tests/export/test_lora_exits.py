"""Early exits of fine-tuned models, which pool on the first token: their exits take the mean over all of them."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest
import staged_models
import tiny_models

from edgewren import Classifier
from edgewren.bundle import Bundle
from edgewren.cli.main import main
from edgewren.errors import UsageError
from edgewren.verification import verify
from edgewren_export import exits, parity
from edgewren_export.pipeline import export
from edgewren_export.trained_model import read_trained_model
from edgewren_train import lora_run
from edgewren_train.exit_plan import ExitPlan
from edgewren_train.lora import LoraRecipe
from edgewren_train.lora_run import run_lora
from edgewren_train.out_of_fold import Split

pytestmark = pytest.mark.slow  # each model is trained three times, and torch's exporter takes some seconds
TEXTS = [*tiny_models.MIXED_TEXTS, *tiny_models.toy_texts(300, seed=3)[0]]
RECIPE = LoraRecipe(epochs=2, batch_size=16, learning_rate=1e-2, precision="fp32", max_length=24)
DATA = tiny_models.labelled(*tiny_models.toy_texts(200, seed=2))


def trained(folder, architecture="bert"):
    """Three layers, exits after 0 and 1; a loose promise, since random encoders know little early."""
    source = tiny_models.encoder(folder / "encoder", architecture, layers=3)
    plan = ExitPlan((0, 1), allowed=0.05)
    run_lora(DATA, folder / "model", encoder_spec=str(source), recipe=RECIPE, split=Split.parse("folds:2"), exits=plan)
    return folder / "model"


@pytest.fixture(scope="module")
def exit_model(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("lora-exits"))


@pytest.fixture(scope="module")
def exit_bundle(exit_model, tmp_path_factory):
    return export(exit_model, tmp_path_factory.mktemp("bundle") / "b").folder


def ids_of(folder, texts=TEXTS) -> list[list[int]]:
    return list(Classifier.load(folder)._scheduler.tokenizer.encode(texts).ids)


def check_stages(folder) -> None:
    classifier = Classifier.load(folder)
    assert classifier.variant == "fp32_exit"
    scores = classifier.score(TEXTS)
    assert (scores.layers < 3).any(), "some leave early"
    whole = Classifier.load(folder, variant="fp32").score(TEXTS)
    stayed = scores.layers == 3
    np.testing.assert_allclose(scores.logits[stayed], whole.logits[stayed], atol=1e-5)
    complete, layers = exits.answers(staged_models.session_of(folder), ids_of(folder), complete=True)
    assert set(layers) == {3}
    np.testing.assert_allclose(complete, whole.logits, atol=1e-5)


def test_stages_give_the_whole_models_logits_and_some_texts_leave(exit_bundle):
    check_stages(exit_bundle)
    result = verify(exit_bundle)
    assert result.ok, result.failures


@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "mpnet"])
def test_other_architectures(architecture, tmp_path):
    check_stages(export(trained(tmp_path, architecture), tmp_path / "b").folder)


def test_neither_bits_nor_exit_depend_on_neighbours_or_threads(exit_bundle):
    whole = Classifier.load(exit_bundle, threads=2).score(TEXTS)
    alone = Classifier.load(exit_bundle, threads=1)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    for size in (1, 2, 7, 32):
        for start in range(0, 96, size):
            chosen = order[start : start + size]
            part = alone.score([TEXTS[index] for index in chosen])
            assert (part.logits == whole.logits[chosen]).all()
            assert (part.layers == whole.layers[chosen]).all()


def test_padding_changes_nothing(exit_bundle):
    """edgewren never pads a transformer's rows; who runs the graph by themselves may."""
    session = staged_models.session_of(exit_bundle)
    first = session._sessions[0]
    row = np.array([ids_of(exit_bundle, ["the mayor and the council"])[0]], dtype=np.int64)
    padded = np.concatenate([row, np.zeros((1, 5), np.int64)], axis=1)
    plain = first.call(["logits"], {"input_ids": row, "attention_mask": np.ones_like(row)})[0]
    masked = first.call(["logits"], {"input_ids": padded, "attention_mask": (padded > 0).astype(np.int64)})[0]
    np.testing.assert_allclose(plain, masked, atol=1e-6)


def test_int8_stages_are_the_int8_model(exit_model, exit_bundle, tmp_path, many_texts, monkeypatch):
    monkeypatch.setattr(parity, "MOST_FLIPS", 0.2)
    monkeypatch.setattr(parity, "MOST_F1_LOSS", 0.2)
    folder = export(exit_model, tmp_path / "b", precisions=["int8"], texts=many_texts).folder
    assert Classifier.load(folder).variant == "int8_exit"
    classifier = Classifier.load(folder, variant="int8")
    logits, _ = exits.answers(
        staged_models.session_of(folder, "int8_exit"), ids_of(folder, many_texts[:200]), complete=True
    )
    assert (logits == classifier.score(many_texts[:200]).logits).all()
    fp32 = Classifier.load(exit_bundle, variant="fp32").predict(many_texts)
    differing = sum(a != b for a, b in zip(fp32, Classifier.load(folder).predict(many_texts), strict=True))
    told = Bundle.open(folder).manifest.parity["exits"]["int8_exit"]
    assert (told["labels_differing_from_fp32"], told["texts"]) == (differing, len(many_texts))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"change the labels of {differing} of {len(many_texts):,} in `int8_exit`" in card


def test_last_stage_computes_its_last_layer_for_the_first_token_only(exit_bundle):
    bundle = Bundle.open(exit_bundle)
    last = onnx.load_from_string(bundle.read(bundle.manifest.variants["fp32_exit"].stages[-1].file))
    assert any(node.op_type == "Slice" and "first_token" in node.output[0] for node in last.graph.node)


def test_exits_are_proved_on_rows_out_of_fold_and_kept(exit_model):
    told = json.loads((exit_model / "model.json").read_text(encoding="utf-8"))["training"]["exits"]
    assert (told["rows"], told["layers"]) == (200, 3)
    assert told["bound"] <= told["allowed"] == 0.05
    assert (exit_model / exits.FILE).is_file()


@pytest.mark.parametrize(("split", "message"), [(None, "folds:5"), (Split(share=0.2), "folds:5"), (Split(5), "598 or")])
def test_exits_that_cannot_be_proved_are_refused_before_any_work(tmp_path, split, message):
    with pytest.raises(UsageError, match=message):
        run_lora(DATA, tmp_path / "m", encoder_spec="nowhere", recipe=RECIPE, split=split, exits=ExitPlan())


def test_command_line_holds_out_five_folds_for_exits(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(lora_run, "run_lora", lambda *_, **options: asked.update(options) or sys.exit(0))
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"a {n},x\nb {n},y\n" for n in range(9)), encoding="utf-8")
    for options in (["--exits", "0,2"], ["--exits", "0,2", "--calibrate", "folds:3"], []):
        main(["train", "lora", str(tmp_path / "t.csv"), "--output", str(tmp_path / "m"), *options])
        asked[" ".join(options)] = (asked["exits"], asked["split"])
    assert asked["--exits 0,2"] == (ExitPlan((0, 2), 0.005), Split(folds=5))
    assert asked["--exits 0,2 --calibrate folds:3"] == (ExitPlan((0, 2), 0.005), Split(folds=3))
    assert asked[""] == (None, Split(share=0.2))


def test_exit_on_the_mean_is_its_head_on_the_mean(exit_bundle, exit_model):
    """The gate compares with scikit-learn's, but through the same graph; here the head is applied by hand."""
    entry = exits.read_exits(read_trained_model(exit_model))[0]
    session = staged_models.session_of(exit_bundle)._sessions[0]
    row = np.array([ids_of(exit_bundle, ["never shame on the market"])[0]], dtype=np.int64)
    logits, hidden = session.call(
        ["logits", f"hidden_{entry.layer}"], {"input_ids": row, "attention_mask": row * 0 + 1}
    )
    weight, bias = exits.fold(entry.head, temperature=entry.temperature)
    np.testing.assert_allclose(logits, hidden.mean(axis=1) @ weight.T + bias, atol=1e-5)
