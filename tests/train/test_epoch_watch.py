"""Early stopping: the lowest log loss wins, patience counts from it, its weights are kept."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgewren.errors import UsageError
from edgewren_train.epoch_watch import EpochScore, EpochWatch, epoch_score


def logits(confidence, right=(True, True, True, False)):
    """Rows of classes 0, 1, 0, 1."""
    values = np.zeros((4, 2))
    for row, (label, is_right) in enumerate(zip((0, 1, 0, 1), right, strict=True)):
        values[row, label if is_right else 1 - label] = confidence
    return values


def watch(**options):
    return EpochWatch(ids=[[1]] * 4, labels=[0, 1, 0, 1], **options)


def test_score_is_log_loss_and_balanced_accuracy():
    score = epoch_score(logits(1.0), [0, 1, 0, 1], epoch=3)
    right, wrong = -math.log(math.e / (math.e + 1)), -math.log(1 / (math.e + 1))
    assert score.loss == pytest.approx((3 * right + wrong) / 4)
    assert score.balanced_accuracy == pytest.approx((1 + 0.5) / 2)
    assert score.epoch == 3


def test_huge_logits_do_not_overflow():
    assert epoch_score(logits(1e5), [0, 1, 0, 1], epoch=1).loss == pytest.approx(1e5 / 4)


def test_ends_after_as_many_epochs_without_a_lower_loss_as_its_patience():
    watching = watch(patience=2)
    all_right = (True,) * 4
    ended = [watching.see(logits(c, all_right), lambda c=c: c) for c in (1, 2, 3, 2.5, 2.9, 9)]
    assert ended == [False, False, False, False, True, False]
    assert watching.best.epoch == 6
    assert watching.best_weights == 9


def test_best_weights_are_those_of_the_lowest_loss_and_the_first_of_equals():
    watching = watch()
    for step, confidence in enumerate((0.1, 0.9, 0.9, 5.0)):
        watching.see(logits(confidence), lambda step=step: step)
    assert (watching.best.epoch, watching.best_weights) == (2, 1)


def test_epochs_whose_loss_is_not_finite_are_worse_than_any_other():
    watching = watch()
    for step, confidence in enumerate((np.nan, np.inf, 1.0, np.nan)):
        watching.see(logits(confidence), lambda step=step: step)
    assert (watching.best.epoch, watching.best_weights) == (3, 2)
    assert [score.ran_away for score in watching.scores] == [True, True, False, True]


def test_score_that_is_not_finite_goes_through_json():
    score = EpochScore(1, math.nan, 0.5)
    record = json.loads(json.dumps(score.as_dict(), allow_nan=False))
    assert record == {"epoch": 1, "loss": None, "balanced_accuracy": 0.5}
    assert str(EpochScore.from_dict(record)) == str(score)


def test_whoever_is_told_may_end_it():
    seen = []
    watching = watch(on_epoch=lambda score: seen.append(score) or len(seen) == 2)
    assert [watching.see(logits(1.0), dict) for _ in range(2)] == [False, True]
    assert [score.epoch for score in seen] == [1, 2]


def test_patience_below_zero_is_refused():
    with pytest.raises(UsageError, match="early-stopping is -1"):
        watch(patience=-1)
