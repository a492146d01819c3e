"""One caller computes a result, the others wait for it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Flight", "Flights"]

T = TypeVar("T")

#: Seconds that somebody waits for another one's work before he does it too.
PATIENCE = 20.0


class Flight(Generic[T]):
    """A computation that is under way."""

    __slots__ = ("_under_way", "outcome")

    def __init__(self) -> None:
        #: None until there is one, and if there will never be one.
        self.outcome: T | None = None
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def land(self) -> None:
        """Let those go on who wait."""
        self._under_way.release()

    def is_under_way(self) -> bool:
        """Whether nobody has said yet that it is over."""
        return self._under_way.locked()

    def wait(self) -> T | None:
        """What came of it; None: nothing, or not in time."""
        if self._under_way.acquire(timeout=PATIENCE):
            self._under_way.release()
        return self.outcome


class Flights(Generic[T]):
    """The computations of this process by key."""

    def __init__(self) -> None:
        #: How many are over. Who finds another number than before has not
        #: seen what has come of some of them.
        self.landed = 0
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """Know of none, as in the child of a fork: nobody flies them there."""
        self._by_key: dict[Hashable, Flight[T]] = {}

    def join(self, key: Hashable) -> tuple[Flight[T], bool]:
        """The flight for ``key``, and whether the caller has to fly it.

        Then he calls ``leave`` in any case.
        """
        made: Flight[T] = Flight()
        flight = self._by_key.setdefault(key, made)  # atomic
        return flight, flight is made

    def wait(self, key: Hashable, flight: Flight[T]) -> T | None:
        """What came of somebody else's flight; None: nothing, or not in time.

        Then nobody waits for it any more: whoever had to fly it may have been
        interrupted before he could begin.
        """
        outcome = flight.wait()
        if flight.is_under_way():
            self._remove(key, flight)
        return outcome

    def leave(self, key: Hashable, flight: Flight[T]) -> None:
        """The flight is over, with an outcome or without."""
        self.landed += 1  # if one of two is lost, it is another number still
        self._remove(key, flight)
        flight.land()

    def _remove(self, key: Hashable, flight: Flight[T]) -> None:
        # If it is another one by now, that is flown twice, and no harm done.
        if self._by_key.get(key) is flight:
            self._by_key.pop(key, None)


_all: weakref.WeakSet[Flights[Any]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for flights in list(_all):
        flights.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
