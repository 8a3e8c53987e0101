"""Folders that appear whole or not at all: written beside their place, then moved there."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgewren.errors import OutputError, UsageError


def check_replaceable(target: Path, *, what: str, marked_by: str, force: bool, option: str = "--output") -> None:
    """Refuse a folder that must not be replaced, or that cannot be made: before work, not after it.

    Args:
        what: what may be replaced, such as "a bundle".
        marked_by: the file that tells one.
        option: how to name another folder.

    Raises:
        UsageError: it exists and `force` is not set, or it is something else (a link, too).
        OutputError: nothing can be made where it is to be.
    """
    if target.exists() or target.is_symlink():
        if not force:
            raise UsageError(f"{target} exists already. Use --force to replace it, or choose another {option}.")
        if not _is_marked(target, marked_by):
            raise UsageError(f"{target} is not {what}, so it is not replaced. Choose another {option}.")
    _check_writable(target, option)


def _is_marked(target: Path, marked_by: str) -> bool:
    return not target.is_symlink() and (target / marked_by).is_file()


def _check_writable(target: Path, option: str) -> None:
    """Try to make a folder where the target is to be, or where its missing parents are."""
    place = next(folder for folder in target.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=f".{target.name}-"):
            pass
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {place}: {error.strerror or error}. Choose another {option}."
        ) from error


@contextlib.contextmanager
def written_whole(target: Path, *, what: str, marked_by: str) -> Iterator[Path]:
    """Give a temporary folder beside the target, and move it there in the end, instead of what stands there.

    Something else than `what`, which somebody put there since `check_replaceable`, is left alone: then the new folder
    keeps a name of its own, since hours of work may be in it.

    Raises:
        OutputError: something cannot be written, or stands there. What stood there still does.
    """
    target = target.absolute()
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        made = scratch / "new"
        made.mkdir(mode=0o755)
        yield made
        if (target.exists() or target.is_symlink()) and not _is_marked(target, marked_by):
            kept = made.rename(f"{target}-{scratch.name.rpartition('-')[2]}")
            raise OutputError(f"{target} has come into being and is not {what}, so it is left alone: see {kept}.")
        move_into_place(made, target, aside=scratch / "replaced")
    except OutputError:  # an OSError too
        raise
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {error.strerror or error}. Free space or choose another --output."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def move_into_place(made: Path, target: Path, *, aside: Path) -> None:
    """Rename a folder to its target. What stands there is renamed first, and comes back where the rest fails: killed at
    any moment, this leaves the old or the new one whole, there or at `aside`.

    Args:
        aside: a free name on the same file system; the caller removes what is there afterwards.

    Raises:
        OSError: it cannot be moved.
    """
    if not target.exists() and not target.is_symlink():
        made.rename(target)
        return
    target.rename(aside)
    try:
        made.rename(target)
    except BaseException:  # Ctrl-C too: the caller removes what lies aside
        aside.rename(target)
        raise
