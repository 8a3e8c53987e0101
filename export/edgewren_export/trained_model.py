"""Reads the trained model's folder (written by `edgewren train`). Knows the folder, nothing of ONNX."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewren.errors import BundleError
from edgewren.text import TextTokenizer

FORMAT_VERSION = 1
_MEMBERS = "members"
WEIGHTS = {
    "ridge": ("encoder", "head.safetensors"),
    "lora": ("classifier",),
    "static": ("tokens.safetensors", "head.safetensors", "encoder.json"),
    "ensemble": (_MEMBERS,),
}
"""What a trained model of each kind must hold beside the tokenizer."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class TrainedModel:
    """What `edgewren train` left behind. Weights are loaded by `graph`, when needed.

    Attributes:
        texts: the training texts, for the parity gates; they never enter a bundle.
        text_labels: the label of each.
        held_out: logits of training rows by models that were not trained on them, before any temperature.
        members: of an ensemble.
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
    held_out: Mapping[int, Sequence[float]] = field(default_factory=dict)
    members: tuple[TrainedModel, ...] = ()

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
            held_out=_held_out(folder / "out_of_fold.jsonl"),
            members=_members(folder) if kind == "ensemble" else (),
        )
    except OSError as error:
        raise BundleError(f"{error.filename or folder} cannot be read: {error.strerror or error}.") from error
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


def _held_out(path: Path) -> dict[int, Sequence[float]]:
    """Read out_of_fold.jsonl: a line about the whole, then one per held-out row."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="\n") as stream:
        stream.readline()
        rows = [json.loads(line) for line in stream]
    return {row["row"]: row["logits"] for row in rows}


def _members(folder: Path) -> tuple[TrainedModel, ...]:
    """Read an ensemble's members, in the order of their names.

    Raises:
        BundleError: one is not complete, is an ensemble itself, or does not fit the first.
    """
    found = tuple(read_trained_model(path) for path in sorted((folder / _MEMBERS).iterdir()))
    tokenizer = (folder / TOKENIZER_FILES[0]).read_bytes()
    for member in found:
        if member.kind == "ensemble":
            raise BundleError(f"{member.folder} is an ensemble itself. Make one of plain models.")
        differing = [name for name in ("labels", "max_length") if getattr(member, name) != getattr(found[0], name)]
        if (member.folder / TOKENIZER_FILES[0]).read_bytes() != tokenizer:
            differing.append("tokenizer")
        if differing:
            raise BundleError(
                f"{member.folder} has another {' and '.join(differing)} than the ensemble. Make it again."
            )
    if len(found) < 2:
        raise BundleError(f"{folder} has {len(found)} members, expected at least two. Make it again.")
    return found
