"""Running servers for tests."""

from __future__ import annotations

import pytest

from serving import Server


@pytest.fixture
def start_server():
    running = []

    def start(*arguments, **options):
        server = Server(arguments, **options)
        running.append(server)
        return server.wait_until_ready()

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="module")
def server(tiny_bundle):
    """One server for tests that leave it as it was."""
    running = Server([f"tiny={tiny_bundle}"]).wait_until_ready()
    yield running
    assert running.stop() == 0
