"""Work beside the caller's, in a thread that ends with it. Knows nothing of what the work is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def in_background(work: Callable[[], _T]) -> Future[_T]:
    """Start `work` in a thread of its own; the future has its result or its exception.

    Where no thread can be started (limits, the end of the interpreter), the work is done at once.
    """
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  whoever asks for the result gets it
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="edgewren-load", daemon=True).start()
    except RuntimeError:
        run()
    return future
