"""The log of long runs: what was written comes back, torn lines don't, other plans are refused."""

from __future__ import annotations

import json
import signal

import pytest

from edgewren.errors import LockedError, OutputError, ResumeError, UsageError
from edgewren_train.run_log import RunLog

PLAN = {"rows": 3, "seeds": (0, 1)}


def test_records_come_back_in_a_later_run_of_the_same_plan(tmp_path):
    RunLog(tmp_path / "runs", PLAN).append({"score": 0.5})
    again = RunLog(tmp_path / "runs", PLAN)
    again.append({"score": 0.7})
    assert [record["score"] for record in again] == [0.5, 0.7]


@pytest.mark.parametrize("torn", [b'{"score": 0.', b"\xff\xfe", b"[1]\n", b'{"score": 0.9'])
def test_a_line_torn_by_a_kill_is_dropped_and_hides_no_other(tmp_path, torn):
    log = RunLog(tmp_path, PLAN)
    log.append({"score": 0.5})
    with log.path.open("ab") as stream:
        stream.write(torn)
    log.append({"score": 0.7})
    assert [record["score"] for record in log] == [0.5, 0.7]


def test_another_plan_is_refused_by_name_and_force_starts_anew(tmp_path):
    log = RunLog(tmp_path, PLAN)
    log.append({"score": 0.5})
    with pytest.raises(ResumeError, match=r"runs of another plan: rows is different\. .*--force"):
        RunLog(tmp_path, {**PLAN, "rows": 4})
    assert list(log) == [{"score": 0.5}], "nothing was touched"
    assert list(RunLog(tmp_path, {**PLAN, "rows": 4}, force=True)) == []


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(UsageError, match="is not empty and holds no runs"):
        RunLog(tmp_path, PLAN)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_damaged_plan_or_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be used for results"):
        RunLog(tmp_path, PLAN)
    with pytest.raises(OutputError, match="cannot be used for results"):
        RunLog(tmp_path / "plan.json" / "below", PLAN)


def test_plan_is_readable(tmp_path):
    RunLog(tmp_path, PLAN)
    assert json.loads((tmp_path / "plan.json").read_text()) == {"rows": 3, "seeds": [0, 1]}


def test_a_second_run_in_the_same_folder_is_kept_out(tmp_path):
    first, second = RunLog(tmp_path, PLAN), RunLog(tmp_path, PLAN)
    first.append({"score": 0.5})
    with first.locked():
        with pytest.raises(LockedError, match="Another run is at work"), second.locked():
            pass
        with pytest.raises(LockedError, match="Another run is at work"):
            RunLog(tmp_path, PLAN, force=True)
    assert list(first) == [{"score": 0.5}]
    with second.locked():
        pass


def test_a_record_that_finds_half_the_space_is_an_error(tmp_path):
    resource = pytest.importorskip("resource")
    log = RunLog(tmp_path, PLAN)
    log.append({"score": 0.5})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            log.append({"score": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(RunLog(tmp_path, PLAN)) == [{"score": 0.5}]
