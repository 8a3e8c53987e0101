"""Stages cut from a graph with exits: who is sure leaves, the others end as in the whole graph, and nobody's neighbours
matter. On a model built node by node, so that no torch is needed; `test_exits` does the same with exported encoders.
"""

from __future__ import annotations

import json
import shutil
import types

import numpy as np
import pytest
import staged_models

from edgewren import Classifier
from edgewren.batching import CPU_TOKENS_PER_BATCH
from edgewren.bundle import Bundle
from edgewren.cli.main import main
from edgewren.session import ModelSession
from edgewren.staged import Stage, StagedSession, margins
from edgewren.verification import verify
from edgewren_export import pipeline, stages

VOCABULARY, LABELS, LENGTH, ROWS = 50, 3, 9, 70
CLOSED = 1e8
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (ROWS, LENGTH))


@pytest.fixture(scope="module")
def model():
    return staged_models.whole(VOCABULARY, LABELS)


@pytest.fixture(scope="module")
def parts(model):
    return [part.SerializeToString() for part in staged_models.cut(model, LABELS)]


@pytest.fixture(scope="module")
def whole(model):
    return ModelSession(model.SerializeToString()).run(IDS)


@pytest.fixture(scope="module")
def staged(parts) -> StagedSession:
    """A third of the rows leaves after each stage."""
    first = float(np.quantile(margins(session(parts, 0.0, CLOSED).run(IDS)), 2 / 3))
    logits, layers = session(parts, first, 0.0).answer(IDS)
    return session(parts, first, float(np.median(margins(logits[layers == 1]))))


def session(parts, *thresholds) -> StagedSession:
    layers = (*staged_models.EXITS, staged_models.LAYERS)
    return StagedSession.of(
        [Stage(part, layer, value) for part, layer, value in zip(parts, layers, (*thresholds, None), strict=True)]
    )


def test_rows_that_are_sure_are_decided_by_the_exits_own_head(staged, parts):
    logits, layers = staged.answer(IDS)
    assert set(layers.tolist()) == {0, 1, 2}
    for place, layer in enumerate(staged_models.EXITS):
        thresholds = [CLOSED, CLOSED]
        thresholds[place] = 0.0
        all_leave, left = session(parts, *thresholds).answer(IDS)
        assert set(left.tolist()) == {layer}
        leaving = layers == layer
        assert (logits[leaving] == all_leave[leaving]).all()
        assert (margins(all_leave[leaving]) > staged.thresholds[place]).all()
        assert (margins(all_leave[layers > layer]) <= staged.thresholds[place]).all()


def test_survivors_have_the_whole_graphs_logits(staged, whole):
    logits, layers = staged.answer(IDS)
    assert 10 < (layers == 2).sum() < 60
    np.testing.assert_allclose(logits[layers == 2], whole[layers == 2], atol=1e-5)
    assert np.abs(logits[layers < 2] - whole[layers < 2]).max() > 0.1, "the exits' heads are others"
    complete, left = staged.answer(IDS, complete=True)
    assert set(left.tolist()) == {2}
    np.testing.assert_allclose(complete, whole, atol=1e-5)


def test_survivors_are_put_together_again_and_nothing_is_computed_twice(staged, monkeypatch):
    computed: list[list[int]] = [[], [], []]
    real = StagedSession._step

    def counting(self, stage, input_ids, hidden):
        assert (hidden is None) == (stage == 0)
        assert hidden is None or len(hidden) == len(input_ids)
        computed[stage].append(len(input_ids))
        return real(self, stage, input_ids, hidden)

    monkeypatch.setattr(StagedSession, "_step", counting)
    _, layers = staged.answer(IDS)
    for stage, layer in enumerate((-1, *staged_models.EXITS)):
        reached = int((layers > layer).sum())
        assert sum(computed[stage]) == reached
        assert len(computed[stage]) == -(-reached // (CPU_TOKENS_PER_BATCH // LENGTH)), (
            "full steps, whoever left before"
        )


@pytest.mark.parametrize("size", [1, 3, 64])
def test_neither_logits_nor_exit_depend_on_neighbours(staged, size):
    logits, layers = staged.answer(IDS)
    order = np.random.default_rng(size).permutation(ROWS)
    answered = [staged.answer(IDS[order[start : start + size]]) for start in range(0, ROWS, size)]
    assert (np.concatenate([part[0] for part in answered]) == logits[order]).all()
    assert (np.concatenate([part[1] for part in answered]) == layers[order]).all()


def test_a_later_stage_holds_nothing_of_the_earlier_ones(model, parts):
    import onnx

    tables = [{tensor.name for tensor in onnx.load_from_string(part).graph.initializer} for part in parts]
    assert ["table" in names for names in tables] == [True, False, False]
    assert ["mix_1" in names for names in tables] == [False, True, False]
    assert ["mix_2" in names for names in tables] == [False, False, True]
    assert stages.hidden_names(model) == {0: "hidden_0", 1: "hidden_1", 2: "hidden_2"}


def test_classifier_gives_the_same_bits_in_lists_streams_and_alone(staged_bundle):
    bundle, texts = staged_bundle
    classifier = Classifier.load(bundle, threads=2)
    assert classifier.variant == "fp32_exit"
    scores = classifier.score(texts)
    assert np.unique(scores.layers, return_counts=True)[1].tolist() == [80, 80, 80]
    windows = list(classifier.score_windows([texts[:7], texts[7:90], texts[90:]]))
    assert (np.concatenate([window.logits for window in windows]) == scores.logits).all()
    assert (np.concatenate([window.layers for window in windows]) == scores.layers).all()
    alone = Classifier.load(bundle, threads=1)
    for text, row, layer in list(zip(texts, scores.logits, scores.layers, strict=True))[:30]:
        one = alone.score([text])
        assert (one.logits[0] == row).all()
        assert one.layers == [layer]
    assert Classifier.load(bundle, variant="fp32").score(texts).layers is None


def test_verify_replays_the_stages_too(staged_bundle):
    result = verify(staged_bundle[0])
    assert result.ok, result.failures
    assert [(replay.variant, replay.moved) for replay in result.replays] == [("fp32", None), ("fp32_exit", 0)]


def test_verify_sees_that_texts_leave_elsewhere(staged_bundle, tmp_path, capsys):
    bundle = shutil.copytree(staged_bundle[0], tmp_path / "b")
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["variants"]["fp32_exit"]["stages"][0]["threshold"] = 0.0
    manifest["parity"]["golden_difference"]["fp32_exit"] = 1e6
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert main(["verify", str(bundle)]) == 3
    assert "texts left after another layer" in capsys.readouterr().out
    del manifest["parity"]["golden_layers"]["fp32_exit"]
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert "does not say after which layers the golden texts leave" in verify(bundle).failures[0]
    del manifest["parity"]["golden_layers"]
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert [replay.moved for replay in verify(bundle).replays] == [None, None]


def test_export_prints_the_size_of_all_stages(staged_bundle, monkeypatch, tmp_path, capsys):
    bundle, _ = staged_bundle
    manifest = Bundle.open(bundle).manifest
    monkeypatch.setattr(
        pipeline, "export", lambda *_, **__: types.SimpleNamespace(manifest=manifest, folder=tmp_path / "b")
    )
    monkeypatch.setattr(type(manifest), "variant_bytes", lambda _, name: {"fp32": 10**6, "fp32_exit": 2_345_678}[name])
    assert main(["export", "model", "-o", "b"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["fp32: 1.0 MB", "fp32_exit: 2.3 MB"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["fp32"]),
        (["--precision", "int8, fp16"], ["int8", "fp16"]),
        (["--precision", "int8", "--precision", "fp16,int8"], ["int8", "fp16"]),
        (["--precision", ""], []),
    ],
)
def test_export_takes_all_precisions_that_are_named(staged_bundle, monkeypatch, tmp_path, options, expected):
    asked = []
    result = types.SimpleNamespace(manifest=Bundle.open(staged_bundle[0]).manifest, folder=tmp_path / "b")
    monkeypatch.setattr(pipeline, "export", lambda *_, precisions, **__: asked.append(precisions) or result)
    assert main(["export", "model", "-o", "b", *options]) == 0
    assert asked == [expected]
