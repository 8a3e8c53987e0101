"""A candidate of a comparison: one way to make a classifier, as data. A further axis is one more field here.

Knows no models: `comparison` trains and judges.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgewren.errors import UsageError
from edgewren_train import ridge
from edgewren_train.lora_recipe import LoraRecipe

RECIPES = ("ridge", "lora")
_GRIDS = {"wide": (ridge.WIDE_GRID, True), "classic": (ridge.CLASSIC_GRID, False)}


@dataclass(frozen=True)
class Candidate:
    """What is trained on each training part.

    Attributes:
        encoder: hub id, folder, or "minilm".
        recipe: "ridge" or "lora".
        normaliser: "none" or "http".
        depth: layers of the encoder that are kept, from its first; None: the whole encoder; "auto" (ridge only): chosen
            anew in each training part, as `train ridge --depth auto` does.
        alphas: ridge: "wide", "classic", or values like "1/10/100".
        lora: settings of LoRA; only with that recipe.
    """

    encoder: str
    recipe: str = "ridge"
    normaliser: str = "http"
    depth: int | Literal["auto"] | None = None
    alphas: str = "wide"
    lora: LoraRecipe | None = None

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise UsageError(f"recipe is {self.recipe!r}, expected ridge or lora.")
        if self.depth == "auto":
            if self.recipe != "ridge":
                raise UsageError("depth auto is only compared with ridge. Name numbers of layers for lora.")
        elif self.depth is not None and self.depth < 1:
            raise UsageError(f"depth is {self.depth}, expected a number of layers from 1 (0: 'train static').")
        self.alpha_grid()

    def alpha_grid(self) -> tuple[tuple[float, ...], bool]:
        """Return the alphas to try, and whether to go on beyond them."""
        if self.alphas in _GRIDS:
            return _GRIDS[self.alphas]
        try:
            return tuple(float(part) for part in self.alphas.split("/")), False
        except ValueError as error:
            raise UsageError(
                f"alphas are {self.alphas!r}, expected wide, classic, or numbers like 1/10/100."
            ) from error

    def as_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "lora": dataclasses.asdict(self.lora) if self.lora else None}


def combine(axes: Mapping[str, Sequence[Any]]) -> list[Candidate]:
    """Return a candidate for every combination of values, in order, each once.

    Args:
        axes: names of Candidate's fields with their values, as {"encoder": ["minilm"], "alphas": ["wide", "classic"]}.
    """
    for name, values in axes.items():
        if not values:
            raise UsageError(f"--{name}s names nothing to compare. Expected at least one value.")
    found = [Candidate(**dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
    return list(dict.fromkeys(found))


def names(candidates: Sequence[Candidate]) -> list[str]:
    """Return short names that tell the candidates apart: the encoder, and of the rest only what varies."""
    fields = [field.name for field in dataclasses.fields(Candidate) if field.name not in ("encoder", "lora")]
    varying = [name for name in fields if len({getattr(candidate, name) for candidate in candidates}) > 1]
    encoders = {candidate.encoder for candidate in candidates}
    short = {encoder: Path(encoder.rstrip("/")).name for encoder in encoders}
    if len(set(short.values())) < len(encoders):
        short = {encoder: encoder for encoder in encoders}
    recipes = [candidate.lora for candidate in candidates if candidate.lora is not None]
    differing = [
        field.name
        for field in dataclasses.fields(LoraRecipe)
        if len({getattr(recipe, field.name) for recipe in recipes}) > 1
    ]
    out = []
    for candidate in candidates:
        parts = [short[candidate.encoder]] if len(encoders) > 1 or not (varying or differing) else []
        parts += [
            _part(name, getattr(candidate, name)) for name in varying if name != "alphas" or candidate.recipe == "ridge"
        ]
        if candidate.lora is not None:
            parts += [_setting(name, getattr(candidate.lora, name)) for name in differing]
        out.append(", ".join(parts))
    return out


def _part(name: str, value: Any) -> str:
    if name == "depth":
        words = {None: "whole encoder", "auto": "depth auto", 1: "1 layer"}
        return words.get(value, f"{value} layers")
    return str(value) if name == "recipe" else f"{name} {value}"


def _setting(name: str, value: Any) -> str:
    if name == "stop_after":
        return "all epochs" if value is None else f"{value} epochs"
    return f"{name.replace('_', ' ')} {value}"
