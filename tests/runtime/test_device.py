"""Cores and devices: what is granted, and no silent fallback."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest

from edgewren import Classifier, device
from edgewren.device import choose_device, granted_cores
from edgewren.errors import DeviceError, MissingDependencyError


@pytest.mark.parametrize(("quota", "expected"), [(None, 4), (0.5, 1), (1.5, 2), (64.0, 4)])
def test_granted_cores_is_the_smallest_grant(monkeypatch, quota, expected):
    monkeypatch.setattr(device, "cgroup_quota", lambda: quota)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert granted_cores() == expected


def with_providers(monkeypatch, *names):
    fake = types.SimpleNamespace(
        __version__="99.0.0", get_available_providers=lambda: list(names), disable_telemetry_events=lambda: None
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)


def test_auto_takes_cuda_where_it_is_offered(monkeypatch, caplog):
    with_providers(monkeypatch, "CUDAExecutionProvider", "CPUExecutionProvider")
    caplog.set_level("INFO", logger="edgewren.device")
    assert choose_device("auto") == "cuda"
    assert "chose cuda" in caplog.text
    assert choose_device("cuda") == "cuda"
    assert choose_device("cpu") == "cpu"


def test_cuda_where_there_is_none_is_an_error_with_a_remedy(monkeypatch):
    with_providers(monkeypatch, "CPUExecutionProvider")
    assert choose_device("auto") == "cpu"
    with pytest.raises(DeviceError, match=r"offers only CPUExecutionProvider.*edgewren\[gpu\]"):
        choose_device("cuda")


def test_unknown_device_is_an_error():
    with pytest.raises(DeviceError, match="Unknown device 'tpu'"):
        choose_device("tpu")


def test_missing_onnxruntime_names_both_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"edgewren\[cpu\].*edgewren\[gpu\]"):
        device.import_onnxruntime()


@pytest.mark.parametrize("version", ["1.30.0", "1.29.5", "1.9.0", "0.9"])
def test_old_onnxruntime_is_refused(version):
    with pytest.raises(MissingDependencyError, match=r"is too old: edgewren needs 1\.30\.1"):
        device._check_version(version)


@pytest.mark.parametrize("version", ["1.30.1", "1.31.0.dev20260901", "2.0.0", "1.32.0+cu12"])
def test_new_onnxruntime_is_taken(version):
    device._check_version(version)


def test_first_loads_from_many_threads_at_once_all_succeed(tiny_bundle):
    """A half-imported onnxruntime must not be used; only a fresh process shows it."""
    code = f"""
import threading
from edgewren import Classifier
answers, start = [], threading.Barrier(8)
def load():
    start.wait()
    answers.append(Classifier.load({str(tiny_bundle)!r}).predict(["hello"])[0])
threads = [threading.Thread(target=load) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(answers) == 8 and len(set(answers)) == 1, answers
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_too_old_onnxruntime_is_refused_wherever_it_was_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(__version__="1.22.0"))
    for _ in range(2):
        with pytest.raises(MissingDependencyError, match=r"1\.22\.0 is too old"):
            device.import_onnxruntime()


@pytest.mark.parametrize(
    ("value", "warned"),
    [("1", False), ("true", False), ("TRUE", False), ("yes", False), ("On", False), ("0", True), (None, True)],
)
def test_a_late_import_warns_unless_the_host_opted_out_in_any_spelling(monkeypatch, caplog, value, warned):
    device.import_onnxruntime()  # now it is in sys.modules, as if the host had imported it
    monkeypatch.setattr(device, "_imported", False)
    if value is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    else:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", value)
    with caplog.at_level("WARNING", logger="edgewren"):
        device.import_onnxruntime()
    assert ("its telemetry may be on" in caplog.text) is warned


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "fpu avx2 avx512f", True),
        ("x86_64", "fpu avx2 avx512f avx512_vnni", False),
        ("AMD64", "fpu avx2 avx_vnni", False),
        ("x86_64", None, True),
        ("aarch64", None, False),
    ],
)
def test_int8_may_saturate_only_on_x86_without_vnni(tmp_path, monkeypatch, machine, flags, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t: x\n", encoding="utf-8")
    assert device.int8_may_saturate(tmp_path / "cpuinfo") is expected


def test_no_slower_int8_kernel_where_vnni_is(tiny_bundle, monkeypatch):
    """onnxruntime 1.32 takes it on some VNNI processors, at 1.8 times the time."""
    import onnxruntime

    entries = []
    add = onnxruntime.SessionOptions.add_session_config_entry
    monkeypatch.setattr(
        onnxruntime.SessionOptions,
        "add_session_config_entry",
        lambda self, key, value: entries.append((key, value)) or add(self, key, value),
    )
    for saturates in (True, False):
        monkeypatch.setattr("edgewren.session.int8_may_saturate", lambda saturates=saturates: saturates)
        Classifier.load(tiny_bundle, device="cpu", threads=1)
        assert (("session.x64quantprecision", "1") in entries) is saturates
        entries.clear()


@pytest.mark.parametrize(
    ("answer", "expected"), [("glibc 2.36", True), ("musl 1.2", False), (None, False), (ValueError(), False)]
)
def test_threads_keep_memory_with_glibc(monkeypatch, answer, expected):
    def confstr(name):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("os.confstr", confstr)
    assert device.threads_keep_memory() is expected


def test_threads_keep_memory_without_confstr(monkeypatch):
    monkeypatch.delattr("os.confstr")
    assert device.threads_keep_memory() is False


def test_callers_share_no_arena_where_malloc_keeps_threads_apart(tiny_bundle, monkeypatch):
    """With a shared arena, two callers on cores without a common cache are 23 % slower."""
    for keeps in (True, False):
        monkeypatch.setattr("edgewren.session.threads_keep_memory", lambda keeps=keeps: keeps)
        session = Classifier.load(tiny_bundle, device="cpu", threads=1)._session._session
        assert session.get_session_options().enable_cpu_mem_arena is not keeps


def test_a_host_whose_sessions_share_one_pool_of_threads(tiny_bundle):
    """onnxruntime then refuses sessions with threads of their own; it is asked once per process, so in one of our own."""
    program = (
        "import sys\n"
        "import onnxruntime\n"
        "if not hasattr(onnxruntime, 'set_global_thread_pool_sizes'): sys.exit('has no such pool')\n"
        "onnxruntime.set_global_thread_pool_sizes(2, 1)\n"
        "from edgewren import Classifier\n"
        "classifier = Classifier.load(sys.argv[1], device='cpu', threads=2)\n"
        "for _ in range(15): classifier.predict(['good vote'])\n"  # long enough for the second session
        "print(*classifier.predict(['good vote', 'bad tax']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tiny_bundle], capture_output=True, text=True, timeout=60, check=False
    )
    if "has no such pool" in done.stderr:
        pytest.skip("this onnxruntime has no such pool")
    expected = Classifier.load(tiny_bundle, device="cpu").predict(["good vote", "bad tax"])
    assert done.stdout.split() == expected, done.stderr


def test_a_session_neither_falls_back_in_silence_nor_holds_on_to_the_files_bytes(tiny_bundle):
    session = Classifier.load(tiny_bundle, device="cpu", threads=1)._session._session
    assert session._enable_fallback is False
    assert session._model_bytes is None
