"""Reads back a trained model's folder for what follows: ensembles, error analysis, reports. Loads no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewren.errors import BundleError
from edgewren_train.out_of_fold import OutOfFold, read_out_of_fold


@dataclass(frozen=True)
class Trained:
    """What a trained model says of itself.

    Attributes:
        folder: where it lies.
        description: model.json.
        labels: in the order of the logits.
        texts, text_labels: the training rows.
        held_out: logits of training rows by models that did not see them; None where none were made.
    """

    folder: Path
    description: Mapping[str, Any]
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    text_labels: tuple[str, ...]
    held_out: OutOfFold | None

    @property
    def kind(self) -> str:
        return str(self.description["kind"])

    @property
    def training(self) -> Mapping[str, Any]:
        value: Mapping[str, Any] = self.description["training"]
        return value

    @property
    def temperature(self) -> float:
        return float(self.description["temperature"])


def read_trained(path: str | Path) -> Trained:
    """Read a trained model's description, rows and held-out logits.

    Raises:
        BundleError: it is no trained model, or a damaged one.
        InputError: out_of_fold.jsonl is damaged.
    """
    folder = Path(path)
    described = folder / "model.json"
    if not described.is_file():
        raise BundleError(f"{folder} is not a trained model (no model.json). Expected a folder of 'edgewren train'.")
    try:
        description = json.loads(described.read_text(encoding="utf-8"))
        with (folder / "train.jsonl").open(encoding="utf-8", newline="\n") as stream:
            rows = [json.loads(line) for line in stream]
        return Trained(
            folder=folder,
            description=description,
            labels=tuple(description["labels"]),
            texts=tuple(row["text"] for row in rows),
            text_labels=tuple(row["label"] for row in rows),
            held_out=read_out_of_fold(folder),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, BundleError):
            raise
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise BundleError(f"{error.filename or folder} cannot be read: {error.strerror or error}.") from error
        raise BundleError(f"{folder} is damaged ({type(error).__name__}: {error}). Train again.") from error
