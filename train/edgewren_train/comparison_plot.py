"""The picture of a comparison: quality against speed. Knows numbers and names, imports matplotlib when it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewren import picture
from edgewren.display import shortened
from edgewren.metrics import Estimate

_NAME_CHARACTERS = 40


@dataclass(frozen=True)
class Point:
    """A candidate in the Pareto plot."""

    name: str
    texts_per_s: float
    score: Estimate
    on_front: bool


def pareto(points: Sequence[Point], path: Path) -> None:
    """Draw quality with intervals against speed (log scale) as PNG; the front is joined by a line.

    Raises:
        OutputError: the file cannot be written.
    """
    figure = picture.new_figure(7.2, 4.8)
    axes = figure.subplots()
    front = sorted((point for point in points if point.on_front), key=lambda point: point.texts_per_s)
    axes.plot([point.texts_per_s for point in front], [point.score.value for point in front], color="#999999", zorder=1)
    for number, point in enumerate(points, 1):
        axes.errorbar(
            point.texts_per_s,
            point.score.value,
            yerr=[[point.score.value - point.score.low], [point.score.high - point.score.value]],
            fmt="o" if point.on_front else "s",
            color="#1f4e9c" if point.on_front else "#b0763a",
            capsize=3,
            label=f"{number} {shortened(point.name, _NAME_CHARACTERS)}",
        )
        axes.annotate(str(number), (point.texts_per_s, point.score.value), xytext=(6, 4), textcoords="offset points")
    axes.set_xscale("log")
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter("{x:,.0f}")  # 300, not 3 x 10^2
    axes.set_xlabel("texts per second (torch, this machine; log scale)")
    axes.set_ylabel("balanced accuracy, 95 % interval")
    legend = axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=2, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a folder's name may hold dollar signs
    axes.grid(alpha=0.25)
    picture.save(figure, path)
