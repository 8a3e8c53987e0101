"""The verb `edgewren doctor`: which runtime is installed, which providers really load, what this machine grants."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from edgewren.errors import MissingDependencyError

if TYPE_CHECKING:
    from edgewren.diagnosis import Diagnosis


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="show what is installed and what this machine grants",
        description="Show versions, execution providers that really load, CPU instruction sets, granted cores and "
        "memory. Exits with 2 if onnxruntime is missing or installed twice.",
        epilog="example:\n  edgewren doctor --json > doctor.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; 2 if something must be mended before edgewren can score."""
    from edgewren.diagnosis import diagnose

    diagnosis = diagnose()
    print(json.dumps(diagnosis.as_dict()) if args.json else _account(diagnosis))
    return MissingDependencyError.exit_code if diagnosis.problems else 0


def _account(found: Diagnosis) -> str:
    flags = "unknown" if found.cpu_flags is None else " ".join(found.cpu_flags) or "none of those that matter here"
    cores = (
        f"machine {found.cores_machine}, affinity {_or_none(found.cores_affinity)}, "
        f"container quota {_or_none(found.cores_quota)}"
    )
    lines = [
        f"edgewren     {found.edgewren}",
        f"python       {found.python}",
        f"platform     {found.platform}",
        *(f"{name:<12} {version or 'NOT INSTALLED'}" for name, version in found.packages.items()),
        *(f"provider     {name} {state}" for name, state in found.providers.items()),
        f"telemetry    {found.telemetry}",
        f"cpu          {found.cpu}",
        f"cpu flags    {flags}",
        f"cores        {found.cores_granted} granted ({cores})",
        f"memory       {_gib(found.memory)} (container limit {_gib(found.memory_limit)})",
        f"cache        {found.cache_folder or 'unknown'}",
    ]
    for extra, packages in found.extras.items():
        missing = [name for name, version in packages.items() if version is None]
        present = ", ".join(f"{name} {version}" for name, version in packages.items() if version is not None)
        state = f"lacks {', '.join(missing)}: pip install 'edgewren[{extra}]'" if missing else present
        lines.append(f"extra        {extra}: {state}")
    lines += [f"PROBLEM      {problem}" for problem in found.problems]
    return "\n".join(lines)


def _or_none(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _gib(size: int | None) -> str:
    return "none" if size is None else f"{size / 2**30:.1f} GiB"
