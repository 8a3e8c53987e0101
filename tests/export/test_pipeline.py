"""From trained model to bundle: complete, proved, and never half there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_models
import torch
from onnx import numpy_helper
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from edgewren import Classifier
from edgewren.bundle import Bundle
from edgewren.errors import BundleError, OutputError, ParityError, UsageError
from edgewren_export import encoder_export, graph
from edgewren_export.fold import load_head
from edgewren_export.pipeline import export
from edgewren_export.trained_model import read_trained_model

FILES = {
    "manifest.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "onnx/model.onnx",
    "golden.jsonl",
    "README.md",
}


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def golden(folder):
    return [json.loads(line) for line in (folder / "golden.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.mark.parametrize("recipe", [pytest.param("ridge", marks=pytest.mark.slow), "lora"])
def test_bundle_has_exactly_the_files_of_the_format(export_bundle, recipe):
    assert names(export_bundle(recipe)) == FILES


def test_manifest_holds_size_and_hash_of_every_file(ridge_bundle):
    manifest = json.loads((ridge_bundle / "manifest.json").read_text(encoding="utf-8"))
    described = {**manifest["files"], **{v["file"]: v for v in manifest["variants"].values()}}
    assert set(described) == FILES - {"manifest.json"}
    for name, entry in described.items():
        data = (ridge_bundle / name).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), name
    bundle = Bundle.open(ridge_bundle)
    for name in bundle.names():
        bundle.read(name)


def test_manifest_says_where_the_model_comes_from_and_what_was_proved(ridge_bundle, ridge_model):
    manifest = Bundle.open(ridge_bundle).manifest
    assert (manifest.kind, manifest.max_length, manifest.normaliser, manifest.temperature) == ("ridge", 24, "http", 1.0)
    assert manifest.labels == ("angry", "calm")
    assert manifest.encoder == ridge_model.encoder
    assert manifest.training["seed"] == 0
    assert manifest.training["data"]["rows"] == 60
    assert [stage["name"] for stage in manifest.parity["stages"]] == [
        "scikit-learn -> onnx fp32",
        "onnx fp32 -> optimised",
    ]
    assert all(stage["max_difference"] <= 1e-4 for stage in manifest.parity["stages"])
    assert manifest.parity["skl2onnx_difference"] <= 1e-4
    assert manifest.parity["alone_or_in_batch"] == "bit-identical (60 texts)"


def test_model_card_states_data_evaluation_parity_and_limits(ridge_bundle):
    card = (ridge_bundle / "README.md").read_text(encoding="utf-8")
    for part in ("`angry`, `calm`", "60 rows of `toy.csv`", "scikit-learn -> onnx fp32", "## Limits", "## Licence"):
        assert part in card


@pytest.mark.parametrize("classes", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_ridge_bundle_answers_as_sentence_transformers_and_scikit_learn(export_bundle, train_model, classes):
    model = read_trained_model(train_model("ridge", classes=classes))
    encoder = SentenceTransformer(str(model.folder / "encoder"), device="cpu")
    encoder.max_seq_length = model.max_length
    head = load_head(model.folder / "head.safetensors").scikit_learn(model.labels)
    texts = [*model.texts, *(text for text in tiny_models.MIXED_TEXTS if "http" not in text)]
    embeddings = encoder.encode(texts, batch_size=7).astype(np.float64)

    classifier = Classifier.load(export_bundle("ridge", classes=classes))
    assert classifier.predict(texts) == head.predict(embeddings).tolist()
    # 1e-4: the promise of the gates; the encoder here pads, the bundle does not.
    np.testing.assert_allclose(classifier.decision_function(texts), head.decision_function(embeddings), atol=1e-4)


def test_lora_bundle_answers_as_transformers(export_bundle, train_model):
    model = read_trained_model(train_model("lora"))
    torch_model = AutoModelForSequenceClassification.from_pretrained(model.folder / "classifier").eval()
    texts = [*model.texts, *tiny_models.MIXED_TEXTS]
    expected = []
    with torch.inference_mode():
        for ids in model.tokenizer.encode(texts).ids:
            expected.append(torch_model(input_ids=torch.tensor([ids])).logits[0].numpy())
    classifier = Classifier.load(export_bundle("lora"))
    assert classifier.labels == tuple(torch_model.config.id2label.values())
    np.testing.assert_allclose(classifier.score(texts).logits, np.stack(expected), atol=1e-4)
    assert classifier.predict(texts) == [classifier.labels[row.argmax()] for row in expected]


def test_golden_texts_cover_what_breaks_tokenizers_and_reproduce(ridge_bundle):
    rows = golden(ridge_bundle)
    texts = [row["text"] for row in rows]
    assert len(texts) >= 64
    assert len(set(texts)) == len(texts)
    assert {"", "a", "🐦", "https://t.co/AbCdEfGhIj"} <= set(texts)
    assert any("\u0590" <= c <= "\u06ff" for text in texts for c in text), "right-to-left"
    classifier = Classifier.load(ridge_bundle)
    scores = classifier.score(texts)
    assert scores.truncated.any(), "longer than max length"
    assert not scores.truncated.all()
    np.testing.assert_allclose(scores.logits, [row["logits"] for row in rows], atol=1e-6)


@pytest.mark.parametrize("recipe", ["ridge", "lora"])
def test_no_training_text_is_in_any_file_of_the_bundle(export_bundle, train_model, recipe):
    texts = read_trained_model(train_model(recipe)).texts
    for path in export_bundle(recipe).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [text for text in texts if text.encode() in content], path.name


def test_tokenizer_in_the_bundle_neither_pads_nor_truncates(ridge_bundle):
    settings = json.loads((ridge_bundle / "tokenizer.json").read_text(encoding="utf-8"))
    assert settings["padding"] is None
    assert settings["truncation"] is None
    lengths = [
        len(e.ids) for e in Tokenizer.from_file(str(ridge_bundle / "tokenizer.json")).encode_batch(["a", "a " * 99])
    ]
    assert lengths == [3, 101]


def test_config_names_labels_and_architecture(export_bundle):
    for recipe, architecture in (("ridge", "Bert"), ("lora", "Bert")):
        config = json.loads((export_bundle(recipe) / "config.json").read_text(encoding="utf-8"))
        assert config["architectures"] == [f"{architecture}ForSequenceClassification"]
        assert config["id2label"] == {"0": "angry", "1": "calm"}
        assert config["label2id"] == {"angry": 0, "calm": 1}
        assert config["model_type"] == "bert"


def test_stored_graph_has_no_scalar_kernel_also_after_the_runtimes_own_optimiser(ridge_bundle, as_run):
    path = ridge_bundle / "onnx" / "model.onnx"
    for model in (onnx.load(path), as_run(path)):
        operators = {node.op_type for node in model.graph.node}
        assert "SkipLayerNormalization" not in operators
        assert "LayerNormalization" in operators


def test_folder_of_the_bundle_is_readable_for_everybody(ridge_bundle):
    assert ridge_bundle.stat().st_mode & 0o777 == 0o755


@pytest.mark.slow
def test_gates_take_given_texts_instead_of_the_training_texts(train_model, tmp_path, said):
    texts = tiny_models.toy_texts(30, seed=9)[0]
    result = export(train_model("ridge"), tmp_path / "bundle", texts=texts, say=said.append)
    assert result.manifest.parity["gate_texts"] == 30
    assert any("parity is checked on 30 texts" in line for line in said)
    with pytest.raises(UsageError, match=r"bundle exists already.*--force"):
        export(train_model("ridge"), tmp_path / "bundle")
    before = result.manifest.created
    again = export(train_model("ridge"), tmp_path / "bundle", force=True)
    assert again.manifest.parity["gate_texts"] == 60
    assert again.manifest.created["libraries"] == before["libraries"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]
    Bundle.open(tmp_path / "bundle")


@pytest.mark.parametrize("force", [False, True])
def test_folder_that_is_no_bundle_is_never_overwritten(train_model, tmp_path, force):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not a bundle, so it is not replaced" if force else "--force"):
        export(train_model("ridge"), tmp_path / "thesis", force=force)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_file_in_the_place_of_the_bundle_is_never_overwritten(train_model, tmp_path):
    (tmp_path / "notes").write_text("keep me")
    with pytest.raises(UsageError, match="not a bundle"):
        export(train_model("ridge"), tmp_path / "notes", force=True)
    assert (tmp_path / "notes").read_text() == "keep me"


@pytest.mark.parametrize("precisions", [[], ["fp7"], ["fp32", "fp7"]])
def test_unknown_precision_is_refused_before_anything_is_read(tmp_path, precisions):
    with pytest.raises(UsageError, match="precision .* is unknown. Expected: fp32"):
        export(tmp_path / "nowhere", tmp_path / "bundle", precisions=precisions)


@pytest.mark.slow
def test_gate_that_fails_writes_nothing(train_model, tmp_path, monkeypatch):
    def perturbed(model):
        changed = optimise(model)
        tensor = next(t for t in changed.graph.initializer if t.name.endswith("bias") and list(t.dims) == [2])
        values = numpy_helper.to_array(tensor) + np.float32([0.01, 0])
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return changed

    optimise = encoder_export.optimise
    monkeypatch.setattr(encoder_export, "optimise", perturbed)
    with pytest.raises(
        ParityError, match=r"onnx fp32 -> optimised: logits differ by up to 1\.00e-02.*nothing was written"
    ):
        export(train_model("ridge"), tmp_path / "new" / "bundle")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.slow
def test_head_that_is_not_the_fitted_one_fails_the_first_gate(train_model, tmp_path, monkeypatch):
    model = shutil.copytree(train_model("ridge"), tmp_path / "model")
    monkeypatch.setattr(graph, "load_head", lambda path: shifted(load_head(path)))
    with pytest.raises(ParityError, match="scikit-learn -> onnx fp32"):
        export(model, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def shifted(head):
    return dataclasses.replace(head, intercept=head.intercept + 0.01)


@pytest.mark.slow
def test_disk_that_fills_up_leaves_nothing_behind(train_model, tmp_path, monkeypatch, ridge_bundle):
    target = shutil.copytree(ridge_bundle, tmp_path / "bundle")
    manifest = (target / "manifest.json").read_bytes()
    written = []

    def full(self, data):
        written.append(self.name)
        if self.name == "golden.jsonl":
            raise OSError(28, "No space left on device")
        return real(self, data)

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"bundle cannot be written: No space left on device"):
        export(train_model("ridge"), target, force=True)
    assert written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]
    assert (target / "manifest.json").read_bytes() == manifest


def test_model_without_texts_needs_some_for_the_gates(train_model, tmp_path):
    model = shutil.copytree(train_model("ridge"), tmp_path / "model")
    (model / "train.jsonl").unlink()
    with pytest.raises(BundleError, match="--texts FILE"):
        export(model, tmp_path / "bundle")


def test_an_empty_list_of_given_texts_is_refused(train_model, tmp_path):
    with pytest.raises(BundleError, match="--texts"):
        export(train_model("ridge"), tmp_path / "bundle", texts=[])


@pytest.fixture
def said():
    return []
