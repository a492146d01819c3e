"""
Telling the caches of other processes and hosts what is no longer true.

A cache in memory does not see what another host deletes. With the option
``broadcast``, the CACHES alias of a Redis (django-redis), each tells all its
likes, which drop the entry. What was kept while nobody listened, or the
connection was lost, is not believed, and while it is lost nothing is kept:
a lost message makes a cache slower, never wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from s3cache.bus.bus import Bus, Subscription

__all__ = ["Broadcast", "Listener", "broadcast_for"]

logger = logging.getLogger("s3cache.caches")


class Listener(Protocol):
    """A cache that is told."""

    def hear(self, kind: str, what: Any) -> None:
        """Drop from what other hosts do not see: one ``key`` as it is made,
        the keys of a ``pattern``, or ``all``."""

    def distrust(self) -> None:
        """Drop, or believe no more, whatever may have been changed."""


class Broadcast:
    """What the caches of one name in this process tell and are told."""

    def __init__(self, bus: Bus, topic: str, make: Callable[[], Listener]) -> None:
        self.bus = bus
        self.topic = topic
        self._make = make
        self._listener: Listener | None = None
        #: Numbers since the process began, for statistics.
        self.told = 0
        self.heard = 0
        self.missed = 0
        self._subscription: Subscription | None = None

    def begin(self) -> None:
        """Listen; once."""
        self._subscription = self.bus.subscribe(self.topic, self._heard, self._missed)

    @property
    def hears(self) -> bool:
        """Whether what is kept now would be dropped when it should."""
        return self._subscription is not None and self._subscription.hears

    @property
    def is_current(self) -> bool:
        """Whether CACHES is what it was."""
        return self.bus.is_current

    def tell(self, kind: str, what: Any = None) -> None:
        """Have the others drop it; never waits."""
        self.told += 1
        self.bus.publish(
            self.topic, self._message(kind, what), instead=self._message("all")
        )

    def _message(self, kind: str, what: Any = None) -> bytes:
        return json.dumps([self.bus.token, kind, what]).encode()

    # In the hearing thread

    @property
    def listener(self) -> Listener:
        # Made there, for caches belong to threads.
        if self._listener is None:
            self._listener = self._make()
        return self._listener

    def _heard(self, message: bytes) -> None:
        token, kind, what = json.loads(message)
        if token != self.bus.token:
            self.heard += 1
            self.listener.hear(kind, what)

    def _missed(self) -> None:
        self.missed += 1
        self.listener.distrust()


_broadcasts: dict[tuple[str, str], Broadcast] = {}


def broadcast_for(alias: str, topic: str, make: Callable[[], Listener]) -> Broadcast:
    """
    Return what caches of that topic share in this process.

    `make` makes the cache that is told, for the hearing thread.
    """
    from s3cache.bus.bus import bus_for  # it needs caches itself

    bus = bus_for(alias)
    found = _broadcasts.get((alias, topic))
    if found is None or found.bus is not bus:
        found = Broadcast(bus, topic, make)
        # Without a lock, which a fork could leave held: one object wins.
        before = _broadcasts.get((alias, topic))
        if before is not None and before.bus is bus:
            return before
        _broadcasts[alias, topic] = found
        found.begin()
    return found
