"""The learning curve: quality on held-out texts against the number of training rows, copies and groups kept together."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedKFold

from edgewren.metrics import evaluate
from edgewren_train import ridge
from edgewren_train.learning_curve import learning_curve
from edgewren_train.together import Together


def material(rows=300, width=40, signal=0.25, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.permutation(["a", "b"] * (rows // 2))
    features = draw.normal(size=(rows, width)) + signal * np.where(labels == "a", 1, -1)[:, None]
    return features.astype(np.float32), labels.tolist()


def test_last_point_is_the_cross_validation_of_the_recipe():
    features, labels = material()
    points = learning_curve(features, labels, seed=3)
    assert [point["rows"] for point in points] == [24, 48, 96, 168, 240]
    predicted = [""] * 300
    for training, held_out in StratifiedKFold(5, shuffle=True, random_state=3).split(features, labels):
        head = ridge.fit(features[training], [labels[row] for row in training], extend=False)
        for row, label in zip(held_out, head.predict(features[held_out], ("a", "b")), strict=True):
            predicted[row] = label
    expected = evaluate(labels, predicted, ("a", "b"), seed=3).balanced_accuracy
    assert points[-1]["balanced_accuracy"] == expected.as_dict()


def test_copies_tell_nothing_of_each_other():
    features, labels = material(signal=0.0)
    thrice = Together(np.tile(np.arange(300), 3))
    told = learning_curve(np.tile(features, (3, 1)), labels * 3)
    honest = learning_curve(np.tile(features, (3, 1)), labels * 3, together=thrice)
    assert honest[-1]["balanced_accuracy"]["value"] < 0.6
    assert [point["rows"] for point in honest] == [72, 144, 288, 504, 720], "all copies of a text come at once"
    assert told[-1]["balanced_accuracy"]["value"] > honest[-1]["balanced_accuracy"]["value"], "the control"


def test_groups_are_held_out_whole():
    draw = np.random.default_rng(1)
    groups = np.repeat(np.arange(20), 15)
    features = (draw.normal(size=(20, 40))[groups] + 0.2 * draw.normal(size=(300, 40))).astype(np.float32)
    labels = np.array(["a", "b"])[draw.permutation(20)[groups] % 2].tolist()
    by_row = learning_curve(features, labels)
    by_group = learning_curve(features, labels, together=Together(np.arange(300), groups))
    assert by_row[-1]["balanced_accuracy"]["value"] > 0.95
    assert by_group[-1]["balanced_accuracy"]["value"] < 0.75
