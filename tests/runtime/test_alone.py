"""Single texts get threads inside once they keep coming, and the same bits."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgewren import Classifier
from edgewren.alone import _LOOK_AGAIN, _RECENT, _WORTH_IT, AloneSession, Race
from edgewren.device import threads_keep_memory
from edgewren.errors import BundleError, UsageError

TEXTS = ["good vote", "bad", "", "good good bad vote \u00e9", "vote " * 40]


def singly(classifier: Classifier) -> np.ndarray:
    return np.concatenate([classifier.score([text]).logits for text in TEXTS])


@pytest.fixture
def classifier(tiny_bundle) -> Classifier:
    return Classifier.load(tiny_bundle, device="cpu", threads=2)


@pytest.fixture(autouse=True)
def threads_inside_win(request, monkeypatch):
    """The models here are too small for threads: what is tried is which way a text goes, not which one is faster."""
    if "race" not in request.node.name:
        monkeypatch.setattr(Race, "inside", lambda race: True)


@pytest.fixture
def warm(classifier) -> Classifier:
    """With its second session made."""
    while classifier._alone._making is None:
        singly(classifier)
    classifier._alone._making.result()
    return classifier


def counted(session, monkeypatch) -> list[int]:
    rows: list[int] = []
    real = session.run
    monkeypatch.setattr(session, "run", lambda ids, *rest: rows.append(len(ids)) or real(ids, *rest))
    return rows


@contextlib.contextmanager
def elsewhere_computed(classifier: Classifier):
    """Another thread holds a slot meanwhile."""
    with ThreadPoolExecutor(1) as other:
        other.submit(classifier._scheduler.slots.take).result()
        yield
        other.submit(classifier._scheduler.slots.give_back).result()


def test_the_second_session_is_made_after_some_single_texts_and_has_threads_inside(classifier):
    for _ in range(3):
        for _ in range(_WORTH_IT - 1):
            classifier.predict(["good"])
        classifier.predict(["good", "bad vote", "bad good"])  # begins anew
    for _ in range(_WORTH_IT - 1):
        classifier.predict(["good"])
    assert classifier._alone._making is None
    classifier.predict(["good"])
    made = classifier._alone._making.result()
    assert made._session.get_session_options().intra_op_num_threads == 2
    assert classifier._session._session.get_session_options().intra_op_num_threads == 1


def test_single_texts_go_there_and_get_the_same_bits(warm, monkeypatch):
    expected = warm.score(TEXTS).logits
    inside, outside = counted(warm._alone._making.result(), monkeypatch), counted(warm._session, monkeypatch)
    np.testing.assert_array_equal(singly(warm), expected)
    assert [prediction.label for prediction in warm.stream(TEXTS, window=1)] == warm.predict(TEXTS)
    assert inside == [1] * 2 * len(TEXTS)
    assert sum(outside) == len(TEXTS), "the list"


def test_while_something_else_is_computed_a_single_text_takes_its_turn_with_the_first_session(warm, monkeypatch):
    inside, outside = counted(warm._alone._making.result(), monkeypatch), counted(warm._session, monkeypatch)
    with elsewhere_computed(warm):
        warm.predict(["good"])
    assert (inside, outside) == ([], [1])
    warm.predict(["good"])
    assert (inside, outside) == ([1], [1]), "all turns were given back"


def test_many_threads_with_single_texts_get_the_same_bits(warm):
    expected = warm.score(TEXTS).logits
    wrong: list[int] = []

    def ask():
        for _ in range(50):
            if not np.array_equal(singly(warm), expected):
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert warm._scheduler.slots.take_all(), "all turns were given back"


def test_one_thread_or_a_model_of_numbers_alone_has_none(tiny_bundle, classifier):
    assert Classifier.load(tiny_bundle, device="cpu", threads=1)._alone is None
    assert Classifier.load(device="cpu", threads=2)._alone is None
    assert classifier.with_threads(1)._scheduler._alone is None
    assert classifier.with_threads(3)._scheduler._alone is classifier._alone


def test_a_session_that_cannot_be_made_is_told_and_done_without(classifier, caplog):
    def fail():
        raise BundleError("gone")

    classifier._scheduler._alone = alone = AloneSession(fail)
    with caplog.at_level(logging.INFO, "edgewren"):
        for _ in range(_WORTH_IT):
            classifier.predict(["good"])
        with pytest.raises(BundleError):
            alone._making.result()
        np.testing.assert_array_equal(singly(classifier), classifier.score(TEXTS).logits)
    assert "no second session for single texts: gone" in caplog.text


@pytest.mark.skipif(
    not threads_keep_memory(), reason="only glibc's malloc keeps what is freed between two things in use"
)
def test_memory_that_is_freed_before_and_while_the_session_is_made_is_returned(classifier):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def leave_holes() -> tuple[bytes, int]:
        """Fill and free 64 MB below something that stays: malloc can give none of it back by itself."""
        freed = [b"x" * 60_000 for _ in range(1000)]
        stays = b"x" * 60_000
        freed.clear()
        return stays, resident()

    def make():
        before_making.append(resident())
        return leave_holes()

    before_making: list[int] = []
    with_holes = leave_holes()
    alone = AloneSession(make)
    for _ in range(_WORTH_IT):
        alone.ready()
    made = alone._making.result()
    assert before_making[0] < with_holes[1] - 50e6
    assert resident() < made[1] - 50e6


def test_close_closes_both_also_while_one_is_being_made(tiny_bundle, warm):
    made = warm._alone._making.result()
    warm.close()
    assert made._session is None
    with pytest.raises(UsageError, match="closed"):
        warm.predict(["good"])

    session = Classifier.load(tiny_bundle, device="cpu", threads=1)._session
    go = threading.Event()
    alone = AloneSession(lambda: (go.wait(10), session)[1])
    for _ in range(_WORTH_IT):
        assert alone.ready() is None
    alone.close()
    assert session._session is not None
    go.set()
    alone._making.result()
    end = time.monotonic() + 10
    while session._session is not None and time.monotonic() < end:
        time.sleep(0.001)
    assert session._session is None
    assert alone.ready() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_begins_anew_and_gets_the_same_bits(warm):
    expected = singly(warm)
    child = os.fork()
    if child == 0:
        try:
            fresh = warm._alone._making is None
            same = all(np.array_equal(singly(warm), expected) for _ in range(4))
            os._exit(0 if fresh and same else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(singly(warm), expected)


def paces(race: Race, calls: int, seconds: dict[bool, float]) -> list[bool]:
    """Let calls go the way that the race tells; return these ways."""
    ways = []
    for _ in range(calls):
        ways.append(race.inside())
        race.note(ways[-1], seconds[ways[-1]])
    return ways


def test_a_race_begins_with_threads_inside_and_leaves_them_as_soon_as_they_are_slower():
    race = Race()
    for _ in range(_RECENT):
        race.note(False, 1.0)  # before the second session is there
    assert all(paces(race, 200, {True: 0.7, False: 1.0}))
    ways = paces(race, 200, {True: 1.5, False: 1.0})
    assert ways.count(True) <= _RECENT + 200 / _LOOK_AGAIN[False] + 1
    ways = paces(race, 1000, {True: 0.7, False: 1.0})
    assert ways[-200:].count(False) <= 1
    assert ways.index(True) < _LOOK_AGAIN[False]


def test_a_race_stays_where_it_is_when_both_are_about_as_fast_and_looks_again_now_and_then():
    race = Race()
    ways = paces(race, 10 * _LOOK_AGAIN[True], {True: 1.0, False: 0.95})
    assert ways.count(False) == 10
    assert race.inside()


def test_the_race_is_told_of_texts_that_are_computed_alone(warm, monkeypatch):
    told = []
    monkeypatch.setattr(Race, "note", lambda race, inside, pace: told.append((inside, pace > 0)))
    monkeypatch.setattr(Race, "inside", lambda race: len(told) % 2 == 0)
    for _ in range(4):
        warm.predict(["good"])
    with elsewhere_computed(warm):
        warm.predict(["good"])
    warm.predict(["good", "bad bad"])
    assert told == [(True, True), (False, True)] * 2
    assert warm._scheduler.slots.take_all(), "all turns were given back"


def test_a_race_is_not_told_of_texts_that_leave_after_the_embeddings(monkeypatch):
    told = []
    monkeypatch.setattr(Race, "note", lambda race, inside, pace: told.append(pace))
    alone = AloneSession(lambda: None)
    alone.note(10, np.array([0], dtype=np.int16), 1.0, inside=True)
    alone.note(10, np.array([4], dtype=np.int16), 1.0, inside=True)
    alone.note(10, None, 1.0, inside=False)
    assert told == [1 / 40, 1 / 10]
