"""The file formats, one module each with a `FORMAT`. A new one is a new file here: they are found by looking."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from edgewren.archive.table import Format


@functools.cache
def all_formats() -> dict[str, Format]:
    """Return the formats by name, in the order of their names."""
    found: list[Format] = []
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        made = getattr(loaded, "FORMATS", None) or (loaded.FORMAT,)
        found.extend(made)
    return {made.name: made for made in sorted(found, key=lambda made: made.name)}
