"""`edgewren pull` and `push` with the real huggingface_hub, against a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from fake_hub import serving

from edgewren.errors import UsageError
from edgewren.integrations.hub import parse_name

pytest.importorskip("huggingface_hub")

RUN = """
import contextlib, io, json, os, sys
from edgewren.cli.main import main
results = []
for argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""


@pytest.fixture
def hub():
    with serving() as hub:
        yield hub


@pytest.fixture
def edgewren(hub, tmp_path):
    """Run commands in a process of their own: huggingface_hub reads its environment when it is imported."""

    def run(*commands, offline=False):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        argv = [sys.executable, "-c", RUN, json.dumps([[str(part) for part in command] for command in commands])]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_goes_there_and_back_and_can_be_pinned(hub, edgewren, tiny_bundle, tmp_path):
    sha256 = hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()
    back, pinned, refused, old = (tmp_path / name for name in ("back", "pinned", "refused", "old"))
    pushed, pulled, same, other, again, replaced = edgewren(
        ["push", tiny_bundle, "lab/tiny"],
        ["pull", "lab/tiny", "--output", back],
        ["pull", "lab/tiny@main", "--output", pinned, "--require-sha256", sha256, "--json"],
        ["pull", "lab/tiny", "--output", refused, "--require-sha256", "0" * 64],
        ["pull", "lab/tiny", "--output", back],
        ["pull", "lab/tiny@v1", "--output", back, "--force"],
    )
    assert pushed[0] == 0, pushed
    assert pushed[1].startswith(f"{hub.url}/lab/tiny/commit/")
    (commit,) = hub.repositories["lab/tiny"]
    assert set(commit) - {".gitattributes"} == set(contents(tiny_bundle)), "only what the manifest names is sent"

    assert pulled[0] == 0, pulled
    assert f"--require-sha256 {sha256}" in pulled[1]
    assert contents(back) == contents(tiny_bundle)
    assert not any(path.is_symlink() for path in back.rglob("*"))
    assert ".gitattributes" not in hub.fetched(), "only what the manifest names is fetched"

    assert json.loads(same[1])["manifest_sha256"] == sha256
    assert other[0] == 3
    assert "not the bundle that you pinned" in other[2]
    assert not refused.exists()
    assert again[0] == 2
    assert "exists already" in again[2]
    assert replaced[0] == 0
    assert contents(back) == contents(tiny_bundle)
    assert not old.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"hf", "back", "pinned"}, "nothing half-done stays"


def test_a_name_without_owner_is_of_whoever_pushes(hub, edgewren, tiny_bundle):
    (pushed,) = edgewren(["push", tiny_bundle, "tiny"])
    assert pushed[0] == 0, pushed
    assert pushed[1].startswith(f"{hub.url}/me/tiny/commit/")
    assert len(hub.repositories["me/tiny"]) == 1


@pytest.mark.slow
def test_offline_takes_what_was_fetched_before_and_asks_nobody(hub, edgewren, tiny_bundle, tmp_path):
    hub.repositories["lab/tiny"] = [contents(tiny_bundle)]
    edgewren(["pull", "lab/tiny", "--output", tmp_path / "first"])
    asked = len(hub.requests)
    known, unknown, pushed = edgewren(
        ["pull", "lab/tiny", "--output", tmp_path / "second"],
        ["pull", "lab/other", "--output", tmp_path / "third"],
        ["push", tiny_bundle, "lab/tiny"],
        offline=True,
    )
    assert known[0] == 0, known
    assert contents(tmp_path / "second") == contents(tiny_bundle)
    assert unknown[0] == 4
    assert "manifest.json cannot be fetched" in unknown[2]
    assert pushed[0] == 6
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_what_is_no_sound_bundle_is_refused_and_leaves_no_folder(hub, edgewren, tiny_bundle, tmp_path):
    sound = contents(tiny_bundle)
    without = {name: data for name, data in sound.items() if name != "tokenizer.json"}
    model = {**sound, "onnx/model.onnx": sound["onnx/model.onnx"][:-1] + b"\0"}
    longer = {**sound, "config.json": sound["config.json"] + b" "}
    outside = {**sound, "manifest.json": sound["manifest.json"].replace(b"config.json", b"../config.json")}
    hub.repositories |= {
        "lab/sound": [sound],
        "lab/none": [{"README.md": b"#"}],
        "lab/without": [without],
        "lab/model": [model],
        "lab/longer": [longer],
        "lab/outside": [outside],
    }
    expected = {
        "lab/nowhere": (4, "no such repository"),
        "lab/sound@v9": (4, "no such revision"),
        "lab/none": (4, "manifest.json cannot be fetched"),
        "lab/without": (4, "tokenizer.json cannot be fetched"),
        "lab/model": (3, "not the file that manifest.json describes"),
        "lab/longer": (3, "config.json has"),
        "lab/outside": (3, "a plain name in the bundle"),
    }
    results = edgewren(*(["pull", name, "--output", tmp_path / "out"] for name in expected))
    for (name, (code, message)), result in zip(expected.items(), results, strict=True):
        assert result[0] == code, (name, result)
        assert message in result[2]
        assert result[2].count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"hf"}


@pytest.mark.slow
def test_a_damaged_bundle_and_foreign_folders_are_left_alone(hub, edgewren, tiny_bundle, tmp_path):
    hub.repositories["lab/tiny"] = [contents(tiny_bundle)]
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    (damaged / "config.json").write_text("{}")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    pushed, pulled = edgewren(
        ["push", damaged, "lab/new"],
        ["pull", "lab/tiny", "--output", mine, "--force"],
    )
    assert pushed[0] == 3
    assert "lab/new" not in hub.repositories
    assert hub.requests == []
    assert pulled[0] == 2
    assert "is not a bundle, so it is not replaced" in pulled[2]
    assert (mine / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "a/b@", "a/b@x y", "https://x.org/a/b"])
def test_malformed_names_are_usage_errors(name):
    with pytest.raises(UsageError, match="OWNER/NAME"):
        parse_name(name)


def test_names_may_have_a_revision():
    assert parse_name("lab/tiny") == ("lab/tiny", None)
    assert parse_name("lab/tiny@refs/pr/1") == ("lab/tiny", "refs/pr/1")
