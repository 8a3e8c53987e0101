"""Shares per group as a picture. Knows names and numbers; imports matplotlib only when something is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewren import picture
from edgewren.display import shortened
from edgewren.errors import UsageError

MOST_GROUPS = 60
"""Names can be read up to here."""

MOST_PANELS = 12
_NAME_CHARACTERS = 28
_COLOUR = "#1f6f8b"
_NAIVE = "#c2571a"


@dataclass(frozen=True)
class Series:
    """One label: naive shares, and corrected ones with low and high ends (None: not corrected), one per group."""

    label: str
    naive: Sequence[float]
    shares: Sequence[tuple[float, float, float]] | None


def draw(
    series: Sequence[Series],
    groups: Sequence[str],
    path: str | Path,
    *,
    title: str,
    axis: str,
    positions: Sequence[float] | None = None,
    confidence: float = 0.95,
) -> None:
    """Draw the share of each label in each group as PNG: a point with its interval, and the naive share as a cross.

    Of two labels only the second is drawn, since the first is the rest.

    Args:
        series: at least one, each with one figure per group.
        groups: names, in order.
        path: of the PNG file.
        title: above the picture.
        axis: what the groups are.
        positions: for groups in time, where each lies; gaps then stay gaps. None: a list of names, top to bottom.
        confidence: of the intervals, for the legend.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written. What was there before is untouched.
        UsageError: there are too many labels to draw.
    """
    panels = list(series[1:]) if len(series) == 2 else list(series)
    if len(panels) > MOST_PANELS:
        raise UsageError(f"There are {len(panels)} labels; at most {MOST_PANELS} can be drawn. Use --csv instead.")
    in_time = positions is not None
    places = list(map(float, positions if positions is not None else range(len(groups))))
    if in_time:
        size = (max(6.0, min(0.28 * (max(places) - min(places)) + 2.5, 18.0)), 2.6 * len(panels) + 0.8)
        shape = (len(panels), 1)
    else:
        columns = min(len(panels), 3)
        shape = (-(-len(panels) // columns), columns)
        size = (3.2 * columns + 2.4, (0.26 * len(groups) + 1.1) * shape[0] + 0.7)
    figure = picture.new_figure(*size)
    grid = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, entry in zip(grid, panels, strict=False):
        _draw_panel(axes, entry, places, in_time=in_time, confidence=confidence)
        axes.set_title(shortened(entry.label, _NAME_CHARACTERS), fontsize=10, loc="left", parse_math=False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    names = [shortened(name, _NAME_CHARACTERS) for name in groups]
    for number, axes in enumerate(grid[: len(panels)]):
        if in_time:
            step = -(-len(names) // 40)
            axes.set_xticks(places[::step], names[::step], rotation=90 if len(names) > 8 else 0, fontsize=8)
            axes.set_ylabel("share")
        else:
            axes.set_yticks(places, names, fontsize=8)
            if number >= len(panels) - shape[1]:
                axes.set_xlabel("share")
        for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            tick.set_parse_math(False)  # a name may hold dollar signs
    if not in_time:
        grid[0].invert_yaxis()  # shared by all: the first name on top
        grid[0].set_ylabel(shortened(axis, _NAME_CHARACTERS), parse_math=False)
    else:
        grid[len(panels) - 1].set_xlabel(shortened(axis, _NAME_CHARACTERS), parse_math=False)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", parse_math=False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    picture.save(figure, path)


def _draw_panel(axes: Any, entry: Series, places: list[float], *, in_time: bool, confidence: float) -> None:
    if entry.shares is not None:
        values = [value for value, _, _ in entry.shares]
        spread = [
            [max(value - low, 0.0) for value, low, _ in entry.shares],
            [max(high - value, 0.0) for value, _, high in entry.shares],
        ]
        where = (places, values) if in_time else (values, places)
        axes.errorbar(
            *where,
            **{"yerr" if in_time else "xerr": spread},
            fmt="o",
            markersize=4,
            linewidth=1.4,
            color=_COLOUR,
            label=f"corrected, {100 * confidence:g} % interval",
        )
    where = (places, list(entry.naive)) if in_time else (list(entry.naive), places)
    axes.plot(*where, linestyle="none", marker="x", markersize=5, color=_NAIVE, label="naive (labels counted)")
    (axes.set_ylim if in_time else axes.set_xlim)(-0.03, 1.03)
    axes.grid(visible=True, axis="y" if in_time else "x", linewidth=0.4, alpha=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
