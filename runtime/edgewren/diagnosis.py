"""What this machine offers and what is installed on it, found out by trying. Knows nothing of bundles or printing."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgewren import __version__
from edgewren.cgroup import cgroup_quota, memory_limit
from edgewren.device import granted_cores, import_onnxruntime, installed_onnxruntimes
from edgewren.errors import MissingDependencyError, UsageError

# An ONNX model, y = Identity(x), float[1], opset 13, as protobuf bytes: enough to see which providers really start.
_IDENTITY_MODEL = (
    b"\x08\x08"  # ModelProto.ir_version = 8
    b":7"  # ModelProto.graph, 55 bytes
    b'\n\x10\n\x01x\x12\x01y"\x08Identity'  # GraphProto.node: input "x", output "y", op_type "Identity"
    b"\x12\x01g"  # GraphProto.name = "g"
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"  # GraphProto.input: "x", float, shape [1]
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"  # GraphProto.output: "y", float, shape [1]
    b"B\x04\n\x00\x10\x0d"  # ModelProto.opset_import: domain "", version 13
)

_CPU_FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16"),
)
"""What decides the speed of fp32 (avx2, avx512f), int8 (vnni, amx_int8) and bf16 kernels; on ARM of int8 and bf16."""

_SHOWN_EXTRAS = ("parquet", "plot", "train", "export")


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found. Sizes in bytes; None where something is unknown or unlimited.

    Attributes:
        packages: version of what edgewren needs, None if it is not installed.
        providers: execution providers that onnxruntime offers, and whether a session really starts on them
            ("loads", or why not).
        cpu_flags: instruction sets that matter here, as far as this CPU has them; None where that cannot be read.
        cores_machine, cores_affinity, cores_quota, cores_granted: of the machine; allowed by the affinity mask;
            allowed by the container; what edgewren uses.
        extras: per extra, its packages with version or None.
        telemetry: state of onnxruntime's telemetry in edgewren's processes.
        problems: what must be mended before anything can be scored, with the remedy.
    """

    edgewren: str
    python: str
    platform: str
    packages: dict[str, str | None]
    providers: dict[str, str]
    cpu: str
    cpu_flags: tuple[str, ...] | None
    cores_machine: int
    cores_affinity: int | None
    cores_quota: float | None
    cores_granted: int
    memory: int | None
    memory_limit: int | None
    extras: dict[str, dict[str, str | None]]
    telemetry: str
    cache_folder: str | None
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as what JSON knows."""
        return asdict(self)


def diagnose() -> Diagnosis:
    """Look at this machine. Never raises; what is wrong is in `problems`."""
    runtimes = installed_onnxruntimes()
    providers: dict[str, str] = {}
    problems: list[str] = []
    if len(runtimes) > 1:
        problems.append(
            f"{' and '.join(runtimes)} are both installed and overwrite each other's files. "
            f"Run: pip uninstall {' '.join(runtimes)}; then one of: pip install 'edgewren[cpu]', "
            "pip install 'edgewren[gpu]'."
        )
    try:
        providers = _providers(import_onnxruntime())
    except MissingDependencyError as error:
        problems.append(str(error))
    cpu, flags = _cpu()
    quota = cgroup_quota()
    return Diagnosis(
        edgewren=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=platform.platform(),
        packages={
            "numpy": _version("numpy"),
            "tokenizers": _version("tokenizers"),
            **(runtimes or dict.fromkeys(["onnxruntime"])),
        },
        providers=providers,
        cpu=cpu,
        cpu_flags=flags,
        cores_machine=os.cpu_count() or 1,
        cores_affinity=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        cores_quota=quota,
        cores_granted=granted_cores(),
        memory=_memory(),
        memory_limit=memory_limit(),
        extras=_extras(),
        telemetry="off" if providers else "unknown",
        cache_folder=_cache_folder(),
        problems=tuple(problems),
    )


def _providers(onnxruntime: Any) -> dict[str, str]:
    """Start a session on every offered provider; only the session's own list tells what really loaded."""
    found: dict[str, str] = {}
    for name in onnxruntime.get_available_providers():
        if name == "AzureExecutionProvider":  # part of every official wheel; calls a web service, computes nothing here
            continue
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is reported below, not by onnxruntime
        if name == "CUDAExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        try:
            session = onnxruntime.InferenceSession(_IDENTITY_MODEL, options, providers=[name])
        except Exception as error:  # noqa: BLE001  a dozen classes without a common base; none may end the diagnosis
            found[name] = f"does not load: {' '.join(str(error).split())[:200]}"
            continue
        found[name] = "loads" if name in session.get_providers() else "does not load: its libraries are missing"
    return found


def _cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, tuple[str, ...] | None]:
    """Return the CPU's name and its relevant flags. Only Linux tells."""
    with contextlib.suppress(OSError):
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        fields: dict[str, str] = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", text, flags=re.MULTILINE))
        flags = frozenset(fields.get("flags", fields.get("Features", "")).split())
        return fields.get("model name", platform.machine()), tuple(flag for flag in _CPU_FLAGS if flag in flags)
    return platform.processor() or platform.machine(), None


def _memory() -> int | None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _extras() -> dict[str, dict[str, str | None]]:
    try:
        requirements = metadata.requires("edgewren") or []
    except metadata.PackageNotFoundError:  # copied or frozen into another program
        return {}
    found: dict[str, dict[str, str | None]] = {name: {} for name in _SHOWN_EXTRAS}
    for requirement in requirements:
        package = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if package and extra and extra[1] in found and package[0] != "edgewren":
            found[extra[1]][package[0]] = _version(package[0])
    return found


def _version(distribution: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(distribution)
    return None


def cache_folder() -> Path:
    """Return where training keeps what it can compute again: EDGEWREN_CACHE, else the user's cache folder.

    Raises:
        UsageError: nothing says where that is: the user has no home folder.
    """
    named = os.environ.get("EDGEWREN_CACHE")
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewren"
    except RuntimeError as error:  # no HOME, and no entry in the list of users
        raise UsageError(f"There is no folder for the cache: {error} Name one: EDGEWREN_CACHE=FOLDER.") from error


def _cache_folder() -> str | None:
    with contextlib.suppress(UsageError):
        return str(cache_folder())
    return None
