"""The scheduler: windows in order, read ahead by a little, the same bits however they are cut and whoever computes."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewren import Classifier, batching, windows
from edgewren.errors import BundleTokenizerError
from edgewren.windows import WINDOWS_AHEAD

WORDS = "good bad tax vote the senate http great awful cat dog you we support against bill".split()


def invented(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 30))) for _ in range(count)]


def cut(texts, sizes):
    source = iter(texts)
    for size in itertools.cycle(sizes):
        if not (window := list(itertools.islice(source, size))):
            return
        yield window


@pytest.fixture(scope="module")
def one(tiny_bundle) -> Classifier:
    return Classifier.load(tiny_bundle, device="cpu", threads=1)


@pytest.fixture(scope="module", params=[1, 2, 4], ids="threads={}".format)
def classifier(tiny_bundle, request) -> Classifier:
    return Classifier.load(tiny_bundle, device="cpu", threads=request.param)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return invented(1_000)


@pytest.fixture(scope="module")
def expected(one, texts):
    return one.score(texts)


def threads_since(before) -> int:
    return sum(thread.name.startswith("edgewren") for thread in set(threading.enumerate()) - before)


@pytest.mark.parametrize("sizes", [(1, 3, 90), (3, 500), (400,), (5_000,)], ids=str)
def test_windows_come_back_in_order_whatever_their_sizes(classifier, texts, expected, sizes):
    found = list(classifier.score_windows(cut(texts, sizes)))
    assert [len(part.logits) for part in found] == [len(window) for window in cut(texts, sizes)]
    np.testing.assert_array_equal(np.concatenate([part.logits for part in found]), expected.logits)
    np.testing.assert_array_equal(np.concatenate([part.truncated for part in found]), expected.truncated)


def test_empty_windows_keep_their_place(classifier, texts):
    sizes = [len(part.logits) for part in classifier.score_windows([[], texts, [], texts[:1], [], []])]
    assert sizes == [0, len(texts), 0, 1, 0, 0]
    assert list(classifier.score_windows([])) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(20, 700), min_size=1, max_size=5), few=st.lists(st.sampled_from(WORDS), max_size=40))
def test_any_cut_gives_the_same_bits(classifier, one, texts, sizes, few):
    some = few + texts[:600] + few
    parts = list(classifier.score_windows(cut(some, sizes)))
    np.testing.assert_array_equal(np.concatenate([part.logits for part in parts]), one.score(some).logits)


@pytest.mark.parametrize("size", [1, 7, 400])
def test_windows_tokenised_in_pieces_give_the_same(classifier, texts, expected, monkeypatch, size):
    monkeypatch.setattr(windows, "_PIECES_PAY_FROM", 0)
    monkeypatch.setattr(classifier._scheduler.tokenizer, "texts_per_piece", size)
    twice = [*texts[:500], "a \udc80 surrogate", *texts]
    for found in (classifier.score(twice), next(classifier.score_windows([twice]))):
        np.testing.assert_array_equal(found.logits[501:], expected.logits)
        np.testing.assert_array_equal(found.logits[:500], expected.logits[:500])
        np.testing.assert_array_equal(found.truncated[501:], expected.truncated)
        assert np.flatnonzero(found.repaired).tolist() == [500]
        assert found.distinct == expected.distinct + 1


def test_an_error_in_one_piece_ends_its_window_and_comes_after_those_before(classifier, texts, expected, monkeypatch):
    tokenizer = classifier._scheduler.tokenizer
    monkeypatch.setattr(windows, "_PIECES_PAY_FROM", 0)
    monkeypatch.setattr(tokenizer, "texts_per_piece", 50)
    encode = tokenizer.encode

    def failing(rows):
        if "poison" in rows:
            raise BundleTokenizerError("poison")
        return encode(rows)

    monkeypatch.setattr(tokenizer, "encode", failing)
    found = classifier.score_windows([texts, [*texts[:333], "poison", *texts[333:]], texts])
    np.testing.assert_array_equal(next(found).logits, expected.logits)
    with pytest.raises(BundleTokenizerError, match="poison"):
        next(found)
    np.testing.assert_array_equal(classifier.score(texts).logits, expected.logits)


def test_batches_are_counted_before_any_thread_can_take_one(classifier, texts, expected, monkeypatch):
    """Else a window counts as finished while its last batch is still computed."""
    seen = []

    def publish(window, batches):
        if batches:
            seen.append((len(batches), window.missing, window.planned))
        vars(window)["batches"] = batches

    hooked = property(lambda window: vars(window)["batches"], publish)
    monkeypatch.setattr(windows.Window, "batches", hooked, raising=False)
    np.testing.assert_array_equal(classifier.score(texts).logits, expected.logits)
    assert seen == [(seen[0][0], seen[0][0], True)]


def test_only_a_few_windows_are_read_ahead(classifier):
    taken = itertools.count()
    endless = (invented(300, next(taken)) for _ in itertools.count())
    found = classifier.score_windows(endless)
    for _ in range(3):
        next(found)
    assert next(taken) <= 3 + WINDOWS_AHEAD
    found.close()


def test_equal_texts_are_tokenised_once_and_keep_their_facts(one, monkeypatch):
    encode = one._scheduler.tokenizer.encode
    seen = []
    monkeypatch.setattr(one._scheduler.tokenizer, "encode", lambda some: seen.extend(some) or encode(some))
    scores = one.score(["good " * 40, "vote", "good " * 40, "vote \ud800", "VOTE", "vote \ud800"])
    assert seen == ["good " * 40, "vote", "vote \ud800", "VOTE"]
    assert scores.distinct == 2  # U+FFFD is dropped by this tokenizer
    assert scores.truncated.tolist() == [True, False, True, False, False, False]
    assert scores.repaired.tolist() == [False, False, False, True, False, True]
    np.testing.assert_array_equal(scores.logits[[0, 1, 3, 1]], scores.logits[[2, 4, 5, 3]])


def test_an_error_of_the_source_comes_after_the_results_before_it(classifier, texts):
    def source():
        yield texts[:500]
        yield texts[500:700]
        raise OSError("the disk is gone")

    found = classifier.score_windows(source())
    assert [len(next(found).logits) for _ in range(2)] == [500, 200]
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    with pytest.raises(StopIteration):
        next(found)


def test_an_item_that_is_no_str_is_named_with_its_place(classifier, texts):
    found = classifier.score_windows([texts[:300], ["good", 3]])
    assert len(next(found).logits) == 300
    with pytest.raises(TypeError, match=r"windows\[1\]\[1\] is int"):
        next(found)
    with pytest.raises(TypeError, match=r"windows\[0\] is a single str"):
        next(classifier.score_windows(["good"]))
    with pytest.raises(TypeError, match=r"texts\[350\] is NoneType"):
        list(classifier.stream([*texts[:350], None], window=100))


def test_an_error_of_the_model_ends_the_call_and_no_other(tiny_bundle, texts, monkeypatch):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=3)
    run = classifier._session.run
    broken = threading.Event()

    def fails(ids):
        if broken.is_set() and ids.shape[1] == 7:
            raise RuntimeError("out of memory")
        return run(ids)

    monkeypatch.setattr(classifier._session, "run", fails)
    broken.set()
    found = classifier.score_windows([["good"], texts, texts])
    assert len(next(found).logits) == 1
    with pytest.raises(RuntimeError, match="out of memory"):
        next(found)
    with pytest.raises(RuntimeError, match="out of memory"):
        classifier.score(texts)
    broken.clear()
    assert len(classifier.score(texts).logits) == len(texts)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, type("OfAHost", (BaseException,), {})])
def test_what_a_signal_raises_waits_for_no_scores(tiny_bundle, texts, monkeypatch, kind):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=2)
    compute, begun, go_on = windows.Window.compute, threading.Event(), threading.Event()
    first: list[windows.Window] = []

    def slow_in_the_helper(window, scheduler, batch):
        first.append(window)
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(20)
        elif window is not first[0]:
            raise kind
        assert begun.wait(20)
        compute(window, scheduler, batch)

    monkeypatch.setattr(windows.Window, "compute", slow_in_the_helper)
    monkeypatch.setattr(classifier._scheduler, "tokens_per_batch", 10_000)
    short_and_long = ["good", "good " * 20]  # two batches
    start = time.monotonic()
    with pytest.raises(kind):
        list(classifier.score_windows([short_and_long, short_and_long, short_and_long]))
    assert time.monotonic() - start < 10
    go_on.set()


def test_closing_the_iterator_stops_the_work(tiny_bundle, texts, monkeypatch):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=2)
    run = classifier._session.run
    runs = itertools.count()
    monkeypatch.setattr(classifier._session, "run", lambda ids: (next(runs), time.sleep(0.002), run(ids))[2])
    found = classifier.score_windows(itertools.repeat(texts))
    next(found)
    found.close()
    end = time.monotonic() + 10
    done = next(runs)
    while time.monotonic() < end:  # what was in hand is finished, and then nothing moves
        time.sleep(0.05)
        if (now := next(runs)) == done + 1:
            return
        done = now
    pytest.fail(f"still computing after 10 s: {done} batches")


def test_a_stream_that_is_dropped_stops_the_work_too(tiny_bundle, texts):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=2)
    stream = classifier.stream(itertools.cycle(texts), window=500)
    assert len(list(itertools.islice(stream, 700))) == 700
    del stream
    gc.collect()
    assert len(classifier.predict(texts)) == len(texts)


def test_one_text_starts_no_thread_and_many_windows_start_no_more_than_needed(tiny_bundle, texts):
    before = set(threading.enumerate())
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=3)
    classifier.predict(["good"])
    assert threads_since(before) == 0
    assert sum(len(part.logits) for part in classifier.score_windows(cut(texts, (200,)))) == len(texts)
    assert 1 <= threads_since(before) <= 2
    del classifier
    gc.collect()
    end = time.monotonic() + 5
    while threads_since(before) and time.monotonic() < end:
        time.sleep(0.01)
    assert threads_since(before) == 0


def test_threads_bound_what_is_computed_at_once_by_all_callers(tiny_bundle, texts, monkeypatch):
    classifier = Classifier.load(tiny_bundle, device="cpu", threads=2)
    run = classifier._session.run
    lock, now, most = threading.Lock(), 0, 0

    def counted(ids):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.001)
        try:
            return run(ids)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(classifier._session, "run", counted)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: classifier.score(texts[:300]), range(12)))
    assert most == 2


@given(st.lists(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=5), min_size=1, max_size=5))
def test_token_rows_of_parts_are_those_of_the_whole(parts):
    joined = batching.TokenRows.joined([batching.TokenRows.of(part) for part in parts])
    whole = batching.TokenRows.of([row for part in parts for row in part])
    np.testing.assert_array_equal(joined.ids, whole.ids)
    np.testing.assert_array_equal(joined.bounds, whole.bounds)
    assert (joined.ids.dtype, joined.bounds.dtype) == (whole.ids.dtype, whole.bounds.dtype)


@pytest.mark.parametrize("way", ["as bytes", "hashed", "hashed with collisions"])
@given(rows=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=40))
def test_token_rows_know_their_distinct_ones(rows, way):
    packed = batching.TokenRows.of(rows)
    with pytest.MonkeyPatch.context() as patch:
        if way != "as bytes":
            patch.setattr(batching, "_FEW_ROWS", 0)
            patch.setattr(batching, "_HASHED_AT_ONCE", 7)
        if way == "hashed with collisions":
            patch.setattr(batching, "_WEIGHTS", np.ones(2, dtype=np.uint64))
        first, inverse = packed.distinct()
    assert [rows[index] for index in first[inverse]] == rows
    assert first.tolist() == [rows.index(list(row)) for row in dict.fromkeys(map(tuple, rows))]
    for index, row in enumerate(rows):
        matrix = packed.matrix(np.array([index]))
        assert matrix.dtype == np.int64
        assert matrix.tolist() == [row]


def test_a_stream_that_is_collected_while_its_lock_is_held_waits_for_nobody(tiny_bundle):
    with Classifier.load(tiny_bundle, device="cpu", threads=2) as classifier:
        call = windows.Call(classifier._scheduler)
        stream = call.scores(iter([invented(3000), invented(3000)]))
        next(stream)
        closing = threading.Thread(target=stream.close, daemon=True)
        with call._lock:  # as a helper may, in which the garbage collector meets the stream
            closing.start()
            closing.join(30)
            assert not closing.is_alive()
        assert len(classifier.predict(invented(100))) == 100
