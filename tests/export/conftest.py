"""Tiny trained models and bundles, made once per run through the same functions that users call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import tiny_models

from edgewren.session import DISABLED_OPTIMIZERS
from edgewren_export import parity
from edgewren_export.pipeline import export
from edgewren_export.trained_model import TrainedModel, read_trained_model
from edgewren_train.lora import LoraRecipe
from edgewren_train.lora_run import run_lora
from edgewren_train.ridge_run import run_ridge
from edgewren_train.ridge_settings import RidgeSettings
from edgewren_train.static_run import run_static

LORA = LoraRecipe(epochs=1, batch_size=16, learning_rate=1e-2, precision="fp32", max_length=24)


@pytest.fixture(scope="session")
def train_model(tmp_path_factory) -> Callable[..., Path]:
    """Return a function that trains a tiny model: recipe, architecture, classes and encoder options to its folder.

    Asked twice for the same, it answers with the same folder: tests copy before they change anything.
    """
    made: dict[str, Path] = {}

    def make(recipe: str, architecture: str = "bert", *, classes: int = 2, rows: int = 60, **encoder) -> Path:
        key = f"{recipe} {architecture} {classes} {rows} {sorted(encoder.items())}"
        if key in made:
            return made[key]
        folder = tmp_path_factory.mktemp(f"{recipe}-{architecture}")
        data = tiny_models.labelled(*tiny_models.toy_texts(rows, classes=classes))
        if recipe == "ridge":
            source = tiny_models.sentence_transformer(folder / "encoder", architecture, **encoder)
            run_ridge(data, folder / "model", RidgeSettings(str(source), max_length=24, folds=0))
        elif recipe == "static":
            source = tiny_models.sentence_transformer(folder / "encoder", architecture, **encoder)
            run_static(data, folder / "model", RidgeSettings(str(source), max_length=24, folds=0))
        else:
            source = tiny_models.encoder(folder / "encoder", architecture, **encoder)
            run_lora(data, folder / "model", encoder_spec=str(source), recipe=LORA)
        made[key] = folder / "model"
        return made[key]

    return make


@pytest.fixture(scope="session")
def export_bundle(train_model, tmp_path_factory) -> Callable[..., Path]:
    """Return a function that trains and exports a tiny model; takes what `train_model` takes."""
    made: dict[Path, Path] = {}

    def make(recipe: str, architecture: str = "bert", **options) -> Path:
        model = train_model(recipe, architecture, **options)
        if model not in made:
            made[model] = export(model, tmp_path_factory.mktemp("bundle") / f"{recipe}-{architecture}").folder
        return made[model]

    return make


@pytest.fixture(scope="session")
def many_texts() -> list[str]:
    """As many as int8's gate wants."""
    return tiny_models.toy_texts(1100, seed=5)[0]


@pytest.fixture(scope="session")
def open_gate_bundle(train_model, many_texts, tmp_path_factory) -> Callable[..., Path]:
    """Return a function: precision, recipe and architecture to a bundle with fp32 and that precision.

    The gates are wide open: random encoders have no margin between classes, and their embeddings hardly differ, so
    that the head multiplies their rounding.
    """

    @functools.cache
    def make(precision: str, recipe: str, architecture: str) -> Path:
        folder = tmp_path_factory.mktemp(precision) / f"{recipe}-{architecture}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parity, "MOST_FLIPS", 0.2)
            patch.setattr(parity, "MOST_F1_LOSS", 0.2)
            patch.setattr(parity, "HALF_TOLERANCE", 0.1)
            export(train_model(recipe, architecture), folder, precisions=["fp32", precision], texts=many_texts)
        return folder

    return make


@pytest.fixture
def ridge_model(train_model) -> TrainedModel:
    return read_trained_model(train_model("ridge"))


@pytest.fixture
def ridge_bundle(export_bundle) -> Path:
    return export_bundle("ridge")


@pytest.fixture
def as_run(tmp_path):
    """Return a function: an ONNX file to what onnxruntime's optimiser makes of it in a CPU session of the runtime."""

    def dump(path: Path) -> onnx.ModelProto:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "as_run.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS["cpu"]
        )
        return onnx.load(options.optimized_model_filepath)

    return dump
