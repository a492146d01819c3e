"""Hits, misses and the rest, by model and action; exact under threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from s3cache import counting
from s3cache.counting import Tick

__all__ = ["EVENTS", "Counters", "Key", "Reads", "counters"]


@dataclass(frozen=True, slots=True)
class Reads:
    """What became of some reads.

    Each is one of the first four; the others happened beside one of them.
    """

    hit: int = 0
    """Answered from the cache."""
    miss: int = 0
    """Computed from the replica, and stored where it could be."""
    wait: int = 0
    """Answered by another caller, who was computing it already."""
    bypass: int = 0
    """May not be kept, or was asked for past the cache."""
    stale: int = 0
    """Older than ``max_age``: the store did not answer."""
    broken: int = 0
    """What the cache had could not be read: a miss."""
    failed: int = 0
    """The cache raised an error: a miss."""

    @property
    def number(self) -> int:
        """All of them."""
        return self.hit + self.miss + self.wait + self.bypass

    @property
    def answered(self) -> int:
        """Those that needed no query: hits and waits."""
        return self.hit + self.wait

    @property
    def asked(self) -> int:
        """Those that looked in the cache: all but the bypasses."""
        return self.hit + self.miss + self.wait

    @property
    def hit_rate(self) -> float:
        """``answered / asked``, from 0.0 to 1.0; 0.0 if nothing was asked."""
        return self.answered / self.asked if self.asked else 0.0

    def __add__(self, other: Reads) -> Reads:
        return Reads(
            self.hit + other.hit,
            self.miss + other.miss,
            self.wait + other.wait,
            self.bypass + other.bypass,
            self.stale + other.stale,
            self.broken + other.broken,
            self.failed + other.failed,
        )


#: What is counted; see ``Reads``.
EVENTS: Final = ("hit", "miss", "wait", "bypass", "stale", "broken", "failed")

#: The alias of a database, the label of a model (or "sql"), an action, and
#: the name of the partition that it was confined to, or "".
Key = tuple[str, str, str, str]


class Counters:
    """The counts of one process, for all its threads."""

    def __init__(self) -> None:
        self._counters = counting.Counters[tuple[str, str, str, str, str]]()

    def clear(self) -> None:
        """Start at 0 again."""
        self._counters.clear()

    def ticker(self, key: Key, event: str) -> Tick:
        """What counts such an event when it is called: for hot paths."""
        return self._counters.ticker((*key, event))

    def count(
        self,
        label: str,
        action: str,
        event: str,
        *,
        database: str = "",
        partition: str = "",
    ) -> None:
        """Count one more event, of ``EVENTS``."""
        self._counters.count((database, label, action, partition, event))

    def by_key(self) -> dict[Key, Reads]:
        """The counts, by all that is known of them."""
        found: dict[Key, dict[str, int]] = {}
        for (*key, event), number in self._counters.read().items():
            database, label, action, partition = key
            events = found.setdefault((database, label, action, partition), {})
            events[event] = int(number)
        return {key: Reads(**events) for key, events in found.items()}

    def read(self) -> dict[tuple[str, str], Reads]:
        """The counts by label and action."""
        found: dict[tuple[str, str], Reads] = {}
        for (_database, label, action, _partition), reads in self.by_key().items():
            key = label, action
            found[key] = found[key] + reads if key in found else reads
        return found


#: Those of this process.
counters = Counters()
