"""What comes before a request: heads without end, heads that never end, clients that do not read, other protocols."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
import urllib.parse
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from edgewren.serve.connections import HEAD_BYTES, Patience, allow_many

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(eq=False)
class Connection:
    cycle: Any = None
    aborted: list[bool] = field(default_factory=list)

    @property
    def transport(self):
        return SimpleNamespace(abort=lambda: self.aborted.append(True))


def connect(server):
    address = urllib.parse.urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        (HEAD + b"X: ", b"a"),
        (HEAD, b"X: a\r\n"),
        (b"GET /", b"a"),
        (CHUNKED + b"1\r\n{\r\n0\r\nX: ", b"a"),
        (CHUNKED + b"1;", b"a"),
    ],
    ids=["a header", "headers", "an address", "a trailer", "a chunk's extension"],
)
def test_what_never_becomes_a_request_is_cut_off(server, before, piece):
    megabyte = piece * (2**20 // len(piece))
    sent = 0
    with connect(server) as connection, contextlib.suppress(OSError):
        connection.sendall(before)
        while sent < 64:
            connection.sendall(megabyte)
            sent += 1
    assert sent < 64, "64 MiB were taken"
    assert httpx.get(server.url + "/health").status_code == 200


def test_a_head_that_is_too_large_is_said(server):
    with connect(server) as connection:
        connection.sendall(HEAD + b"X: " + b"a" * HEAD_BYTES)
        assert connection.recv(4096).startswith(b"HTTP/1.1 431 ")
        assert connection.recv(4096) == b""


def test_large_heads_and_bodies_in_many_pieces_are_taken(server):
    answer = httpx.post(server.url + "/predict", json={"inputs": "good"}, headers={"x": "a" * (HEAD_BYTES - 1000)})
    assert answer.status_code == 200

    def pieces():
        yield b'{"inputs": "'
        for _ in range(3000):
            yield b"a" * 100
            yield b" " * 100
        yield b'"}'

    assert httpx.post(server.url + "/predict", content=pieces()).status_code == 200


@pytest.mark.parametrize("wish", [b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ", b"UPGRADE: websocket"])
def test_a_wish_for_another_protocol_costs_no_body(server, wish):
    body = b'{"inputs": "good\\r\\nUpgrade: h2c\\r\\n"}'
    with connect(server) as connection:
        for _ in range(2):
            asking = b"Connection: Upgrade, HTTP2-Settings\r\n%b\r\nContent-Length: %d\r\n\r\n" % (wish, len(body))
            connection.sendall(HEAD + asking)
            connection.sendall(body)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert (answer.status, answer.read()[:10]) == (200, b'[{"label":')


def test_clients_that_never_ask_are_left_and_those_that_work_are_not(start_server, tiny_bundle, monkeypatch):
    monkeypatch.setenv("PATIENCE_S", "1")
    server = start_server(tiny_bundle, scripted=True)
    with connect(server) as silent, connect(server) as slow, server.begin("sleep 4") as waiting:
        slow.sendall(HEAD + b"X: ")
        start = time.monotonic()
        with pytest.raises(OSError, match="reset|pipe"):
            while time.monotonic() < start + 10:
                slow.sendall(b"a")
                time.sleep(0.1)
        assert silent.recv(4096) == b""
        assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert server.stop() == 0


def test_patience_counts_from_the_last_answer_and_longer_for_a_request_in_work():
    patience = Patience(10, 40)
    silent, working, lively = Connection(), Connection(SimpleNamespace(response_complete=False)), Connection()
    for now in range(60):
        lively.cycle = SimpleNamespace(response_complete=now % 2 == 0)
        patience.look({silent, working, lively}, now)
        assert bool(silent.aborted) == (now > 10)
        assert bool(working.aborted) == (now > 40)
    assert not lively.aborted


def test_as_many_files_are_allowed_as_may_be():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        allow_many()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
