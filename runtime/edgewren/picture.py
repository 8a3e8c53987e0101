"""Pictures on disk: matplotlib without state or windows, and files that appear whole. Knows nothing of contents."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from edgewren.archive.compression import packed_for
from edgewren.archive.whole_file import WholeFile
from edgewren.errors import MissingDependencyError


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib Figure of so many inches. Without pyplot: no global state, nothing to close.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    check_available()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def check_available() -> None:
    """Raise MissingDependencyError if matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"Pictures need matplotlib, which cannot be imported ({error}). Run: pip install 'edgewren[plot]'."
        ) from error


def save(figure: Any, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all; an existing picture is replaced.

    Raises:
        OutputError: the file cannot be written. What was there before is untouched.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    file = WholeFile(path, force=True)
    try:
        file.write(packed_for(file.name, drawn.getvalue()))
        file.finish()
    finally:
        file.discard()
