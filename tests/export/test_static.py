"""Static models: one number per vocabulary entry and label says what scikit-learn says, alone and in any batch."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny_models
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer

from edgewren import Classifier
from edgewren.bundle import Bundle
from edgewren.cli.main import main
from edgewren.errors import BundleError, ParityError, UsageError
from edgewren.session import ModelSession
from edgewren_export import static
from edgewren_export.pipeline import export
from edgewren_export.trained_model import read_trained_model
from edgewren_train.ridge_settings import RidgeSettings
from edgewren_train.static_run import run_static

TEXTS = [*tiny_models.MIXED_TEXTS, *tiny_models.toy_texts(40, seed=3)[0]]


@pytest.mark.parametrize("classes", [2, 5])
def test_bundle_answers_as_scikit_learn_on_mean_token_vectors(export_bundle, train_model, classes):
    model = read_trained_model(train_model("static", classes=classes))
    loaded = static.load(model)
    classifier = Classifier.load(export_bundle("static", classes=classes))
    ids = model.tokenizer.encode(TEXTS).ids
    head = loaded.head.scikit_learn(model.labels)
    means = np.stack([loaded.vectors[row].astype(np.float64).mean(axis=0) for row in ids])
    decision = head.decision_function(means)
    # 4e-3: the numbers of the table are float16
    np.testing.assert_allclose(classifier.decision_function(TEXTS), decision, atol=4e-3)
    top_two = np.sort(decision, axis=1)[:, -2:] if classes > 2 else np.stack([-decision / 2, decision / 2], axis=1)
    sure = np.abs(top_two[:, 1] - top_two[:, 0]) > 8e-3
    assert sure.sum() > 30
    assert (np.array(classifier.predict(TEXTS)) == head.predict(means))[sure].all()


def test_token_vectors_are_what_the_encoders_first_layer_sees_without_positions(train_model):
    folder = train_model("static")
    encoder = SentenceTransformer(str(folder.parent / "encoder"), device="cpu")[0].auto_model
    embeddings = encoder.embeddings
    position = embeddings.position_embeddings.weight[0]
    plain = embeddings.word_embeddings.weight + embeddings.token_type_embeddings.weight[0]
    stored = static.load(read_trained_model(folder)).vectors
    np.testing.assert_allclose(stored, embeddings.LayerNorm(plain).detach().numpy(), atol=1e-6)
    assert np.abs(stored - embeddings.LayerNorm(plain + position).detach().numpy()).max() > 0.01


def test_lengths_share_batches_and_change_no_bit(export_bundle, monkeypatch):
    bundle = export_bundle("static")
    texts = [*tiny_models.toy_texts(300, seed=4)[0], *tiny_models.MIXED_TEXTS]
    classifier = Classifier.load(bundle, device="cpu")
    shapes = []
    run = classifier._session.run
    monkeypatch.setattr(
        classifier._session, "run", lambda ids, mask=None: shapes.append((ids.shape, mask)) or run(ids, mask)
    )
    together = classifier.score(texts).logits
    assert len(shapes) == 1, "one batch for all"
    assert (shapes[0][1] == 0).any()
    alone = np.concatenate([classifier.score([text]).logits for text in texts])
    np.testing.assert_array_equal(together, alone)


def test_logits_are_the_same_bits_alone_in_batches_and_beside_padding(export_bundle):
    folder = export_bundle("static", classes=5)
    bundle = Bundle.open(folder)
    session = ModelSession(bundle.read("onnx/model.onnx"))
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 90, (64, 21))
    together = session.run(ids)
    assert (np.concatenate([session.run(row[None]) for row in ids]) == together).all()
    assert (session.run(ids[:, rng.permutation(21)]) == together).all(), "an exact sum has no order"
    padded = np.pad(ids, ((0, 0), (0, 30)))
    mask = np.pad(np.ones_like(ids), ((0, 0), (0, 30)))
    values = session._session.run(["logits"], {"input_ids": padded, "attention_mask": mask})[0]
    assert (values == together).all()


def test_json_of_the_export_is_ascii_whatever_the_labels(tmp_path, capsys):
    texts, labels = tiny_models.toy_texts(60)
    data = tiny_models.labelled(texts, [f"{label} 😀" for label in labels])
    source = tiny_models.sentence_transformer(tmp_path / "encoder", "bert")
    run_static(data, tmp_path / "model", RidgeSettings(str(source), max_length=24, folds=0))
    assert main(["export", str(tmp_path / "model"), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out)["labels"] == [f"{label} 😀" for label in sorted(set(labels))]


def test_manifest_and_card_say_what_it_is(export_bundle):
    folder = export_bundle("static")
    manifest = Bundle.open(folder).manifest
    assert manifest.kind == "static"
    assert [stage["name"] for stage in manifest.parity["stages"]] == [
        "scikit-learn -> onnx fp32",
        "fp32 -> float16 table",
    ]
    assert manifest.parity["alone_or_in_batch"].startswith("bit-identical")
    assert manifest.parity["table"]["precision"] == "float16"
    assert json.loads(Bundle.open(folder).read("config.json"))["num_hidden_layers"] == 0
    assert "one number per word piece" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("architecture", ["mpnet", "roberta", "distilbert"])
def test_every_architecture_makes_a_static_bundle(export_bundle, architecture):
    classifier = Classifier.load(export_bundle("static", architecture))
    assert np.isfinite(classifier.score(TEXTS).logits).all()


def test_folded_table_that_is_not_the_trained_head_fails_the_first_gate(train_model, tmp_path, monkeypatch):
    table = static.StaticModel.table
    monkeypatch.setattr(static.StaticModel, "table", lambda self, model: table(self, model) + 0.01)
    with pytest.raises(ParityError, match="scikit-learn -> onnx fp32"):
        export(train_model("static"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_number_beyond_float16_is_refused_by_name(train_model, tmp_path):
    model = shutil.copytree(train_model("static"), tmp_path / "model")
    tensors = load_file(model / "head.safetensors")
    save_file({**tensors, "coef": tensors["coef"] * 1e6}, model / "head.safetensors")
    with pytest.raises(ParityError, match=r"too large for float16|skl2onnx"):
        export(model, tmp_path / "bundle")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_static_model_has_one_precision(train_model, tmp_path, precision, many_texts):
    with pytest.raises(UsageError, match="one variant"):
        export(train_model("static"), tmp_path / "bundle", precisions=["fp32", precision], texts=many_texts)


@pytest.mark.parametrize(
    ("name", "tensors"),
    [("tokens.safetensors", {"vectors": np.zeros((3, 7), np.float32)}), ("distilled.safetensors", {"x": np.zeros(1)})],
)
def test_tensors_that_do_not_fit_are_refused(train_model, tmp_path, name, tensors):
    model = shutil.copytree(train_model("static"), tmp_path / "model")
    save_file(tensors, model / name)
    with pytest.raises(BundleError, match="Train again"):
        export(model, tmp_path / "bundle")


@pytest.mark.slow
def test_bundle_opens_in_optimum_and_answers_the_same(export_bundle):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    folder = export_bundle("static")
    model = ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name="model.onnx")
    answers = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))(
        TEXTS[2:5], batch_size=3
    )
    assert [answer["label"] for answer in answers] == Classifier.load(folder).predict(TEXTS[2:5])
