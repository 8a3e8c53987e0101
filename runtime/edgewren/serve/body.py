"""A request's body, bounded: whatever is sent in whatever way, no more than a stated number of bytes is kept, of one
and of all that are on their way.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from edgewren.errors import InputError

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


SMALL_BYTES = 65_536
"""Of a body that always finds room: large ones that never come to an end must not keep out a tweet."""


class BodyTooLargeError(InputError):
    """More bytes than allowed (HTTP 413)."""


class BodiesFullError(InputError):
    """Too many bytes of other bodies are on their way (HTTP 429)."""


class EncodingError(InputError):
    """A content encoding that is not understood (HTTP 415), or a damaged one."""


class Room:
    """Bytes that all bodies on their way may take together. For one event loop.

    Args:
        most: of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    def take(self, count: int) -> None:
        """Take so many bytes more.

        Raises:
            BodiesFullError: there are not so many left.
        """
        if self._taken + count > self._most:
            raise BodiesFullError(f"{self._taken:,} bytes of other large bodies are on their way. Try again in 1 s.")
        self._taken += count

    def give_back(self, count: int) -> None:
        """Give bytes back that were taken."""
        self._taken -= count


async def read_body(
    chunks: AsyncIterator[bytes], *, limit: int, declared: str | None, encoding: str | None, room: Room
) -> bytes:
    """Return the decoded body.

    Args:
        chunks: the bytes as they arrive.
        limit: decoded bytes allowed.
        declared: the header Content-Length.
        encoding: the header Content-Encoding; gzip and deflate are understood.
        room: for what has arrived beyond `SMALL_BYTES`, until all has.

    Raises:
        BodyTooLargeError: more than `limit` bytes, declared, sent, or unpacked.
        BodiesFullError: there is no more room.
        EncodingError: another encoding, or packed data that is damaged or goes on after its end.
    """
    if declared is not None and declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise BodyTooLargeError(f"The body has {int(declared):,} bytes, at most {limit:,} are allowed.")
    name = (encoding or "identity").strip().lower()
    if name not in ("identity", "", *_WINDOW_BITS):
        raise EncodingError(f"Content-Encoding is {name[:40]!r}, expected gzip, deflate or none.")
    unpack = zlib.decompressobj(_WINDOW_BITS[name]) if name in _WINDOW_BITS else None
    kept = bytearray()
    taken = 0
    try:
        async for chunk in chunks:
            if unpack is None:
                kept += chunk
            else:
                try:
                    kept += unpack.decompress(chunk, max(1, limit + 1 - len(kept)))
                except zlib.error as error:
                    raise EncodingError(f"The {name} body is damaged: {error}.") from error
            if len(kept) > limit or (unpack is not None and unpack.unconsumed_tail and len(kept) >= limit):
                raise BodyTooLargeError(f"The body has more than {limit:,} bytes, which are allowed.")
            beyond = max(taken, len(kept) - SMALL_BYTES)
            room.take(beyond - taken)
            taken = beyond
    finally:
        room.give_back(taken)
    if unpack is not None and (not unpack.eof or unpack.unused_data):
        raise EncodingError(f"The {name} body is cut off or goes on after its end.")
    return bytes(kept)
