"""The trained model: a folder of safetensors and JSON that train writes and export reads. No pickle.

model.json                what it is: kind, labels, max length, normaliser, encoder, training, evaluation
tokenizer.json …          clean tokenizer files, the normaliser inside
encoder/                  ridge: the sentence-transformers model
head.safetensors          ridge, static: mean, scale, coef, intercept (float64)
exits.safetensors         where a model has early exits: the same four of each exit's head, K.mean … after layer K
tokens.safetensors        static: the vector of each vocabulary entry (float32); encoder.json: the encoder's config.json
distilled.safetensors     static, where it was distilled: scale, coef, intercept (float64)
classifier/               lora: the merged transformers model
train.jsonl               the training texts and labels: export proves itself on them; they never enter a bundle
out_of_fold.jsonl         logits of training rows by models that were not trained on them, where such were made
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import InvariantError
from edgewren.folders import check_replaceable, written_whole
from edgewren_train.distillation import Distilled
from edgewren_train.encoders import TokenizerFiles
from edgewren_train.out_of_fold import OutOfFold
from edgewren_train.quiet import quiet
from edgewren_train.ridge import RidgeHead

FORMAT_VERSION = 1

TRAINED_MODEL = {"what": "a trained model", "marked_by": "model.json"}
"""How `edgewren.folders` knows one."""


@dataclass(frozen=True)
class Description:
    """model.json. Everything that export needs besides weights, and everything a reader wants to know."""

    kind: str
    labels: tuple[str, ...]
    max_length: int
    normaliser: str
    encoder: Mapping[str, Any]
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    temperature: float = 1.0

    def to_json(self) -> str:
        fields = {"format_version": FORMAT_VERSION, **self.__dict__, "labels": list(self.labels)}
        return json.dumps(fields, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def check_output(folder: Path, *, force: bool) -> None:
    """Refuse early, before hours of training, what `save` would refuse at the end.

    Raises:
        UsageError: the folder exists and `force` is not set, or it is not something that edgewren wrote.
        OutputError: it cannot be made there.
    """
    check_replaceable(folder, **TRAINED_MODEL, force=force)


def save_ridge(
    folder: Path,
    description: Description,
    files: TokenizerFiles,
    encoder: Any,
    head: RidgeHead,
    rows: Sequence[tuple[str, str]],
    out_of_fold: OutOfFold | None = None,
    exits: Mapping[int, RidgeHead] | None = None,
) -> None:
    """Write a ridge model: the SentenceTransformer, its head, the heads of early exits by layer, and training rows."""

    def write(target: Path) -> None:
        encoder.save_pretrained(str(target / "encoder"), create_model_card=False, safe_serialization=True)
        _write_tensors(target / "head.safetensors", _head_tensors(head))
        _write_exits(target, exits)

    _save(folder, description, files, rows, out_of_fold, write)


def save_static(
    folder: Path,
    description: Description,
    files: TokenizerFiles,
    encoder_config: str,
    vectors: NDArray[np.float32],
    head: RidgeHead,
    distilled: Distilled | None,
    rows: Sequence[tuple[str, str]],
    out_of_fold: OutOfFold | None = None,
) -> None:
    """Write a static model. `encoder_config` is the encoder's config.json, `vectors` one row per vocabulary entry."""

    def write(target: Path) -> None:
        (target / "encoder.json").write_text(encoder_config, encoding="utf-8")
        _write_tensors(target / "tokens.safetensors", {"vectors": vectors})
        _write_tensors(target / "head.safetensors", _head_tensors(head))
        if distilled is not None:
            _write_tensors(
                target / "distilled.safetensors",
                {
                    "scale": np.array([distilled.scale]),
                    "coef": distilled.coef,
                    "intercept": distilled.intercept,
                },
            )

    _save(folder, description, files, rows, out_of_fold, write)


def save_lora(
    folder: Path,
    description: Description,
    files: TokenizerFiles,
    model: Any,
    rows: Sequence[tuple[str, str]],
    out_of_fold: OutOfFold | None = None,
    exits: Mapping[int, RidgeHead] | None = None,
) -> None:
    """Write a merged LoRA model, a transformers AutoModelForSequenceClassification, and its early exits' heads."""

    def write(target: Path) -> None:
        model.save_pretrained(target / "classifier", safe_serialization=True)
        _write_exits(target, exits)

    _save(folder, description, files, rows, out_of_fold, write)


def _head_tensors(head: RidgeHead) -> dict[str, NDArray[Any]]:
    return {"mean": head.mean, "scale": head.scale, "coef": head.coef, "intercept": head.intercept}


def _write_exits(target: Path, exits: Mapping[int, RidgeHead] | None) -> None:
    if exits:
        tensors = {
            f"{layer}.{name}": value for layer, own in exits.items() for name, value in _head_tensors(own).items()
        }
        _write_tensors(target / "exits.safetensors", tensors)


def _write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    from safetensors.numpy import load_file, save_file

    # safetensors 0.8 writes memory as it lies; scikit-learn's multi-class coef_ lies in columns.
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    kept = load_file(path)
    if any(not np.array_equal(kept[name], value) for name, value in tensors.items()):
        raise InvariantError(f"{path.name} does not hold what was trained. Please report this.")


def _save(
    folder: Path,
    description: Description,
    files: TokenizerFiles,
    rows: Sequence[tuple[str, str]],
    out_of_fold: OutOfFold | None,
    write_weights: Callable[[Path], None],
) -> None:
    with written_whole(folder, **TRAINED_MODEL) as scratch:
        with quiet(scratch):
            write_weights(scratch)
        files.write(scratch)
        with (scratch / "train.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        if out_of_fold is not None:
            out_of_fold.write(scratch)
        (scratch / "model.json").write_text(description.to_json(), encoding="utf-8")
