"""The process that serves: one socket, one event loop, signals, and an orderly end. Knows no routes.

On SIGTERM or SIGINT: readiness turns to 503 and new requests are refused with 503, what was accepted is answered, then
the sockets close. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from edgewren.errors import UsageError
from edgewren.serve.connections import Patience, allow_many, protocol
from edgewren.serve.models import Readiness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgewren.serve.models import Served

logger = logging.getLogger(__name__)

_IDLE_CONNECTION_S = 30
_LOOK_AGAIN_S = 0.1
_TICKS_PER_LOOK = 10  # of uvicorn's, ten a second
_SWITCH_S = 0.0005
"""Under a flood the event loop never rests, and a worker that comes back from the model would wait Python's 5 ms for
the interpreter's lock several times per batch. This process is ours, so its interval is too."""


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UsageError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, TypeError, ValueError) as error:  # the latter two: no name that DNS could have
        raise UsageError(
            f"{address(host, port)} cannot be listened on: {str(error).rstrip('.')}. Choose another --port or --host, "
            "or stop what uses it."
        ) from error


def address(host: str, port: int) -> str:
    """Return host and port as a URL has them: IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(
    app: Any,
    models: Mapping[str, Served],
    readiness: Readiness,
    listener: socket.socket,
    *,
    drain_s: float,
    finish_s: float,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends that, and is raised again.

    Args:
        app: the ASGI application.
        models: their queues are closed at the end.
        readiness: started here, so that the server is alive while models are checked.
        listener: from `bind`.
        drain_s: seconds after the signal in which new requests still get an answer (503) instead of a closed socket.
        finish_s: seconds that accepted requests may take after that.
    """
    allow_many()
    config = uvicorn.Config(
        app,
        http=protocol(),
        ws="none",
        access_log=False,  # paths only, but a service of private texts logs no requests
        log_config=None,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=_IDLE_CONNECTION_S,
        timeout_graceful_shutdown=max(1, round(finish_s)),
    )
    logging.getLogger("uvicorn.error").addFilter(_without_texts)
    patience = Patience(_IDLE_CONNECTION_S, finish_s + _IDLE_CONNECTION_S)
    server = _DrainingServer(config, readiness, drain_s, patience)
    sys.setswitchinterval(_SWITCH_S)
    readiness.start()
    try:
        server.run(sockets=[listener])
    finally:
        for model in models.values():
            model.queue.close(timeout_s=0 if server.force_exit else finish_s)


def _without_texts(record: logging.LogRecord) -> bool:
    """Take tracebacks and their exceptions' messages, which may hold texts, out of what uvicorn logs; and its advice to
    install a library for WebSockets, of which the service has none.
    """
    record.exc_info = record.exc_text = None
    return not str(record.msg).startswith("No supported WebSocket library")


class _DrainingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, readiness: Readiness, drain_s: float, patience: Patience) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._drain_s = drain_s
        self._patience = patience
        self._drained_at = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._readiness.draining:
            super().handle_exit(sig, frame)
            self.force_exit = True
            return
        self._drained_at = time.monotonic() + self._drain_s
        self._readiness.draining = True

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._drained_at:
            self.should_exit = True
        if counter % _TICKS_PER_LOOK == 0:
            self._patience.look(self.server_state.connections, time.monotonic())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.create_task(super().shutdown(sockets))
        while not ending.done() and not self.force_exit:  # which uvicorn forgets where asyncio waits for connections
            await asyncio.wait([ending], timeout=_LOOK_AGAIN_S)
        if ending.done():
            await ending
        else:
            ending.cancel()
