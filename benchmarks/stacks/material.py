"""What all stacks share: one trained model, the texts, and how to find a stack's fastest settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edgewren.archive.labelled import LabelledTexts, read_labelled
from edgewren.device import granted_cores
from edgewren_export.fold import Head, load_head
from edgewren_export.pipeline import export
from edgewren_train.runs import run_ridge
from throughput import timed

Labeller = Callable[[list[str]], list[str]]

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_TUNING_S = 1.0
_MINIMUM_TUNING_TEXTS = 200


@dataclass(frozen=True)
class Stack:
    """A stack ready to run.

    Attributes:
        throughput: fastest on many texts.
        latency: fastest on a list of one text.
        settings: what was chosen by measurement.
        fp32: the same model in fp32, where that is not `Material`'s own.
    """

    throughput: Labeller
    latency: Labeller
    settings: Mapping[str, Any] = field(default_factory=dict)
    fp32: Labeller | None = None


@dataclass(frozen=True)
class Material:
    """One trained ridge model, and texts to tune on.

    Attributes:
        folder: scratch space, one subfolder per stack.
        data: what the model is trained on.
        texts: what will be scored.
    """

    folder: Path
    data: LabelledTexts
    texts: list[str]

    @cached_property
    def cores(self) -> int:
        import torch

        cores = granted_cores()
        torch.set_num_threads(cores)
        return cores

    @cached_property
    def model(self) -> Path:
        return self._trained("none")

    @property
    def encoder(self) -> Path:
        """The trained encoder as a sentence-transformers folder."""
        return self.model / "encoder"

    @cached_property
    def head(self) -> Head:
        return load_head(self.model / "head.safetensors")

    @cached_property
    def bundle(self) -> Path:
        return self._exported(self.model)

    @cached_property
    def http_bundle(self) -> Path:
        """The bundle of a model whose tokenizer replaces each URL by `http`: fewer tokens, so another model."""
        return self._exported(self._trained("http"))

    def _trained(self, normaliser: str) -> Path:
        model = self.folder / f"model-{normaliser}"
        run_ridge(self.data, model, encoder_spec="minilm", normaliser=normaliser, folds=0)
        return model

    def _exported(self, model: Path) -> Path:
        return export(model, model.with_name(f"{model.name}-bundle"), precisions=["fp32", "int8"]).folder


def load_material(folder: Path, training: Path, texts: list[str]) -> Material:
    return Material(folder, read_labelled(training, label_column="bias"), texts)


def tuned(make: Callable[..., Labeller], material: Material, **grid: Sequence[Any]) -> tuple[Labeller, dict[str, Any]]:
    """Return `make` at its fastest settings, and these: one setting after the other, in the order given."""
    chosen = {name: values[0] for name, values in grid.items()}
    texts = _sample(make(**chosen), material.texts)
    for name, values in grid.items():
        seconds = {value: _fastest(make(**{**chosen, name: value}), texts) for value in values}
        chosen[name] = min(seconds, key=seconds.__getitem__)
    return make(**chosen), chosen


def _sample(call: Labeller, texts: list[str]) -> list[str]:
    """Return about one second's worth of texts: a small sample would hide what large batches of equal length bring."""
    first = texts[:_MINIMUM_TUNING_TEXTS]
    call(first)
    return texts[: max(_MINIMUM_TUNING_TEXTS, int(len(first) * _TUNING_S / timed(call, first)))]


def _fastest(call: Labeller, texts: list[str]) -> float:
    call(texts)
    return min(timed(call, texts) for _ in range(2))
