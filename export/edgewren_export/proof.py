"""What an export proves on its way: kept for the manifest's `parity`, and said to people line by line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewren_export import parity

Say = Callable[[str], None]


@dataclass(frozen=True)
class Proof:
    """Travels through all stages of one export; each adds what it found.

    Attributes:
        say: told what was done, line by line.
        found: becomes the manifest's `parity`.
    """

    say: Say
    found: dict[str, Any] = field(default_factory=dict)

    def open_stages(self, stages: Sequence[parity.Stage]) -> None:
        """Keep and tell the first comparisons; later ones are added to them."""
        for stage in stages:
            self.say(as_text(stage))
        self.found["stages"] = [stage.as_dict() for stage in stages]

    def add_heads(self, heads: Sequence[parity.Stage]) -> None:
        """Keep and tell the comparisons of exits' heads."""
        for stage in heads:
            self.add_stage(stage)
        self.say(f"exits: {len(heads)} heads, largest difference {max(stage.max_difference for stage in heads):.1e}")

    def add_stage(self, stage: parity.Stage | parity.QuantisedStage) -> None:
        self.found["stages"].append(stage.as_dict())


def as_text(stage: parity.Stage) -> str:
    """Return one comparison as a line for people."""
    return (
        f"{stage.name}: {stage.texts:,} texts, largest difference {stage.max_difference:.1e}, "
        f"{stage.label_flips} labels changed"
    )
