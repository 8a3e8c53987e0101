"""A stack in a process of its own, as users run it: no other stack's threads, allocator settings or heap beside it."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from stacks.material import Material, Stack, UnavailableError, timed


class HostedStack:
    """Builds and tunes a stack in a new process, then times it there on request; one request at a time.

    Args:
        module, function: of the package `stacks`, what makes it.

    Raises:
        UnavailableError: it cannot be had; the message says why.
    """

    def __init__(self, module: str, function: str, material: Material) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, module, function, material), daemon=True)
        self._process.start()
        theirs.close()
        found = self._receive()
        if isinstance(found, str):
            raise UnavailableError(found)
        self.settings: Mapping[str, Any] = found["settings"]
        self.comparable: bool = found["comparable"]

    def labels(self) -> list[str]:
        """Return the labels of the material's texts."""
        return list(self._ask("labels"))

    def reference(self) -> list[str] | None:
        """Return the labels of the same model in fp32, None where that is the material's own."""
        answer = self._ask("reference")
        return None if answer is None else list(answer)

    def seconds(self) -> float:
        """Return how long all texts took."""
        return float(self._ask("seconds"))

    def single_seconds(self, count: int) -> list[float]:
        """Return how long each of the first texts took, one by one."""
        return list(self._ask(count))

    def close(self) -> None:
        self._connection.close()
        self._process.join()

    def _ask(self, request: str | int) -> Any:
        self._connection.send(request)
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise UnavailableError(f"its process ended with {self._process.exitcode}") from None


def _serve(connection: Connection, module: str, function: str, material: Material) -> None:
    stack = _made(module, function, material)
    if isinstance(stack, str):
        connection.send(stack)
        return
    connection.send({"settings": dict(stack.settings), "comparable": stack.comparable})
    texts = material.texts
    with contextlib.suppress(EOFError):  # the other side has closed
        while True:
            request = connection.recv()
            if request == "labels":
                connection.send(stack.throughput(texts))
            elif request == "reference":
                connection.send(stack.fp32(texts) if stack.fp32 else None)
            elif request == "seconds":
                connection.send(timed(stack.throughput, texts))
            else:
                connection.send([timed(stack.latency, [text]) for text in texts[:request]])


def _made(module: str, function: str, material: Material) -> Stack | str:
    """Return the stack, or why there is none."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            made: Stack = getattr(importlib.import_module(f"stacks.{module}"), function)(material)
            return made
    except ImportError as error:
        return f"not installed: {error}"
    except UnavailableError as error:
        return str(error)
