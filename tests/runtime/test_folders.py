"""A folder appears whole or not at all, and what stood in its place is whole until then."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewren.errors import OutputError, UsageError
from edgewren.folders import check_replaceable, written_whole


def write(target: Path, text: str) -> None:
    with written_whole(target, what="a bundle", marked_by="mark") as folder:
        (folder / "mark").write_text("")
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text(text)


def test_a_folder_appears_with_its_parents_and_nothing_beside_it(tmp_path):
    write(tmp_path / "a" / "b", "new")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a" / "b" / "deep" / "file").read_text() == "new"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755


def test_another_takes_the_place_of_the_old_one(tmp_path):
    write(tmp_path / "b", "old")
    (tmp_path / "b" / "stale").write_text("")
    write(tmp_path / "b", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["deep", "mark"]
    assert (tmp_path / "b" / "deep" / "file").read_text() == "new"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()], ids=["disk", "Ctrl-C"])
@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_old_one(tmp_path, monkeypatch, error, failing):
    write(tmp_path / "b", "old")
    rename, calls = Path.rename, []

    def sometimes(self, other):
        calls.append(other)
        if len(calls) == failing:
            raise error
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", sometimes)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write(tmp_path / "b", "new")
    assert (tmp_path / "b" / "deep" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_an_error_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "b", what="a bundle", marked_by="mark"):
        raise ZeroDivisionError
    with pytest.raises(OutputError, match="cannot be written: File exists"):
        (tmp_path / "file").write_text("")
        write(tmp_path / "file" / "b", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_somebody_else_put_there_meanwhile_is_left_alone(tmp_path, kind):
    theirs = tmp_path / "b"
    if kind == "file":
        theirs.write_text("theirs")
    elif kind == "link":
        write(tmp_path / "elsewhere", "theirs")
        theirs.symlink_to(tmp_path / "elsewhere")
    else:
        theirs.mkdir()
        (theirs / "notes.txt").write_text("theirs")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        OutputError, match=r"/b has come into being and is not a bundle, so it is left alone: see .*/b-[^/]*\.$"
    ):
        write(theirs, "new")
    (kept,) = tmp_path.glob("b-*")
    assert (kept / "deep" / "file").read_text() == "new"
    assert before.items() <= {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}.items()
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_written_is_refused_beforehand(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mark").write_text("")
    before = sorted(tmp_path.rglob("*"))

    def check(name, *, force=False):
        check_replaceable(tmp_path / name, what="a bundle", marked_by="mark", force=force)

    check("new")
    check("deep/in/new")
    check("full", force=True)
    for name in ("file/new", "file/deep/new"):
        with pytest.raises(OutputError, match="cannot be written: .*file: Not a directory. Choose another --output"):
            check(name)
    with pytest.raises(UsageError, match="exists already. Use --force"):
        check("full")
    with pytest.raises(UsageError, match="is not a bundle"):
        check("file", force=True)
    assert sorted(tmp_path.rglob("*")) == before
