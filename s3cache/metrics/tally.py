"""What this process has counted since it began, in one flat dictionary.

Everything that is counted only grows, so the difference of two tallies is what
happened between them, and differences of threads, processes, hosts and minutes
add up. A key is a tuple of strings, by what it is of:

    ("read", database, model, action, partition, event)
    ("request", database, kind, what)    as in ``RequestFigures``,
                                         or "b<bucket>" of its latency
    ("event", database, name, table)     see ``Replica.events``
    ("cache", alias, tier, what)         as in ``CacheFigures``

The databases are those of ``conf.counted_databases()``: all tenants' together
are one.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.conf import settings
from django.core.cache import BaseCache, caches
from django.db.backends.signals import connection_created

from s3cache import conf
from s3cache.caches.composed import ComposedCache
from s3cache.caches.getting import GettingCache
from s3cache.counting import Counters
from s3cache.metrics.figures import CacheNow
from s3cache.replica.replica import Replica, open_replica
from s3cache.results.counters import EVENTS, counters
from s3cache.stores.base import Store

__all__ = [
    "EVICTIONS",
    "SEPARATOR",
    "CacheState",
    "Groups",
    "Key",
    "Tally",
    "add_groups",
    "add_to",
    "cache_states",
    "difference",
    "flat",
    "grouped",
    "replicas",
    "take_tally",
    "tenants",
    "watch_connections",
]

_K = TypeVar("_K", str, tuple[str, ...])
_N = TypeVar("_N", int, float)

Key = tuple[str, ...]
Tally = dict[Key, float]

Groups = dict[tuple[str, str, str], dict[str, float]]
"""The same by the first three parts of keys, and the others in one string."""

#: Between the parts of a key.
SEPARATOR: Final = "\x1f"

#: Why entries leave a cache, by the name in its ``stats()``. Those that a
#: limit of bytes removed are among its "evictions"; that one is subtracted
#: where it is shown, for a difference of two numbers may fall.
EVICTIONS: Final = {
    "evictions": "evictions",
    "evicted_due_to_memory": "memory",
    "expired": "expired",
    "rejected": "rejected",
    "undecodable": "undecodable",
}

logger = logging.getLogger("s3cache.metrics")

_replicas: Final[dict[str, weakref.ref[Replica]]] = {}

#: Those of tenants, by what they are counted as.
_tenants: Final[dict[str, weakref.WeakSet[Replica]]] = {}

#: Of tenants whose replicas are gone: what still holds their counts, and the
#: sums of what did. A collection of garbage may come at any moment, and in any
#: thread, so it only appends.
_ended: deque[tuple[str, Counters[tuple[str, str]], Store]] = deque()
_gone: Final[Tally] = {}
_gone_lock = threading.Lock()


def _note_replica(*, connection: Any, **kwargs: Any) -> None:
    if not getattr(connection, "is_s3cache", False):
        return
    replica: Replica = connection.replica
    counted = conf.counted_as(connection.alias)
    if counted == connection.alias:
        _replicas[counted] = weakref.ref(replica)
        return
    known = _tenants.setdefault(counted, weakref.WeakSet())
    if replica not in known:
        known.add(replica)
        its = counted, replica.events, replica.store
        weakref.finalize(replica, _ended.append, its).atexit = False


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


def tenants(counted: str) -> list[Replica]:
    """The replicas of tenants that this process knows."""
    return list(_tenants.get(counted, ()))


def _forget_tenants() -> None:
    global _gone_lock
    _gone_lock = threading.Lock()
    _ended.clear()
    _gone.clear()


os.register_at_fork(after_in_child=_forget_tenants)


def take_tally() -> Tally:
    """What this process has counted so far."""
    tally: Tally = {}
    known = conf.counted_databases()
    for key, counts in counters.by_key().items():
        if key[0] in known:
            for event in EVENTS:
                if number := getattr(counts, event):
                    tally["read", *key, event] = number
    stores = set()
    for alias, replica in replicas().items():
        # Aliases may share a store, whose requests are those of the first.
        is_first = replica.store not in stores
        stores.add(replica.store)
        _add_counts(tally, alias, replica.events, replica.store if is_first else None)
    for counted in known:
        _add_tenants(tally, counted)
    for state in cache_states():
        for what, number in state.counts.items():
            if number:
                tally["cache", state.alias, state.tier, what] = number
    return tally


def _add_tenants(tally: Tally, counted: str) -> None:
    with _gone_lock:
        # First: what is held here does not end meanwhile, and counts once.
        alive = tenants(counted)
        while _ended:
            _add_counts(_gone, *_ended.popleft())
        gone: Tally = {key: n for key, n in _gone.items() if key[1] == counted}
    add_to(tally, gone)
    for replica in alive:
        _add_counts(tally, counted, replica.events, replica.store)


def _add_counts(
    tally: Tally, alias: str, events: Counters[tuple[str, str]], store: Store | None
) -> None:
    """Add what one replica has counted, and its store."""
    found: Tally = {
        ("event", alias, name, table): number
        for (name, table), number in events.read().items()
    }
    for kind, traffic in store.traffic.items() if store is not None else ():
        if traffic.number:
            numbers = {
                "number": traffic.number,
                "failed": traffic.failed,
                "seconds": traffic.seconds,
                "sent": traffic.sent,
                "received": traffic.received,
            }
            numbers |= {f"b{one}": n for one, n in traffic.latency.counts.items()}
            found |= {
                ("request", alias, kind, what): number
                for what, number in numbers.items()
                if number
            }
    add_to(tally, found)


def add_to(sums: dict[_K, _N], numbers: Mapping[_K, _N]) -> None:
    """Add numbers by what they are of."""
    known = sums.get
    for key, number in numbers.items():
        sums[key] = known(key, 0) + number


def grouped(tally: Tally) -> Groups:
    """A tally by what most of its numbers have in common."""
    found: Groups = {}
    for (kind, of, name, *rest), number in tally.items():
        numbers = found.get((kind, of, name))
        if numbers is None:
            numbers = found[kind, of, name] = {}
        numbers[SEPARATOR.join(rest)] = number
    return found


def flat(groups: Groups) -> Tally:
    """The tally that groups were made of."""
    return {
        (*key, *rest.split(SEPARATOR)): number
        for key, numbers in groups.items()
        for rest, number in numbers.items()
    }


def add_groups(sums: Groups, groups: Groups) -> None:
    """Add groups by what they are of; those of ``groups`` are used up."""
    for key, numbers in groups.items():
        if (its := sums.setdefault(key, numbers)) is not numbers:
            add_to(its, numbers)


def difference(now: Mapping[_K, float], before: Mapping[_K, float]) -> dict[_K, float]:
    """What was counted in between.

    What is smaller than it was has begun at 0 again.
    """
    found: dict[_K, float] = {}
    for key, number in now.items():
        last = before.get(key, 0)
        if change := number - last if number >= last else number:
            found[key] = change
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheState(CacheNow):
    """The same with what a process has counted of it.

    ``is_own`` tells that it is in this process alone, ``spans_hosts`` that
    other hosts see what is in it.
    """

    counts: Mapping[str, float]
    is_own: bool = False
    spans_hosts: bool = False


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
    counts = {
        "hits": stats["hits"],
        "misses": stats["misses"],
        "errors": stats["errors"],
        "stale": cache.counters.read().get("stale", 0)
        if isinstance(cache, GettingCache)
        else 0,
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
        spans_hosts=getattr(cache, "spans_hosts", False),
    )


def _tiers_of(
    alias: str, cache: ComposedCache, members: Iterable[Mapping[str, Any]]
) -> Iterable[CacheState]:
    for member, told in zip(cache.members, members, strict=True):
        own: Mapping[str, Any] = told["stats"] or {}
        counts = {
            "hits": told["hits"],
            "misses": told["misses"],
            "errors": told["errors"],
            "evictions": own.get("evictions", 0),
            "memory": own.get("evicted_due_to_memory", 0),
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
            is_own=not member.shares,
            spans_hosts=member.spans_hosts,
        )
