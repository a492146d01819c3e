"""Hits, misses and the rest, by model and action; exact under threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from s3cache import counting
from s3cache.counting import Tick

__all__ = ["EVENTS", "Counters", "Counts", "Key", "counters"]

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

    def by_key(self) -> dict[Key, Counts]:
        """The counts, by all that is known of them."""
        found: dict[Key, dict[str, int]] = {}
        for (*key, event), number in self._counters.read().items():
            database, label, action, partition = key
            events = found.setdefault((database, label, action, partition), {})
            events[event] = int(number)
        return {key: Counts(**events) for key, events in found.items()}

    def read(self) -> dict[tuple[str, str], Counts]:
        """The counts by label and action."""
        found: dict[tuple[str, str], dict[str, int]] = {}
        for (_database, label, action, _partition), counts in self.by_key().items():
            events = found.setdefault((label, action), dict.fromkeys(EVENTS, 0))
            for event in EVENTS:
                events[event] += getattr(counts, event)
        return {key: Counts(**events) for key, events in found.items()}


#: Those of this process.
counters = Counters()
