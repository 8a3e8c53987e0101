"""The verbs `edgewren pull` and `edgewren push`: bundles from and to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import sys


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register both verbs with the command line."""
    pull = subparsers.add_parser(
        "pull",
        help="fetch a bundle from the Hugging Face Hub",
        description="Fetch a bundle's manifest, then the files that it names, and check every hash. Nothing else of "
        "the repository is fetched, and nothing is executed. With HF_HUB_OFFLINE=1 only what was fetched before is "
        "used.",
        epilog="example:\n  edgewren pull some-lab/media-bias@v1 --output bias-bundle",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pull.add_argument("id", metavar="ID[@REVISION]", help="repository, with branch, tag or commit")
    pull.add_argument("--output", "-o", required=True, metavar="DIR", help="folder to make")
    pull.add_argument("--require-sha256", metavar="HASH", help="refuse any manifest.json but the one with this SHA-256")
    pull.add_argument("--force", action="store_true", help="replace DIR if it holds a bundle")
    pull.add_argument("--json", action="store_true", help="print one JSON document")
    pull.set_defaults(run=run_pull, extra="hub")

    push = subparsers.add_parser(
        "push",
        help="send a bundle to the Hugging Face Hub",
        description="Check a bundle's files and send them as one commit: the manifest and what it names, nothing else.",
        epilog="example:\n  edgewren push bias-bundle some-lab/media-bias",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    push.add_argument("bundle", metavar="BUNDLE", help="folder written by 'edgewren export'")
    push.add_argument("id", metavar="ID[@BRANCH]", help="repository; made if it is not there")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--message", metavar="TEXT", help="of the commit")
    push.add_argument("--json", action="store_true", help="print one JSON document")
    push.set_defaults(run=run_push, extra="hub")


def run_pull(args: argparse.Namespace) -> int:
    """Fetch, and say what came. Raises EdgewrenError as `pull` does."""
    from edgewren.integrations.hub import pull

    found = pull(args.id, args.output, expected_sha256=args.require_sha256, force=args.force, report=_say)
    if args.json:
        print(json.dumps({"path": str(found.path), "commit": found.commit, "manifest_sha256": found.sha256}))
    else:
        print(f"{found.path}: commit {found.commit}\n  pin it with: --require-sha256 {found.sha256}")
    return 0


def run_push(args: argparse.Namespace) -> int:
    """Send, and say where it is. Raises EdgewrenError as `push` does."""
    from edgewren.integrations.hub import push

    url = push(args.bundle, args.id, private=args.private, message=args.message, report=_say)
    print(json.dumps({"commit_url": url}) if args.json else url)
    return 0


def _say(file: str) -> None:
    if sys.stderr.isatty():
        print(f"  {file}", file=sys.stderr)
