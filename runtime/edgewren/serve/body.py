"""A request's body, bounded: whatever is sent in whatever way, no more than a stated number of bytes is kept."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from edgewren.errors import InputError

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class BodyTooLargeError(InputError):
    """More bytes than allowed (HTTP 413)."""


class EncodingError(InputError):
    """A content encoding that is not understood (HTTP 415), or a damaged one."""


async def read_body(chunks: AsyncIterator[bytes], *, limit: int, declared: str | None, encoding: str | None) -> bytes:
    """Return the decoded body.

    Args:
        chunks: the bytes as they arrive.
        limit: decoded bytes allowed.
        declared: the header Content-Length.
        encoding: the header Content-Encoding; gzip and deflate are understood.

    Raises:
        BodyTooLargeError: more than `limit` bytes, declared, sent, or unpacked.
        EncodingError: another encoding, or packed data that is damaged or goes on after its end.
    """
    if declared is not None and declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise BodyTooLargeError(f"The body has {int(declared):,} bytes, at most {limit:,} are allowed.")
    name = (encoding or "identity").strip().lower()
    if name not in ("identity", "", *_WINDOW_BITS):
        raise EncodingError(f"Content-Encoding is {name[:40]!r}, expected gzip, deflate or none.")
    unpack = zlib.decompressobj(_WINDOW_BITS[name]) if name in _WINDOW_BITS else None
    kept = bytearray()
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
    if unpack is not None and (not unpack.eof or unpack.unused_data):
        raise EncodingError(f"The {name} body is cut off or goes on after its end.")
    return bytes(kept)
