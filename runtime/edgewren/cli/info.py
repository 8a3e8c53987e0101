"""The verb `edgewren info`: what a bundle is and where it comes from. Loads no model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgewren.display import printable, shortened

if TYPE_CHECKING:
    from edgewren.bundle import Bundle
    from edgewren.manifest import Variant

_VALUE_CHARACTERS = 100


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "info",
        help="show what a bundle is",
        description="Show a bundle's labels, files, training and evaluation, from its manifest. Computes nothing: "
        "'edgewren verify' does.",
        epilog="example:\n  edgewren info bias-bundle",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder written by 'edgewren export'")
    parser.add_argument(
        "--require-sha256", metavar="HEX", help="refuse any other bundle than the one whose manifest has this SHA-256"
    )
    parser.add_argument("--json", action="store_true", help="print the manifest and its SHA-256 as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the manifest says. Raises BundleError."""
    from edgewren.bundle import Bundle

    bundle = Bundle.open(args.bundle, args.require_sha256)
    if args.json:
        print(json.dumps({"sha256": bundle.sha256, "manifest": asdict(bundle.manifest)}, ensure_ascii=True))
    else:
        print(_summary(bundle))
    return 0


def _summary(bundle: Bundle) -> str:
    manifest = bundle.manifest
    lines = [
        f"{bundle.path}",
        f"  SHA-256      {bundle.sha256}  (of manifest.json, which pins all other files)",
        f"  labels       {', '.join(manifest.labels)}",
        f"  kind         {manifest.kind}",
        f"  max length   {manifest.max_length} tokens",
        f"  normaliser   {manifest.normaliser}",
        f"  temperature  {manifest.temperature:g}",
        "variants",
    ]
    lines += [
        f"  {name:<11}  {manifest.variant_bytes(name) / 2**20:7.1f} MiB  {variant.precision} for {variant.device}, "
        f"{variant.file}{_stages(variant)}"
        for name, variant in manifest.variants.items()
    ]
    for title in ("encoder", "training", "evaluation", "parity", "created"):
        section: Mapping[str, Any] = getattr(manifest, title)
        if section:
            lines += [title, *_section(section, "  ")]
    return "\n".join(lines)


def _stages(variant: Variant) -> str:
    layers = ", ".join(str(stage.layer) for stage in variant.stages)
    return f" and {len(variant.stages) - 1} more (stages that end after layers {layers})" if layers else ""


def _section(section: Mapping[str, Any], indent: str) -> list[str]:
    """Return one line per value; what is long is cut, since --json has all of it."""
    width = max(len(printable(str(key))) for key in section)
    lines: list[str] = []
    for key, value in section.items():
        name = printable(str(key))
        if isinstance(value, dict) and value and len(indent) < 6:
            lines += [f"{indent}{name}", *_section(value, indent + "  ")]
            continue
        text = shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _VALUE_CHARACTERS)
        lines.append(f"{indent}{name:<{width}}  {text}")
    return lines
