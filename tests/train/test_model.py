"""The trained model on disk: safetensors and JSON, whole or not at all, never over something else."""

from __future__ import annotations

import errno
import json

import pytest
import tiny_models

from edgewren.errors import InvariantError, OutputError, UsageError
from edgewren_train import model as model_module
from edgewren_train.lora import LoraRecipe
from edgewren_train.lora_run import run_lora
from edgewren_train.model import check_output
from edgewren_train.ridge_run import run_ridge
from edgewren_train.ridge_settings import RidgeSettings

DATA = tiny_models.labelled(*tiny_models.toy_texts(40))
RECIPE = LoraRecipe(epochs=1, batch_size=16, precision="fp32", max_length=24)


def train_into(recipe, folder, encoder_folder, sentence_folder):
    if recipe == "ridge":
        return run_ridge(DATA, folder, RidgeSettings(str(sentence_folder("bert")), folds=0))
    return run_lora(DATA, folder, encoder_spec=str(encoder_folder("bert")), recipe=RECIPE)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("recipe", ["ridge", "lora"])
def test_folder_holds_safetensors_and_json_and_no_pickle(recipe, tmp_path, encoder_folder, sentence_folder):
    train_into(recipe, tmp_path / "model", encoder_folder, sentence_folder)
    files = contents(tmp_path / "model")
    assert {name.rpartition(".")[2] for name in files} <= {"safetensors", "json", "jsonl", "txt"}
    assert not any(data.startswith((b"\x80", b"PK")) for data in files.values())
    rows = [json.loads(line) for line in files["train.jsonl"].decode().splitlines()]
    assert [(row["text"], row["label"]) for row in rows] == list(zip(DATA.texts, DATA.labels, strict=True))


@pytest.mark.parametrize("recipe", ["ridge", "lora"])
def test_same_seed_and_data_give_the_same_files(recipe, tmp_path, encoder_folder, sentence_folder):
    trained = []
    for name in ("a", "b"):
        train_into(recipe, tmp_path / name, encoder_folder, sentence_folder)
        files = contents(tmp_path / name)
        description = json.loads(files.pop("model.json"))
        for timing in ("embedding_seconds", "fit_seconds", "seconds"):
            description["training"].pop(timing, None)
        trained.append((files, description))
    assert trained[0] == trained[1]


def test_training_tells_that_an_encoders_prompts_are_not_used(sentence_folder, tmp_path):
    told = []
    for number, prompts in enumerate(({"query": "query: "}, None)):
        settings = RidgeSettings(str(sentence_folder("bert", prompts=prompts)), folds=0)
        run_ridge(DATA, tmp_path / str(number), settings, say=told.append)
    (note,) = [line for line in told if "prompt" in line]
    assert '("query: "). None is put there, neither here nor in scoring' in note


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.slow
def test_saved_head_is_the_one_that_was_evaluated(tmp_path, sentence_folder, classes):
    """The bundle, made from the folder, decides as training did in memory: its confusion matrix is the reported one."""
    from edgewren import Classifier
    from edgewren.metrics import evaluate
    from edgewren_export.pipeline import export

    data = tiny_models.labelled(*tiny_models.toy_texts(60, classes=classes))
    test = tiny_models.labelled(*tiny_models.toy_texts(80, classes=classes, seed=3))
    summary = run_ridge(data, tmp_path / "m", RidgeSettings(str(sentence_folder("bert")), folds=0), test=test)
    predicted = Classifier.load(export(tmp_path / "m", tmp_path / "b").folder, device="cpu").predict(test.texts)
    reported = summary.evaluations["test file"]
    assert evaluate(test.labels, predicted, data.classes).as_dict() == reported.as_dict()
    assert reported.accuracy.value > 1.5 / classes, "the toy texts give their labels away"


def test_head_that_does_not_survive_writing_is_caught(tmp_path, sentence_folder, monkeypatch):
    import safetensors.numpy

    save = safetensors.numpy.save_file
    monkeypatch.setattr(safetensors.numpy, "save_file", lambda t, f: save({k: v * 2 for k, v in t.items()}, f))
    with pytest.raises(InvariantError, match="does not hold what was trained"):
        run_ridge(DATA, tmp_path / "m", RidgeSettings(str(sentence_folder("bert")), folds=0))
    assert list(tmp_path.iterdir()) == []


def test_failing_disk_leaves_nothing_behind_and_the_old_model_whole(
    tmp_path, encoder_folder, sentence_folder, monkeypatch
):
    folder = tmp_path / "model"
    train_into("ridge", folder, encoder_folder, sentence_folder)
    before = contents(folder)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_module.TokenizerFiles, "write", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        train_into("ridge", folder, encoder_folder, sentence_folder)
    assert contents(folder) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_existing_folder_needs_force_and_must_be_a_model(tmp_path):
    with pytest.raises(UsageError, match="exists already. Use --force to replace it, or choose another --output"):
        check_output(tmp_path, force=False)
    with pytest.raises(UsageError, match="is not a trained model, so it is not replaced"):
        check_output(tmp_path, force=True)
    (tmp_path / "model.json").write_text("{}")
    check_output(tmp_path, force=True)
    check_output(tmp_path / "new" / "model", force=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written: .*file: Not a directory"):
        check_output(tmp_path / "file" / "model", force=False)
