"""What this process has counted since it began, in one flat dictionary.

Everything that is counted only grows, so the difference of two tallies is what
happened between them, and differences of threads, processes, hosts and minutes
add up. A key is a tuple of strings, by what it is of:

    ("read", database, model, action, partition, event)
    ("request", database, kind, what)    as in ``RequestFigures``,
                                         or "b<bucket>" of its latency
    ("event", database, name, table)     see ``Replica.events``
    ("cache", alias, tier, what)         as in ``CacheFigures``
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.core.cache import BaseCache, caches
from django.db.backends.signals import connection_created

from s3cache import conf
from s3cache.caches.composed import ComposedCache
from s3cache.caches.getting import GettingCache
from s3cache.replica.replica import Replica, open_replica
from s3cache.results.counters import EVENTS, counters

__all__ = [
    "EVICTIONS",
    "CacheState",
    "Key",
    "Tally",
    "cache_states",
    "difference",
    "replicas",
    "take_tally",
]

Key = tuple[str, ...]
Tally = dict[Key, float]

#: Why entries leave a cache, by the name in its ``stats()``. Those that a
#: limit of bytes removed are among its "evictions".
EVICTIONS: Final = {
    "evicted_due_to_memory": "memory",
    "expired": "expired",
    "rejected": "rejected",
    "undecodable": "undecodable",
}

logger = logging.getLogger("s3cache.metrics")

_replicas: Final[dict[str, weakref.ref[Replica]]] = {}


def _note_replica(*, connection: Any, **kwargs: Any) -> None:
    if getattr(connection, "is_s3cache", False):
        _replicas[connection.alias] = weakref.ref(connection.replica)


def watch_connections() -> None:
    """From now on, know which databases this process has opened."""
    connection_created.connect(_note_replica, dispatch_uid="s3cache.metrics")


def replicas() -> dict[str, Replica]:
    """The replicas that this process has opened, by alias."""
    found = {}
    for alias in conf.bucket_aliases():
        reference = _replicas.get(alias)
        replica = reference() if reference is not None else None
        if replica is not None and open_replica(replica.path) is replica:
            found[alias] = replica
    return found


def take_tally() -> Tally:
    """What this process has counted so far."""
    tally: Tally = {}
    known = conf.bucket_aliases()
    for key, counts in counters.by_key().items():
        if key[0] in known:
            for event in EVENTS:
                if number := getattr(counts, event):
                    tally["read", *key, event] = number
    stores = set()
    for alias, replica in replicas().items():
        for (name, table), number in replica.events.read().items():
            tally["event", alias, name, table] = number
        # Aliases may share a store, whose requests are those of the first.
        if replica.store not in stores:
            stores.add(replica.store)
            _add_traffic(tally, alias, replica)
    for state in cache_states():
        for what, number in state.counts.items():
            if number:
                tally["cache", state.alias, state.tier, what] = number
    return tally


def _add_traffic(tally: Tally, alias: str, replica: Replica) -> None:
    for kind, traffic in replica.store.traffic.items():
        if traffic.number:
            numbers = {
                "number": traffic.number,
                "failed": traffic.failed,
                "seconds": traffic.seconds,
                "sent": traffic.sent,
                "received": traffic.received,
            }
            numbers |= {f"b{one}": n for one, n in traffic.latency.counts.items()}
            for what, number in numbers.items():
                if number:
                    tally["request", alias, kind, what] = number


def difference(now: Tally, before: Tally) -> Tally:
    """What was counted in between.

    What is smaller than it was has begun at 0 again.
    """
    found: Tally = {}
    for key, number in now.items():
        last = before.get(key, 0)
        if change := number - last if number >= last else number:
            found[key] = change
    return found


@dataclass(frozen=True, slots=True)
class CacheState:
    """One cache that keeps statistics, or a tier of one, as it is now.

    ``is_own`` tells that it is in this process alone.
    """

    alias: str
    tier: str
    driver: str
    counts: Mapping[str, float]
    size: int | None = None
    max_size: int | None = None
    memory: int | None = None
    max_memory: int | None = None
    ttl: float | None = None
    state: str = "closed"
    is_own: bool = False


def cache_states() -> list[CacheState]:
    """Those of ``CACHES`` that keep statistics, and their tiers."""
    found: list[CacheState] = []
    for alias in settings.CACHES:
        try:
            cache = caches[alias]
            if not isinstance(cache, GettingCache):
                continue
            stats: Mapping[str, Any] = cache.stats()
            found.append(_state_of(alias, "", cache, stats))
            if isinstance(cache, ComposedCache):
                found.extend(_tiers_of(alias, cache, stats["members"]))
        except Exception as error:
            # One that is not configured right: a check says more of it.
            logger.info("The cache %r tells nothing of itself: %s", alias, error)
    return found


def _state_of(
    alias: str, tier: str, cache: BaseCache, stats: Mapping[str, Any]
) -> CacheState:
    memory = stats["evicted_due_to_memory"]
    counts = {
        "hits": stats["hits"],
        "misses": stats["misses"],
        "errors": stats["errors"],
        "stale": cache.counters.read().get("stale", 0)
        if isinstance(cache, GettingCache)
        else 0,
        # Those for another reason than bytes.
        "entries": stats["evictions"] - memory,
    }
    counts |= {cause: stats[name] for name, cause in EVICTIONS.items()}
    return CacheState(
        alias=alias,
        tier=tier,
        driver=stats["driver"],
        counts=counts,
        size=stats["size"],
        max_size=stats["max_size"],
        memory=stats["memory_usage_bytes"],
        max_memory=stats["max_memory_bytes"],
        ttl=stats["default_ttl"],
        is_own=not getattr(cache, "shares", False),
    )


def _tiers_of(
    alias: str, cache: ComposedCache, members: Iterable[Mapping[str, Any]]
) -> Iterable[CacheState]:
    for member, told in zip(cache.members, members, strict=True):
        own: Mapping[str, Any] = told["stats"] or {}
        memory = own.get("evicted_due_to_memory", 0)
        counts = {
            "hits": told["hits"],
            "misses": told["misses"],
            "errors": told["errors"],
            "entries": own.get("evictions", 0) - memory,
            "memory": memory,
            "expired": own.get("expired", 0),
            "rejected": told["rejected"] + own.get("rejected", 0),
            "undecodable": told["undecodable"] + own.get("undecodable", 0),
        }
        yield CacheState(
            alias=alias,
            tier=told["cache"],
            driver=told["driver"],
            counts=counts,
            size=own.get("size"),
            max_size=own.get("max_size"),
            memory=own.get("memory_usage_bytes"),
            max_memory=own.get("max_memory_bytes"),
            ttl=told["ttl"],
            state=told["state"],
            is_own=not getattr(member.cache, "shares", False),
        )
