"""Pictures of comparisons and sweeps. Knows numbers and names; imports matplotlib only when something is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    figure, axes = _figure(7.2, 4.8)
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


def heat_map(
    cells: Mapping[tuple[Any, Any], tuple[float, float]],
    *,
    row_name: str,
    column_name: str,
    path: Path,
    best: tuple[Any, Any] | None = None,
) -> None:
    """Draw scores over two settings as PNG.

    Args:
        cells: (row value, column value) to (mean score, standard deviation over seeds); missing cells stay empty.
        best: the cell to frame.

    Raises:
        OutputError: the file cannot be written.
    """
    rows, columns = (sorted({key[place] for key in cells}) for place in (0, 1))
    figure, axes = _figure(1.25 * len(columns) + 2.6, 0.8 * len(rows) + 2.0)
    values = [[cells.get((row, column), (float("nan"), 0.0))[0] for column in columns] for row in rows]
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    finite = [mean for mean, _ in cells.values()]
    middle = (min(finite) + max(finite)) / 2
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            if (row, column) not in cells:
                axes.text(x, y, "-", ha="center", va="center")
                continue
            mean, deviation = cells[row, column]
            axes.text(
                x,
                y,
                f"{mean:.3f}\n± {deviation:.3f}",
                ha="center",
                va="center",
                fontsize=10,
                fontweight="bold" if (row, column) == best else "normal",
                color="black" if mean > middle else "white",
            )
    axes.set_xticks(range(len(columns)), [_value(column) for column in columns])
    axes.set_yticks(range(len(rows)), [_value(row) for row in rows])
    axes.set_xlabel(column_name)
    axes.set_ylabel(row_name)
    axes.set_title("balanced accuracy, mean ± standard deviation over seeds", fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.85)
    bar.outline.set_visible(False)
    picture.save(figure, path)


def scatter(
    axes_values: Mapping[str, Sequence[Any]], scores: Sequence[float], path: Path, *, logarithmic: set[str]
) -> None:
    """Draw scores against each setting in a panel of its own, as PNG: what a search over ranges found.

    Raises:
        OutputError: the file cannot be written.
    """
    figure, panels = _figure(3.2 * len(axes_values), 3.4, columns=len(axes_values))
    for axes, (name, values) in zip(panels if len(axes_values) > 1 else [panels], axes_values.items(), strict=True):
        axes.scatter([_value(value) if isinstance(value, str) else value for value in values], scores, color="#1f4e9c")
        if name in logarithmic:
            axes.set_xscale("log")
        axes.set_xlabel(name.replace("_", " "))
        axes.grid(alpha=0.25)
    (panels[0] if len(axes_values) > 1 else panels).set_ylabel("balanced accuracy, mean over seeds")
    picture.save(figure, path)


def _figure(width: float, height: float, *, columns: int = 1) -> tuple[Any, Any]:
    figure = picture.new_figure(width, height)
    return figure, figure.subplots(1, columns)


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
