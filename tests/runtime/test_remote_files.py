"""Files by address: found, fetched, and put whole or not at all; here by path, by file:// and by fsspec's memory://."""

from __future__ import annotations

import hashlib
import os

import pytest

from edgewren.errors import InputError, OutputError
from edgewren.integrations.remote_files import Folder, fetch, find


@pytest.fixture(params=["path", "file", "memory"])
def place(request, tmp_path) -> str:
    return {"path": str(tmp_path / "d"), "file": f"file://{tmp_path}/d", "memory": f"memory://{tmp_path.name}"}[
        request.param
    ]


def test_what_is_put_can_be_found_and_fetched(place, tmp_path):
    folder = Folder(place)
    assert folder.sizes() == {}
    assert folder.put("b.csv", b"bb") == (2, hashlib.sha256(b"bb").hexdigest())
    folder.put("a.csv", b"old")
    folder.put("a.csv", b"a")
    (tmp_path / "local").write_bytes(b"x" * 3_000_000)
    folder.put("below/c.csv", tmp_path / "local")
    assert folder.sizes() == {"a.csv": 1, "b.csv": 2}
    assert folder.sizes("below") == {"c.csv": 3_000_000}
    assert (folder.read("a.csv"), folder.read("none")) == (b"a", None)
    assert [(found.address, found.bytes) for found in find(f"{place}/*.csv")] == [
        (f"{place}/a.csv", 1),
        (f"{place}/b.csv", 2),
    ]
    (tmp_path / "copies").mkdir()
    copy = fetch(f"{place}/below/c.csv", tmp_path / "copies")
    assert (copy.name, copy.read_bytes()) == ("c.csv", b"x" * 3_000_000)
    folder.remove("a.csv")
    folder.remove("a.csv")
    folder.tidy()
    assert folder.sizes() == {"b.csv": 2}


def test_nothing_appears_under_a_name_before_it_is_whole(tmp_path):
    folder = Folder(str(tmp_path))
    folder.put("a", b"before")
    with pytest.raises(OutputError, match="a cannot be written"):
        folder.put("a", tmp_path / "missing")
    assert folder.read("a") == b"before"
    folder.tidy()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("address", ["none.csv", "none-*.csv", "file:///none/none.csv", "nothing://knows/this.csv"])
def test_what_is_not_there_is_an_input_error(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        find(address)


def test_relative_paths_are_made_absolute_where_they_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"a")
    folder = Folder("out")
    folder.put("part", b"p")
    (found,) = find("*.csv")
    (other,) = find("a.csv")
    monkeypatch.chdir("/")
    assert found == other
    assert (found.address, folder.address) == (str(tmp_path / "a.csv"), str(tmp_path / "out"))
    assert folder.read("part") == Folder(folder.address).read("part") == b"p"


def test_names_that_are_no_utf_8_are_told(tmp_path):
    name = os.fsdecode(b"n\xff.csv")
    try:
        (tmp_path / name).write_text("")
    except OSError:
        pytest.skip("this file system has no such names")
    for address in (str(tmp_path / name), str(tmp_path / "*.csv"), f"file://{tmp_path}/{name}"):
        with pytest.raises(InputError, match="UTF-8"):
            find(address)
    with pytest.raises(OutputError, match="UTF-8"):
        Folder(str(tmp_path / name)).put("a", b"")
    with pytest.raises(OutputError, match="UTF-8"):
        Folder(str(tmp_path)).sizes()


class LikeHdfs:
    """A file system that renames over no other file, and of two that put the same file lets the other come first."""

    type_name = "hdfs"

    def __init__(self, system, others=0):
        self.system = system
        self.others = others

    def __getattr__(self, name):
        return getattr(self.system, name)

    def move(self, source, target):
        if self.system.get_file_info(target).type.name == "File":
            raise OSError("file exists")
        if self.others:
            self.others -= 1
            with self.system.open_output_stream(target) as stream:
                stream.write(b"the other's")
            raise OSError("file exists")
        self.system.move(source, target)


@pytest.mark.parametrize("others", [0, 3])
def test_hdfs_which_renames_over_nothing_gets_the_new_file_too(tmp_path, others):
    folder = Folder(str(tmp_path))
    folder._system = LikeHdfs(folder._system, others)
    folder.put("a", b"old")
    folder.put("a", b"new")
    assert folder.read("a") == b"new"


def test_a_rename_that_fails_for_another_reason_leaves_what_is_there(tmp_path):
    folder = Folder(str(tmp_path))
    folder.put("a", b"old")
    folder._system = LikeHdfs(folder._system)
    folder._system.type_name = "s3"
    with pytest.raises(OutputError, match="file exists"):
        folder.put("a", b"new")
    assert folder.read("a") == b"old"
