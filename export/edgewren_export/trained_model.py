"""Reads the trained model's folder (written by `edgewren train`). Knows the folder, nothing of ONNX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewren.errors import BundleError
from edgewren.text import TextTokenizer

FORMAT_VERSION = 1
WEIGHTS = {
    "ridge": ("encoder", "head.safetensors"),
    "lora": ("classifier",),
    "static": ("tokens.safetensors", "head.safetensors", "encoder.json"),
}
"""What a trained model of each kind must hold beside the tokenizer."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class TrainedModel:
    """What `edgewren train` left behind. Weights are loaded by `graph`, when needed.

    Attributes:
        texts: the training texts, for the parity gates; they never enter a bundle.
        text_labels: the label of each.
    """

    folder: Path
    kind: str
    labels: tuple[str, ...]
    max_length: int
    normaliser: str
    temperature: float
    encoder: Mapping[str, Any]
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    texts: tuple[str, ...]
    text_labels: tuple[str, ...]

    @property
    def tokenizer(self) -> TextTokenizer:
        return TextTokenizer((self.folder / "tokenizer.json").read_bytes(), self.max_length)


def read_trained_model(path: str | Path) -> TrainedModel:
    """Read and check a trained model's folder.

    Raises:
        BundleError: it is not a trained model, or not a complete one.
    """
    folder = Path(path)
    described = folder / "model.json"
    if not described.is_file():
        what = "a bundle already" if (folder / "manifest.json").is_file() else "not a trained model"
        raise BundleError(f"{folder} is {what} (no model.json). Expected a folder written by 'edgewren train'.")
    try:
        data = json.loads(described.read_text(encoding="utf-8"))
        if data["format_version"] != FORMAT_VERSION:
            raise BundleError(
                f"{described} has format version {data['format_version']}, expected {FORMAT_VERSION}. Train again."
            )
        kind = data["kind"]
        for name in (*WEIGHTS[kind], *TOKENIZER_FILES):
            if not (folder / name).exists():
                raise BundleError(f"{folder} lacks {name}: the trained model is incomplete. Train again.")
        rows = _rows(folder / "train.jsonl")
        return TrainedModel(
            folder=folder,
            kind=kind,
            labels=tuple(data["labels"]),
            max_length=data["max_length"],
            normaliser=data["normaliser"],
            temperature=float(data["temperature"]),
            encoder=data["encoder"],
            training=data["training"],
            evaluation=data["evaluation"],
            texts=tuple(text for text, _ in rows),
            text_labels=tuple(label for _, label in rows),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{described} is damaged ({type(error).__name__}: {error}). Train again.") from error


def _rows(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="\n") as stream:
        rows = [json.loads(line) for line in stream]
    return [(row["text"], row["label"]) for row in rows]
