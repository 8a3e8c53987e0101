"""Slots: as many at once as there are, all or none, and none lost to Ctrl-C wherever it falls."""

from __future__ import annotations

import dis
import functools
import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import CodeType

import pytest

from edgewren import Classifier, scheduling, slots
from edgewren.slots import Slots

OURS = {slots.__file__, scheduling.__file__}


@pytest.fixture
def other():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def all_free(held: Slots, other: ThreadPoolExecutor) -> bool:
    def ask() -> bool:
        try:
            return held.take_all()
        finally:
            held.give_back()

    return other.submit(ask).result()


@functools.cache
def signal_places(code: CodeType) -> set[int]:
    """Where CPython lets signals in: after a function's start, calls, and jumps back."""
    steps = list(dis.get_instructions(code))
    after = {
        following.offset for step, following in itertools.pairwise(steps) if step.opname.startswith(("RESUME", "CALL"))
    }
    return after | {step.argval for step in steps if step.opname.startswith(("JUMP_BACKWARD", "POP_JUMP_BACKWARD"))}


def interrupted(call, at: int) -> bool:
    """Call, with KeyboardInterrupt at the given of the places in our code and the locks it takes; tell whether it got that far."""
    left = at

    def trace(frame, event, argument):
        nonlocal left
        caller = frame.f_back.f_code if frame.f_code.co_filename == threading.__file__ else frame.f_code
        if caller.co_filename not in OURS:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in signal_places(frame.f_code):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_no_more_threads_hold_one_than_there_are():
    held, most, now = Slots(3), 0, 0
    count = threading.Lock()

    def work(_):
        nonlocal most, now
        try:
            held.take()
            with count:
                now += 1
                most = max(most, now)
            time.sleep(0.001)
            with count:
                now -= 1
        finally:
            held.give_back()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(100)))
    assert most == 3


def test_all_are_had_only_where_nobody_else_holds_one_and_the_rest_can_be_let_go(other):
    held = Slots(2)
    other.submit(held.take).result()
    assert not held.take_all()
    other.submit(held.give_back).result()
    assert held.take_all()
    waiting = other.submit(held.take)
    time.sleep(0.02)
    assert not waiting.done()
    held.keep_one()
    waiting.result(10)
    held.give_back()
    assert not held.take_all()
    other.submit(held.give_back).result()
    assert held.take_all()


def test_a_swallowed_call_is_made_good(other, monkeypatch):
    monkeypatch.setattr(slots, "_LOOK_AGAIN_S", 0.01)
    held = Slots(1)
    held.take()
    waiting = other.submit(held.take)
    time.sleep(0.02)
    assert not waiting.done()
    held._held.clear()  # given back, and nobody told
    waiting.result(10)
    assert not held.take_all(), "the other holds it"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("texts", [["good"], ["good", "bad bad"]], ids=["one", "list"])
def test_an_interrupt_anywhere_costs_no_slot(tiny_bundle, other, threads, texts):
    with Classifier.load(tiny_bundle, device="cpu", threads=threads) as classifier:
        expected = classifier.predict(texts)
        places = 0
        while interrupted(lambda: classifier.score(texts), places):
            places += 1
            assert classifier.predict(texts) == expected
            assert all_free(classifier._scheduler.slots, other), places
        assert places > 20
