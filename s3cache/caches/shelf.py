"""
The entries of a cache in memory, the order they leave in, and their limits.

A hit reads ``entries`` without the lock: an `Entry` is replaced, not changed.
Everything that changes the shelf does so under its lock, also across threads
that fork: a child gets a shelf that nobody was changing.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, Final, TypeAlias

from s3cache.caches.machine import Machine
from s3cache.caches.policies import POLICIES, Node, Policy
from s3cache.caches.statistics import Counters

__all__ = ["ENTRY_BYTES", "Entry", "Limits", "Make", "Shelf", "now", "shelf_for"]

ENTRY_BYTES: Final = 320
"""What an entry weighs beside its key and value: the object, its slot in the
dict, and a ghost."""

Make: TypeAlias = Callable[[Any], Any]

now = time.monotonic


class Entry(Node):
    """A stored value. Only ``expires`` and the fields of `Node` change."""

    __slots__ = (
        "cost",
        "created",
        "expires",
        "make",
        "slow",
        "until",
        "value",
        "weight",
    )

    def __init__(
        self,
        key: Hashable,
        value: Any,
        make: Make | None,
        weight: int,
        expires: float | None,
        slow: bool,
        size: int,
        until: float | None,
        cost: float,
        created: float,
    ) -> None:
        self.key = key
        self.size = size
        self.uses = 0
        self.queue = None
        self.value = value
        self.make = make
        """Makes what a caller gets of ``value``; None: ``value`` itself."""
        self.weight = weight
        """In bytes, ``ENTRY_BYTES`` and the key included."""
        self.created = created
        self.expires = expires
        """On the clock of ``now``; None: never."""
        self.until = until
        """When it is removed: later, if it may be served stale."""
        self.cost = cost
        self.slow = slow
        """A hit has more to do than to take the value."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a shelf may hold, and how it keeps to that."""

    entries: int | None
    bytes: int | None
    entry_bytes: int | None
    policy: str
    cull_frequency: int | None
    cleanup_interval: float
    watchdog_percent: float | None
    watchdog_interval: float


class Shelf:
    """The entries of one LOCATION with one set of limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.entries: dict[Hashable, Entry] = {}
        """Read by hits without the lock; changed only under it."""
        self.lock = threading.RLock()
        self.policy: Policy = POLICIES[limits.policy]()
        self.counters = Counters()
        self.weight = 0
        self.machine = Machine()
        self._locks_hits = self.policy.locks_hits
        self._largest: float = min(
            math.inf if limits.entry_bytes is None else limits.entry_bytes,
            math.inf if limits.bytes is None else limits.bytes,
            math.inf if limits.entries != 0 else 0,
        )
        """Bytes of the largest entry that is stored."""
        self._next_cleanup = now() + limits.cleanup_interval
        self._next_look = now() + limits.watchdog_interval
        self._next_upkeep = min(self._next_cleanup, self._next_look)
        self._shrunk = False

    def put(
        self,
        key: Hashable,
        value: Any,
        make: Make | None,
        weight: int,
        expires: float | None,
        *,
        slow: bool = False,
        add: bool = False,
        until: float | None = None,
        cost: float = 0.0,
        created: float | None = None,
    ) -> bool:
        """
        Store a value; return whether it was stored.

        With `add` only where there is no entry. A value that is too large is
        not stored, is counted, and what it was to replace is removed.
        """
        weight += ENTRY_BYTES + getsizeof(key)
        if until is None:
            until = expires
        most = self.limits.bytes
        size = 1 if most is None else weight
        moment = now()
        if created is None:
            created = moment
        slow = slow or self._locks_hits
        entry = Entry(
            key, value, make, weight, expires, slow, size, until, cost, created
        )
        entries = self.entries
        with self.lock:
            old = entries.get(key)
            if old is not None and old.expires is not None and old.expires <= moment:
                self.expire(old)
                add = False
                old = entries.get(key)
            if add and old is not None:
                return False
            if weight > self._largest:
                self.counters.count("rejected")
                self.remove(key)
                return False
            if old is None or (most is not None and weight > old.weight):
                self._make_room(weight, key)
                old = entries.get(key)  # making room may have evicted it
            if old is None:
                self.policy.add(entry)
                self.weight += weight
            else:
                self.policy.replace(old, entry)
                self.weight += weight - old.weight
            entries[key] = entry
        if moment >= self._next_upkeep:
            self.upkeep()
        return True

    def live(self, key: Hashable) -> Entry | None:
        """Return the entry of `key`, unless it has expired."""
        entry = self.entries.get(key)
        if entry is None or entry.expires is None or entry.expires > now():
            return entry
        self.expire(entry)
        return None

    def remove(self, key: Hashable) -> bool:
        """Remove an entry; return whether there was one."""
        with self.lock:
            entry = self.entries.pop(key, None)
            if entry is None:
                return False
            self.policy.remove(entry)
            self.weight -= entry.weight
        return entry.expires is None or entry.expires > now()

    def expire(self, entry: Entry) -> None:
        """Remove an entry whose time has come, unless it was replaced."""
        if entry.until is not None and entry.until <= now():
            self.discard(entry, "expired")

    def discard(self, entry: Entry, event: str) -> None:
        """Remove this very entry, and count why."""
        with self.lock:
            if self.entries.get(entry.key) is entry:
                self.remove(entry.key)
                self.counters.count(event)

    def used(self, entry: Entry) -> None:
        """Tell a policy that wants to know of every hit."""
        with self.lock:
            self.policy.used(entry)

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()
            self.policy.clear()
            self.weight = 0

    def upkeep(self) -> None:
        """Remove what has expired, and look at the memory, when it is time."""
        moment = now()
        limits = self.limits
        if limits.cleanup_interval and moment >= self._next_cleanup:
            self._next_cleanup = moment + limits.cleanup_interval
            self.cleanup()
        if limits.watchdog_percent is not None and moment >= self._next_look:
            self._next_look = moment + limits.watchdog_interval
            self._look(limits.watchdog_percent)
        self._next_upkeep = min(self._next_cleanup, self._next_look)

    def cleanup(self) -> int:
        """Remove all entries that have expired; return their number."""
        moment = now()
        # A copy is one operation of the interpreter: others go on meanwhile.
        due = [
            entry
            for entry in list(self.entries.values())
            if entry.until is not None and entry.until <= moment
        ]
        for entry in due:
            self.expire(entry)
        return len(due)

    def shrink(self, weight: int) -> None:
        """Evict until at most `weight` bytes are left."""
        with self.lock:
            while self.weight > weight and self._evict("evicted_due_to_memory"):
                pass

    def _make_room(self, weight: int, key: Hashable) -> None:
        """Evict until an entry of that weight can be stored as `key`."""
        limits = self.limits
        if limits.entries is not None and key not in self.entries:
            if len(self.entries) >= limits.entries:
                self._cull()
            while len(self.entries) >= limits.entries:
                self._evict()
        if limits.bytes is not None:
            while True:
                old = self.entries.get(key)
                replaced = old.weight if old is not None else 0
                if self.weight - replaced + weight <= limits.bytes:
                    break
                self._evict("evicted_due_to_memory")

    def _cull(self) -> None:
        """Do what Django's CULL_FREQUENCY asks for, if it was given."""
        frequency = self.limits.cull_frequency
        if frequency is None:
            return
        if frequency == 0:
            self.counters.add("evictions", len(self.entries))
            self.clear()
            return
        for _ in range(len(self.entries) // frequency):
            self._evict()

    def _evict(self, also: str = "") -> bool:
        entry = self.policy.victim()
        if entry is None:
            return False
        gone = self.entries.pop(entry.key)
        self.weight -= gone.weight
        if gone.expires is not None and gone.expires <= now():
            self.counters.count("expired")
            return True
        self.counters.count("evictions")
        if also:
            self.counters.count(also)
        return True

    def _look(self, most: float) -> None:
        """Shrink to half when memory is short; clear when it stays so."""
        used = self.machine.used_percent()
        if used is None or used < most:
            self._shrunk = False
        elif not self._shrunk:
            self._shrunk = True
            self.counters.count("watchdog_shrunk")
            self.shrink(self.weight // 2)
        else:
            self.counters.count("watchdog_cleared")
            self.shrink(0)


_shelves: dict[tuple[str, Limits], Shelf] = {}
_making = threading.Lock()
_held: list[Shelf] = []


def shelf_for(location: str, limits: Limits) -> Shelf:
    """Return the shelf of a LOCATION with these limits, made when needed."""
    key = (location, limits)
    found = _shelves.get(key)
    if found is None:
        with _making:
            found = _shelves.get(key)
            if found is None:
                found = _shelves[key] = Shelf(limits)
    return found


def _before_fork() -> None:
    # No shelf is then in the middle of a change, and no lock is held by a
    # thread that the child does not have.
    _making.acquire()
    _held[:] = _shelves.values()
    for shelf in _held:
        shelf.lock.acquire()


def _after_fork() -> None:
    for shelf in _held:
        shelf.lock.release()
    _held.clear()
    _making.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
)
