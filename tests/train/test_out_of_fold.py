"""Held-out rows: who is held out when, and that nothing is lost on disk."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from edgewren import evaluations
from edgewren.errors import InputError, UsageError
from edgewren_train.out_of_fold import FILE, Split, hold_out, read_out_of_fold
from edgewren_train.together import Together, numbered

LABELS = ["a", "b", "b"] * 10


def fake_logits(training, rows):
    """Each row's logits tell its place and how many rows were trained on."""
    return np.stack([rows, np.full(len(rows), len(training))], axis=1).astype(np.float64) / 3


@pytest.mark.parametrize("spec", ["folds:5", "validation:0.3"])
def test_held_out_rows_take_no_part_in_training(spec):
    seen = []

    def logits_of(training, rows):
        assert not set(training) & set(rows)
        seen.extend(rows)
        return fake_logits(training, rows)

    held_out = hold_out(LABELS, Split.parse(spec), 0, logits_of)
    assert sorted(seen) == held_out.rows.tolist()
    assert len(seen) == (30 if spec == "folds:5" else 9)
    np.testing.assert_allclose(held_out.logits[:, 0] * 3, held_out.rows)


def test_folds_are_stratified_and_depend_on_the_seed_alone():
    folds = [hold_out(LABELS, Split(folds=5), seed, fake_logits).folds for seed in (0, 0, 1)]
    assert (folds[0] == folds[1]).all()
    assert (folds[0] != folds[2]).any()
    assert all([LABELS[i] for i in np.flatnonzero(folds[0] == fold)].count("a") == 2 for fold in range(5))


def test_what_is_written_is_read_again(tmp_path):
    held_out = hold_out(LABELS, Split(share=0.5), 7, fake_logits)
    held_out.write(tmp_path)
    again = read_out_of_fold(tmp_path)
    np.testing.assert_array_equal(again.logits, held_out.logits)  # every bit
    np.testing.assert_array_equal(again.rows, held_out.rows)
    np.testing.assert_array_equal(again.folds, held_out.folds)
    assert (again.name, again.seed) == ("validation part (50% held out)", 7)
    assert read_out_of_fold(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: b"{}\n" + data, lambda data: b""])
def test_damaged_file_is_refused(tmp_path, damage):
    hold_out(LABELS, Split(folds=3), 0, fake_logits).write(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"out_of_fold.jsonl is (damaged|incomplete).*Train again"):
        read_out_of_fold(tmp_path)


@pytest.mark.parametrize("spec", ["folds", "folds:1", "folds:x", "validation:0", "validation:1.5", "", "half"])
def test_unknown_ways_to_hold_out_are_refused(spec):
    with pytest.raises(UsageError, match="--calibrate is .* expected none, folds:N"):
        Split.parse(spec)


def test_none_holds_nothing_out():
    assert Split.parse("none") is None


def test_too_few_rows_of_a_class_are_refused_by_name():
    with pytest.raises(InputError, match="5 folds need 5 rows of each class; 'b' has 1"):
        hold_out(["a"] * 10 + ["b"], Split(folds=5), 0, fake_logits)
    with pytest.raises(InputError, match="cannot be made of 3 rows"):
        hold_out(["a", "a", "b"], Split(share=0.5), 0, fake_logits)


@pytest.mark.parametrize("spec", ["folds:5", "validation:0.3"])
def test_copies_of_a_text_are_held_out_together(spec):
    """A model that has seen a row's copy knows its label: 300 tweets, each three times, were all right."""
    labels = ["a", "b", "b"] * 20
    same = np.arange(60) % 30
    for training, rows in Split.parse(spec).parts(labels, 0, Together(same)):
        assert not set(same[training]) & set(same[rows])
        assert sorted([*training, *rows]) == list(range(60))
        assert {labels[row] for row in rows} == {"a", "b"}


def test_copies_count_once_where_rows_of_a_class_are_too_few():
    with pytest.raises(InputError, match="5 folds need 5 distinct texts of each class; 'b' has 1"):
        same = Together(np.array([*range(10), *[10] * 10]))
        hold_out(["a"] * 10 + ["b"] * 10, Split(folds=5), 0, fake_logits, same)


def test_rare_labels_are_counted_once_for_all_rows():
    """For each row all were counted anew: a time that grows with the square of the rows."""
    labels = ["a", *(f"c{row % 5}" for row in range(300_000))]
    start = time.monotonic()
    with pytest.raises(InputError, match="'a' has 1"):
        next(Split(folds=5).parts(labels, 0))
    assert time.monotonic() - start < 30


def test_a_lone_part_by_group_without_rows_of_a_label_is_refused(monkeypatch):
    # Chance makes such parts, other ones with each version of scikit-learn.
    parts = [(np.array([0, 2, 3]), np.array([1])), (np.array([1, 2]), np.array([0, 3]))]
    monkeypatch.setattr(StratifiedGroupKFold, "split", lambda *_: iter(parts))
    labels, groups = list("abab"), Together(np.arange(4), np.arange(4))
    with pytest.raises(InputError, match="one part has no row of 'a'"):
        next(Split(share=0.5).parts(labels, 0, groups))
    assert len(list(Split(folds=2).parts(labels, 0, groups))) == 2, "of all parts together, each label is judged"


@pytest.mark.parametrize("spec", ["folds:4", "validation:0.25"])
def test_rows_of_a_group_are_held_out_together_and_it_is_said(spec):
    labels = ["a", "b", "b"] * 20
    groups = np.arange(60) // 5
    together = Together(np.arange(60), groups)
    for training, rows in Split.parse(spec).parts(labels, 0, together):
        assert not set(groups[training]) & set(groups[rows])
        assert sorted([*training, *rows]) == list(range(60))
        assert set(np.array(labels)[training]) == {"a", "b"}
    held_out = hold_out(labels, Split.parse(spec), 0, fake_logits, together)
    assert held_out.name == Split.parse(spec).name + " by group"
    assert evaluations.unbiased(held_out.name)


def test_groups_that_make_no_folds_are_refused_with_what_to_do():
    for split in (Split(folds=3), Split(share=0.34)):
        with pytest.raises(InputError, match="3 folds by group need 3 groups of each class; 'b' is in 1. Take fewer"):
            together = Together(np.arange(12), numbered([*"abcdefghij", "z", "z"]))
            hold_out(["a"] * 10 + ["b"] * 2, split, 0, fake_logits, together)
    one_large, labels = ["z"] * 6 + [*"abc"] * 2, ["a", "b"] * 6
    for seed in range(20):  # every part trains on both labels, or it is refused in words
        try:
            hold_out(labels, Split(folds=4), seed, fake_logits, Together(np.arange(12), numbered(one_large)))
        except InputError as error:
            assert "one part has no row of" in str(error)  # noqa: PT017
