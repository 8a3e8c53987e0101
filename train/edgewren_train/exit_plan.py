"""Where texts may leave early, and how surely. Knows layers by number and shares, nothing of models."""

from __future__ import annotations

from dataclasses import dataclass

from edgewren.errors import UsageError

ALLOWED = 0.005
"""Half a percent of labels, as much as an int8 model may change (`edgewren_export.parity`)."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ExitPlan:
    """Where texts may leave early (None: the default places), what share of labels may differ, and how surely."""

    layers: tuple[int, ...] | None = None
    allowed: float = ALLOWED
    confidence: float = CONFIDENCE


def parse_exits(spec: str | None, allowed: float) -> ExitPlan | None:
    """Read --exits: "auto", layers like 0,2,4, or nothing.

    Raises:
        UsageError: something else.
    """
    if spec is None:
        return None
    if spec == "auto":
        return ExitPlan(None, allowed)
    try:
        return ExitPlan(tuple(int(part) for part in spec.split(",")), allowed)
    except ValueError as error:
        raise UsageError(f"--exits is {spec!r}, expected auto or layers like 0,2,4.") from error
