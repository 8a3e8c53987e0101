"""A bundle that arrived as bytes: its classifier lives as long as the process, and so does what it reads again."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgewren.integrations.scratch import scratch

fcntl = pytest.importorskip("fcntl")
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
            assert not killed.exists()
    assert not any(root(tmp_path).glob(f"*-{os.getpid()}-*"))
    assert stat.S_IMODE(root(tmp_path).stat().st_mode) == 0o700


def test_a_folder_whose_owner_lives_in_another_container_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch() as folder:
        host, _, random = folder.name.rsplit("-", 2)
    theirs = root(tmp_path) / f"{host}-999999999-{random}"  # no process here has this number
    theirs.mkdir()
    lock = os.open(theirs, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with scratch():
        assert theirs.exists()
        os.close(lock)
    with scratch():
        assert not theirs.exists()


def test_a_folder_is_kept_as_long_as_a_forked_child_of_its_killed_owner_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = """
import os, signal, sys
from edgewren.integrations.scratch import kept
folder = kept()
if os.fork() == 0:
    print(folder, flush=True)
    sys.stdin.read()
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as process:
        folder = Path(process.stdout.readline().strip())
        process.wait()
        with scratch():
            assert folder.exists()
        process.stdin.close()
        assert process.stdout.read() == ""  # at the child's end
    with scratch():
        assert not folder.exists()


def test_a_folder_that_another_process_removes_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    real, removed = fcntl.flock, []

    def removing(descriptor, operation):
        if not removed:
            removed.extend(root(tmp_path).iterdir())
            removed[0].rmdir()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removing)
    with scratch() as folder:
        assert folder.is_dir()
        assert folder not in removed
        assert removed


def test_where_the_file_system_has_no_locks_nothing_of_others_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def refused(_descriptor, _operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with scratch() as folder, scratch() as another:
        assert folder.is_dir()
        assert another.is_dir()
    assert list(root(tmp_path).iterdir()) == []


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
