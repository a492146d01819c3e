"""Hits, misses and the rest, by model and action; exact under threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Final

__all__ = ["EVENTS", "Counters", "Counts", "Event", "counters", "event_of"]

#: What is counted:
#:
#: ``hit``     answered from the cache
#: ``miss``    computed from the replica, and stored where it could be
#: ``wait``    answered by another caller, who was computing it already
#: ``bypass``  may not be kept, or was asked for past the cache
#: ``stale``   beside one of these: older than ``max_age``, the store is down
#: ``broken``  beside a miss: what the cache had could not be read
#: ``failed``  beside a miss: the cache raised an error
EVENTS: Final = ("hit", "miss", "wait", "bypass", "stale", "broken", "failed")


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One of ``EVENTS``, of a model ("sql" for SQL by hand) and an action.

    ``event_of`` makes one object of each, so that it is hashed in no time.
    """

    label: str
    action: str
    event: str


@cache
def event_of(label: str, action: str, event: str) -> Event:
    """The one object for it."""
    return Event(label, action, event)


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened to the reads of one model and action; see ``EVENTS``."""

    hit: int = 0
    miss: int = 0
    wait: int = 0
    bypass: int = 0
    stale: int = 0
    broken: int = 0
    failed: int = 0


class _Cell(dict[Event, int]):
    """The counts of one thread; nobody else writes to it."""

    def __missing__(self, event: Event) -> int:
        return 0


class Counters:
    """Counts that each thread keeps for itself, added up when they are read.

    One number for all threads would need a lock on each hit: ``+= 1`` is not
    atomic by any promise of the language.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start at 0 again."""
        self._lock = threading.Lock()
        self._local = threading.local()
        self._cells: list[tuple[weakref.ref[threading.Thread], _Cell]] = []
        self._ended: Counter[Event] = Counter()

    def count(self, label: str, action: str, event: str) -> None:
        """Count one more event, of ``EVENTS``."""
        self.add(event_of(label, action, event))

    def add(self, event: Event) -> None:
        """Count one more of these."""
        try:
            self._local.cell[event] += 1
        except AttributeError:
            self._new_cell()[event] += 1

    def _new_cell(self) -> _Cell:
        cell = self._local.cell = _Cell()
        thread = weakref.ref(threading.current_thread())
        with self._lock:
            self._fold_ended()
            self._cells.append((thread, cell))
        return cell

    def _fold_ended(self) -> None:
        """Keep the counts of threads that have ended, without their cells."""
        going = []
        for thread, cell in self._cells:
            alive = thread()
            if alive is not None and alive.is_alive():
                going.append((thread, cell))
            else:
                self._ended.update(cell)
        self._cells = going

    def read(self) -> dict[tuple[str, str], Counts]:
        """The counts by label and action."""
        with self._lock:
            self._fold_ended()
            total = self._ended.copy()
            for _thread, cell in self._cells:
                total.update(cell.copy())
        found: dict[tuple[str, str], dict[str, int]] = {}
        for one, number in total.items():
            found.setdefault((one.label, one.action), {})[one.event] = number
        return {key: Counts(**events) for key, events in found.items()}


#: Those of this process.
counters = Counters()

# Another thread may have held the lock; and a child counts for itself.
os.register_at_fork(after_in_child=counters.clear)
