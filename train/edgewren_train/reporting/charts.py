"""Pictures of a report, each as SVG that follows the page's colours and as PNG for slides and papers.

Knows figures (dicts as in model.json and manifest.json), nothing of pages. matplotlib's Figure alone is used, without
pyplot: no window system, no global state.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewren.display import shortened
from edgewren.errors import MissingDependencyError
from edgewren_train.reporting.palette import LIGHT, STAND_INS, Palette, with_variables

_MOST_COUNTS = 20
_NAME_CHARACTERS = 22
_FEW_ROWS = 30
_INCH = 72.0

Draw = Callable[[Any, Palette], None]


@dataclass(frozen=True)
class Chart:
    """A picture: `name` for files and ids, `title` for those who don't see it, SVG text and PNG bytes."""

    name: str
    title: str
    svg: str
    png: bytes

    @property
    def png_base64(self) -> str:
        return base64.b64encode(self.png).decode("ascii")


def label_balance(counts: Mapping[str, int]) -> Chart:
    """Draw one bar per label."""
    names = [shortened(name, _NAME_CHARACTERS) for name in counts]

    def draw(axes: Any, palette: Palette) -> None:
        bars = axes.barh(range(len(names)), list(counts.values()), color=palette.accent, height=0.66)
        axes.bar_label(bars, [f"{count:,}" for count in counts.values()], padding=4, color=palette.ink)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("rows")
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.margins(x=0.14)

    return _chart("labels", "Rows of each label", draw, (5.2, 0.75 + 0.34 * len(names)))


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> Chart:
    """Draw counts, shaded by their share of the true label's rows."""
    names = [shortened(label, _NAME_CHARACTERS) for label in labels]
    size = len(names)

    def draw(axes: Any, palette: Palette) -> None:
        for row, counts in enumerate(matrix):
            total = max(sum(counts), 1)
            for column, count in enumerate(counts):
                share = count / total
                axes.add_patch(_square(column, row, palette.accent, 0.06 + 0.74 * share))
                if size <= _MOST_COUNTS:
                    text = f"{count:,}" if size > 6 else f"{count:,}\n{share:.0%}"
                    axes.text(column, row, text, ha="center", va="center", color=palette.ink, fontsize=9)
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.set_xticks(range(size), names, rotation=0 if size <= 3 else 55, ha="center" if size <= 3 else "right")
        axes.set_yticks(range(size), names)
        axes.set_xlabel("the model says")
        axes.set_ylabel("the label says")
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_aspect("equal")

    side = 1.6 + min(0.85 * size, 0.32 * size + 3)
    return _chart(
        "confusion", "Confusion matrix: what the labels say against what the model says", draw, (side + 0.6, side)
    )


def reliability(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw the share of right answers against the scores, before and after calibration."""

    def draw(axes: Any, palette: Palette) -> None:
        low = min(entry["confidence"] for entry in (*before, *after))
        axes.plot([0, 1], [0, 1], color=palette.muted, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        for entries, colour, marker, name in (
            (before, palette.second, "s", "before"),
            (after, palette.accent, "o", "after calibration"),
        ):
            x = [entry["confidence"] for entry in entries]
            y = [entry["accuracy"]["value"] for entry in entries]
            errors = [
                [entry["accuracy"]["value"] - entry["accuracy"]["low"] for entry in entries],
                [entry["accuracy"]["high"] - entry["accuracy"]["value"] for entry in entries],
            ]
            axes.errorbar(
                x, y, errors, color=colour, marker=marker, markersize=4.5, linewidth=1.6, elinewidth=0.9, label=name
            )
        lowest = min(entry["accuracy"]["low"] for entry in (*before, *after))
        axes.set_xlim(max(0.0, low - 0.04), 1.0)
        axes.set_ylim(max(0.0, min(lowest, low) - 0.04), 1.02)
        axes.set_xlabel("score of the label that was given")
        axes.set_ylabel("share of them that is right")
        _percent(axes, "both")
        axes.grid(color=palette.line, linewidth=0.7)
        axes.legend(frameon=False, labelcolor=palette.ink, loc="lower right")

    return _chart("reliability", "Reliability diagram: scores against the share of right answers", draw, (5.2, 4.2))


def coverage(bands: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw accuracy against the share of texts that is kept; some thresholds are named on the curve."""
    # A handful of texts says nothing, and its interval would flatten all else.
    bands = [band for band in bands if band["rows"] >= min(_FEW_ROWS, bands[0]["rows"])]

    def draw(axes: Any, palette: Palette) -> None:
        shares = [band["coverage"] for band in bands]
        axes.fill_between(
            shares,
            [band["accuracy"]["low"] for band in bands],
            [band["accuracy"]["high"] for band in bands],
            color=palette.accent,
            alpha=0.16,
            linewidth=0,
        )
        axes.plot(shares, [band["accuracy"]["value"] for band in bands], color=palette.accent, linewidth=1.8)
        lowest = min((band["threshold"] for band in bands if band["coverage"] < 0.995), default=1.0)
        for band in bands:
            if band["threshold"] >= lowest and round(100 * band["threshold"]) % 10 == 0:
                point = (band["coverage"], band["accuracy"]["value"])
                axes.plot(*point, marker="o", markersize=5, color=palette.accent)
                axes.annotate(
                    f"P = {band['threshold']:.1f}",
                    point,
                    xytext=(0, 11),
                    textcoords="offset points",
                    color=palette.ink,
                    fontsize=9,
                )
        axes.set_xlim(1.02, 0)
        axes.set_ylim(min(band["accuracy"]["low"] for band in bands) - 0.02, 1.005)
        axes.set_xlabel("share of texts that keep their label")
        axes.set_ylabel("share of them that is right")
        _percent(axes, "both")
        axes.grid(color=palette.line, linewidth=0.7)

    return _chart(
        "coverage", "Coverage curve: the fewer texts keep their label, the more of them are right", draw, (5.2, 4.2)
    )


def learning_curve(points: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw held-out balanced accuracy against the number of training rows."""

    def draw(axes: Any, palette: Palette) -> None:
        rows = [point["rows"] for point in points]
        figures = [point["balanced_accuracy"] for point in points]
        axes.fill_between(
            rows,
            [figure["low"] for figure in figures],
            [figure["high"] for figure in figures],
            color=palette.accent,
            alpha=0.16,
            linewidth=0,
        )
        axes.plot(
            rows,
            [figure["value"] for figure in figures],
            color=palette.accent,
            marker="o",
            markersize=4.5,
            linewidth=1.8,
        )
        axes.set_xlim(0, max(rows) * 1.05)
        axes.set_xlabel("training rows")
        axes.set_ylabel("balanced accuracy, held out")
        _percent(axes, "y")
        axes.grid(color=palette.line, linewidth=0.7)

    return _chart("learning-curve", "Learning curve: balanced accuracy against training rows", draw, (5.2, 3.6))


def candidates(rows: Sequence[tuple[str, Mapping[str, float]]], axis: str) -> Chart:
    """Draw one figure with its interval per candidate."""
    names = [shortened(name, _NAME_CHARACTERS) for name, _ in rows]

    def draw(axes: Any, palette: Palette) -> None:
        values = [figure["value"] for _, figure in rows]
        errors = [
            [figure["value"] - figure["low"] for _, figure in rows],
            [figure["high"] - figure["value"] for _, figure in rows],
        ]
        axes.errorbar(values, range(len(names)), xerr=errors, fmt="o", color=palette.accent, markersize=6, elinewidth=2)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(axis)
        _percent(axes, "x")
        axes.grid(axis="x", color=palette.line, linewidth=0.7)

    return _chart("candidates", f"{axis} of each candidate, with intervals", draw, (6.4, 1.0 + 0.42 * len(names)))


def trade_off(rows: Sequence[tuple[str, float, Mapping[str, float], bool]]) -> Chart:
    """Draw quality against speed; candidates that no other beats in both are joined (the Pareto front)."""

    def draw(axes: Any, palette: Palette) -> None:
        front = sorted((speed, figure["value"]) for _, speed, figure, best in rows if best)
        axes.plot(*zip(*front, strict=True), color=palette.muted, linewidth=1, linestyle=(0, (4, 3)))
        for name, speed, figure, best in rows:
            colour = palette.accent if best else palette.muted
            error = [[figure["value"] - figure["low"]], [figure["high"] - figure["value"]]]
            axes.errorbar([speed], [figure["value"]], error, fmt="o", color=colour, markersize=6, elinewidth=1.2)
            axes.annotate(
                shortened(name, _NAME_CHARACTERS),
                (speed, figure["value"]),
                xytext=(7, 6),
                textcoords="offset points",
                color=palette.ink,
                fontsize=9,
                parse_math=False,
            )
        axes.set_xscale("log")
        axes.margins(x=0.25)
        axes.set_xlabel("texts per second (embedding)")
        axes.set_ylabel("balanced accuracy")
        _percent(axes, "y")
        axes.grid(color=palette.line, linewidth=0.7)

    return _chart("trade-off", "Quality against speed", draw, (6.0, 4.0))


def _chart(name: str, title: str, draw: Draw, size: tuple[float, float]) -> Chart:
    """Draw twice: with stand-ins for the page, with real colours for the PNG."""
    return Chart(name, title, _svg(name, title, draw, size), _png(draw, size))


def _figure(draw: Draw, size: tuple[float, float], palette: Palette) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"A report's charts need matplotlib, which cannot be imported ({error}). Run: pip install "
            "'edgewren[report]'."
        ) from error
    figure: Any = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    draw(axes, palette)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(palette.line)
    axes.tick_params(colors=palette.muted, labelcolor=palette.ink)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(palette.ink)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)  # a label may hold dollar signs
        if text.get_rotation():
            text.set_rotation_mode("anchor")
    return figure


def _svg(name: str, title: str, draw: Draw, size: tuple[float, float]) -> str:
    from html import escape

    import matplotlib as mpl

    figure = _figure(draw, size, STAND_INS)
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    stream = io.StringIO()
    # Text stays text: it is selectable, read aloud, and in the page's own type.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', _opening(title, size, escape), svg, count=1)
    return with_variables(svg)


def _opening(title: str, size: tuple[float, float], escape: Callable[[str], str]) -> Callable[[re.Match[str]], str]:
    """Return what makes the svg element anew: as wide as it was drawn at most, with a name for screen readers."""

    def replace(match: re.Match[str]) -> str:
        return (
            f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{match.group(1)}" role="img" '
            f'aria-label="{escape(title)}" style="max-width:{size[0] * _INCH * 1.25:.0f}px">'
        )

    return replace


def _png(draw: Draw, size: tuple[float, float]) -> bytes:
    figure = _figure(draw, size, LIGHT)
    figure.patch.set_facecolor(LIGHT.paper)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=160, metadata={"Software": None})
    return stream.getvalue()


def _square(column: int, row: int, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, alpha=alpha, linewidth=0)


def _percent(axes: Any, which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if which in (name, "both"):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
