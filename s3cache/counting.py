"""Counters that lose nothing, whatever the threads do.

``number += 1`` on something that threads share loses increments, and a lock
costs more than most of what is counted here. ``next()`` of `itertools.count`
is one step of the interpreter, with a GIL and without one (there it is a
compare-and-swap): it takes about 30 ns and loses nothing. Looking at such a
number moves it on, too, so whoever looks remembers how often that was done.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Counters", "Tick"]

#: Counts one more. What it returns means nothing.
Tick = Callable[[], object]

K = TypeVar("K", bound=Hashable)


class _Count:
    """One number, which begins at 0."""

    __slots__ = ("looked", "tick", "ticks")

    def __init__(self) -> None:
        self.ticks = itertools.count()
        self.tick: Tick = self.ticks.__next__
        #: How often ``ticks`` was moved without anything being counted.
        self.looked = 0

    def value(self) -> int:
        """The number; one caller at a time."""
        number = next(self.ticks) - self.looked
        self.looked += 1
        return number

    def clear(self) -> None:
        """Begin at 0 again; one caller at a time."""
        number = self.value()  # which moves it, too
        self.looked += number


class Counters(Generic[K]):
    """Numbers by key, for all threads; a child of a fork begins at 0."""

    def __init__(self) -> None:
        self._counts: dict[K, _Count] = {}
        self._amounts: dict[K, float] = {}
        self._make_lock()
        _all.add(self)

    def _make_lock(self) -> None:
        self._lock = threading.Lock()

    def ticker(self, key: K) -> Tick:
        """What counts one more under ``key`` when it is called.

        For good, whatever is cleared; to be kept by whoever counts often.
        """
        count = self._counts.get(key)
        if count is None:
            count = self._counts.setdefault(key, _Count())  # atomic
        return count.tick

    def count(self, key: K) -> None:
        """Count one more under ``key``."""
        self.ticker(key)()

    def add(self, key: K, amount: float) -> None:
        """Add any amount; this takes a lock."""
        if not amount:
            return
        with self._lock:
            self._amounts[key] = self._amounts.get(key, 0) + amount

    def read(self) -> dict[K, float]:
        """All numbers but those that are 0."""
        with self._lock:
            numbers: dict[K, float] = {
                key: number
                for key, count in list(self._counts.items())
                if (number := count.value())
            }
            for key, amount in self._amounts.items():
                numbers[key] = numbers.get(key, 0) + amount
        return numbers

    def clear(self) -> None:
        """Begin at 0 again."""
        with self._lock:
            self._amounts.clear()
            for count in list(self._counts.values()):
                count.clear()


_all: weakref.WeakSet[Counters[Any]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for counters in list(_all):
        counters._make_lock()  # a thread that is not here may have held it
        counters.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
