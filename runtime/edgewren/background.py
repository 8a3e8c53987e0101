"""Work beside the caller's, in a thread that ends with it. Knows nothing of what the work is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def in_background(work: Callable[[], _T]) -> Future[_T]:
    """Start `work` in a thread of its own; the future has its result or its exception.

    Where no thread can be started (limits, the end of the interpreter), the work is done at once.
    """
    return one_by_one([work])[0]


def one_by_one(works: Sequence[Callable[[], _T]]) -> list[Future[_T]]:
    """Start works, one after the other in one thread; a future has its result or its exception when its turn is over.

    Where no thread can be started, the works are done at once.
    """
    futures: list[Future[_T]] = [Future() for _ in works]

    def run() -> None:
        for work, future in zip(works, futures, strict=True):
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  whoever asks for the result gets it
                future.set_exception(error)

    try:
        threading.Thread(target=run, name="edgewren-load", daemon=True).start()
    except RuntimeError:
        run()
    return futures
