"""Cheaper training steps: the same logits and gradients, dropout with the right rate, and nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
import torch

from edgewren_train.cheap_steps import cheap_steps
from edgewren_train.lora import LoraRecipe, fit
from edgewren_train.lora_model import load_base
from edgewren_train.prediction import predict_logits

TEXTS, NAMES = tiny_models.toy_texts(24)


def load(folder):
    return load_base(str(folder), ("angry", "calm"), max_length=24, normaliser="none", seed=0)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "distilbert"])
def test_logits_and_gradients_stay_the_same(encoder_folder, architecture):
    base = load(encoder_folder(architecture))
    model, rows = base.model, base.tokenizer.encode(TEXTS).ids

    def gradients():
        model.zero_grad()
        ids = torch.tensor([(row + [1] * 24)[:24] for row in rows])
        mask = torch.tensor([([1] * len(row) + [0] * 24)[:24] for row in rows])
        model(input_ids=ids, attention_mask=mask, labels=torch.tensor([0, 1] * 12)).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain_logits, plain = predict_logits(model, rows), gradients()
    with cheap_steps(model, seed=0, device="cpu"):
        cheap_logits, cheap = predict_logits(model, rows), gradients()
    np.testing.assert_allclose(cheap_logits, plain_logits, atol=1e-5)  # fp32, other kernels for one token
    assert cheap.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(cheap[name], value, atol=1e-5, rtol=1e-3)
    assert not any(type(module).__name__ == "_Dropout" for module in model.modules())
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_last_layer_of_a_bert_goes_on_with_the_first_token_alone(encoder_folder):
    base = load(encoder_folder("bert"))
    seen = []
    base.model.bert.encoder.layer[-1].output.register_forward_hook(lambda *args: seen.append(args[2].shape[1]))
    rows = base.tokenizer.encode(["the ferry is late"]).ids
    predict_logits(base.model, rows)
    with cheap_steps(base.model, seed=0, device="cpu"):
        predict_logits(base.model, rows)
    assert seen == [len(rows[0]), 1]


def test_dropout_drops_at_its_rate_keeps_the_mean_and_repeats_with_the_seed():
    def run(seed):
        model = torch.nn.Sequential(torch.nn.Dropout(0.1))
        model.config = object()
        model.train()
        with cheap_steps(model, seed=seed, device="cpu"):
            return model(torch.ones(400, 500))

    out = run(0)
    # 200,000 draws: the rate's standard deviation is 0.0007
    assert (out == 0).float().mean().item() == pytest.approx(0.1, abs=0.004)
    assert out.mean().item() == pytest.approx(1, abs=0.004)
    assert torch.equal(run(0), out)
    assert not torch.equal(run(1), out)


def test_dropout_does_nothing_outside_training():
    model = torch.nn.Sequential(torch.nn.Dropout(0.5)).eval()
    model.config = object()
    with cheap_steps(model, seed=0, device="cpu"):
        assert torch.equal(model(torch.ones(3, 4)), torch.ones(3, 4))


def test_adapters_can_be_in_the_upper_layers_alone(tmp_path):
    folder = tiny_models.encoder(tmp_path / "deep", layers=3)
    base = load(folder)
    recipe = LoraRecipe(epochs=1, batch_size=8, learning_rate=1e-2, precision="fp32", adapt_layers=1)
    fitted = fit(base, base.tokenizer.encode(TEXTS).ids, [0, 1] * 12, recipe)
    adapted = {name.split(".layer.")[1][0] for name, _ in fitted.model.named_parameters() if ".lora_A." in name}
    assert adapted == {"2"}
