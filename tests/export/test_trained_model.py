"""Folders that are not complete trained models are refused, with the reason and the next step."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import tiny_models
import torch

from edgewren.errors import BundleError
from edgewren_export.graph import load_classifier, load_sentence_encoder
from edgewren_export.trained_model import read_trained_model
from edgewren_train.trained import read_trained


@pytest.fixture
def folder(train_model, tmp_path):
    return shutil.copytree(train_model("ridge"), tmp_path / "model")


def test_complete_folder_is_read_with_its_texts(folder):
    model = read_trained_model(folder)
    assert (model.kind, model.labels, model.max_length, model.normaliser) == ("ridge", ("angry", "calm"), 24, "http")
    assert len(model.texts) == 60
    assert model.temperature == 1.0


def test_folder_without_the_training_texts_is_still_a_model(folder):
    (folder / "train.jsonl").unlink()
    assert read_trained_model(folder).texts == ()


@pytest.mark.parametrize(
    "name", ["encoder", "head.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
)
def test_missing_part_of_a_ridge_model_is_named(folder, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BundleError, match=f"lacks {name}: the trained model is incomplete. Train again"):
        read_trained_model(folder)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_encoder_stored_in_half_precision_is_loaded_in_float32(folder, dtype):
    tiny_models.store_as(folder / "encoder", dtype)
    encoder = load_sentence_encoder(read_trained_model(folder))
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}


def test_missing_classifier_of_a_lora_model_is_named(train_model, tmp_path):
    folder = shutil.copytree(train_model("lora"), tmp_path / "model")
    shutil.rmtree(folder / "classifier")
    with pytest.raises(BundleError, match="lacks classifier"):
        read_trained_model(folder)


def test_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"not a trained model \(no model.json\).*'edgewren train'"):
        read_trained_model(tmp_path / "nowhere")


def test_bundle_given_for_a_trained_model_is_recognised(ridge_bundle):
    with pytest.raises(BundleError, match="is a bundle already"):
        read_trained_model(ridge_bundle)


def test_unknown_format_version_is_refused(folder):
    change(folder, format_version=7)
    with pytest.raises(BundleError, match="format version 7, expected 1"):
        read_trained_model(folder)


def test_unknown_kind_is_refused(folder):
    change(folder, kind="forest")
    with pytest.raises(BundleError, match="forest"):
        read_trained_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 1}', "\ufeff\x00"])
def test_damaged_description_is_refused(folder, text):
    (folder / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"model\.json is damaged.*Train again"):
        read_trained_model(folder)


@pytest.mark.parametrize("read", [read_trained_model, read_trained])
def test_what_may_not_be_read_is_no_reason_to_train_again(folder, monkeypatch, read):
    def refused(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(BundleError, match=r"model\.json cannot be read: Permission denied\.$"):
        read(folder)


@pytest.mark.parametrize("line", ["{", '{"label": "calm"}', "[1]"])
def test_damaged_training_texts_are_refused(folder, line):
    with (folder / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(BundleError, match=r"damaged.*Train again"):
        read_trained_model(folder)


@pytest.mark.parametrize(
    ("recipe", "part", "load"), [("ridge", "encoder", load_sentence_encoder), ("lora", "classifier", load_classifier)]
)
def test_damaged_weights_are_refused(train_model, tmp_path, recipe, part, load):
    folder = shutil.copytree(train_model(recipe), tmp_path / "model")
    weights = folder / part / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BundleError, match=f"{part} cannot be loaded: .*Train again"):
        load(read_trained_model(folder))


def change(folder, **fields):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")
