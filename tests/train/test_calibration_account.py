"""The account of a calibration: what it says of labels that changed."""

from __future__ import annotations

import numpy as np

from edgewren_train.calibration import calibrate, describe
from edgewren_train.out_of_fold import OutOfFold
from edgewren_train.together import Together


def test_labels_that_only_float32_cannot_tell_apart_have_not_changed():
    """A head that learned nothing gives logits that differ in the ninth digit: of 100 random labels 54 "changed"."""
    draw = np.random.default_rng(0)
    raw = -1 + 1e-9 * draw.normal(size=(90, 4))
    assert ((3.36 * raw).astype(np.float32).argmax(axis=1) != raw.argmax(axis=1)).any(), "they look changed"
    account = describe(raw, raw, draw.integers(4, size=90), seed=0, final=3.36)
    assert account["labels_changed"] == 0


def test_a_lone_part_judges_its_temperature_with_copies_together():
    draw = np.random.default_rng(1)
    rows = np.array([*range(60), *[3] * 40])
    logits, true = draw.normal(size=(60, 2))[rows], draw.integers(2, size=60)[rows]
    held_out = OutOfFold(np.arange(100), np.zeros(100, dtype=np.int64), logits, "validation part (20% held out)", 0)
    labels = ["ab"[index] for index in true]
    told = [
        calibrate(held_out, labels, "ab", together=together, say=lambda _: None)[1]["after"]["log_loss"]["value"]
        for together in (Together(rows), Together(np.arange(100)), None)
    ]
    assert told[0] > told[1] == told[2]


def test_labels_that_change_are_counted():
    raw = np.array([[0.0, 1.0], [1.0, 0.0]] * 20)
    assert describe(raw, raw, np.arange(40) % 2, seed=0, final=-1.0)["labels_changed"] == 40
