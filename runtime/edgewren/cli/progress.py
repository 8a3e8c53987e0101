"""A progress bar for people who watch: on a terminal, and where tqdm is installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def bar(unit: str, title: str, *, total: int | None = None) -> Iterator[Any]:
    """Show a bar; None where nobody watches."""
    try:
        from tqdm import tqdm  # comes with tokenizers' own dependencies
    except ImportError:
        tqdm = None
    if tqdm is None or not sys.stderr.isatty():
        yield None
        return
    with tqdm(total=total, unit=unit, unit_scale=unit == "B", desc=title, file=sys.stderr) as shown:
        yield shown


def bytes_of(files: Sequence[str]) -> int | None:
    """Return how many bytes some files have, which a bar over them ends with; None where one does not tell."""
    sizes = [Path(name).stat().st_size if Path(name).is_file() else 0 for name in files]
    return sum(sizes) if all(sizes) else None
