"""Bodies are bounded: each, and all that are on their way together."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from edgewren.serve.body import SMALL_BYTES, BodiesFullError, EncodingError, Room, read_body


async def _body(size, end, *, piece=SMALL_BYTES // 2):
    for start in range(0, size, piece):
        yield b"a" * min(piece, size - start)
    await end.wait()


def _read(chunks, room, *, encoding=None):
    return asyncio.ensure_future(read_body(chunks, limit=4 * SMALL_BYTES, declared=None, encoding=encoding, room=room))


def test_large_bodies_on_their_way_are_bounded_together_and_small_ones_always_taken():
    async def run():
        room, end = Room(4 * SMALL_BYTES), asyncio.Event()
        large = [_read(_body(3 * SMALL_BYTES, end), room) for _ in range(3)]
        small = [_read(_body(SMALL_BYTES, end), room) for _ in range(9)]
        done, _ = await asyncio.wait(large, timeout=0.1)
        assert [type(task.exception()) for task in done] == [BodiesFullError]
        end.set()
        assert [len(body) for body in await asyncio.gather(*small)] == [SMALL_BYTES] * 9
        assert [len(await task) for task in large if task not in done] == [3 * SMALL_BYTES] * 2

    asyncio.run(run())


@pytest.mark.parametrize("how", ["whole", "damaged", "cancelled"])
def test_room_is_given_back_however_a_body_ends(how):
    async def run():
        room, end = Room(3 * SMALL_BYTES), asyncio.Event()
        for _ in range(5):
            task = _read(_body(3 * SMALL_BYTES, end), room, encoding="gzip" if how == "damaged" else None)
            await asyncio.sleep(0)
            if how == "cancelled":
                task.cancel()
            end.set()
            with contextlib.suppress(EncodingError, asyncio.CancelledError):
                await task
        room.take(3 * SMALL_BYTES)

    asyncio.run(run())
