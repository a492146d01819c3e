"""Counters of a cache: exact, whatever the number of threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from typing import Final, TypedDict

__all__ = ["Counters", "Statistics", "Tally", "hit_rate"]

_SWEEP: Final = 64
"""Cells after which those of finished threads are added up, at first."""


class Cell:
    """Hits and misses of one thread."""

    __slots__ = ("hits", "misses")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0


class Tally(threading.local):
    """
    Hits and misses, counted by each thread for itself.

    ``tally.cell.hits += 1`` takes no lock and loses nothing, with or without a
    GIL: no other thread writes to this thread's cell.
    """

    def __init__(self, counters: Counters) -> None:
        # Runs at the first use in each thread.
        self.cell = Cell()
        counters.register(self.cell)


class Counters:
    """What happened since the start, or since the last ``reset()``."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._cells: list[tuple[threading.Thread, Cell]] = []
        self._sweep_at = _SWEEP
        self._finished: Counter[str] = Counter()
        self._begin: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self.tally = Tally(self)
        _all.add(self)

    def register(self, cell: Cell) -> None:
        """Add the cell of the current thread; called by `Tally`."""
        with self.lock:
            self._cells.append((threading.current_thread(), cell))
            if len(self._cells) >= self._sweep_at:
                self._sweep()
                self._sweep_at = max(_SWEEP, 2 * len(self._cells))

    def count(self, event: str, number: int = 1) -> None:
        """Count something rarer than hits and misses; takes a lock."""
        with self.lock:
            self._events[event] += number

    def total(self) -> Counter[str]:
        """Return all counts by name; 0 for what never happened."""
        with self.lock:
            total = self._raw()
            total.subtract(self._begin)
            total.update(self._events)
            return total

    def reset(self) -> None:
        """Count from 0 again."""
        with self.lock:
            self._begin = self._raw()
            self._events.clear()

    def _raw(self) -> Counter[str]:
        total = self._finished.copy()
        for _, cell in self._cells:
            total.update(hits=cell.hits, misses=cell.misses)
        return total

    def _sweep(self) -> None:
        """Add up the cells of finished threads: they change no more."""
        alive = []
        for thread, cell in self._cells:
            if thread.is_alive():
                alive.append((thread, cell))
            else:
                self._finished.update(hits=cell.hits, misses=cell.misses)
        self._cells = alive


_all: Final[weakref.WeakSet[Counters]] = weakref.WeakSet()
_held: Final[list[Counters]] = []


def _before_fork() -> None:
    # No lock is then held by a thread that the child does not have.
    _held[:] = _all
    for counters in _held:
        counters.lock.acquire()


def _after_fork() -> None:
    for counters in _held:
        counters.lock.release()
    _held.clear()


# Handlers run in reverse order before a fork: those of a cache, which counts
# under its own lock, come first.
os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
)


class Statistics(TypedDict):
    """What ``stats()`` of a cache returns."""

    driver: str
    """The name of the backend's class."""
    hits: int
    misses: int
    hit_rate: float
    """hits / (hits + misses); 0.0 when there were none."""
    evictions: int
    """Entries that had not expired and were removed to make room."""
    evicted_due_to_memory: int
    """Those of them that a limit of bytes, or the watchdog, removed."""
    expired: int
    """Entries that were removed because their time had come."""
    rejected: int
    """Values that were not stored because they are too large."""
    undecodable: int
    """Entries that could not, or must not, be read: misses."""
    errors: int
    """Operations that the place of the entries refused, or did not answer."""
    size: int | None
    """Entries; None where counting them costs too much."""
    max_size: int | None
    memory_usage_bytes: int | None
    max_memory_bytes: int | None
    default_ttl: float | None
    """Seconds; None: entries do not expire."""
    enabled: bool


def hit_rate(hits: int, misses: int) -> float:
    """Return the share of hits, 0.0 where nothing was asked."""
    asked = hits + misses
    return hits / asked if asked else 0.0
