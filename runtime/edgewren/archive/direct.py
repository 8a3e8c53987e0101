"""Where windows go (`Output`), and the outputs that cannot be resumed: standard output, devices, pipes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edgewren.archive.compression import Compression
from edgewren.archive.whole_file import Sink

State = dict[str, Any]
"""What the run has to know to go on, as JSON knows it."""


class Output(Protocol):
    """Where windows go."""

    def commit(self, data: bytes, rejects: bytes, state: State) -> None:
        """Take a window's bytes, and how the run stands behind it. Raises OutputError."""

    def finish(self, rows: int, report: Callable[[State], State]) -> State:
        """Make everything final; return the report with what is known about the output. Raises OutputError."""

    def close(self) -> None:
        """Leave everything as it is, to go on another time."""


def is_direct(output: str | Path) -> bool:
    """Return whether a name stands for a device or a pipe, which is written to directly: nothing can be replaced."""
    path = Path(output)
    there = os.path.exists(path)  # noqa: PTH110  a name that is too long is none's
    return there and not stat.S_ISREG(path.stat().st_mode) and not path.is_dir()


class DirectOutput:
    """Standard output, a device or a pipe: windows go there as they come, and nothing can be taken back."""

    def __init__(self, sink: Sink, packed: Compression | None) -> None:
        self._sink = sink
        self._packed = packed

    def commit(self, data: bytes, rejects: bytes, state: State) -> None:
        del rejects, state
        self._sink.write(self._packed.pack(data) if self._packed else data)
        self._sink.flush()

    def finish(self, rows: int, report: Callable[[State], State]) -> State:
        del rows
        self._sink.finish()
        return report({})

    def close(self) -> None:
        self._sink.discard()
