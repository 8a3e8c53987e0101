"""What the control groups of this process grant it: cores and memory, by cgroup v2 or v1. Only Linux has them.

A limit holds for all groups below its own, and a process is not always told of its group as the root: a service of
systemd (CPUQuota=) and a container in the host's namespace are inside of it. So the way from the process's group up is
read, and the smallest limit counts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")
_GROUPS = Path("/proc/self/cgroup")
_UNLIMITED = 2**60
"""Version 1 writes a huge number where memory has no limit."""


def cgroup_quota(root: Path = _ROOT, groups: Path = _GROUPS) -> float | None:
    """Return the CPU quota in cores, or None where there is none."""
    return _smallest("cpu", _quota_v2, _quota_v1, root, groups)


def memory_limit(root: Path = _ROOT, groups: Path = _GROUPS) -> int | None:
    """Return the memory limit in bytes, or None where there is none."""
    limit = _smallest("memory", _memory_v2, _memory_v1, root, groups)
    return None if limit is None else int(limit)


def _quota_v2(group: Path) -> float:
    quota, period = (group / "cpu.max").read_text(encoding="ascii").split()[:2]
    return math.inf if quota == "max" else float(quota) / float(period)


def _quota_v1(group: Path) -> float:
    quota = int((group / "cpu.cfs_quota_us").read_text(encoding="ascii"))
    return quota / int((group / "cpu.cfs_period_us").read_text(encoding="ascii")) if quota > 0 else math.inf


def _memory_v2(group: Path) -> float:
    limit = (group / "memory.max").read_text(encoding="ascii").strip()
    return math.inf if limit == "max" else int(limit)


def _memory_v1(group: Path) -> float:
    limit = int((group / "memory.limit_in_bytes").read_text(encoding="ascii"))
    return limit if limit < _UNLIMITED else math.inf


def _smallest(
    controller: str, v2: Callable[[Path], float], v1: Callable[[Path], float], root: Path, groups: Path
) -> float | None:
    """Return the smallest limit of version 2 where it tells of any group, else of version 1; None: unlimited."""
    for name, top, limit_of in (("", root, v2), (controller, root / controller, v1)):
        limits = []
        for group in _way_up(_own_group(name, groups), top):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # not each group has each file
                limits.append(limit_of(group))
        if limits:
            return None if min(limits) == math.inf else min(limits)
    return None


def _own_group(controller: str, groups: Path) -> PurePosixPath:
    """Return the process's group of a controller of version 1, or of version 2 ("")."""
    with contextlib.suppress(OSError, ValueError):  # some sandboxes write lines of their own
        for line in groups.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return PurePosixPath(path)
    return PurePosixPath("/")


def _way_up(group: PurePosixPath, top: Path) -> Iterator[Path]:
    """Yield the folders from a group to the top; of a path that leaves the namespace, the top alone."""
    names = group.parts[1:]
    for count in range(0 if ".." in names else len(names), -1, -1):
        yield top.joinpath(*names[:count])
