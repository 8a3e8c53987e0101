"""`train lora --validation`: epochs chosen on held-out rows, the spread over seeds, weights of rare classes."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import tiny_models
import torch

from edgewren.cli.main import main
from edgewren.errors import UsageError
from edgewren_train import lora
from edgewren_train.epoch_watch import EpochWatch
from edgewren_train.lora_model import load_base
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.prediction import predict_logits

TEXTS, LABELS = tiny_models.toy_texts(60)
SETTINGS = [
    "--epochs",
    "4",
    "--learning-rate",
    "2e-2",
    "--batch-size",
    "16",
    "--max-length",
    "24",
    "--precision",
    "fp32",
]


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "posts.csv"
    rows = [f'"{text}",{label},a{index % 15}' for index, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))]
    path.write_text("text,label,author\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def base(encoder_folder):
    return load_base(str(encoder_folder("bert")), ("angry", "calm"), max_length=24, normaliser="none", seed=0)


def train(csv_file, encoder, out, *options):
    return main(["train", "lora", str(csv_file), "--encoder", str(encoder), "--output", str(out), *SETTINGS,
                 *map(str, options)])  # fmt: skip


def test_training_that_ran_away_on_its_way_to_the_epochs_is_told(csv_file, encoder_folder, tmp_path, capsys):
    options = ["--learning-rate", "1e30", "--validation", "0.2"]
    assert train(csv_file, encoder_folder("bert"), tmp_path / "m", *options) == 2
    assert "Training with seed 0 ran away: after no epoch was the validation loss finite." in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_chosen_epochs_are_trained_on_all_rows_and_said(csv_file, encoder_folder, tmp_path, capsys):
    out = tmp_path / "m"
    assert (
        train(
            csv_file, encoder_folder("bert"), out, "--validation", "0.2", "--seeds", "0,1", "--group-column", "author"
        )
        == 0
    )
    text, err = capsys.readouterr()
    training = json.loads((out / "model.json").read_text())["training"]
    choice = training["epoch_choice"]
    assert training["steps"] == choice["epochs"] * 4, "60 rows in batches of 16"
    assert [entry["seed"] for entry in choice["seeds"]] == [0, 1]
    assert sorted(entry["best"]["epoch"] for entry in choice["seeds"])[1] == choice["epochs"]
    spread = choice["spread"]
    assert spread["lowest"] <= spread["mean"] <= spread["highest"]
    assert "spread over 2 seeds: balanced accuracy" in err
    assert "== validation part of 2 seeds (chose the epochs: a little optimistic)" in text


@pytest.mark.slow
def test_without_refit_the_best_epoch_of_the_training_part_is_kept(csv_file, encoder_folder, tmp_path):
    out = tmp_path / "m"
    assert train(csv_file, encoder_folder("bert"), out, "--validation", "0.2", "--no-refit") == 0
    description = json.loads((out / "model.json").read_text())
    assert description["training"]["steps"] == len(description["training"]["epoch_choice"]["seeds"][0]["epochs"]) * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0,1"], "--seeds needs rows to judge by: add --validation"),
        (["--no-refit"], "--no-refit needs rows"),
        (["--validation", "2"], "--validation is 2"),
        (["--validation", "0.2", "--seeds", "x"], "--seeds: 'x' is no seed"),
        (["--validation", "0.2", "--early-stopping", "-1"], "--early-stopping is -1"),
        (["--adapt-layers", "9"], "adapt-layers is 9, but BertForSequenceClassification has 1 layers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(csv_file, encoder_folder, tmp_path, capsys, options, message):
    assert train(csv_file, encoder_folder("bert"), tmp_path / "m", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_best_weights_are_those_that_gave_the_best_score(base):
    ids = base.tokenizer.encode(TEXTS).ids
    labels = [sorted(set(LABELS)).index(label) for label in LABELS]
    watch = EpochWatch(ids[40:], labels[40:], patience=1)
    recipe = LoraRecipe(epochs=6, batch_size=16, learning_rate=5e-2, precision="fp32")
    fitted = lora.fit(base, ids[:40], labels[:40], recipe, watch=watch)
    logits = predict_logits(fitted.model, ids[40:]).astype(float)
    shifted = logits - logits.max(axis=1, keepdims=True)
    loss = -(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))[range(20), labels[40:]].mean()
    assert loss == pytest.approx(watch.best.loss, abs=1e-5)
    assert fitted.steps == len(watch.scores) * 3


@pytest.mark.slow
def test_a_training_in_fp32_after_one_in_bf16_is_in_fp32(base, monkeypatch):
    """transformers leaves bf16 behind in the environment, and takes it from there."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    ids = base.tokenizer.encode(TEXTS).ids
    labels = [sorted(set(LABELS)).index(label) for label in LABELS]

    def weights(precision):
        recipe = LoraRecipe(epochs=1, batch_size=16, learning_rate=1e-2, precision=precision)
        return lora.fit(base, ids, labels, recipe).model.state_dict()

    before, in_bf16, after = weights("fp32"), weights("bf16"), weights("fp32")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(before[name], in_bf16[name]) for name in before)
    assert "ACCELERATE_MIXED_PRECISION" not in os.environ


def test_training_ends_after_the_given_epochs_on_the_longer_schedule(base):
    ids = base.tokenizer.encode(TEXTS).ids
    labels = [sorted(set(LABELS)).index(label) for label in LABELS]
    recipe = LoraRecipe(epochs=6, stop_after=2, batch_size=16, learning_rate=1e-2, precision="fp32")
    watch = EpochWatch(ids, labels)
    lora.fit(base, ids, labels, LoraRecipe(epochs=6, batch_size=16, learning_rate=1e-2, precision="fp32"), watch=watch)
    short = EpochWatch(ids, labels)
    assert lora.fit(base, ids, labels, recipe, watch=short).steps == 2 * 4
    assert short.scores == watch.scores[:2]


def test_balanced_weights_make_rare_classes_count_as_much():
    loss = lora._weighted_loss([0] * 9 + [1], 2, "balanced")
    logits = torch.zeros(10, 2)
    logits[:, 0] = 2.0  # says class 0 to everything
    outputs = type("Outputs", (), {"logits": logits})()
    values = torch.nn.functional.cross_entropy(logits, torch.tensor([0] * 9 + [1]), reduction="none")
    expected = (values[:9].mean() + values[9]) / 2
    torch.testing.assert_close(loss(outputs, torch.tensor([0] * 9 + [1])), expected)
    assert lora._weighted_loss([0, 1], 2, "none") is None


@pytest.mark.slow
def test_balanced_weights_find_the_rare_class(base):
    """10 % angry: unweighted training answers calm to nearly everything."""
    few = [index for index, label in enumerate(LABELS) if label == "angry"][:3]
    rows = few + [index for index, label in enumerate(LABELS) if label == "calm"]
    ids = [base.tokenizer.encode([TEXTS[row]]).ids[0] for row in rows]
    labels = [int(LABELS[row] == "calm") for row in rows]
    found = {}
    for weights in ("none", "balanced"):
        recipe = LoraRecipe(epochs=3, batch_size=16, learning_rate=1e-2, precision="fp32", class_weights=weights)
        fitted = lora.fit(base, ids, labels, recipe)
        found[weights] = float(
            (predict_logits(fitted.model, ids)[:, 0] - lora.predict_logits(fitted.model, ids)[:, 1]).mean()
        )
    assert found["balanced"] > found["none"], "leans more to the rare class"


def test_schedule_settings_out_of_range_are_refused():
    with pytest.raises(UsageError, match="stop-after is 9"):
        LoraRecipe(epochs=3, stop_after=9)
    with pytest.raises(UsageError, match="class-weights is 'rare', expected none or balanced"):
        LoraRecipe(class_weights="rare")
    with pytest.raises(UsageError, match="adapt-layers is -1"):
        LoraRecipe(adapt_layers=-1)
