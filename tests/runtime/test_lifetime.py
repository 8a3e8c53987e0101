"""Forked children and exits, in small; whole processes are in test_processes.py."""

from __future__ import annotations

import os
import shutil
import threading
import time
import warnings

import numpy as np
import pytest

from edgewren import BundleError, Classifier, DeviceError, device, lifetime

TEXTS = ["good vote", "bad tax", "", "the senate " * 30] * 20
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def in_child(question) -> bool:
    """Return whether `question()` is true in a forked child."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of forks in threaded processes: the point
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if question() else 1)
        finally:
            os._exit(2)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


@needs_fork
def test_a_forked_child_loads_the_bundle_again_and_gives_the_same_bits(tiny_bundle):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=2)
    expected = classifier.score(TEXTS).logits
    session = classifier._session._session

    def question():
        before = classifier._session._session
        same = np.array_equal(classifier.score(TEXTS).logits, expected)
        after = classifier._session._session
        return before is None and after is not None and after is not session and same

    assert in_child(question)
    assert classifier._session._session is session
    np.testing.assert_array_equal(classifier.score(TEXTS).logits, expected)


@needs_fork
def test_a_forked_child_refuses_a_bundle_that_changed_meanwhile(tiny_bundle, make_bundle, tmp_path):
    path = shutil.copytree(tiny_bundle, tmp_path / "b")
    classifier = Classifier.load(path, device="cpu", threads=1)
    expected = classifier.score(TEXTS).logits
    shutil.rmtree(path)
    make_bundle(path, seed=8)

    def question():
        with pytest.raises(BundleError, match=r"model\.onnx"):
            classifier.score(TEXTS)
        return True

    assert in_child(question)
    np.testing.assert_array_equal(classifier.score(TEXTS).logits, expected)


@needs_fork
def test_locks_that_threads_of_the_parent_hold_do_not_hang_the_child(tiny_bundle):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=1)
    slots, building = classifier._scheduler.slots._lock, classifier._session._building
    expected = classifier.score(TEXTS).logits
    with slots, building:
        assert in_child(lambda: np.array_equal(classifier.score(TEXTS).logits, expected))


@needs_fork
def test_cuda_in_a_forked_child_is_a_device_error(tiny_bundle):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=1)
    classifier._session._device = "cuda"

    def question():
        with pytest.raises(DeviceError, match="spawn"):
            classifier.predict(["good"])
        return True

    assert in_child(question)


def test_the_exit_waits_for_native_code_and_lets_daemon_threads_in_no_more(monkeypatch):
    monkeypatch.setattr(lifetime, "_exiting", False)
    inside, leave, refused = threading.Event(), threading.Event(), threading.Event()

    def work():
        with lifetime.native_code():
            inside.set()
            leave.wait(10)
        try:
            with lifetime.native_code():
                pass
        except SystemExit:
            refused.set()

    threading.Thread(target=work, daemon=True).start()
    assert inside.wait(10)
    exiting = threading.Thread(target=lifetime._at_exit)
    exiting.start()
    exiting.join(0.05)
    assert exiting.is_alive()
    leave.set()
    exiting.join(10)
    assert not exiting.is_alive()
    assert refused.wait(10)
    with lifetime.native_code():
        pass  # the main thread may still score, in exit handlers of the host


@needs_fork
def test_a_lock_that_another_thread_holds_at_the_fork_is_free_in_the_child():
    importing = device._importing
    with importing.lock():
        assert in_child(lambda: device.import_onnxruntime() is not None)
        assert importing.lock().locked()
    assert not importing.lock().locked()
