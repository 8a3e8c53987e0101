"""Files by address: found, fetched, and put whole or not at all; here by path, by file:// and by fsspec's memory://."""

from __future__ import annotations

import hashlib

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
