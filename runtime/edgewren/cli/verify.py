"""The verb `edgewren verify`: is this bundle whole, the one that was meant, and does it compute here what it should?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from edgewren.errors import BundleError

if TYPE_CHECKING:
    from edgewren.verification import Verification


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb with the command line."""
    parser = subparsers.add_parser(
        "verify",
        help="check a bundle's files and its results on this machine",
        description="Compare every file with its SHA-256 in the manifest, and replay the bundle's golden texts through "
        "every variant that runs on this machine. What the manifest itself says is pinned by "
        "--require-sha256 alone: no other file vouches for it.",
        epilog='example:\n  edgewren verify bias-bundle --require-sha256 "$(cat bias-bundle.sha256)"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder written by 'edgewren export'")
    parser.add_argument(
        "--require-sha256", metavar="HEX", help="refuse any other bundle than the one whose manifest has this SHA-256"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the account of a verification.

    Raises:
        BundleError: something does not agree; the account was printed before, unless nothing could be opened.
    """
    from edgewren.verification import verify

    verification = verify(args.bundle, require_sha256=args.require_sha256)
    print(json.dumps(verification.as_dict()) if args.json else _account(verification))
    if not verification.ok:
        raise BundleError(
            f"{args.bundle} failed: {'; '.join(verification.failures[:3])}. Do not use it: get it, or export it, again."
        )
    return 0


def _account(verification: Verification) -> str:
    lines = [
        f"manifest  {verification.sha256}",
        f"files     {verification.files} checked against their SHA-256",
        *(f"checked   {check}" for check in verification.checks),
    ]
    for replay in verification.replays:
        if replay.skipped is not None:
            lines.append(f"{replay.variant:<8}  not replayed: {replay.skipped}")
            continue
        moved = "" if replay.moved is None else f", {replay.moved} left after another layer"
        lines.append(
            f"{replay.variant:<8}  {replay.texts} golden texts on {replay.device}: logits differ by at most "
            f"{replay.max_difference:.1e}, {replay.label_flips} labels changed ({replay.label_flips_beyond_margin} of "
            f"them where fp32 was sure){moved}: {'ok' if replay.ok else 'FAILED'}"
        )
    lines += [f"FAILED    {failure}" for failure in verification.failures]
    lines.append("ok" if verification.ok else "failed")
    return "\n".join(lines)
