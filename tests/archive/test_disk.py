"""What file systems lack, what they refuse, and who may read what is written."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import archives
import pytest
from faulty_disk import DiedError, DyingDisk

from edgewren.archive.disk import Disk
from edgewren.archive.run import score_archive
from edgewren.archive.whole_file import WholeFile
from edgewren.errors import OutputError, UsageError

WITHOUT = "-dac_override,-dac_read_search"
AS_ANYBODY = ["setpriv", f"--bounding-set={WITHOUT}", f"--inh-caps={WITHOUT}"] if os.geteuid() == 0 else []


@pytest.fixture
def source(tmp_path) -> Path:
    return archives.write(tmp_path / "in.csv", archives.rows(30))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def failing(monkeypatch, module, name, number):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, fails)


# What file systems lack


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_without_locks_a_run_warns_once_and_goes_on(classifier, source, folder, monkeypatch, caplog, number):
    failing(monkeypatch, fcntl, "flock", number)
    with pytest.raises(DiedError):
        disk = DyingDisk(30, folder)
        score_archive(classifier, [source], folder / "o.csv", window=5, disk=disk)
    disk.bury()
    caplog.clear()
    assert score_archive(classifier, [source], folder / "o.csv", window=5, resume=True).rows == 30
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{folder}: no locks on this file system. Let no second run write this output."
    ]


def test_a_lock_that_fails_for_another_reason_is_an_error(classifier, source, folder, monkeypatch):
    failing(monkeypatch, fcntl, "flock", errno.EIO)
    with pytest.raises(OutputError, match="Input/output error"):
        score_archive(classifier, [source], folder / "o.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that cannot be fsynced is /proc")
def test_folders_that_cannot_be_fsynced_are_let_be(classifier, source, folder, monkeypatch):
    Disk().sync_folder(Path("/proc"))
    fsync = os.fsync

    def files_alone(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_alone)
    assert score_archive(classifier, [source], folder / "o.csv").rows == 30
    whole = WholeFile(folder / "w.txt")
    whole.write(b"new")
    whole.finish()
    assert (folder / "w.txt").read_bytes() == b"new"


@pytest.mark.skipif(hasattr(fcntl, "F_FULLFSYNC"), reason="a command that this system does not know stands for it")
def test_where_a_full_fsync_is_not_to_be_had_it_is_a_plain_one(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    disk = Disk()
    file = disk.open(tmp_path / "f")
    disk.fsync(file)
    assert synced == [file.descriptor]
    disk.close(file)
    monkeypatch.setattr(fcntl, "fcntl", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    file = disk.open(tmp_path / "f")
    with pytest.raises(OSError, match="Input/output error"):
        disk.fsync(file)
    assert len(synced) == 1, "what failed is not tried another way"
    disk.close(file)


@pytest.mark.skipif(bool(AS_ANYBODY) and shutil.which("setpriv") is None, reason="root may read any folder")
def test_a_folder_that_may_be_written_and_not_read_takes_an_output(source, folder, tiny_bundle):
    folder.chmod(0o333)
    command = [*AS_ANYBODY, sys.executable, "-m", "edgewren", "score", str(source), "--model", str(tiny_bundle)]
    done = subprocess.run(
        [*command, "-o", str(folder / "o.csv"), "--max-bad-rows", "9"], capture_output=True, text=True
    )
    folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert archives.result(folder / "o.csv")


def test_a_whole_file_says_when_only_its_folder_could_not_be_synced(tmp_path, monkeypatch):
    path = tmp_path / "o.txt"
    path.write_text("old")
    fsync = os.fsync

    def files_alone(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_alone)
    whole = WholeFile(path, force=True)
    whole.write(b"new")
    with pytest.raises(OutputError, match="The new file is there, but a power cut may bring the old one back"):
        whole.finish()
    assert path.read_text() == "new"


# Links and permissions


@pytest.mark.parametrize("suffix", [".partial", ".journal", ".journal.new", ".rejects.jsonl.partial"])
@pytest.mark.parametrize("options", [{}, {"force": True}, {"resume": True}])
@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_written_through_a_link_beside_the_output(classifier, source, folder, suffix, options, there):
    elsewhere = folder.parent / "elsewhere"
    if there:
        elsewhere.write_text("precious")
    (folder / f"o.csv{suffix}").symlink_to(elsewhere)
    with pytest.raises(UsageError, match=f"o.csv{suffix} is a link.*Remove the link"):
        score_archive(classifier, [source], folder / "o.csv", **options)
    assert elsewhere.read_text() == "precious" if there else not elsewhere.exists()
    assert [path.name for path in folder.iterdir()] == [f"o.csv{suffix}"]
    with pytest.raises(OSError, match="symbolic links"):
        Disk().open(folder / f"o.csv{suffix}")  # one that was put there a moment later


@pytest.mark.parametrize("suffix", [".rejects.jsonl", ".report.json"])
def test_a_link_to_nowhere_is_in_the_way_like_a_file(classifier, source, folder, suffix):
    (folder / f"o.csv{suffix}").symlink_to(folder / "nowhere")
    if suffix == ".rejects.jsonl":
        with pytest.raises(UsageError, match=f"o.csv{suffix} exists already"):
            score_archive(classifier, [source], folder / "o.csv")
    score_archive(classifier, [source], folder / "o.csv", force=True)
    assert not (folder / "nowhere").exists()


@pytest.mark.parametrize("name", ["o.csv", "o.parquet"])
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o400])
def test_an_output_that_is_replaced_leaves_its_permissions_to_the_new_one(classifier, source, folder, name, mode):
    output = folder / name
    output.write_text("old")
    output.chmod(mode)
    kept = mode | 0o600
    seen = set()

    def look(*_):
        seen.update(stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path != output)

    with pytest.raises(DiedError):
        disk = DyingDisk(30, folder)
        score_archive(classifier, [source], output, window=5, force=True, progress=look, disk=disk)
    disk.bury()
    score_archive(classifier, [source], output, window=5, resume=True, progress=look)
    look()
    assert seen == {kept}
    assert stat.S_IMODE(output.stat().st_mode) == kept


def test_the_users_and_groups_that_a_replaced_file_ran_as_are_not_taken_over(classifier, source, folder):
    (folder / "whole").write_text("old")
    (folder / "o.csv").write_text("old")
    for path in folder.iterdir():
        path.chmod(0o6755)
    score_archive(classifier, [source], folder / "o.csv", force=True)
    whole = WholeFile(folder / "whole", force=True)
    whole.finish()
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o755}


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_whole_file_takes_over_the_permissions_of_the_one_before(tmp_path, mode):
    path = tmp_path / "o.txt"
    path.write_text("old")
    path.chmod(mode)
    whole = WholeFile(path, force=True)
    assert {stat.S_IMODE(found.stat().st_mode) for found in tmp_path.iterdir()} == {mode}
    whole.write(b"new")
    whole.finish()
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", mode)


# Pipes


def test_what_goes_into_a_pipe_with_a_packed_name_is_packed_once(classifier, source, tmp_path):
    pipe = tmp_path / "pipe.csv.gz"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    score_archive(classifier, [source], pipe)
    reader.join()
    score_archive(classifier, [source], tmp_path / "o.csv")
    assert gzip.decompress(read[0]) == (tmp_path / "o.csv").read_bytes()
