"""The bounded queue: order, bounds, deadlines, cancellation, failures, and the end."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from edgewren.classifier import Scores
from edgewren.serve.queue import (
    PART_TOKENS,
    ClosedError,
    DeadlineError,
    GoneError,
    QueueFullError,
    WorkQueue,
    estimated_tokens,
)


def lengths(texts):
    """Scores that say which text they belong to: [-length, length]."""
    values = np.array([len(text) for text in texts], dtype=np.float32)
    logits = np.stack([-values, values], axis=1)
    nothing = np.zeros(len(texts), dtype=np.bool_)
    return Scores(logits, nothing, nothing, distinct=len(texts), tokens=int(values.sum()))


@pytest.fixture
def make_queue():
    made = []

    def make(score=lengths, *, workers=2, capacity_tokens=10**6, tokens_per_s=1000):
        queue = WorkQueue(
            [score] * workers, labels=2, max_length=512, capacity_tokens=capacity_tokens, tokens_per_s=tokens_per_s
        )
        made.append(queue)
        return queue

    yield make
    for queue in made:
        queue.close(timeout_s=5)


class Gate:
    """A scoring function that waits until it is let go, and keeps what it was given."""

    def __init__(self):
        self.open = threading.Event()
        self.started = threading.Event()
        self.seen = []

    def __call__(self, texts):
        self.started.set()
        self.seen.append(list(texts))
        assert self.open.wait(10)
        return lengths(texts)


def test_each_text_gets_its_own_scores_in_its_own_place(make_queue):
    queue = make_queue()
    texts = ["x" * (1 + 37 * number % 900) for number in range(700)]
    answer = asyncio.run(queue.score(texts, timeout_s=10))
    assert answer.logits[:, 1].tolist() == [len(text) for text in texts]


def test_many_callers_each_get_theirs(make_queue):
    queue = make_queue()

    async def one(number):
        texts = ["y" * (number + index) for index in range(1, 4)]
        return (await queue.score(texts, timeout_s=10)).logits[:, 1].tolist() == [len(text) for text in texts]

    async def all_of_them():
        return await asyncio.gather(*(one(number) for number in range(300)))

    assert all(asyncio.run(all_of_them()))


def test_nothing_asked_nothing_computed(make_queue):
    gate = Gate()
    answer = asyncio.run(make_queue(gate).score([], timeout_s=1))
    assert answer.logits.shape == (0, 2)
    assert not gate.seen


def test_a_full_queue_refuses_at_once_and_keeps_nothing(make_queue):
    gate = Gate()
    queue = make_queue(gate, workers=1, capacity_tokens=200)

    async def scenario():
        first = asyncio.create_task(queue.score(["a" * 100], timeout_s=10))
        await asyncio.to_thread(gate.started.wait, 10)
        waiting = [asyncio.create_task(queue.score(["b" * 400], timeout_s=10)) for _ in range(1)]
        await asyncio.sleep(0)
        before = queue.waiting_tokens
        with pytest.raises(QueueFullError, match="allowed. Try again in 1 s") as caught:
            await queue.score(["c" * 400], timeout_s=10)
        assert queue.waiting_tokens == before
        gate.open.set()
        await asyncio.gather(first, *waiting)
        return caught.value.retry_after_s

    assert asyncio.run(scenario()) >= 1
    assert ["c" * 400] not in gate.seen


def test_fewer_may_wait_while_workers_are_slower_than_they_were(make_queue):
    def slowly(texts):
        time.sleep(0.002 * len(texts))
        return lengths(texts)

    queue = make_queue(slowly, workers=1, capacity_tokens=10_000, tokens_per_s=500_000)  # it makes 50,000 at most

    async def client():
        for _ in range(60):
            await queue.score(["d" * 392], timeout_s=10)  # 100 tokens

    async def clients():
        await asyncio.gather(*(client() for _ in range(5)))

    assert queue.capacity_tokens == 10_000
    asyncio.run(clients())
    assert 1_000 <= queue.capacity_tokens < 3_000


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(make_queue):
    queue = make_queue(capacity_tokens=100)
    answer = asyncio.run(queue.score(["z" * 300] * 50, timeout_s=10))
    assert (answer.logits[:, 1] == 300).all()


def test_a_missed_deadline_is_said_and_what_waits_is_dropped(make_queue):
    gate = Gate()
    queue = make_queue(gate, workers=1)

    async def scenario():
        first = asyncio.create_task(queue.score(["first"], timeout_s=10))
        await asyncio.to_thread(gate.started.wait, 10)
        with pytest.raises(DeadlineError, match="0.05 s"):
            await queue.score(["late"], timeout_s=0.05)
        gate.open.set()
        await first
        await queue.score(["after"], timeout_s=10)

    asyncio.run(scenario())
    assert ["late"] not in gate.seen
    assert queue.idle


def test_a_cancelled_callers_work_is_dropped(make_queue):
    gate = Gate()
    queue = make_queue(gate, workers=1)

    async def scenario():
        first = asyncio.create_task(queue.score(["first"], timeout_s=10))
        await asyncio.to_thread(gate.started.wait, 10)
        gone = asyncio.create_task(queue.score(["gone"], timeout_s=10))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        gate.open.set()
        await first
        await queue.score(["after"], timeout_s=10)

    asyncio.run(scenario())
    assert ["gone"] not in gate.seen


def test_work_of_a_caller_who_has_gone_is_dropped(make_queue):
    gate = Gate()
    queue = make_queue(gate, workers=1)

    async def scenario():
        first = asyncio.create_task(queue.score(["first"], timeout_s=10))
        await asyncio.to_thread(gate.started.wait, 10)
        leaves = asyncio.Event()
        gone = asyncio.create_task(queue.score(["gone"], timeout_s=10, gone=leaves.wait))
        stays = asyncio.create_task(queue.score(["stays"], timeout_s=10, gone=asyncio.Event().wait))
        await asyncio.sleep(0.1)
        leaves.set()
        with pytest.raises(GoneError):
            await gone
        gate.open.set()
        await asyncio.gather(first, stays)

    asyncio.run(scenario())
    assert ["gone"] not in gate.seen
    assert ["stays"] in gate.seen


def test_a_failure_reaches_only_the_request_that_caused_it(make_queue):
    gate = threading.Event()
    started = threading.Event()

    def score(texts):
        if "first" in texts:
            started.set()
            gate.wait(10)
        if "bad" in texts:
            raise ValueError("bad text")
        return lengths(texts)

    queue = make_queue(score, workers=1)

    async def scenario():
        first = asyncio.create_task(queue.score(["first"], timeout_s=10))
        await asyncio.to_thread(started.wait, 10)
        together = [asyncio.create_task(queue.score([text], timeout_s=10)) for text in ("good", "bad", "fine")]
        await asyncio.sleep(0)
        gate.set()
        await first
        return await asyncio.gather(*together, return_exceptions=True)

    good, bad, fine = asyncio.run(scenario())
    assert good.logits[0, 1] == 4
    assert fine.logits[0, 1] == 4
    assert isinstance(bad, ValueError)
    assert asyncio.run(queue.score(["alive"], timeout_s=10)).logits[0, 1] == 5


def test_a_large_request_is_cut_so_that_small_ones_pass_between(make_queue):
    sizes = []

    def score(texts):
        sizes.append(sum(estimated_tokens(text, 512) for text in texts))
        return lengths(texts)

    asyncio.run(make_queue(score).score(["w" * 160] * 1000, timeout_s=10))
    assert max(sizes) <= PART_TOKENS
    assert len(sizes) > 5


def test_closing_finishes_what_was_accepted_and_takes_nothing_new(make_queue):
    gate = Gate()
    queue = make_queue(gate, workers=1)

    async def scenario():
        accepted = [asyncio.create_task(queue.score([f"text {number}"], timeout_s=10)) for number in range(5)]
        await asyncio.to_thread(gate.started.wait, 10)
        closing = asyncio.create_task(asyncio.to_thread(queue.close))
        while not queue._closed:  # noqa: ASYNC110  the queue has no event for this
            await asyncio.sleep(0.001)
        with pytest.raises(ClosedError, match="stopping"):
            await queue.score(["late"], timeout_s=10)
        gate.open.set()
        answers = await asyncio.gather(*accepted)
        await closing
        return answers

    assert [answer.logits[0, 1] for answer in asyncio.run(scenario())] == [6] * 5


@pytest.mark.parametrize(("text", "tokens"), [("", 2), ("abcd", 3), ("x" * 10_000_000, 512)])
def test_tokens_are_estimated_from_characters_and_bounded_by_max_length(text, tokens):
    assert estimated_tokens(text, 512) == tokens
