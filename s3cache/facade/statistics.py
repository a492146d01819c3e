"""What a facade says of its cache, in the words of `s3cache.caches`."""

from __future__ import annotations

from typing import Any, TypedDict

from django.core.cache.backends.base import BaseCache

from s3cache.caches.machine import Machine
from s3cache.caches.statistics import hit_rate
from s3cache.results.counters import counters

__all__ = ["FacadeStatistics", "memory_statistics", "statistics"]


class FacadeStatistics(TypedDict):
    """
    What ``stats()`` of a facade returns.

    Reads are those of the model, in this process. What is said of the driver
    concerns all that it holds, and is None where it does not say.
    """

    model: str
    namespace: str
    driver: str
    """The name of the backend's class."""
    enabled: bool
    """Whether results of the model are kept at all."""
    hits: int
    """Reads that were answered from the cache, or by another caller's work."""
    misses: int
    hit_rate: float
    """hits / (hits + misses); 0.0 when there were none."""
    bypassed: int
    """Reads that may not be kept, or were asked for past the cache."""
    stale: int
    """Reads that were older than ``max_age``, since the store is down."""
    actions: dict[str, dict[str, float]]
    """``hits``, ``misses`` and ``hit_rate`` by action."""
    default_ttl: float | None
    """Seconds that a result is kept."""
    evictions: int | None
    size: int | None
    max_size: int | None
    memory_usage_bytes: int | None
    members: list[Any]
    """Of the tiers, or shards, that the driver is made of."""


def statistics(
    model: str,
    namespace: str,
    counted: str,
    driver: BaseCache,
    *,
    enabled: bool,
    ttl: float | None,
) -> FacadeStatistics:
    """Add up what was counted under `counted`."""
    by_action = {
        action: counts
        for (label, action), counts in counters.read().items()
        if label == counted
    }
    hits = sum(counts.answered for counts in by_action.values())
    misses = sum(counts.miss for counts in by_action.values())
    told = driver_statistics(driver)
    return {
        "model": model,
        "namespace": namespace,
        "driver": type(driver).__name__,
        "enabled": enabled,
        "hits": hits,
        "misses": misses,
        "hit_rate": hit_rate(hits, misses),
        "bypassed": sum(counts.bypass for counts in by_action.values()),
        "stale": sum(counts.stale for counts in by_action.values()),
        "actions": {
            action: {
                "hits": counts.answered,
                "misses": counts.miss,
                "hit_rate": hit_rate(counts.answered, counts.miss),
            }
            for action, counts in sorted(by_action.items())
        },
        "default_ttl": ttl,
        "evictions": told.get("evictions"),
        "size": told.get("size"),
        "max_size": told.get("max_size"),
        "memory_usage_bytes": told.get("memory_usage_bytes"),
        "members": told.get("members", []),
    }


def memory_statistics(driver: BaseCache) -> dict[str, Any]:
    """What the driver says of memory; None for what it does not say."""
    own = getattr(driver, "memory_stats", None)
    if own is not None:
        return dict(own())
    told = driver_statistics(driver)
    machine = Machine()
    return {
        "memory_usage": {
            "current": told.get("memory_usage_bytes"),
            "max": told.get("max_memory_bytes"),
            "current_text": None,
            "max_text": None,
        },
        "memory_usage_percent": None,
        "max_memory_percent": None,
        "evicted_due_to_memory": told.get("evicted_due_to_memory"),
        "total_items": told.get("size"),
        "average_item_size": None,
        "system_memory": {"total": machine.total(), "cache_percent": None},
        "process_memory": machine.resident(),
        "watchdog": None,
    }


def driver_statistics(driver: BaseCache) -> dict[str, Any]:
    """What the driver says of itself, if it says anything."""
    own = getattr(driver, "stats", None)
    return dict(own()) if own is not None else {}
