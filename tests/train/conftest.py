"""Tiny encoders, made once per run; tests that change a folder copy it first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory) -> Callable[..., Path]:
    """Return a function: architecture to the folder of a random transformers encoder with its tokenizer."""
    made: dict[str, Path] = {}

    def make(architecture: str = "bert") -> Path:
        if architecture not in made:
            made[architecture] = tiny_models.encoder(tmp_path_factory.mktemp("encoder") / architecture, architecture)
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def sentence_folder(tmp_path_factory) -> Callable[..., Path]:
    """Return a function: architecture and options to the folder of a random sentence-transformers model."""
    made: dict[str, Path] = {}

    def make(architecture: str = "bert", **options) -> Path:
        key = f"{architecture} {sorted(options.items())}"
        if key not in made:
            folder = tmp_path_factory.mktemp("sentence") / architecture
            made[key] = tiny_models.sentence_transformer(folder, architecture, **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tokenizer_json(encoder_folder) -> str:
    """A small real WordPiece tokenizer that, as published ones do, pads and truncates."""
    text = (encoder_folder("bert") / "tokenizer.json").read_text(encoding="utf-8")
    assert json.loads(text)["padding"]
    assert json.loads(text)["truncation"]
    return text
