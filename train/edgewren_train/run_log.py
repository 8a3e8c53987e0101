"""Results of long runs, one JSON line each, so that a killed run goes on where it stopped. Knows no models.

Lines are appended whole and flushed to disk; a line torn by a kill is dropped when the log is read.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewren.errors import LockedError, OutputError, ResumeError, UsageError


class RunLog:
    """A folder's runs.jsonl and the plan.json that says what they are runs of.

    Several processes may append to it at once.

    Raises:
        ResumeError: the folder holds runs of another plan.
        UsageError: it holds something else.
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], *, force: bool = False) -> None:
        self.path = folder / "runs.jsonl"
        self._plan_path = folder / "plan.json"
        known = json.loads(json.dumps(plan))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._plan_path.exists():
                before = json.loads(self._plan_path.read_text(encoding="utf-8"))
                different = sorted(key for key in {*before, *known} if before.get(key) != known.get(key))
                if different and not force:
                    raise ResumeError(
                        f"{folder} holds runs of another plan: {', '.join(different)} "
                        f"{'is' if len(different) == 1 else 'are'} different. Choose another --output, or start anew "
                        "with --force."
                    )
                if force:
                    with self.locked():
                        self._remove_runs()
            elif any(folder.iterdir()):
                raise UsageError(f"{folder} is not empty and holds no runs. Choose another --output.")
            if force or not self._plan_path.exists():
                scratch = self._plan_path.with_suffix(f".{os.getpid()}")
                scratch.write_text(json.dumps(known, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
                scratch.replace(self._plan_path)
        except LockedError:  # an OSError too
            raise
        except (OSError, json.JSONDecodeError) as error:
            raise OutputError(f"{folder} cannot be used for results: {error}. Choose another --output.") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of the folder within the block, where the system has file locks.

        Raises:
            LockedError: another run is at work there.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        with self._plan_path.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LockedError(
                    f"Another run is at work in {self.path.parent}. Wait for it, or choose another --output."
                ) from error
            yield

    def discard(self) -> None:
        """Leave nothing of a run that was refused before anything was appended, and not the folder, if it is empty."""
        with contextlib.suppress(OSError):
            self._remove_runs()
            self._plan_path.unlink(missing_ok=True)
            self.path.parent.rmdir()

    def _remove_runs(self) -> None:
        for stale in (self.path, *self.path.parent.glob("sweep.db*")):
            stale.unlink(missing_ok=True)

    def append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    line = b"\n" + line  # behind a torn line
                while line:
                    line = line[os.write(handle, line) :]
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}. Free space, run again."
            ) from error

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record
