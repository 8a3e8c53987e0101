"""What a sweep varies: named settings, each a list or range of values. Knows LoraRecipe's fields, no search library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewren.errors import UsageError
from edgewren_train.lora_recipe import LoraRecipe

KINDS: dict[str, type] = {
    "rank": int,
    "alpha": int,
    "learning_rate": float,
    "epochs": int,
    "dropout": float,
    "target_modules": str,
    "adapt_layers": int,
    "batch_size": int,
}
"""Settings that can be varied, in the order in which they are shown."""

DEFAULT = {"rank": "4,8,16", "alpha": "8,16,32"}
_ON_A_LOG_SCALE = {"learning_rate"}


@dataclass(frozen=True)
class Axis:
    """One setting: either `values`, or a range from `low` to `high` (on a log scale if `log`)."""

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @property
    def is_range(self) -> bool:
        return not self.values

    def as_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)} if self.values else {"low": self.low, "high": self.high, "log": self.log}


def parse_axis(name: str, text: str) -> Axis:
    """Read "4,8,16" (a list), "1e-4:1e-3" (a range), or, for target modules, "query,value;query,key,value".

    Raises:
        UsageError: neither of these; the message names the option.
    """
    kind, option = KINDS[name], f"--{name.replace('_', '-')}"
    if kind is str:
        choices = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(";")))))
        if not choices:
            raise UsageError(f"{option} is {text!r}, expected names like 'query,value', alternatives separated by ;")
        return Axis(name, choices)
    try:
        if ":" in text:
            low, high = (kind(part) for part in text.split(":"))
            if not (low < high and math.isfinite(high)):
                raise UsageError(f"{option} is {text!r}, expected a range from the lower to the higher end, LOW:HIGH.")
            return Axis(name, low=low, high=high, log=name in _ON_A_LOG_SCALE and low > 0)
        values = tuple(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{option} is {text!r}, expected values like 4,8,16 or a range like 4:16.") from error
    return Axis(name, values)


def grid(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Return every combination of the values of axes without ranges, the last axis fastest."""
    return [
        dict(zip((axis.name for axis in axes), values, strict=True))
        for values in itertools.product(*(axis.values for axis in axes))
    ]


def recipe_of(settings: Mapping[str, Any], base: LoraRecipe) -> LoraRecipe:
    """Return `base` with the settings of one trial.

    Raises:
        UsageError: a value out of range.
    """
    import dataclasses

    changes = dict(settings)
    if "target_modules" in changes:
        changes["target_modules"] = tuple(filter(None, changes["target_modules"].split(",")))
    return dataclasses.replace(base, **changes)


def describe(settings: Mapping[str, Any]) -> str:
    """Return 'rank 8, alpha 16'."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in settings.items()
    )
