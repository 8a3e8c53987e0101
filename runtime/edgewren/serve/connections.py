"""What a connection may do while the service does not know yet what it wants: bytes and seconds of a request's head,
and wishes for another protocol, which are passed over.

uvicorn bounds neither. One client could send a header without end (httptools puts it together anew with each piece, so
that 300 MB of it held up all others for seconds), and a thousand that never end their heads took every file descriptor.
Knows uvicorn's connections, nothing of routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import weakref
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_BYTES = 65_536
"""Of a head, or of what is sent around chunks of a body; as h11, uvicorn's other reader, has it."""

_MACOS_FILES = 10_240
"""What macOS lets a process have where it says that there is no limit."""

_HEAD_END = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def protocol() -> type[asyncio.Protocol]:
    """Return uvicorn's reader of HTTP, bounded: more than `HEAD_BYTES` without a whole head, or any of a body, are
    answered with 431 and the end of the connection. Requests that wish for another protocol are answered in this one.
    """
    with contextlib.suppress(ImportError):  # where httptools cannot be built, uvicorn takes h11, which is bounded
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        if AutoHTTPProtocol is HttpToolsProtocol:
            return _bounded(HttpToolsProtocol)
    return AutoHTTPProtocol


def _bounded(reader: Any) -> type[asyncio.Protocol]:
    class BoundedProtocol(reader):  # type: ignore[misc]  # known at run time only
        _unused = 0  # bytes since the last head, or piece of a body
        _between = True  # requests: what comes next is a head

        def data_received(self, data: bytes) -> None:
            self._unused += len(data)
            super().data_received(_without_upgrade(data) if self._between else data)
            if self._unused > HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

        def on_message_begin(self) -> None:
            self._between = False
            super().on_message_begin()

        def on_message_complete(self) -> None:
            self._between = True
            super().on_message_complete()

        def on_headers_complete(self) -> None:
            self._unused = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._unused = 0
            super().on_body(body)

    return BoundedProtocol


def _without_upgrade(data: bytes) -> bytes:
    """Rename the header by which clients wish for another protocol, as Java's client and `curl --http2` do for HTTP/2.

    A server may ignore it (RFC 9110, section 7.8), but httptools takes the body for that protocol's and drops it. A
    head that comes in several pieces is left as it is: these clients send theirs at once.
    """
    head, end, rest = data.partition(_HEAD_END)
    return _UPGRADE.sub(b"\r\nx-upgrade:", head) + end + rest if end and _UPGRADE.search(head) else data


class Patience:
    """Ends connections that take too long, whatever trickles in or out.

    Args:
        idle_s: without a request: none begun since the last answer, or a head that is not whole.
        longest_s: from a request's head to the end of its answer. Waiting for a body and scores is bounded elsewhere;
            what else takes so long is a client that does not read.
    """

    def __init__(self, idle_s: float, longest_s: float) -> None:
        self._idle_s = idle_s
        self._longest_s = longest_s
        self._seen: weakref.WeakKeyDictionary[Any, tuple[object, bool, float]] = weakref.WeakKeyDictionary()

    def look(self, connections: Iterable[Any], now: float) -> None:
        """Look at all connections, once a second or so.

        Args:
            connections: uvicorn's.
            now: by `time.monotonic`.
        """
        for connection in list(connections):
            cycle = connection.cycle  # the newest request; None: there was none
            idle = cycle is None or cycle.response_complete
            before, was_idle, since = self._seen.get(connection, (None, True, now))
            if cycle is not before or idle is not was_idle:
                since = now
            self._seen[connection] = cycle, idle, since
            if now - since > (self._idle_s if idle else self._longest_s):
                connection.transport.abort()


def allow_many() -> None:
    """Let this process have as many connections as it may: each takes a file descriptor, and the usual limit of 1,024
    is there for programs that use `select`.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such limit (Windows), or none that may be changed
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MACOS_FILES if most == resource.RLIM_INFINITY else most
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
