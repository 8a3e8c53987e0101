"""A bundle that arrived as bytes: its classifier lives as long as the process, and so does what it reads again."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgewren.integrations.scratch import scratch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PROGRAM = """
import os, sys
from edgewren.integrations.shipped import Placement, classifier_of, pack
packed = pack(sys.argv[1])
classifier = classifier_of(packed, Placement(threads=2))
assert classifier_of(packed, Placement(threads=2)) is classifier
expected = classifier.predict(["good"])
for _ in range(12):
    classifier.predict(["good"])
classifier._alone._making.result(10)
for _ in range(2):  # the second finds what the first has left when it ended
    child = os.fork()
    if child == 0:
        sys.exit(classifier.predict(["good"]) != expected)
    assert os.waitpid(child, 0)[1] == 0
print(classifier.bundle.path)
"""


def test_second_sessions_and_forked_children_find_the_bundle_and_nothing_stays_after_the_end(tiny_bundle, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_bundle)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def root(folder: Path) -> Path:
    return folder / f"edgewren-{os.getuid()}"


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch() as folder:
        killed = folder.with_name(folder.name.replace(f"-{os.getpid()}-", "-999999999-"))
        killed.mkdir()
        with scratch() as another:
            assert another.parent == folder.parent == root(tmp_path)
            assert folder.exists()
            assert killed.exists() is not Path("/proc/self").exists()
    assert not any(root(tmp_path).glob(f"*-{os.getpid()}-*"))
    assert stat.S_IMODE(root(tmp_path).stat().st_mode) == 0o700


@pytest.mark.parametrize("trap", ["open to all", "link", "file"])
def test_a_folder_of_our_name_that_others_can_write_to_is_not_used(tmp_path, monkeypatch, trap):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if trap == "open to all":
        root(tmp_path).mkdir()
        root(tmp_path).chmod(0o777)
    elif trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        root(tmp_path).symlink_to(tmp_path / "elsewhere")
    else:
        root(tmp_path).write_text("")
    with scratch() as folder:
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()
