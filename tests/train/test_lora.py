"""The LoRA recipe on tiny encoders: what is trained, that it repeats, and that the merge loses nothing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tiny_models
import torch

from edgewren.errors import InputError, InvariantError, UsageError
from edgewren_train import lora, merging
from edgewren_train.lora import LoraRecipe, train
from edgewren_train.lora_model import load_base
from edgewren_train.prediction import predict_logits
from edgewren_train.target_modules import check_target_modules, default_target_modules

RECIPE = LoraRecipe(epochs=2, batch_size=16, learning_rate=1e-2, precision="fp32")
CLASSES = ("angry", "calm")
TEXTS, NAMES = tiny_models.toy_texts(48)
LABELS = [sorted(set(NAMES)).index(name) for name in NAMES]


@pytest.fixture
def base(encoder_folder):
    return load_base(str(encoder_folder("bert")), CLASSES, max_length=24, normaliser="none", seed=0)


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("bert", ("query", "value")),
        ("roberta", ("query", "value")),
        ("xlm-roberta", ("query", "value")),
        ("electra", ("query", "value")),
        ("albert", ("query", "value")),
        ("mpnet", ("q", "v")),
        ("distilbert", ("q_lin", "v_lin")),
        ("deberta", ("in_proj",)),
        ("xlm", ("q_lin", "v_lin")),
    ],
)
def test_each_architecture_gets_adapters_and_a_trained_head(encoder_folder, architecture, names):
    base = load_base(str(encoder_folder(architecture)), CLASSES, max_length=24, normaliser="none", seed=0)
    before = predict_logits(base.model, base.tokenizer.encode(TEXTS).ids)
    result = train(base, TEXTS, LABELS, RECIPE)
    assert result.target_modules == names
    assert 0 < result.trainable < result.total
    assert result.merge_difference <= merging.MERGE_TOLERANCE
    assert result.steps == 2 * 3
    assert len(result.loss) == 2
    after = predict_logits(result.model, base.tokenizer.encode(TEXTS).ids)
    assert np.abs(after - before).max() > 1e-3
    assert not any("lora" in name for name in result.model.state_dict()), "the adapters are merged"


def test_an_encoder_decoder_is_refused_before_training(encoder_folder):
    with pytest.raises(InputError, match=r"is an encoder-decoder \(T5ForSequenceClassification\).*'train ridge'"):
        load_base(str(encoder_folder("t5")), CLASSES, max_length=24, normaliser="none", seed=0)


def test_a_token_without_embedding_is_refused_before_training(encoder_folder, tmp_path):
    folder = shutil.copytree(encoder_folder("bert"), tmp_path / "e")
    last = tiny_models.add_token(folder, "zebra")
    with pytest.raises(InputError, match=rf"has {last} word embeddings.*token 'zebra' with the id {last}"):
        load_base(str(folder), CLASSES, max_length=24, normaliser="none", seed=0)


def test_training_learns_what_separates_the_classes(base):
    result = train(base, TEXTS, LABELS, LoraRecipe(epochs=8, batch_size=16, learning_rate=1e-2, precision="fp32"))
    assert result.loss[-1] < result.loss[0]
    predicted = predict_logits(result.model, base.tokenizer.encode(TEXTS).ids).argmax(axis=1)
    assert np.mean(predicted == LABELS) > 0.8


def test_same_seed_and_data_give_the_same_weights(base):
    first = train(base, TEXTS, LABELS, RECIPE).model.state_dict()
    second = train(base, TEXTS, LABELS, RECIPE).model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_weights(encoder_folder, base):
    other = load_base(str(encoder_folder("bert")), CLASSES, max_length=24, normaliser="none", seed=1)
    assert base.sha256 == other.sha256, "the hash is of the pretrained weights, not of the fresh head"
    assert any(
        not torch.equal(value, other.model.state_dict()[name]) for name, value in base.model.state_dict().items()
    )


def test_announcement_tells_the_trainable_share_and_nothing_goes_to_stdout(base, capsys):
    said = []
    result = train(base, TEXTS, LABELS, RECIPE, announce=said.append)
    share = f"{result.trainable:,} of {result.total:,} parameters ({result.trainable / result.total:.2%})"
    assert said == [f"trainable: {share}, adapters on query, value"]
    assert capsys.readouterr().out == ""


def test_padding_to_the_maximum_trains_the_same_number_of_steps(base):
    recipe = LoraRecipe(epochs=1, batch_size=16, learning_rate=1e-2, precision="fp32", padding="max")
    assert train(base, TEXTS, LABELS, recipe).steps == 3


def test_steps_can_be_limited(base):
    recipe = LoraRecipe(epochs=5, batch_size=16, learning_rate=1e-2, precision="fp32", maximum_steps=2)
    assert train(base, TEXTS, LABELS, recipe).steps == 2


@pytest.mark.parametrize("width", [None, 9])
def test_padding_is_masked_out(width):
    rows = [{"input_ids": [5, 6, 7], "labels": 0}, {"input_ids": [5], "labels": 1}]
    batch = lora._collate(rows, 3, width)
    columns = width or 3
    assert batch["input_ids"].tolist() == [[5, 6, 7] + [3] * (columns - 3), [5] + [3] * (columns - 1)]
    assert batch["attention_mask"].tolist() == [[1, 1, 1] + [0] * (columns - 3), [1] + [0] * (columns - 1)]
    assert batch["labels"].tolist() == [0, 1]


def test_unknown_target_modules_are_refused_with_those_that_there_are(base):
    recipe = LoraRecipe(target_modules=("query", "gate"), precision="fp32")
    with pytest.raises(InputError, match=r"no linear layer called gate\. .* called: .*dense.*query"):
        train(base, TEXTS, LABELS, recipe)


@pytest.mark.parametrize(
    ("architecture", "setting", "message"),
    [
        ("bert", {"target_modules": ("classifier",)}, "nothing called classifier to adapt. The head has no adapters"),
        ("albert", {"adapt_layers": 1}, "nothing called query, value in these layers to adapt"),
    ],
)
def test_what_peft_cannot_adapt_is_told_in_words(tmp_path, architecture, setting, message):
    folder = tiny_models.encoder(tmp_path / "e", architecture, layers=2)
    base = load_base(str(folder), CLASSES, max_length=24, normaliser="none", seed=0)
    with pytest.raises(InputError, match=message):
        train(base, TEXTS, LABELS, LoraRecipe(precision="fp32", **setting))


def test_encoder_without_known_projections_is_refused_with_its_linear_layers():
    model = torch.nn.Sequential()
    model.add_module("mixer", torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"linear layers are called: mixer\. Choose some with --target-modules"):
        default_target_modules(model)
    check_target_modules(model, ["mixer"])


def test_merge_that_changes_the_logits_is_caught(base):
    ids = base.tokenizer.encode(TEXTS).ids
    logits = predict_logits(base.model, ids)
    with pytest.raises(InvariantError, match="logits differ from the adapter's by"):
        merging.prove_merge(base.model, ids, logits + 1, {}, base)


@pytest.mark.parametrize("learning_rate", [1e4, 1e30])
def test_training_that_ran_away_names_the_learning_rate(base, learning_rate):
    recipe = LoraRecipe(epochs=3, batch_size=8, learning_rate=learning_rate, precision="fp32")
    with pytest.raises(UsageError, match=r"ran away: the last epoch's loss is .* lower --learning-rate"):
        train(base, TEXTS, LABELS, recipe)


def test_head_that_is_not_the_trained_one_is_caught(base):
    ids = base.tokenizer.encode(TEXTS).ids
    logits = predict_logits(base.model, ids)
    head = {name: value + 1 for name, value in base.model.state_dict().items() if name.startswith("classifier")}
    with pytest.raises(InvariantError, match="is not the one that was trained"):
        merging.prove_merge(base.model, ids, logits, head, base)
    with pytest.raises(InvariantError, match="lacks the trained head"):
        merging.prove_merge(base.model, ids, logits, {}, base)
    same = {name: value for name, value in base.model.state_dict().items() if name.startswith("classifier")}
    with pytest.raises(InvariantError, match="did not change during training"):
        merging.prove_merge(base.model, ids, logits, same, base)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"learning_rate": -1.0}, "learning-rate is -1.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"padding": "left"}, "padding is 'left'"),
        ({"maximum_steps": 0}, "max-steps is 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        LoraRecipe(**setting)


def test_recipe_is_that_of_the_design():
    recipe = LoraRecipe()
    assert (recipe.rank, recipe.alpha, recipe.dropout, recipe.epochs) == (8, 16, 0.05, 15)
    assert (recipe.learning_rate, recipe.batch_size) == (2e-4, 64)


def test_max_length_defaults_to_256_where_the_positions_allow(encoder_folder):
    base = load_base(str(encoder_folder("bert")), CLASSES, max_length=None, normaliser="none", seed=0)
    assert base.max_length == min(256, base.model.config.max_position_embeddings)


def test_a_classifier_with_another_number_of_labels_gets_a_new_head(encoder_folder, tmp_path):
    """Whoever fine-tunes somebody's three-class model on two classes must not fail over its head's shape."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = encoder_folder("bert")
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=3).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path)
    base = load_base(str(tmp_path), CLASSES, max_length=24, normaliser="none", seed=0)
    assert base.fresh == ("classifier",)
    assert train(base, TEXTS, LABELS, RECIPE).model.config.num_labels == 2


@pytest.mark.parametrize(
    ("architecture", "dropped"),
    [
        ("bert", "nothing"),
        ("roberta", "nothing"),
        ("distilbert", "nothing"),
        ("mpnet", "the last layer"),
        ("distilbert", "the last layer"),
    ],
)
def test_a_head_that_the_checkpoint_brings_is_replaced_and_trained_whole(
    encoder_folder, tmp_path, architecture, dropped
):
    """A public two-class checkpoint: its head is another task's. What the seed draws does not depend on it."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = encoder_folder(architecture)
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=2).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path)
    # Copies: the file is written over below, and what is loaded may still lie in it.
    weights = {name: value.clone() for name, value in load_file(tmp_path / "model.safetensors").items()}
    if dropped == "the last layer":
        last = "classifier.out_proj." if "classifier.out_proj.weight" in weights else "classifier."
        weights = {name: value for name, value in weights.items() if not name.startswith(last)}
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    base = load_base(str(tmp_path), CLASSES, max_length=24, normaliser="none", seed=0)
    # Headless, with the pooler that this checkpoint has.
    prefix = f"{base.model.base_model_prefix}."
    headless = tmp_path / "headless"
    headless.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (headless / name).write_bytes((tmp_path / name).read_bytes())
    encoder = {name: value for name, value in weights.items() if name.startswith(prefix)}
    save_file(encoder, headless / "model.safetensors", metadata={"format": "pt"})
    other = load_base(str(headless), CLASSES, max_length=24, normaliser="none", seed=0)
    assert base.fresh == other.fresh
    assert base.sha256 == other.sha256
    state, expected = base.model.state_dict(), other.model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    head = [name for name in state if not name.startswith(prefix)]
    trained = train(base, TEXTS, LABELS, RECIPE).model.state_dict()
    assert head
    assert not any(torch.equal(trained[name], state[name]) for name in head)
