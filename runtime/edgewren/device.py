"""What this process may use: CPU cores granted to it, and execution providers of onnxruntime.

Also the one place that imports onnxruntime, because two things must happen around that import: a missing or doubled
installation must be explained, and its telemetry must be off before it starts.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from edgewren.cgroup import cgroup_quota
from edgewren.errors import DeviceError, MissingDependencyError
from edgewren.lifetime import RenewedLock

Device = Literal["cpu", "cuda"]

logger = logging.getLogger(__name__)

_TELEMETRY_OPT_OUT = "ORT_DISABLE_TELEMETRY"
_OPTED_OUT = ("1", "true", "yes", "on")  # what onnxruntime takes, in any case
ONNXRUNTIME_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
MINIMUM_ONNXRUNTIME = (1, 30, 1)

_importing = RenewedLock()
_imported = False


def installed_onnxruntimes() -> dict[str, str]:
    """Return installed distributions that provide the module `onnxruntime`, with their versions.

    More than one is a conflict: they overwrite each other's files (onnxruntime#26996).
    """
    found: dict[str, str] = {}
    for name in ONNXRUNTIME_DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@contextlib.contextmanager
def _telemetry_opted_out() -> Iterator[None]:
    """Hold onnxruntime's telemetry opt-out in the environment for as long as its import takes, then put things back.

    Official wheels since 1.29 read the variable once, when the module starts, and keep that decision for the life of
    the process (onnxruntime#27379). The caller's environment is the same before and after.
    """
    before = os.environ.get(_TELEMETRY_OPT_OUT)
    os.environ[_TELEMETRY_OPT_OUT] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TELEMETRY_OPT_OUT]
        else:
            os.environ[_TELEMETRY_OPT_OUT] = before


def _opted_out() -> bool:
    return os.environ.get(_TELEMETRY_OPT_OUT, "").strip().lower() in _OPTED_OUT


def import_onnxruntime() -> Any:
    """Import onnxruntime with its telemetry off. Safe to call from several threads at once.

    Where the host process imported it earlier without ORT_DISABLE_TELEMETRY=1, its telemetry may be running already,
    and nothing can stop it (measured on 1.32: it tries the network about 9 s after its import): this is logged as a
    warning.

    Raises:
        MissingDependencyError: neither onnxruntime nor onnxruntime-gpu is installed, or it is older than 1.30.1,
            the first release whose loader refuses all known bad model files.
    """
    global _imported  # noqa: PLW0603  the import happens once per process
    with _importing.lock():
        ours = "onnxruntime" not in sys.modules
        try:
            with _telemetry_opted_out() if ours else contextlib.nullcontext():
                import onnxruntime  # where another thread is importing it, this waits
        except ImportError as error:
            raise MissingDependencyError(
                f"onnxruntime cannot be imported ({error}). Install one of: pip install 'edgewren[cpu]' for CPUs, "
                "pip install 'edgewren[gpu]' for NVIDIA GPUs (one of them, not both)."
            ) from error
        if not _imported and not ours and not _opted_out():
            logger.warning(
                "onnxruntime was imported before edgewren, so its telemetry may be on. Set %s=1 in the environment "
                "before it is imported, or load edgewren's classifier first.",
                _TELEMETRY_OPT_OUT,
            )
        _imported = True
    _check_version(onnxruntime.__version__)
    with contextlib.suppress(AttributeError):  # builds without telemetry need not offer the call
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def _check_version(version: str) -> None:
    numbers = tuple(int(part) for part in version.partition("+")[0].split(".")[:3] if part.isdigit())
    if numbers < MINIMUM_ONNXRUNTIME:
        wanted = ".".join(map(str, MINIMUM_ONNXRUNTIME))
        raise MissingDependencyError(
            f"onnxruntime {version} is too old: edgewren needs {wanted} or newer. "
            "Run: pip install --upgrade 'edgewren[cpu]' (or [gpu])."
        )


def int8_may_saturate(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether products of uint8 and int8 may saturate here: on x86 without VNNI, or where nothing tells.

    Only Linux tells; elsewhere the answer is the safe one.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    with contextlib.suppress(OSError, StopIteration):
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        flags = next(line for line in text.splitlines() if line.startswith("flags")).split()
        return not {"avx512_vnni", "avx_vnni"} & set(flags)
    return True


def threads_keep_memory() -> bool:
    """Return whether memory that a thread frees stays with that thread, for its next allocation: glibc's malloc."""
    with contextlib.suppress(AttributeError, ValueError, OSError):  # no such function, no such name: another C library
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    return False


def return_free_memory() -> None:
    """Have glibc's malloc give the system what was freed and lies between what is still in use; elsewhere do nothing.

    It takes milliseconds, and holds up other threads' allocations for as long.
    """
    import ctypes

    if threads_keep_memory():
        ctypes.CDLL(None).malloc_trim(0)


def granted_cores() -> int:
    """Return how many CPU cores this process may really use, at least 1.

    The smallest of: the machine's cores, the process's affinity mask, and the cgroup CPU quota of the container
    (rounded up), which `os.cpu_count` does not know of.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = cgroup_quota()
    return max(1, min(cores, math.ceil(quota)) if quota is not None else cores)


def choose_device(requested: str) -> Device:
    """Turn `"auto"`, `"cpu"` or `"cuda"` into the device to use. `auto` takes CUDA where onnxruntime offers it.

    Raises:
        DeviceError: unknown name, or CUDA asked for where onnxruntime has no CUDA provider.
    """
    if requested == "cpu":
        return "cpu"
    if requested not in ("auto", "cuda"):
        raise DeviceError(f"Unknown device {requested!r}. Expected 'auto', 'cpu' or 'cuda'.")
    providers: list[str] = import_onnxruntime().get_available_providers()
    if "CUDAExecutionProvider" in providers:
        chosen: Device = "cuda"
    elif requested == "cuda":
        raise DeviceError(
            f"CUDA was requested but onnxruntime offers only {', '.join(providers)}. "
            "Run: pip uninstall onnxruntime; pip install 'edgewren[gpu]', or use device='cpu'."
        )
    else:
        chosen = "cpu"
    if requested == "auto":
        logger.info("device='auto' chose %s (onnxruntime offers %s)", chosen, ", ".join(providers))
    return chosen
