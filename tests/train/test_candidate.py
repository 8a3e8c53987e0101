"""Candidates: all combinations, names that tell them apart, and settings of a sweep read from the command line."""

from __future__ import annotations

import pytest

from edgewren.errors import UsageError
from edgewren_train.candidate import Candidate, combine, names
from edgewren_train.lora_recipe import LoraRecipe
from edgewren_train.ridge import CLASSIC_GRID, WIDE_GRID
from edgewren_train.search_space import describe, grid, parse_axis, recipe_of


def test_candidates_are_all_combinations_each_once():
    found = combine({"encoder": ["a", "b", "a"], "alphas": ["wide", "classic"]})
    assert [(one.encoder, one.alphas) for one in found] == [
        ("a", "wide"),
        ("a", "classic"),
        ("b", "wide"),
        ("b", "classic"),
    ]
    with pytest.raises(UsageError, match="--encoders names nothing"):
        combine({"encoder": []})


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"encoder": ["BAAI/bge-small", "minilm"]}, ["bge-small", "minilm"]),
        ({"encoder": ["one/same", "two/same"]}, ["one/same", "two/same"]),
        ({"encoder": ["minilm"], "alphas": ["wide", "1/10"]}, ["alphas wide", "alphas 1/10"]),
        ({"encoder": ["minilm"], "recipe": ["ridge", "lora"]}, ["ridge", "lora"]),
        ({"encoder": ["minilm"], "depth": [1, 3, None, "auto"]}, ["1 layer", "3 layers", "whole encoder", "depth auto"]),
        ({"encoder": ["minilm"], "depth": [3]}, ["minilm"]),
        ({"encoder": ["a", "b"], "normaliser": ["http", "none"]},
         ["a, normaliser http", "a, normaliser none", "b, normaliser http", "b, normaliser none"]),
        ({"encoder": ["a"], "recipe": ["lora"], "lora": [LoraRecipe(), LoraRecipe(rank=4, stop_after=9)]},
         ["rank 8, all epochs", "rank 4, 9 epochs"]),
    ],
)  # fmt: skip
def test_names_say_what_differs_and_no_more(axes, expected):
    assert names(combine(axes)) == expected


def test_alphas_are_a_word_or_numbers():
    assert Candidate("a", alphas="wide").alpha_grid() == (WIDE_GRID, True)
    assert Candidate("a", alphas="classic").alpha_grid() == (CLASSIC_GRID, False)
    assert Candidate("a", alphas="1/10").alpha_grid() == ((1.0, 10.0), False)
    with pytest.raises(UsageError, match="alphas are 'huge'"):
        Candidate("a", alphas="huge")
    with pytest.raises(UsageError, match="recipe is 'svm'"):
        Candidate("a", recipe="svm")
    with pytest.raises(UsageError, match="depth is 0"):
        Candidate("a", depth=0)


def test_axes_are_lists_or_ranges():
    assert parse_axis("rank", "4,8,8").values == (4, 8)
    learning_rate = parse_axis("learning_rate", "1e-4:1e-3")
    assert (learning_rate.is_range, learning_rate.low, learning_rate.high, learning_rate.log) == (
        True,
        1e-4,
        1e-3,
        True,
    )
    assert parse_axis("dropout", "0:0.2").log is False
    assert parse_axis("target_modules", "query,value; query,key,value").values == ("query,value", "query,key,value")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rank", "4,many", "--rank is '4,many'"),
        ("rank", "16:4", "--rank is '16:4', expected a range"),
        ("learning_rate", "1e-4:inf", "--learning-rate is '1e-4:inf'"),
        ("target_modules", " ; ", "--target-modules is"),
        ("rank", "", "--rank is ''"),
    ],
)
def test_axes_that_mean_nothing_are_refused_with_their_option(name, text, message):
    with pytest.raises(UsageError, match=message):
        parse_axis(name, text)


def test_grid_becomes_recipes():
    settings = grid([parse_axis("rank", "4,8"), parse_axis("target_modules", "query,value;key")])
    recipes = [recipe_of(one, LoraRecipe(alpha=32)) for one in settings]
    assert [(one.rank, one.alpha, one.target_modules) for one in recipes] == [
        (4, 32, ("query", "value")),
        (4, 32, ("key",)),
        (8, 32, ("query", "value")),
        (8, 32, ("key",)),
    ]
    assert describe({"rank": 4, "learning_rate": 2e-4}) == "rank 4, learning rate 0.0002"
    with pytest.raises(UsageError, match="rank is 0"):
        recipe_of({"rank": 0}, LoraRecipe())
