"""Hits, misses and the rest, by model and action; exact under threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Final

__all__ = ["EVENTS", "Counters", "Counts", "counters"]

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

#: The label of a model (or "sql"), an action, an event.
_Key = tuple[str, str, str]


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


class _Cell(dict[_Key, int]):
    """The counts of one thread; nobody else writes to it."""


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
        self._ended: Counter[_Key] = Counter()

    def count(self, label: str, action: str, event: str) -> None:
        """Count one more event, of ``EVENTS``."""
        self.add((label, action, event))

    def add(self, key: _Key) -> None:
        """Count one more ``(label, action, event)``."""
        try:
            cell: _Cell = self._local.cell
        except AttributeError:
            cell = self._new_cell()
        cell[key] = cell.get(key, 0) + 1

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
        for (label, action, event), number in total.items():
            found.setdefault((label, action), {})[event] = number
        return {key: Counts(**events) for key, events in found.items()}


#: Those of this process.
counters = Counters()

# Another thread may have held the lock; and a child counts for itself.
os.register_at_fork(after_in_child=counters.clear)
