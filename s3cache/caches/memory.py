"""
A cache in the memory of this process, with limits that hold.

The entries of one LOCATION are on a `Shelf` at module level: Django makes one
cache object per thread. A hit takes no lock, but with ``lru``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable
from functools import partial
from sys import getsizeof
from typing import Any, Final, TypedDict

from django.core.cache.backends.base import DEFAULT_TIMEOUT, default_key_func
from django.core.exceptions import ImproperlyConfigured

from s3cache.caches.base import (
    Cache,
    Inline,
    Timeout,
    portable,
    positive,
    resolved,
    whole,
)
from s3cache.caches.broadcast import Broadcast, broadcast_for
from s3cache.caches.compression import COMPRESSIONS, pack, unpack
from s3cache.caches.getting import Found, GettingCache
from s3cache.caches.immutables import kept, weigh
from s3cache.caches.machine import Machine
from s3cache.caches.policies import MOST_USES, POLICIES
from s3cache.caches.shelf import Entry, Limits, Make, Shelf, now, shelf_for
from s3cache.caches.statistics import Statistics, hit_rate
from s3cache.caches.times import Times
from s3cache.conf import is_number, optional, refuse, seconds, text

__all__ = ["MemoryCache", "MemoryStatistics"]

DEFAULT_ENTRIES: Final = 1000

logger = logging.getLogger("s3cache.caches")


class MemoryStatistics(TypedDict):
    """What ``memory_stats()`` returns. Bytes, unless it says otherwise."""

    memory_usage: dict[str, Any]
    """``current``, ``max`` (None: no limit), and both as text."""
    memory_usage_percent: float | None
    """The share of the limit that is used, 0 to 100."""
    max_memory_percent: float | None
    evicted_due_to_memory: int
    total_items: int
    average_item_size: float
    system_memory: dict[str, Any]
    """``total``: what this process may use; ``cache_percent`` of it."""
    process_memory: int | None
    """What this process uses, with all that it is."""
    watchdog: dict[str, int]
    """How often it ``shrunk`` and ``cleared`` the cache."""


def _percent(path: str, value: object) -> float:
    if not is_number(value) or not 0 <= value <= 100:
        raise refuse(
            path,
            value,
            "a percentage, above 0 and up to 100, or 0: no limit "
            "(a number of bytes is 'max_memory_bytes')",
        )
    if 0 < value < 1:
        raise ImproperlyConfigured(
            f"{path} is {value!r}, which is less than one percent; "
            f"did you mean {value * 100:g}?"
        )
    return value


def _policy(path: str, value: object) -> str:
    if not isinstance(value, str) or value not in POLICIES:
        raise refuse(path, value, f"one of {', '.join(map(repr, POLICIES))}")
    return value


class MemoryCache(Inline, GettingCache):
    """
    A cache in this process, bounded by entries, bytes, or a share of memory.

    Callers never share an object that can change: what is immutable is kept as
    it is, a list, dict or set of immutable objects is copied, and all else is
    kept as bytes. Safe to use from many threads, and across ``fork``.
    """

    readers = {
        **GettingCache.readers,
        "MAX_ENTRIES": optional(whole),
        "CULL_FREQUENCY": optional(whole),
        "max_memory_bytes": whole,
        "max_memory_percent": _percent,
        "max_entry_bytes": optional(positive),
        "policy": _policy,
        "cleanup_interval": seconds,
        "watchdog_percent": optional(_percent),
        "watchdog_interval": seconds,
        "broadcast": optional(text),
    }
    defaults = {
        **GettingCache.defaults,
        "MAX_ENTRIES": DEFAULT_ENTRIES,
        "CULL_FREQUENCY": None,
        "max_memory_bytes": 0,
        "max_memory_percent": 0,
        "max_entry_bytes": None,
        "policy": "s3fifo",
        "cleanup_interval": 60,
        "watchdog_percent": 95,
        "watchdog_interval": 30,
        "broadcast": None,
    }

    @property
    def waits(self) -> bool:
        return False

    @property
    def shelf(self) -> Shelf:
        """Where the entries are."""
        return self._shelf

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        self._params = params
        limits = self._limits(params.get("OPTIONS") or {})
        self._shelf = shelf_for(location, limits)
        # What a hit needs, found without asking through other objects.
        self._entries = self._shelf.entries
        self._hit, self._miss = self._shelf.counters.hit, self._shelf.counters.miss
        self._default_keys = type(self).make_key is Cache.make_key and not self._folds
        self._default_checks = type(self).validate_key is Cache.validate_key
        self._packs: str | None = self.options["compression"]
        self._threshold: int = self.options["compression_threshold"]
        self._most = limits.entry_bytes or limits.bytes or 2**31
        self.counters = self._shelf.counters
        self._broadcast: Broadcast | None = None
        self._is_told: bool = self.options["broadcast"] is not None
        # One for all entries: a method that is bound anew weighs 64 bytes.
        loads, most = self.serializer.loads, self._most
        self._makes: dict[int, Make] = {0: loads}
        for number in COMPRESSIONS.values():
            self._makes[number] = partial(_unpacked, loads, number, most)

    @property
    def broadcast(self) -> Broadcast | None:
        """What tells other processes of deletions, with that option."""
        alias: str | None = self.options["broadcast"]
        if alias is None:
            return None
        if self._broadcast is None or not self._broadcast.is_current:
            location, params = self.location, self._params
            self._broadcast = broadcast_for(
                alias,
                f"s3cache:cache:memory:{location}",
                lambda: type(self)(location, params),
            )
        return self._broadcast

    def hear(self, kind: str, what: Any) -> None:
        """Drop what another process has deleted."""
        if kind == "all":
            self._shelf.clear()
        elif kind == "pattern":
            self._drop_pattern(*what)
        else:
            self._shelf.remove(what)

    def distrust(self) -> None:
        """Drop all that callers have stored by name.

        Not what ``keep`` has: those keys are not deleted, but left behind.
        """
        for made in list(self._entries):
            if isinstance(made, str):
                self._shelf.remove(made)

    def _limits(self, given: Any) -> Limits:
        options = self.options
        most, percent = options["max_memory_bytes"], options["max_memory_percent"]
        if most and percent:
            raise ImproperlyConfigured(
                f"OPTIONS of s3cache.caches.{type(self).__name__} have both "
                f"'max_memory_bytes' ({most!r}) and 'max_memory_percent' "
                f"({percent!r}); give one of them."
            )
        if percent:
            most = int(Machine().total() * percent / 100)
        entries = options["MAX_ENTRIES"]
        if most and "MAX_ENTRIES" not in given:
            entries = None
        return Limits(
            entries=entries,
            bytes=most or None,
            entry_bytes=options["max_entry_bytes"],
            policy=options["policy"],
            cull_frequency=options["CULL_FREQUENCY"],
            cleanup_interval=options["cleanup_interval"],
            watchdog_percent=options["watchdog_percent"] or None,
            watchdog_interval=options["watchdog_interval"],
        )

    # Django's API

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        if self._default_keys and self.key_func is default_key_func:
            # default_key_func, without the two calls.
            number = self.version if version is None else version
            made = f"{self.key_prefix}:{number}:{key}"
        else:
            made = self.make_key(key, version)
        entry = self._entries.get(made)
        if entry is None or (entry.expires is not None and entry.expires <= now()):
            self.validate_key(made)
            return self._missed(entry, default)
        if entry.slow:
            self.validate_key(made)
            self._shelf.used(entry)
        if entry.uses < MOST_USES:
            entry.uses += 1
        make = entry.make
        if make is None:
            self._hit()
            return entry.value
        try:
            value = make(entry.value)
        except Exception:
            return self._unreadable(entry, default)
        self._hit()
        return value

    def set(
        self,
        key: Any,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> None:
        if self._default_keys and self.key_func is default_key_func:
            number = self.version if version is None else version
            made = f"{self.key_prefix}:{number}:{key}"
        else:
            made = self.make_key(key, version)
        plain = self._default_checks and portable(made)
        if not plain:
            self.validate_key(made)
        self._store(made, value, self._seconds(timeout), slow=not plain)

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self._shelf.live(self.make_and_validate_key(key, version)) is not None

    def clear(self) -> None:
        """Remove all entries of the LOCATION, as Django's own backends do."""
        self._shelf.clear()
        self._tell("all")

    def delete(self, key: Any, version: int | None = None) -> bool:
        made = self.make_and_validate_key(key, version)
        removed = self._shelf.remove(made)
        self._tell("key", made)
        return removed

    def _tell(self, kind: str, what: Any = None) -> None:
        if (broadcast := self.broadcast) is not None:
            broadcast.tell(kind, what)

    # Beyond Django's API

    def keys(
        self, pattern: str = "*", version: int | None = None, limit: int | None = None
    ) -> list[str]:
        matches = self._pattern(pattern, version).fullmatch
        found: list[str] = []
        for entry in list(self._entries.values()):
            if limit is not None and len(found) >= limit:
                break
            made = entry.key
            if isinstance(made, str) and matches(made) and _is_live(entry):
                found.append(self._named(made, version))
        return found

    def delete_pattern(self, pattern: str, version: int | None = None) -> int:
        deleted = self._drop_pattern(pattern, version)
        self._tell("pattern", [pattern, version])
        return deleted

    def _drop_pattern(self, pattern: str, version: int | None) -> int:
        matches = self._pattern(pattern, version).fullmatch
        return sum(
            self._shelf.remove(made)
            for made in list(self._entries)
            if isinstance(made, str) and matches(made)
        )

    def peek(self, key: Hashable, default: Any = None) -> Any:
        """
        Return what ``keep`` stored under `key`, or `default`.

        The shortest way to a value: no key is made or checked. Counted as a
        hit or a miss.
        """
        entry = self._entries.get(key)
        if entry is None or (entry.expires is not None and entry.expires <= now()):
            return self._missed(entry, default)
        if entry.slow:
            self._shelf.used(entry)
        if entry.uses < MOST_USES:
            entry.uses += 1
        self._hit()
        return entry.value

    def keep(
        self,
        key: Hashable,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        *,
        weight: int | None = None,
    ) -> bool:
        """
        Store an object itself, for ``peek``; return whether it was stored.

        The caller promises that nobody ever changes `value`: all callers get
        the same object. `key` is used as it is; a tuple cannot meet a key of
        ``set()``. `weight` is the size of `value` in bytes; without it `value`
        must be of immutable types (`TypeError` otherwise), which are weighed.
        """
        if weight is None:
            weight = weigh(value)
            if weight is None:
                raise TypeError(
                    f"keep() cannot weigh a {type(value).__qualname__}: pass weight="
                )
        left = self._seconds(timeout)
        if left is not None and left <= 0:
            self._shelf.remove(key)
            return False
        expires = None if left is None else now() + left
        return self._shelf.put(key, value, None, weight + _key_bytes(key), expires)

    def drop(self, key: Hashable) -> bool:
        """Remove what ``keep`` stored; return whether it was there."""
        return self._shelf.remove(key)

    def drop_all(self, matches: Callable[[Hashable], bool]) -> int:
        """Remove what ``keep`` stored under keys that match; how many."""
        return sum(
            self._shelf.remove(key) for key in list(self._entries) if matches(key)
        )

    def stats(self) -> Statistics:
        total = self.counters.total()
        hits, misses = total["hits"], total["misses"]
        limits = self._shelf.limits
        return {
            "driver": type(self).__name__,
            "hits": hits,
            "misses": misses,
            "hit_rate": hit_rate(hits, misses),
            "evictions": total["evictions"],
            "evicted_due_to_memory": total["evicted_due_to_memory"],
            "expired": total["expired"],
            "rejected": total["rejected"],
            "undecodable": total["undecodable"],
            "errors": 0,
            "size": len(self._entries),
            "max_size": limits.entries,
            "memory_usage_bytes": self._shelf.weight,
            "max_memory_bytes": limits.bytes,
            "default_ttl": self.default_timeout,
            "enabled": True,
        }

    def memory_stats(self) -> MemoryStatistics:
        """Return what the cache weighs, and what it shares memory with."""
        total = self.counters.total()
        shelf = self._shelf
        weight, most, count = shelf.weight, shelf.limits.bytes, len(self._entries)
        available = shelf.machine.total()
        return {
            "memory_usage": {
                "current": weight,
                "max": most,
                "current_text": _text(weight),
                "max_text": "no limit" if most is None else _text(most),
            },
            "memory_usage_percent": None if most is None else 100 * weight / most,
            "max_memory_percent": self.options["max_memory_percent"] or None,
            "evicted_due_to_memory": total["evicted_due_to_memory"],
            "total_items": count,
            "average_item_size": weight / count if count else 0.0,
            "system_memory": {
                "total": available,
                "cache_percent": 100 * weight / available,
            },
            "process_memory": shelf.machine.resident(),
            "watchdog": {
                "shrunk": total["watchdog_shrunk"],
                "cleared": total["watchdog_cleared"],
            },
        }

    def cleanup(self) -> int:
        """Remove expired entries now; return how many there were."""
        return self._shelf.cleanup()

    def _missed(self, entry: Entry | None, default: Any) -> Any:
        if entry is not None:
            self._shelf.expire(entry)
        self._miss()
        return default

    def _unreadable(self, entry: Entry, default: Any) -> Any:
        self._dropped(entry)
        self._miss()
        return default

    def _dropped(self, entry: Entry) -> None:
        """An entry whose model has changed, or whose serializer is broken."""
        logger.warning("Dropped an entry that cannot be read", exc_info=True)
        self._shelf.discard(entry, "undecodable")

    def _find(self, made: str, *, stale: bool = False) -> Found | None:
        entry = self._entries.get(made)
        if entry is None:
            return None
        moment = now()
        until = entry.until if stale else entry.expires
        if until is not None and until <= moment:
            return None
        self._shelf.used(entry)
        entry.uses = min(MOST_USES, entry.uses + 1)
        try:
            value = entry.value if entry.make is None else entry.make(entry.value)
        except Exception:
            self._dropped(entry)
            return None
        passed = time.time() - moment  # from one clock to the other
        return value, Times(
            entry.created + passed,
            math.inf if entry.until is None else entry.until + passed,
            math.inf if entry.expires is None else entry.expires + passed,
            entry.cost,
        )

    def _put(self, made: str, value: Any, times: Times) -> None:
        self._store_timed(made, value, times)

    def _add(self, made: str, value: Any, times: Times) -> bool:
        return self._store_timed(made, value, times, add=True)

    def _store_timed(
        self, made: str, value: Any, times: Times, *, add: bool = False
    ) -> bool:
        moment = time.time()
        fresh, until = times.fresh_until, times.expires
        return self._store(
            made,
            value,
            None if fresh == math.inf else fresh - moment,
            add=add,
            until=None if until == math.inf else now() + until - moment,
            cost=times.cost,
            created=now() + times.created - moment,
        )

    def _touch(self, made: str, left: float | None) -> bool:
        with self._shelf.lock:
            entry = self._shelf.live(made)
            if entry is None:
                return False
            # A hit sees the old time or the new one.
            entry.expires = entry.until = None if left is None else now() + left
            return True

    def _incr(self, made: str, delta: int) -> int | None:
        with self._shelf.lock:
            entry = self._shelf.live(made)
            if entry is None:
                return None
            value = entry.value if entry.make is None else entry.make(entry.value)
            value += delta
            left = None if entry.expires is None else entry.expires - now()
            self._store(made, value, left)
            return value  # type: ignore[no-any-return]

    def _remove(self, made: str) -> bool:
        return self._shelf.remove(made)

    async def _offload(self, work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)  # never waits

    def _store(
        self,
        made: str,
        value: Any,
        left: float | None,
        *,
        slow: bool | None = None,
        add: bool = False,
        until: float | None = None,
        cost: float = 0.0,
        created: float | None = None,
    ) -> bool:
        value = resolved(value)
        make: Make | None
        simple = kept(value)
        if simple is not None and (self._packs is None or simple[0] < self._threshold):
            weight, make = simple
            if make is not None:
                value = make(value)  # the caller goes on changing its own
        else:
            value, make = self._encoded(value)
            weight = getsizeof(value)
        if slow is None:
            slow = not (self._default_checks and portable(made))
        if left is not None and left <= 0 and (until is None or until <= now()):
            if add and self._shelf.live(made) is not None:
                return False
            self._shelf.remove(made)
            return True
        stored = self._shelf.put(
            made,
            value,
            make,
            weight,
            None if left is None else now() + left,
            slow=slow,
            add=add,
            until=until,
            cost=cost,
            created=created,
        )
        if self._is_told and not (self.broadcast and self.broadcast.hears):
            # Nobody would tell us when that is no longer true. Looked at
            # after it is there: before, the connection might be lost between.
            self._shelf.remove(made)
        return stored

    def _encoded(self, value: Any) -> tuple[bytes, Make]:
        number, data = pack(self.serializer.dumps(value), self._packs, self._threshold)
        return data, self._makes[number]


def _unpacked(loads: Make, number: int, most: int, data: bytes) -> Any:
    return loads(unpack(number, data, most))


def _is_live(entry: Entry) -> bool:
    return entry.expires is None or entry.expires > now()


def _key_bytes(key: Hashable) -> int:
    """What the parts of a key weigh; the shelf counts the key itself."""
    return sum(map(getsizeof, key)) if isinstance(key, tuple) else 0


def _text(size: float) -> str:
    if size < 1024:
        return f"{size} bytes"
    for unit in ("KB", "MB", "GB"):  # noqa: B007 - the last one holds
        size /= 1024
        if size < 1024:
            break
    return f"{size:.1f} {unit}"
