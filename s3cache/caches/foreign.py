"""
Other packages' caches as members of a composed cache.

django-redis, Memcached, a database, ...: they get bytes, an envelope as in
files and buckets, authenticated and perhaps encrypted. Changing a number and
leases are atomic with Redis; no other backend has a lease.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache, InvalidCacheKey
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache

from s3cache.caches import redis
from s3cache.caches.envelope import Envelope
from s3cache.caches.errors import Undecodable
from s3cache.caches.getting import Found, Lease
from s3cache.caches.members import Health, Member, Refused, Split
from s3cache.caches.times import Times

__all__ = ["ForeignMember"]

logger = logging.getLogger("s3cache.caches")

_OF_ONE_HOST = (DummyCache, FileBasedCache, LocMemCache)


class ForeignMember(Member):
    """
    Any other backend of Django's.

    It is found anew each time: Django makes one object per thread, and not
    all of them may be shared between threads.
    """

    failures = (Exception,)
    unusable = (UnicodeEncodeError, InvalidCacheKey)
    waits = True

    def __init__(
        self,
        alias: str,
        envelope: Envelope,
        split: Split,
        health: Health,
        ttl: float | None,
        lease_timeout: float,
    ) -> None:
        super().__init__(alias, split, health, ttl)
        self._envelope = envelope
        self._lease_timeout = lease_timeout
        self._redis = redis.is_redis(self.cache)
        self.shares = self._redis
        self.spans_hosts = not isinstance(self.cache, _OF_ONE_HOST)
        self.lists_keys = self._redis

    @property
    def cache(self) -> BaseCache:
        return caches[self.alias]

    def distrust(self) -> None:
        # As a cache in memory of our own: what is promoted there is old.
        if isinstance(self.cache, LocMemCache):
            self.clear()
        else:
            super().distrust()

    def _find(self, made: str, stale: bool) -> Found | None:
        key, version = self._split(made)
        return self._opened(made, self.cache.get(key, version=version), stale)

    def _find_many(self, names: Sequence[str]) -> dict[str, Found]:
        by_version: dict[Any, dict[str, str]] = {}
        for made in names:
            key, version = self._split(made)
            by_version.setdefault(version, {})[key] = made
        found: dict[str, Found] = {}
        for version, mades in by_version.items():
            for key, data in self._get_many(mades, version).items():
                made = mades[key]
                if (one := self._opened(made, data, stale=False)) is not None:
                    found[made] = one
        return found

    def _put(self, made: str, value: Any, times: Times) -> None:
        data = self._sealed(made, value, times)
        left = _left(times)
        if data is None or left <= 0:
            self._remove(made)
            return
        key, version = self._split(made)
        self.cache.set(key, data, _timeout(left), version)

    def _add(self, made: str, value: Any, times: Times) -> bool:
        data = self._sealed(made, value, times)
        left = _left(times)
        if data is None or left <= 0:
            return data is not None and self._find(made, stale=False) is None
        key, version = self._split(made)
        if self.cache.add(key, data, _timeout(left), version):
            return True
        if self._find(made, stale=False) is not None:
            return False
        # What is there is damaged, or was signed with another secret.
        self.cache.set(key, data, _timeout(left), version)
        return True

    def _touch(self, made: str, left: float | None) -> bool:
        expires = math.inf if left is None else time.time() + left

        def change(found: Found) -> Found:
            times = found[1]
            return found[0], Times(times.created, expires, math.inf, times.cost)

        return self._change(made, change) is not None

    def _incr(self, made: str, delta: int) -> int | None:
        found = self._change(made, lambda found: (found[0] + delta, found[1]))
        return None if found is None else found[0]

    def _remove(self, made: str) -> bool:
        key, version = self._split(made)
        return bool(self.cache.delete(key, version))

    def _lease(self, made: str) -> Lease | None:
        key, version = self._split(made)
        # Another version, so that no caller's key is a lease.
        leases = f"{self.cache.version if version is None else version}-lease"
        return redis.lease(self.cache, key, leases, self._lease_timeout)

    def _keys(self, pattern: str, limit: int | None) -> Iterable[str]:
        key, version = self._split(pattern)
        return islice(redis.keys(self.cache, key, version), limit)

    def _delete_pattern(self, pattern: str) -> int:
        return redis.delete_pattern(self.cache, *self._split(pattern))

    # Parts

    def _get_many(self, keys: Iterable[str], version: Any) -> dict[str, Any]:
        try:
            return dict(self.cache.get_many(keys, version=version))
        except self.unusable:
            pass  # which it is it does not say: ask for each
        found: dict[str, Any] = {}
        for key in keys:
            with suppress(*self.unusable):
                found[key] = self.cache.get(key, version=version)
        return found

    def _opened(self, made: str, data: object, stale: bool) -> Found | None:
        """Read an entry; what cannot be read is a counted miss."""
        if data is None:
            return None
        try:
            if not isinstance(data, bytes):
                raise Undecodable("foreign", f"a {type(data).__name__}, not bytes")
            opened = self._envelope.open(made, data)
            times = opened.times
            if (times.expires if stale else times.fresh_until) <= time.time():
                return None
            return self._envelope.value(opened), times
        except Undecodable as error:
            self.health.counters.count("undecodable")
            self.health.counters.count(error.reason)
            logger.warning("The cache %r: dropped %r: %s", self.alias, made, error)
            return None

    def _sealed(self, made: str, value: Any, times: Times) -> bytes | None:
        """Return the bytes of an entry; None: too large, which is counted."""
        try:
            data = self._envelope.seal(made, value, times)
        except Exception as error:
            raise Refused(error) from error
        if len(data) <= self._envelope.most:
            return data
        self.health.counters.count("rejected")
        return None

    def _change(self, made: str, change: Callable[[Found], Found]) -> Found | None:
        """Replace an entry by another; atomic with Redis, and only there."""
        changed: Found | None = None

        def exchanged(data: Any) -> tuple[bytes, float | None] | None:
            nonlocal changed
            changed = None
            found = self._opened(made, data, stale=False)
            if found is None:
                return None
            try:
                made_of_it = change(found)
            except Exception as error:
                raise Refused(error) from error
            sealed = self._sealed(made, *made_of_it)
            if sealed is None:
                return None
            changed = made_of_it
            return sealed, _timeout(_left(made_of_it[1]))

        key, version = self._split(made)
        if self._redis:
            redis.exchange(self.cache, key, version, exchanged)
        elif (new := exchanged(self.cache.get(key, version=version))) is not None:
            self.cache.set(key, new[0], new[1], version)
        return changed


def _left(times: Times) -> float:
    return times.expires - time.time()


def _timeout(left: float) -> float | None:
    """In Django's words; above 0, which would be "do not keep"."""
    return None if left == math.inf else left
