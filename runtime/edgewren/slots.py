"""Slots to compute in, held by threads. Knows nothing of what is computed.

A semaphore loses a slot for good where KeyboardInterrupt falls between taking and noting it, and with one slot every
later call then waits for ever. Here the slots know their holders: giving back is right whether or not a thread got as
far as holding one, and what an interrupt has left to a thread serves it the next time.
"""

from __future__ import annotations

import threading

_LOOK_AGAIN_S = 1.0
"""Whoever waits looks this often unasked: an interrupt can also fall between giving back and telling of it."""


class Slots:
    """Several slots. A thread holds one or all; take them within `try`, and give them back in its `finally`.

    Args:
        count: of slots, one at least.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        # Entered by name, not through the condition: its __enter__ is Python's, where an interrupt can fall between.
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._held: dict[int, int] = {}

    def take(self) -> None:
        """Hold one slot, as soon as one is free."""
        thread = threading.get_ident()
        with self._lock:
            while thread not in self._held and sum(self._held.values()) >= self._count:
                self._freed.wait(_LOOK_AGAIN_S)
            self._held[thread] = 1

    def take_all(self) -> bool:
        """Hold all slots, if no other thread holds any; tell whether they are held now. Does not wait."""
        thread = threading.get_ident()
        with self._lock:
            if self._held.keys() - {thread}:
                return False
            self._held[thread] = self._count
            return True

    def keep_one(self) -> None:
        """Hold one slot of all; others may take the rest."""
        with self._lock:
            self._held[threading.get_ident()] = 1
            self._freed.notify(self._count)

    def give_back(self) -> None:
        """Hold none, whatever was held."""
        with self._lock:
            self._freed.notify(self._held.pop(threading.get_ident(), 0))
