"""Counters of a cache: exact, whatever the number of threads."""

from __future__ import annotations

from collections import Counter
from typing import Final, TypedDict

from s3cache import counting

__all__ = ["Counters", "Statistics", "hit_rate"]


class Counters(counting.Counters[str]):
    """What happened since the start, or since the last ``clear()``."""

    def __init__(self) -> None:
        super().__init__()
        self.hit: Final = self.ticker("hits")
        self.miss: Final = self.ticker("misses")

    def total(self) -> Counter[str]:
        """Return all counts by name; 0 for what never happened."""
        return Counter({key: int(number) for key, number in self.read().items()})


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
