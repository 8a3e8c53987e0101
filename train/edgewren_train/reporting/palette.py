"""Colours of charts: real ones for PNG files, stand-ins for SVG that the page's style sheet replaces.

A chart inside the page must follow light, dark and print. matplotlib only writes fixed colours, so SVG is drawn with
stand-ins, each of which becomes a CSS variable. Knows colours, no data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Palette:
    """Colours by what they are for: text and axes, faint lines, less important marks, and three kinds of data."""

    ink: str
    line: str
    muted: str
    accent: str
    second: str
    paper: str


LIGHT = Palette(ink="#1d2733", line="#d5dce3", muted="#66727f", accent="#1f6fb2", second="#b8541c", paper="#ffffff")
STAND_INS = Palette(ink="#010203", line="#040506", muted="#070809", accent="#0a0b0c", second="#0d0e0f", paper="#101112")

_VARIABLES = {getattr(STAND_INS, name): f"var(--{name})" for name in Palette.__dataclass_fields__}
_STAND_IN = re.compile("|".join(_VARIABLES))


def with_variables(svg: str) -> str:
    """Return SVG with every stand-in replaced by its CSS variable."""
    return _STAND_IN.sub(lambda match: _VARIABLES[match.group()], svg)
