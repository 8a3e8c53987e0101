"""config.json of a bundle: the encoder's, as a sequence classifier with our labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgewren_export.trained_model import TrainedModel

_ARCHITECTURE_SUFFIX = "ForSequenceClassification"


def encoder_config(model: TrainedModel, loaded: Any) -> Any:
    """Return the encoder's transformers configuration; `loaded` is what `graph.load` returned."""
    model, loaded = _first_member(model, loaded)
    return loaded.stages[0].auto_model.config if model.kind == "ridge" else loaded.config


def config_of(model: TrainedModel, loaded: Any) -> bytes:
    """Return config.json of a model with a transformer."""
    config = encoder_config(model, loaded)
    first, loaded = _first_member(model, loaded)
    architecture = type(loaded.stages[0].auto_model).__name__ if first.kind == "ridge" else type(loaded).__name__
    return config_json(json.loads(config.to_json_string(use_diff=False)), architecture, model.labels)


def config_json(config: dict[str, Any], architecture: str, labels: Sequence[str]) -> bytes:
    """Return config.json: the encoder's settings, named a classifier with these labels."""
    settings = {
        key: value
        for key, value in config.items()
        if not key.startswith("_") and key not in ("dtype", "torch_dtype", "name_or_path")
    }
    settings["architectures"] = [
        architecture.removesuffix("Model").removesuffix(_ARCHITECTURE_SUFFIX) + _ARCHITECTURE_SUFFIX
    ]
    settings["id2label"] = {str(index): label for index, label in enumerate(labels)}
    settings["label2id"] = {label: index for index, label in enumerate(labels)}
    settings["problem_type"] = "single_label_classification"
    settings.pop("num_labels", None)
    return (json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def _first_member(model: TrainedModel, loaded: Any) -> tuple[TrainedModel, Any]:
    """Return an ensemble's first member, whose configuration stands for all; any other model as it is."""
    return (model.members[0], loaded[0]) if model.kind == "ensemble" else (model, loaded)
