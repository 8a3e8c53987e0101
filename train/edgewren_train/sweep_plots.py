"""Pictures of a sweep: scores over its settings. Knows numbers and names, imports matplotlib when it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewren import picture


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
