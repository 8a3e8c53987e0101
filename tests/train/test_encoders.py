"""Encoders: where they come from, one clean tokenizer, one max length, and errors that name the next step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny_models
import torch

from edgewren.errors import InputError, MissingDependencyError, UsageError
from edgewren_train import embedding, encoder_names
from edgewren_train.encoder_names import MINILM, MINILM_SHA256, locate
from edgewren_train.encoders import (
    checked_max_length,
    load_encoder,
    position_limit,
    weights_sha256,
)
from edgewren_train.lora_model import load_base

OFFLINE = """
import sys
from edgewren_train.encoders import load_encoder
encoder = load_encoder(sys.argv[1])
print(encoder.id, encoder.max_length, encoder.sha256)
"""


def in_hub_cache(folder, home, repository):
    """Lay a model folder into a Hugging Face cache, as a download would have."""
    entry = home / "hub" / f"models--{repository.replace('/', '--')}"
    revision = "0" * 40
    shutil.copytree(folder, entry / "snapshots" / revision)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(revision)


def offline(home, spec):
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", OFFLINE, spec], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_hub_id_loads_from_the_cache_when_offline(sentence_folder, tmp_path):
    folder = sentence_folder("bert")
    in_hub_cache(folder, tmp_path, "somebody/tiny-encoder")
    done = offline(tmp_path, "somebody/tiny-encoder")
    assert done.returncode == 0, done.stderr
    local = load_encoder(str(folder))
    assert done.stdout.split() == ["somebody/tiny-encoder", str(local.max_length), local.sha256]


@pytest.mark.slow
def test_hub_id_that_is_not_cached_is_refused_when_offline(tmp_path):
    done = offline(tmp_path, "somebody/never-downloaded")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: Encoder 'somebody/never-downloaded' cannot be loaded (HF_HUB_OFFLINE is set" in last
    assert "pip install 'edgewren[minilm]'" in last


def test_folder_keeps_its_pooling_and_normalisation(sentence_folder):
    encoder = load_encoder(str(sentence_folder("bert", pooling="cls", normalize=True)))
    assert [type(module).__name__ for module in encoder.model] == ["Transformer", "Pooling", "Normalize"]
    assert encoder.id == "bert"


def test_plain_transformers_folder_becomes_a_mean_pooled_encoder(encoder_folder):
    encoder = load_encoder(str(encoder_folder("bert")))
    assert [type(module).__name__ for module in encoder.model] == ["Transformer", "Pooling"]
    tokens = encoder.model.encode(["the ferry"], output_value="token_embeddings")[0]
    assert encoder.model.encode(["the ferry"], convert_to_tensor=True)[0].tolist() == pytest.approx(
        tokens.mean(dim=0).tolist(), abs=1e-5
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_checkpoint_of_half_precision_computes_in_float32(sentence_folder, tmp_path, dtype):
    folder = shutil.copytree(sentence_folder("bert", dense=16), tmp_path / "e")
    tiny_models.store_as(folder, dtype)
    encoder = load_encoder(str(folder))
    assert {value.dtype for value in encoder.model.parameters()} == {torch.float32}
    whole = embedding.embed(load_encoder(str(sentence_folder("bert", dense=16))), ["the ferry"])
    assert np.abs(embedding.embed(encoder, ["the ferry"]) - whole).max() < 0.01, "bf16 keeps 8 bits of a weight"


def test_a_token_without_embedding_is_refused_though_no_training_text_may_have_it(sentence_folder, tmp_path):
    folder = shutil.copytree(sentence_folder("bert"), tmp_path / "e")
    last = tiny_models.add_token(folder, "zebra")
    with pytest.raises(InputError, match=rf"has {last} word embeddings.*token 'zebra' with the id {last}"):
        load_encoder(str(folder))


def test_an_encoder_that_is_no_transformer_is_refused(tmp_path):
    folder = tiny_models.static_embedding(tmp_path / "e")
    with pytest.raises(InputError, match=r"begins with StaticEmbedding, expected a transformer.*'train static'"):
        load_encoder(str(folder))


@pytest.mark.parametrize("recipe", ["ridge", "lora"])
def test_a_tokenizer_that_no_bundle_may_hold_is_refused_before_training(encoder_folder, tmp_path, recipe):
    folder = shutil.copytree(encoder_folder("bert"), tmp_path / "e")
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": " "}, "behavior": "Isolated", "invert": False}
    (folder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot be exported: its tokenizer .* a step of type 'Split'"):
        if recipe == "ridge":
            load_encoder(str(folder))
        else:
            load_base(str(folder), ("a", "b"), max_length=24, normaliser="none", seed=0)


def test_prompts_are_known_and_not_used(sentence_folder):
    folder = sentence_folder("bert", prompts={"query": "query: ", "passage": "passage: ", "none": ""})
    encoder = load_encoder(str(folder))
    assert encoder.prompts == ("query: ", "passage: ")
    assert load_encoder(str(sentence_folder("bert"))).prompts == ()
    ours = embedding.embed(encoder, ["the ferry"])[0]
    assert np.abs(ours - encoder.model.encode("the ferry", prompt="")).max() < 1e-6
    assert np.abs(ours - encoder.model.encode("the ferry")).max() > 1e-3, "it would put its first prompt there"


def test_tokenizer_neither_pads_nor_truncates_and_carries_the_normaliser(sentence_folder):
    encoder = load_encoder(str(sentence_folder("bert")), max_length=10, normaliser="http")
    settings = json.loads(encoder.files.tokenizer)
    assert settings["padding"] is None
    assert settings["truncation"] is None
    assert settings["normalizer"]["normalizers"][0]["pattern"] == {"Regex": r"https?://\S+"}
    assert json.loads(encoder.files.config)["model_max_length"] == 10
    assert json.loads(encoder.files.special_tokens)["cls_token"] == "[CLS]"


def test_folder_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"Encoder folder \./nowhere does not exist"):
        load_encoder("./nowhere")


def test_an_empty_name_is_refused():
    with pytest.raises(InputError, match=r"The encoder's name is ''\. Expected a folder, or a hub id"):
        load_encoder("")


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        load_encoder(str(tmp_path))


def test_packaged_minilm_is_the_published_file():
    folder = locate("minilm")
    assert locate(MINILM) == locate("ALL-MiniLM-L6-v2") == folder
    assert encoder_names._file_sha256(encoder_names.Path(folder) / "model.safetensors") == MINILM_SHA256


def test_packaged_minilm_with_other_weights_is_refused(monkeypatch):
    monkeypatch.setattr(encoder_names, "MINILM_SHA256", "0" * 64)
    with pytest.raises(InputError, match="not that of the published all-MiniLM-L6-v2"):
        locate("minilm")


def test_minilm_without_the_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(encoder_names.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgewren\[minilm\]'"):
        locate("minilm")
    assert locate(MINILM) == MINILM, "the hub id is left to the hub"


@pytest.mark.parametrize(("architecture", "reserved"), [("bert", 0), ("distilbert", 0), ("roberta", 2), ("mpnet", 2)])
def test_positions_that_an_architecture_reserves_are_not_used(encoder_folder, architecture, reserved):
    from transformers import AutoConfig, AutoModel

    folder = encoder_folder(architecture)
    config = AutoConfig.from_pretrained(folder)
    limit = position_limit(config)
    assert limit == config.max_position_embeddings - reserved
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        assert model(input_ids=torch.full((1, limit), 9)).last_hidden_state.isfinite().all()


@pytest.mark.parametrize(
    ("requested", "limit", "own", "expected"),
    [(None, 512, 128, 128), (None, 62, 128, 62), (None, None, None, 256), (40, 64, 128, 40), (64, 64, None, 64)],
)
def test_max_length_stays_within_the_positions(requested, limit, own, expected):
    assert checked_max_length(requested, limit, own=own) == expected


@pytest.mark.parametrize(("requested", "limit"), [(2, 64), (65, 64), (0, None), (-1, None)])
def test_max_length_out_of_range_is_refused(requested, limit):
    with pytest.raises(UsageError, match=f"max length {requested} is out of range"):
        checked_max_length(requested, limit, own=None)


def test_hash_of_weights_depends_on_values_and_names_not_on_order():
    state = {"a": torch.ones(2), "b": torch.zeros(3)}
    same = {"b": torch.zeros(3), "a": torch.ones(2)}
    assert weights_sha256(state) == weights_sha256(same)
    assert weights_sha256(state) != weights_sha256({"a": torch.zeros(2), "b": torch.zeros(3)})
    assert weights_sha256(state) != weights_sha256({"a": torch.ones(2), "c": torch.zeros(3)})
