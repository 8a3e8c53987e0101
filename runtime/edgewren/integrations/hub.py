"""Bundles from and to the Hugging Face Hub. Imports huggingface_hub when something is pulled or pushed.

Addresses, tokens, cache and offline mode (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_OFFLINE`) are huggingface_hub's
own. Ours is what a bundle adds: the manifest comes first, all other files come from the same commit, only those that it
names, and a folder appears only when each of them has the hash that the manifest gives.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgewren.bundle import Bundle
from edgewren.errors import BundleError, BundleHashError, InputError, MissingDependencyError, OutputError, UsageError
from edgewren.folders import check_replaceable, move_into_place
from edgewren.manifest import MANIFEST, Manifest

_MAXIMUM_MANIFEST_BYTES = 16 * 2**20
_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+|[\w.-]+)(?:@(?P<revision>[^@\s]+))?", re.ASCII)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Pulled:
    """What was fetched: the folder, the hub's commit, and the manifest's SHA-256, which pins all of it."""

    path: Path
    commit: str
    sha256: str


def pull(
    name: str,
    output: str | Path,
    *,
    expected_sha256: str | None = None,
    force: bool = False,
    report: Report | None = None,
) -> Pulled:
    """Fetch a bundle into a folder; the folder appears when it is whole and every hash is right.

    Args:
        name: ID or ID@REVISION: branch, tag or commit.
        output: folder to make.
        expected_sha256: of manifest.json; with it, nothing else of the repository is fetched from a changed one.
        force: whether an existing folder may be replaced, if it holds a bundle.
        report: told which file comes next.

    Raises:
        UsageError: the id is malformed, or the output exists.
        InputError: the hub cannot be reached, or has no such repository, revision or file.
        BundleError: what came is not a bundle, or not the one that was expected.
        OutputError: the folder cannot be written.
        MissingDependencyError: huggingface_hub is not installed.
    """
    repository, revision = parse_name(name)
    target = Path(output)
    check_free = partial(check_replaceable, target, what="a bundle", marked_by=MANIFEST, force=force, option="folder")
    check_free()
    hub = _huggingface_hub()

    def fetch(file: str, at: str | None) -> Path:
        if report is not None:
            report(file)
        with _reported(hub, f"{name}: {file} cannot be fetched", InputError):
            return Path(hub.hf_hub_download(repository, file, revision=at, library_name="edgewren"))

    manifest_path = fetch(MANIFEST, revision)
    commit = manifest_path.parent.name  # huggingface_hub keeps snapshots/COMMIT/FILE
    raw = _bytes_of(manifest_path, _MAXIMUM_MANIFEST_BYTES)
    digest = hashlib.sha256(raw).hexdigest()
    if expected_sha256 is not None and digest != expected_sha256.lower():
        raise BundleHashError(
            f"{name} has a {MANIFEST} with SHA-256 {digest}, expected {expected_sha256}. It is not the bundle that you "
            "pinned: nothing else was fetched."
        )
    manifest = Manifest.from_json(raw, Path(repository) / MANIFEST)
    expected = {entry.file: entry for entry in manifest.variants.values()} | dict(manifest.files)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            folder = Path(temporary) / "bundle"
            folder.mkdir()
            (folder / MANIFEST).write_bytes(raw)
            for file, entry in expected.items():
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).write_bytes(_bytes_of(fetch(file, commit), entry.bytes))
            bundle = Bundle.open(folder)
            for file in bundle.names():
                bundle.read(file)  # compares size and hash
            check_replaceable(
                target, what="a bundle", marked_by=MANIFEST, force=force, option="folder"
            )  # once more: fetching takes a while
            move_into_place(folder, target, aside=folder.with_name("replaced"))
    except OSError as error:
        if isinstance(error, (BundleError, InputError)):
            raise
        raise OutputError(f"{target} cannot be written: {error.strerror or error}.") from error
    return Pulled(target, commit, digest)


def push(
    bundle: str | Path,
    name: str,
    *,
    private: bool = False,
    message: str | None = None,
    report: Report | None = None,
) -> str:
    """Send a bundle to the hub as one commit, and return the commit's address.

    Every file is checked against the manifest first, and the bytes that were checked are those that are sent. Nothing
    but the manifest and the files that it names is sent. The repository is made if it is not there.

    Args:
        bundle: folder written by `edgewren export`.
        name: ID, or ID@BRANCH of a branch that exists.
        private: whether a new repository is private.
        message: of the commit.
        report: told which file comes next.

    Raises:
        BundleError: the folder is not a complete, undamaged bundle.
        OutputError: the hub cannot be reached, or refuses.
        UsageError: the id is malformed.
        MissingDependencyError: huggingface_hub is not installed.
    """
    repository, revision = parse_name(name)
    opened = Bundle.open(bundle)
    manifest = _bytes_of(opened.path / MANIFEST, _MAXIMUM_MANIFEST_BYTES)
    if hashlib.sha256(manifest).hexdigest() != opened.sha256:
        raise BundleError(f"{opened.path / MANIFEST} was changed while it was read. Try again.")
    contents = {MANIFEST: manifest} | {file: opened.read(file) for file in opened.names()}
    hub = _huggingface_hub()
    if report is not None:
        for file in contents:
            report(file)
    with _reported(hub, f"{opened.path} cannot be pushed to {name}", OutputError):
        api = hub.HfApi(library_name="edgewren")
        repository = api.create_repo(repository, private=private, exist_ok=True).repo_id  # with its owner
        commit = api.create_commit(
            repository,
            [hub.CommitOperationAdd(path_in_repo=file, path_or_fileobj=data) for file, data in contents.items()],
            commit_message=message or f"edgewren bundle {opened.sha256[:12]}",
            revision=revision,
        )
    return str(commit.commit_url)


def parse_name(name: str) -> tuple[str, str | None]:
    """Split ID[@REVISION].

    Raises:
        UsageError: it is not of this form.
    """
    found = _ID.fullmatch(name)
    if found is None:
        raise UsageError(f"{name!r} is no name on the hub. Expected OWNER/NAME or OWNER/NAME@REVISION.")
    return found["id"], found["revision"]


def _huggingface_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependencyError(
            f"Bundles on the hub need huggingface_hub, which cannot be imported ({error}). "
            "Run: pip install 'edgewren[hub]'."
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _reported(hub: Any, what: str, kind: type[InputError | OutputError]) -> Iterator[None]:
    try:
        yield
    except hub.errors.RepositoryNotFoundError as error:
        raise kind(
            f"{what}: no such repository, or it is private. Check the name; log in with: hf auth login"
        ) from error
    except hub.errors.RevisionNotFoundError as error:
        raise kind(f"{what}: no such revision. Name a branch, tag or commit after @.") from error
    except hub.errors.EntryNotFoundError as error:
        # also: not in the cache, while HF_HUB_OFFLINE forbids to ask
        raise kind(f"{what}: {_first_line(error)} Is it a bundle written by 'edgewren export'?") from error
    except Exception as error:  # whatever its HTTP library raises: requests before 1.0, httpx since
        raise kind(f"{what}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:400] or type(error).__name__


def _bytes_of(path: Path, limit: int) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise BundleError(f"{path.name} has {size} bytes, more than the {limit} expected.")
    return path.read_bytes()
