"""A confusion matrix as a picture. Knows counts and label names; imports matplotlib only when something is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewren import picture
from edgewren.display import shortened

_LARGEST_WITH_COUNTS = 30
_NAME_CHARACTERS = 24


def draw(confusion: Sequence[Sequence[int]], labels: Sequence[str], path: str | Path) -> None:
    """Draw a confusion matrix as PNG; an existing picture is replaced.

    Colours are shares of each true class (rows), so that rare classes show; the numbers in the cells are counts, up to
    30 classes.

    Args:
        confusion: counts [true][predicted].
        labels: names, in the matrix's order.
        path: of the PNG file.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file cannot be written. What was there before is untouched.
    """
    classes = len(labels)
    shares = [[count / max(sum(row), 1) for count in row] for row in confusion]
    names = [shortened(label, _NAME_CHARACTERS) for label in labels]
    # About 0.6 inch per cell holds a count of five digits; beyond 30 classes there are none, and cells may shrink.
    side = 0.62 * classes if classes <= _LARGEST_WITH_COUNTS else 0.2 * classes
    side = max(side, 2.4)
    margin = 0.085 * max(map(len, names)) + 0.7
    figure = picture.new_figure(side + margin + 1.0, side + margin + 0.5)
    axes: Any = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    font = 10 if classes <= 12 else 8 if classes <= _LARGEST_WITH_COUNTS else 6
    level = classes <= 3 and max(map(len, names)) <= 12
    axes.set_xticks(
        range(classes), names, rotation=0 if level else 60, ha="center" if level else "right", fontsize=font
    )
    if not level:
        for tick in axes.get_xticklabels():
            tick.set_rotation_mode("anchor")
    axes.set_yticks(range(classes), names, fontsize=font)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)  # a label may hold dollar signs
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0)
    if classes <= _LARGEST_WITH_COUNTS:
        for row in range(classes):
            for column in range(classes):
                axes.text(
                    column,
                    row,
                    str(confusion[row][column]),
                    ha="center",
                    va="center",
                    fontsize=font,
                    color="white" if shares[row][column] > 0.55 else "black",
                )
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of true class")
    bar.outline.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    picture.save(figure, path)
