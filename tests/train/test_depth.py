"""Depth: an encoder that is cut really has fewer layers, and the shallowest good one is chosen by a stated rule."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_models

from edgewren.cli.main import main
from edgewren.cli.main import parse as main_parser
from edgewren.errors import UsageError
from edgewren_train import depth, embedding
from edgewren_train.depth_run import parse_depth, shallowest_as_good
from edgewren_train.encoders import load_encoder
from edgewren_train.exit_plan import ExitPlan, parse_exits
from edgewren_train.together import Together, apart


@pytest.fixture(scope="module")
def three_layers(tmp_path_factory):
    return load_encoder(str(tiny_models.sentence_transformer(tmp_path_factory.mktemp("deep") / "e", layers=3)))


def test_cut_encoder_embeds_as_the_hidden_state_of_the_whole_one(three_layers):
    import torch

    ids = three_layers.tokenizer.encode(["shame on the corrupt council"]).ids[0]
    with torch.inference_mode():
        whole = three_layers.model[0].auto_model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    for layers in range(4):
        mean = whole.hidden_states[layers][0].mean(axis=0).numpy()
        own = embedding.embed(depth.cut(three_layers, layers), ["shame on the corrupt council"])[0]
        np.testing.assert_allclose(own, mean / np.linalg.norm(mean), atol=1e-5)
    assert depth.depth_of(three_layers) == 3, "the original stays whole"


def test_each_depth_is_another_encoder_by_its_hash(three_layers):
    hashes = {depth.cut(three_layers, layers).sha256 for layers in (1, 2, 3)}
    assert len(hashes) == 3


def test_depth_beyond_the_encoder_is_refused(three_layers):
    with pytest.raises(UsageError, match="depth is 4, expected 1 to 3"):
        depth.cut(three_layers, 4)


def test_shallowest_within_one_standard_error_of_the_best_is_chosen():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=400)
    standard_error = np.std(noise, ddof=1) / 20
    losses = {
        1: noise + 2 + 1.5 * standard_error,
        2: noise + 2 + 0.9 * standard_error,
        3: noise + 2 + 0.5 * standard_error,
        4: noise + 2,
    }
    choice = depth.choose(losses)
    assert (choice.best, choice.depth) == (4, 2)
    assert "Chosen: 2 layers, the shallowest within one standard error of the best (4 layers" in choice.as_text()


def test_copies_are_held_out_together_where_a_depth_is_chosen():
    """Features say nothing of the labels: who has seen a copy knows them all the same."""
    draw = np.random.default_rng(2)
    features = draw.normal(size=(60, 40)).astype(np.float32).repeat(3, axis=0)
    labels = draw.permutation(["a", "b"] * 30).repeat(3).tolist()
    honest = shallowest_as_good({1: features}, labels, Together(np.arange(60).repeat(3)))
    told = shallowest_as_good({1: features}, labels, apart(180))
    assert honest.losses[1] > 0.9 > 0.5 > told.losses[1]
    once = shallowest_as_good({1: features[::3]}, labels[::3], apart(60))
    assert honest.losses[1] == pytest.approx(once.losses[1], abs=0.02), "alphas are chosen without copies, too"
    with pytest.raises(UsageError, match="at least 2 rows of each label"):
        shallowest_as_good({1: features[:6]}, ["a"] * 3 + ["b"] * 3, Together(np.arange(2).repeat(3)))


def test_squared_errors_are_those_that_ridge_is_fitted_to():
    assert depth.squared_errors(np.array([[-0.5, 0.5], [-1.0, 1.0]]), np.array([1, 0])).tolist() == [0, 9]
    assert depth.squared_errors(np.array([[1.0, -1.0, 1.0]]), np.array([0])).tolist() == [pytest.approx(4 / 3)]


@pytest.mark.parametrize("spec", ["0", "-1", "two", "1.5", "", "all"])
def test_depth_that_is_no_number_of_layers_is_refused(spec):
    with pytest.raises(UsageError, match="--depth is .*, expected whole, auto or a number of layers from 1"):
        parse_depth(spec)


def test_train_and_compare_have_the_same_words_for_depths():
    assert [parse_depth(spec) for spec in ("whole", "auto", "3")] == [None, "auto", 3]
    assert main_parser(["train", "ridge", "x.csv"]).depth == main_parser(["compare", "x.csv"]).depths == "whole"


def test_exits_are_read_from_the_command_line():
    assert parse_exits(None, 0.01) is None
    assert parse_exits("auto", 0.02) == ExitPlan(None, 0.02)
    assert parse_exits("0,2", 0.01) == ExitPlan((0, 2), 0.01)
    with pytest.raises(UsageError, match="--exits is"):
        parse_exits("early", 0.01)


@pytest.mark.parametrize("recipe", ["ridge", "lora"])
def test_command_saves_an_encoder_that_has_so_many_layers(three_layers, tmp_path, recipe):
    texts, labels = tiny_models.toy_texts(40)
    table = tmp_path / "toy.csv"
    table.write_text("text,label\n" + "".join(f"{t},{n}\n" for t, n in zip(texts, labels, strict=True)))
    options = ["--epochs", "1", "--calibrate", "none"] if recipe == "lora" else ["--folds", "0", "--no-cache"]
    folder = tmp_path / "m"
    command = ["train", recipe, str(table), "--encoder", three_layers.location, "--depth", "2", "--output", str(folder)]
    assert main([*command, *options]) == 0
    weights = folder / ("classifier" if recipe == "lora" else "encoder")
    assert json.loads((weights / "config.json").read_text())["num_hidden_layers"] == 2
    assert json.loads((folder / "model.json").read_text())["training"]["depth"] == {"layers": 2, "of": 3}


def test_auto_says_what_it_chose_and_why(three_layers, tmp_path, capsys):
    texts, labels = tiny_models.toy_texts(60)
    table = tmp_path / "toy.csv"
    table.write_text("text,label\n" + "".join(f"{t},{n}\n" for t, n in zip(texts, labels, strict=True)))
    command = ["train", "ridge", str(table), "--encoder", three_layers.location, "--depth", "auto", "--no-cache"]
    assert main([*command, "--folds", "3", "--alphas", "1,100", "--output", str(tmp_path / "m"), "--json"]) == 0
    out = capsys.readouterr()
    told = json.loads(out.out)["training"]["depth"]
    assert set(told["losses"]) == {"1", "2", "3"}
    bound = told["losses"][str(told["best"])] + told["standard_errors"][str(told["best"])]
    assert told["losses"][str(told["layers"])] <= bound
    assert all(told["losses"][str(k)] > bound for k in range(1, told["layers"]))
    assert "the shallowest within one standard error" in out.err
