"""What all stacks share: one trained model, the texts, and how to find a stack's fastest settings."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edgewren.archive.labelled import LabelledTexts, read_labelled
from edgewren.device import granted_cores
from edgewren_export.fold import Head, load_head
from edgewren_export.parity import QUANTISED_TEXTS
from edgewren_export.pipeline import export
from edgewren_train.exit_plan import ExitPlan
from edgewren_train.lora import LoraRecipe
from edgewren_train.lora_run import run_lora
from edgewren_train.ridge_run import run_ridge
from edgewren_train.ridge_settings import RidgeSettings

Labeller = Callable[[list[str]], list[str]]

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH_SIZES = (4, 8, 16, 32, 64)
_TUNING_S = 0.7
_MINIMUM_TUNING_TEXTS = 200


class UnavailableError(Exception):
    """A stack cannot be had here, or not for this model; the message says why."""


@dataclass(frozen=True)
class Stack:
    """A stack ready to run.

    Attributes:
        throughput: fastest on many texts.
        latency: fastest on a list of one text.
        settings: what was chosen by measurement.
        fp32: the same model in fp32, where that is not `Material`'s own.
        comparable: whether there is such a model at all.
    """

    throughput: Labeller
    latency: Labeller
    settings: Mapping[str, Any] = field(default_factory=dict)
    fp32: Labeller | None = None
    comparable: bool = True


@dataclass(frozen=True)
class Material:
    """One trained model, and texts to tune on.

    Attributes:
        folder: scratch space, one subfolder per stack.
        data: what the model is trained on.
        texts: what will be scored.
        recipe: "ridge" or "lora".
        trained: a trained model's folder, instead of training one.
    """

    folder: Path
    data: LabelledTexts
    texts: list[str]
    recipe: str = "ridge"
    trained: Path | None = None

    @cached_property
    def cores(self) -> int:
        import torch

        cores = granted_cores()
        torch.set_num_threads(cores)
        return cores

    @cached_property
    def model(self) -> Path:
        """The trained model, by default without normaliser: every stack sees the same tokens."""
        return self.trained or self._trained("none")

    @cached_property
    def kind(self) -> str:
        """The recipe of `model`."""
        return str(json.loads((self.model / "model.json").read_text(encoding="utf-8"))["kind"])

    @property
    def encoder(self) -> Path:
        """The trained encoder as a sentence-transformers folder."""
        self.needs_ridge()
        return self.model / "encoder"

    @cached_property
    def head(self) -> Head:
        self.needs_ridge()
        return load_head(self.model / "head.safetensors")

    @cached_property
    def bundle(self) -> Path:
        return self._exported(self.model)

    @cached_property
    def http_bundle(self) -> Path:
        """The bundle of a model whose tokenizer replaces each URL by `http`: fewer tokens, so another model."""
        return self._exported(self._trained("http"))

    def make(self, *, http: bool) -> None:
        """Train and export now, once for all processes that get a copy of this; `http`: the model for that, too."""
        _ = self.bundle
        if http and self.trained is None:
            _ = self.http_bundle

    def needs_ridge(self) -> None:
        """Refuse other recipes: sentence embeddings with a linear head are all that some stacks know."""
        if self.kind != "ridge":
            raise UnavailableError(f"it takes sentence embeddings and a linear head, and the model is {self.kind}")

    def _trained(self, normaliser: str) -> Path:
        model = self.folder / f"model-{normaliser}"
        if self.recipe == "lora":
            run_lora(self.data, model, encoder_spec="minilm", recipe=LoraRecipe(), normaliser=normaliser)
        else:
            exits = ExitPlan() if normaliser == "none" and len(self.data.texts) >= QUANTISED_TEXTS else None
            settings = RidgeSettings("minilm", normaliser=normaliser, folds=10 if exits else 0)
            run_ridge(self.data, model, settings, exits=exits)
        return model

    def _exported(self, model: Path) -> Path:
        precisions = ["fp32", "int8"] if len(self.data.texts) >= QUANTISED_TEXTS else ["fp32"]
        return export(model, self.folder / f"{model.name}-bundle", precisions=precisions).folder


def default_data() -> list[Path]:
    """Return the tweets in $EDGEWREN_DATA or ../shared/data, else the shipped sample posts."""
    shared = Path(os.environ.get("EDGEWREN_DATA", REPOSITORY.parent / "shared" / "data"))
    tweets = [shared / "media_bias_train.csv", shared / "media_bias_test.csv"]
    posts = [REPOSITORY / "examples" / f"town_posts_{part}.csv" for part in ("train", "test", "new")]
    return tweets if all(path.is_file() for path in tweets) else posts


def read(paths: Sequence[Path]) -> list[str]:
    """Return the column `text` of CSV files."""
    texts: list[str] = []
    for path in paths:
        with path.open(encoding="utf-8", newline="") as stream:
            texts += [row["text"] for row in csv.DictReader(stream)]
    return texts


def load_material(folder: Path, training: Path, texts: list[str], recipe: str, trained: Path | None) -> Material:
    return Material(folder, read_labelled(training, label_column="bias"), texts, recipe, trained)


def timed(call: Labeller, texts: list[str]) -> float:
    """Return seconds."""
    start = time.perf_counter()
    call(texts)
    return time.perf_counter() - start


def tuned(make: Callable[..., Labeller], material: Material, **grid: Sequence[Any]) -> tuple[Labeller, dict[str, Any]]:
    """Return `make` at its fastest settings, and these: one setting after the other, in the order given."""
    chosen = {name: values[0] for name, values in grid.items()}
    texts = _sample(make(**chosen), material.texts)
    for name, values in grid.items():
        if len(values) > 1:
            seconds = {value: _fastest(make(**{**chosen, name: value}), texts) for value in values}
            chosen[name] = min(seconds, key=seconds.__getitem__)
    return make(**chosen), chosen


def _sample(call: Labeller, texts: list[str]) -> list[str]:
    """Return most of a second's worth of texts: few would hide what large batches of equal length bring."""
    first = texts[:_MINIMUM_TUNING_TEXTS]
    call(first)
    return texts[: max(_MINIMUM_TUNING_TEXTS, int(len(first) * _TUNING_S / timed(call, first)))]


def _fastest(call: Labeller, texts: list[str]) -> float:
    call(texts)
    return min(timed(call, texts) for _ in range(2))
