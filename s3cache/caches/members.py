"""
The caches that a composed cache is made of, each behind a circuit breaker.

A member that fails is skipped and counted; its callers see a miss. What it did
not hear of meanwhile (a new value, a deletion) is remembered by this process:
the member is told as soon as it answers again, and until then nothing of that
key is believed that it says.

A cache of this package is an `OwnMember`; for other backends see ``foreign``.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from django.core.cache.backends.base import BaseCache

from s3cache.caches.breaker import Breaker
from s3cache.caches.getting import Found, GettingCache, Lease
from s3cache.caches.memory import MemoryCache
from s3cache.caches.statistics import Counters
from s3cache.caches.stored import StoredCache, strict
from s3cache.caches.times import Times

__all__ = ["Health", "Member", "OwnMember", "Refused", "Split"]

T = TypeVar("T")

logger = logging.getLogger("s3cache.caches")

Split: TypeAlias = Callable[[str], tuple[str, Any]]
"""From the made key of a composed cache to the key, and the version, that its
members get."""

_MOST_UNTOLD: Final = 10_000
"""Keys to remember; beyond, all that is older is no longer believed."""

_TOLD_AT_ONCE: Final = 20


class Refused(Exception):
    """It is the value, and not the member, that something is wrong with."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Health:
    """What a process knows of a member; one for all threads."""

    def __init__(self, failures: int, pause: float) -> None:
        self.breaker = Breaker(failures, pause)
        self.counters = Counters()
        self.untold: dict[str, object] = {}
        """Keys whose last change the member did not hear of; each change is an
        object of its own."""
        self._lock = threading.Lock()
        self.not_before = -math.inf
        """Epoch seconds: what was made earlier is not believed."""
        _all.add(self)

    def remember(self, made: str) -> None:
        """Note that the member missed a change of this key."""
        if len(self.untold) >= _MOST_UNTOLD:
            self.forget_all()
        with self._lock:
            self.untold[made] = object()

    def told(self, made: str, change: object) -> None:
        """Note that the member has heard of a change, if it is the last."""
        with self._lock:
            if self.untold.get(made) is change:
                del self.untold[made]

    def forked(self) -> None:
        """Use a lock that no thread of the parent's holds."""
        self._lock = threading.Lock()

    def forget_all(self) -> None:
        """Believe nothing of what the member has now."""
        self.not_before = time.time()
        self.untold.clear()

    def believes(self, found: Found) -> bool:
        return found[1].created > self.not_before


_all: Final[weakref.WeakSet[Health]] = weakref.WeakSet()


def _forked() -> None:
    for health in list(_all):
        health.forked()


os.register_at_fork(after_in_child=_forked)


class Member(ABC):
    """
    One alias of a composed cache.

    No method raises what the member fails with; what a *value* is refused for
    is raised.
    """

    failures: tuple[type[Exception], ...] = (Exception,)
    unusable: tuple[type[Exception], ...] = ()
    """What it raises for a key that it cannot have: nothing is there, and
    nothing is wrong with it."""
    waits: bool = True
    """Whether operations may wait for a disk or a network."""
    shares: bool = False
    """Whether other processes see what is in it, and its leases."""
    lists_keys: bool = True
    spans_hosts: bool = True
    """Whether other hosts see what is in it."""

    def __init__(
        self, alias: str, split: Split, health: Health, ttl: float | None
    ) -> None:
        self.alias = alias
        self.health = health
        self.ttl = ttl
        self._split = split

    @property
    @abstractmethod
    def cache(self) -> BaseCache:
        """The cache that the alias names."""

    # What a kind of member does; each may raise one of ``failures``

    @abstractmethod
    def _find(self, made: str, stale: bool) -> Found | None: ...

    @abstractmethod
    def _find_many(self, names: Sequence[str]) -> dict[str, Found]: ...

    @abstractmethod
    def _put(self, made: str, value: Any, times: Times) -> None: ...

    @abstractmethod
    def _add(self, made: str, value: Any, times: Times) -> bool: ...

    @abstractmethod
    def _touch(self, made: str, left: float | None) -> bool: ...

    @abstractmethod
    def _incr(self, made: str, delta: int) -> int | None: ...

    @abstractmethod
    def _remove(self, made: str) -> bool: ...

    @abstractmethod
    def _lease(self, made: str) -> Lease | None: ...

    @abstractmethod
    def _keys(self, pattern: str, limit: int | None) -> Iterable[str]: ...

    @abstractmethod
    def _delete_pattern(self, pattern: str) -> int: ...

    # The same, guarded

    def find(self, made: str, *, stale: bool = False) -> Found | None:
        # Before it is asked: once it answers it is told, and then believed.
        untold = made in self.health.untold
        _, found = self._ask("get", lambda: self._find(made, stale), None)
        if found is None or untold or not self.health.believes(found):
            return None
        return found

    def find_many(self, names: Sequence[str]) -> dict[str, Found]:
        """Return what there is and has not expired."""
        nothing: dict[str, Found] = {}
        untold = self.health.untold.copy()
        _, found = self._ask("get_many", lambda: self._find_many(names), nothing)
        believes = self.health.believes
        return {
            name: one
            for name, one in found.items()
            if name not in untold and believes(one)
        }

    def put(self, made: str, value: Any, times: Times) -> bool:
        """Return whether the member heard of it."""
        capped = self._capped(times)
        ok, _ = self._tell("set", made, lambda: self._put(made, value, capped), None)
        return ok

    def add(self, made: str, value: Any, times: Times) -> bool | None:
        """None: the member does not answer."""
        if made in self.health.untold and not self.remove(made)[0]:
            return None
        capped = self._capped(times)
        ok, added = self._tell(
            "add", made, lambda: self._add(made, value, capped), False
        )
        return added if ok else None

    def touch(self, made: str, left: float | None) -> bool:
        if self.ttl is not None:
            left = self.ttl if left is None else min(left, self.ttl)
        _, touched = self._tell("touch", made, lambda: self._touch(made, left), False)
        return touched

    def incr(self, made: str, delta: int) -> int | None:
        """None: there is no number, or the member does not answer."""
        if made in self.health.untold:
            return None
        return self._tell("incr", made, lambda: self._incr(made, delta), None)[1]

    def remove(self, made: str) -> tuple[bool, bool]:
        """Return whether the member heard of it, and whether it was there."""
        return self._tell("delete", made, lambda: self._remove(made), False)

    def clear(self) -> None:
        ok, _ = self._ask("clear", self.cache.clear, None)
        if ok:
            self.health.untold.clear()
        else:
            self.health.forget_all()

    def distrust(self) -> None:
        """Believe nothing of what is in it now."""
        self.health.forget_all()

    def lease(self, made: str) -> tuple[bool, Lease | None]:
        """Return whether the member answered, and its lease of a key."""
        ok, free = self._ask("lease", lambda: self._lease(made), None)
        if free is None:
            return ok, None
        taken = free

        def release() -> None:
            # The member may be down by then; the lease then ends by itself.
            self._ask("lease", taken, None)

        return ok, release

    def keys(self, pattern: str, limit: int | None) -> list[str]:
        """Return keys that match, as this member's callers write them."""
        nothing: list[str] = []

        def listed() -> list[str]:
            return list(self._keys(pattern, limit))

        return self._ask("keys", listed, nothing)[1]

    def delete_pattern(self, pattern: str) -> int:
        ok, deleted = self._ask(
            "delete_pattern", lambda: self._delete_pattern(pattern), 0
        )
        if not ok:
            self.health.forget_all()
        return deleted

    def counted(self, *, hit: bool) -> None:
        """Count that a key was found here, or was not."""
        counters = self.health.counters
        (counters.hit if hit else counters.miss)()

    def counted_many(self, hits: int, misses: int) -> None:
        """Count so many keys that were found here, and that were not."""
        self.health.counters.add("hits", hits)
        self.health.counters.add("misses", misses)

    # Parts

    def _capped(self, times: Times) -> Times:
        """No entry stays for longer than the member's own time."""
        if self.ttl is None:
            return times
        return times._replace(expires=min(times.expires, time.time() + self.ttl))

    def _ask(self, doing: str, work: Callable[[], T], otherwise: T) -> tuple[bool, T]:
        """
        Return whether the member answered, and its answer or `otherwise`.

        One that has failed too often is not asked at all.
        """
        health = self.health
        if not health.breaker.allows():
            health.counters.count("skipped")
            return False, otherwise
        try:
            with strict():
                answer = work()
        except Refused as refused:
            raise refused.error from None
        except self.unusable as error:
            health.counters.count("rejected")
            logger.warning("The cache %r cannot have a key: %r", self.alias, error)
            return False, otherwise
        except self.failures as error:
            health.counters.count("errors")
            logger.warning("The cache %r failed: %s: %r", self.alias, doing, error)
            if health.breaker.failed():
                logger.error("The cache %r is skipped: it keeps failing", self.alias)
            return False, otherwise
        health.breaker.succeeded()
        if health.untold:
            self._catch_up()
        return True, answer

    def _tell(
        self, doing: str, made: str, work: Callable[[], T], otherwise: T
    ) -> tuple[bool, T]:
        """As ``_ask``, for a change that the member has to hear of."""
        change = self.health.untold.get(made)
        concerned = True

        def telling() -> T:
            nonlocal concerned
            try:
                return work()
            except self.unusable:
                concerned = False
                raise

        ok, answer = self._ask(doing, telling, otherwise)
        if not ok and concerned:
            self.health.remember(made)
        elif ok and change is not None and doing in {"set", "delete"}:
            self.health.told(made, change)
        return ok, answer

    def _catch_up(self) -> None:
        """Remove from a member that answers again what it did not hear of."""
        for made, change in list(self.health.untold.items())[:_TOLD_AT_ONCE]:
            try:
                with strict():
                    self._remove(made)
            except self.failures:
                return  # the next operation says so
            self.health.told(made, change)


class OwnMember(Member):
    """A cache of this package: it keeps times itself, and says if it fails."""

    def __init__(
        self,
        alias: str,
        cache: GettingCache,
        split: Split,
        health: Health,
        ttl: float | None,
    ) -> None:
        super().__init__(alias, split, health, ttl)
        self._cache = cache
        self.waits = cache.waits
        self.shares = cache.shares
        self.spans_hosts = cache.spans_hosts
        if isinstance(cache, StoredCache):
            self.failures = cache.failures
        else:
            self.failures = ()

    @property
    def cache(self) -> GettingCache:
        return self._cache

    def distrust(self) -> None:
        # What is promoted keeps the time of its making, which may be long
        # ago; so what can be removed is removed.
        if isinstance(self._cache, MemoryCache):
            self._cache.distrust()
        else:
            super().distrust()

    def _made(self, made: str) -> str:
        return self._cache.make_key(*self._split(made))

    def _find(self, made: str, stale: bool) -> Found | None:
        return self._cache._find(self._made(made), stale=stale)

    def _find_many(self, names: Sequence[str]) -> dict[str, Found]:
        found = ((made, self._find(made, False)) for made in names)
        return {made: one for made, one in found if one is not None}

    def _put(self, made: str, value: Any, times: Times) -> None:
        self._cache._put(self._made(made), value, times)

    def _add(self, made: str, value: Any, times: Times) -> bool:
        return self._cache._add(self._made(made), value, times)

    def _touch(self, made: str, left: float | None) -> bool:
        return self._cache._touch(self._made(made), left)

    def _incr(self, made: str, delta: int) -> int | None:
        return self._cache._incr(self._made(made), delta)

    def _remove(self, made: str) -> bool:
        return self._cache._remove(self._made(made))

    def _lease(self, made: str) -> Lease | None:
        return self._cache._lease(self._made(made))

    def _keys(self, pattern: str, limit: int | None) -> Iterable[str]:
        key, version = self._split(pattern)
        return self._cache.keys(key, version, limit)

    def _delete_pattern(self, pattern: str) -> int:
        return self._cache.delete_pattern(*self._split(pattern))
