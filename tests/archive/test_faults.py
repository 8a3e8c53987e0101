"""SQLite's method: every operation on the disk fails once, once for good, is the last of the process, of the machine.

Each time the run that follows ends with the same bytes as one that nothing disturbed, and nothing is left beside them.
"""

from __future__ import annotations

import random
from pathlib import Path

import archives
import pytest
from faulty_disk import CountingDisk, DiedError, DyingDisk, FailingDisk

from edgewren import Classifier
from edgewren.archive.run import score_archive
from edgewren.errors import OutputError

FAST = ("o.csv", "o.jsonl.gz", "o.parquet")
OUTPUTS = (*FAST, "o.csv.gz", "o.csv.zst", "o.jsonl", "o.jsonl.zst", "o.tsv.xz")
ROWS, WINDOW = 14, 4


class Job:
    """One archive, one way of writing it, and what an undisturbed run leaves."""

    def __init__(self, folder: Path, classifier: Classifier, output: str, *, rows: int = ROWS, window: int = WINDOW):
        self.folder = folder / "out"
        self.folder.mkdir(parents=True)
        kind = output.split(".")[1]
        half = rows // 2
        records = archives.rows(rows)
        self.sources = [
            archives.write(folder / f"a.{kind}", records[:half]),
            archives.write(folder / f"b.{kind}" if kind == "parquet" else folder / f"b.{kind}.gz", records[half:]),
        ]
        self.output = self.folder / output
        self._classifier = classifier
        self._window = window
        counting = CountingDisk()
        self.run(counting)
        self.operations = counting.operations
        self.expected = archives.result(self.output)
        self.clear()

    def run(self, disk=None, **options):
        try:
            return score_archive(self._classifier, self.sources, self.output, window=self._window, disk=disk, **options)
        finally:
            if isinstance(disk, DyingDisk):
                disk.bury()

    def clear(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()

    def resumes(self) -> None:
        self.run(resume=True)
        assert archives.result(self.output) == self.expected
        self.clear()


@pytest.fixture(
    scope="session", params=[*FAST, *(pytest.param(name, marks=pytest.mark.proof) for name in OUTPUTS[len(FAST) :])]
)
def job(request, tmp_path_factory, classifier) -> Job:
    pytest.importorskip("pyarrow" if "parquet" in request.param else "edgewren")
    return Job(tmp_path_factory.mktemp("job"), classifier, request.param)


def fails(job: Job, at: int, *, lasting: bool) -> None:
    disk = FailingDisk(at, lasting=lasting)
    with pytest.raises(OutputError) as caught:
        job.run(disk)
    assert caught.value.exit_code == 6
    assert disk.failed, f"operation {at} did not fail"
    assert not disk.retried, f"{disk.retried} was tried again"
    job.resumes()


def dies(job: Job, at: int, *, power: random.Random | None) -> None:
    disk = DyingDisk(at, job.folder)
    with pytest.raises(DiedError):
        job.run(disk)
    if power is not None:
        disk.lose_power(power)
    job.resumes()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_some_failing_operations_end_with_6_and_resume(job, lasting):
    for at in range(1, len(job.operations) + 1, 7):
        fails(job, at, lasting=lasting)


@pytest.mark.proof
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_every_failing_operation_ends_with_6_and_resumes(job, lasting, record_property):
    for at in range(1, len(job.operations) + 1):
        fails(job, at, lasting=lasting)
    record_property("cases", len(job.operations))


def test_death_and_power_cut_at_some_operations_resume(job):
    for at in range(3, len(job.operations) + 1, 9):
        dies(job, at, power=None)
        dies(job, at, power=random.Random(at))


@pytest.mark.proof
def test_death_at_every_operation_resumes(job, record_property):
    for at in range(1, len(job.operations) + 1):
        dies(job, at, power=None)
    record_property("cases", len(job.operations))


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_power_cut_at_every_operation_resumes(job, seed, record_property):
    for at in range(1, len(job.operations) + 1):
        dies(job, at, power=random.Random(1000 * seed + at))
    record_property("cases", len(job.operations))


def chain(job: Job, chance: random.Random, *, kills: int = 5) -> int:
    """Kill the run and each of its successors, now by death and now by power cut."""
    killed = 0
    for _ in range(kills):
        disk = DyingDisk(chance.randint(1, len(job.operations)), job.folder)
        try:
            job.run(disk, resume=True)
        except DiedError:
            killed += 1
            if chance.random() < 0.5:
                disk.lose_power(chance)
    job.resumes()
    return killed


def test_a_chain_of_five_interrupted_runs_resumes(job):
    chain(job, random.Random(5))


@pytest.mark.proof
def test_many_chains_of_five_interrupted_runs_resume(job, record_property):
    killed = sum(chain(job, random.Random(seed)) for seed in range(20))
    record_property("cases", 20)
    record_property("kills", killed)


def test_a_forced_start_over_that_dies_resumes_too(job):
    for at in range(1, len(job.operations), 11):
        with pytest.raises(DiedError):
            job.run(DyingDisk(len(job.operations) // 2, job.folder))
        disk = DyingDisk(at, job.folder)
        with pytest.raises(DiedError):
            job.run(disk, force=True)
        disk.lose_power(random.Random(at))
        job.resumes()


def test_a_forced_run_that_dies_leaves_the_old_output_whole(job):
    for at in range(1, len(job.operations), 15):
        job.output.write_bytes(b"precious")
        with pytest.raises(DiedError):
            job.run(DyingDisk(at, job.folder), force=True)
        assert job.output.read_bytes() in (b"precious", job.expected[""])
        job.clear()
