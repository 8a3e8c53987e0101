"""What the model card says of rows that were held out by group."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import edgewren
from edgewren.bundle import Bundle
from edgewren_export.card import _grouped, model_card


def test_card_says_which_rows_were_held_out_together():
    assert "By group: rows with the same 'author' were held out together" in _grouped("author")
    assert "\\n" in _grouped("two\nlines"), "a column's name cannot break the line"
    assert _grouped(None) == ""


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["training rows (optimistic)"], False),  # train ridge --folds 0, sweep lora --retrain
        (["5-fold cross-validation by group (before distillation)", "test file"], True),
    ],
)
def test_card_speaks_of_groups_only_where_an_evaluation_held_them_out(names, told):
    manifest = Bundle.open(str(Path(edgewren.__file__).parent / "bundles" / "media-bias")).manifest
    figures = next(iter(manifest.evaluation.values()))
    made = dataclasses.replace(
        manifest, training={**manifest.training, "group_column": "author"}, evaluation=dict.fromkeys(names, figures)
    )
    assert ("with the same 'author' were held out together" in model_card(made, "x")) == told
