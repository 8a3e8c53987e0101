"""Forks and exits of the process: who must be told, and what must not be cut off. Knows nothing of models.

Native code (onnxruntime, tokenizers) has two enemies in a long-lived host process. A fork copies its memory but not its
threads, and locks as they stood. And a daemon thread that comes back from native code while the interpreter ends is
unwound through C++ and Rust frames, which aborts the process (CPython before 3.14).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Protocol

_EXIT_PATIENCE_S = 10.0
"""A batch takes milliseconds; this bounds what a hung device can hold up."""


class Renewable(Protocol):
    """Something that holds locks, threads or native objects."""

    def renew(self) -> None:
        """Replace them: this is a forked child, with one thread. Called inside fork, so nothing slow, and no locks."""


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()
_kept: list[object] = []
_inside: set[int] = set()
_exiting = False


def renew_after_fork(thing: Renewable) -> None:
    """See to it that `thing.renew()` is called in every forked child, for as long as it lives."""
    _watch_process()
    _renewables.add(thing)


def keep_for_good(thing: object) -> None:
    """Never free this: its destructor would wait for threads or locks that a fork left behind, also at exit."""
    _kept.append(thing)
    with contextlib.suppress(ImportError):  # without it, module clean-up at exit may free it
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class RenewedLock:
    """A module's lock. In a forked child it is free, whichever thread of the parent held it."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._lock = threading.Lock()

    def lock(self) -> threading.Lock:
        """Return the lock of this process, to be entered at once."""
        renew_after_fork(self)
        return self._lock


@contextlib.contextmanager
def native_code() -> Iterator[None]:
    """Hold around a call that releases the GIL in native code, so that the interpreter's exit waits for its return.

    A daemon thread that gets here during the exit ends here.
    """
    thread = threading.get_ident()
    try:
        _inside.add(thread)  # within: Ctrl-C after it must not leave it behind
        if _exiting and threading.current_thread().daemon:
            raise SystemExit  # a thread ends silently with it, and frees the locks that it holds
        yield
    finally:
        _inside.discard(thread)


@functools.cache
def _watch_process() -> None:
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=_in_child)
    atexit.register(_at_exit)


def _in_child() -> None:
    _inside.clear()
    for thing in list(_renewables):
        thing.renew()


def _at_exit() -> None:
    global _exiting  # noqa: PLW0603  a process exits once
    _exiting = True
    end = time.monotonic() + _EXIT_PATIENCE_S
    while _inside and time.monotonic() < end:
        time.sleep(0.001)
