"""
Backends whose entries others can write to: files, objects of a bucket.

A subclass knows how to read, write and remove the bytes of a key; this class
makes the bytes, checks them, and counts. What cannot be read is a miss, and a
place that does not answer is too: the caller then asks the next tier, or the
source. `strict` turns the latter into an exception, for a tier's breaker.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import islice
from typing import Any, ClassVar, Final

from django.core.cache.backends.base import default_key_func

from s3cache.caches.base import positive, resolved
from s3cache.caches.envelope import Envelope, Opened, keys
from s3cache.caches.errors import Undecodable
from s3cache.caches.getting import GettingCache, Lease
from s3cache.caches.statistics import Counters, Statistics, hit_rate
from s3cache.caches.times import Times
from s3cache.conf import optional

__all__ = ["LEASES", "Change", "Condition", "StoredCache", "strict"]

logger = logging.getLogger("s3cache.caches")

_strict: ContextVar[bool] = ContextVar("s3cache.caches.strict", default=False)

LEASES: Final = "\0lease:"
"""What the keys of leases begin with. Those of entries begin with the prefix
and the version, so no caller can take a lease by storing a value."""

Change = Callable[[bytes | None], bytes | None]
"""From the bytes of a key (None: there are none) to its new bytes, or None:
leave them."""

Condition = Callable[[bytes], bool]
"""Whether these bytes of a key are those to remove."""


@contextmanager
def strict() -> Iterator[None]:
    """Raise what a place answers with, instead of counting and going on."""
    token = _strict.set(True)
    try:
        yield
    finally:
        _strict.reset(token)


class StoredCache(GettingCache):
    """The base of `FileSystemCache` and `S3Cache`."""

    readers = {
        **GettingCache.readers,
        "max_entry_bytes": positive,
        "signing_keys": optional(keys),
        "encryption_keys": keys,
    }
    defaults = {
        **GettingCache.defaults,
        "compression": "zstd",
        "max_entry_bytes": 64 * 2**20,
        "signing_keys": None,
        "encryption_keys": (),
    }

    failures: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    """What the place of the entries raises when it fails."""

    _all_counters: ClassVar[dict[tuple[type, str], Counters]] = {}

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        options = self.options
        self._most: int = options["max_entry_bytes"]
        self.envelope = Envelope(
            self.serializer,
            compression=options["compression"],
            threshold=options["compression_threshold"],
            most=self._most,
            signing_keys=options["signing_keys"],
            encryption_keys=options["encryption_keys"],
        )
        # Django makes one object per thread; they count together.
        self.counters = self._all_counters.setdefault(
            (type(self), self.location), Counters()
        )

    @property
    def shares(self) -> bool:
        return True

    # What a subclass does; each may raise one of ``failures``

    @abstractmethod
    def _fetch(self, made: str) -> bytes | None:
        """Return the bytes of a key."""

    @abstractmethod
    def _write(self, made: str, data: bytes) -> None:
        """Replace the bytes of a key, whole or not at all."""

    @abstractmethod
    def _exchange(self, made: str, change: Change) -> None:
        """Let `change` decide, with nobody else writing meanwhile."""

    @abstractmethod
    def _erase(self, made: str, only_if: Condition | None = None) -> bool:
        """
        Remove a key; return whether it was there, and was removed.

        With `only_if` nobody changes the bytes between its look at them and
        their removal.
        """

    @abstractmethod
    def _names(self, begin: str) -> Iterator[str]:
        """Yield the keys that begin so; of every version and prefix."""

    @abstractmethod
    def _erase_all(self) -> None:
        """Remove all keys."""

    # Django's API

    def has_key(self, key: Any, version: int | None = None) -> bool:
        made = self.make_and_validate_key(key, version)
        with self._failing("has_key"):
            data = self._fetch(made)
            return data is not None and self._opened(made, data) is not None
        return False

    def clear(self) -> None:
        """Remove all entries of the LOCATION, as Django's own backends do."""
        self._erase_all()

    # Beyond Django's API

    def keys(
        self, pattern: str = "*", version: int | None = None, limit: int | None = None
    ) -> list[str]:
        found: list[str] = []
        for made in self._matching(pattern, version):
            if limit is not None and len(found) >= limit:
                break
            found.append(self._named(made, version))
        return found

    def delete_pattern(self, pattern: str, version: int | None = None) -> int:
        return sum(self._erase(made) for made in list(self._matching(pattern, version)))

    def is_signed_by_others(self, looked_at: int = 10) -> bool:
        """
        Whether all of some entries are signed, and by no key that is known.

        Counts neither hits nor misses. Raises one of ``failures``.
        """
        forged = False
        for made in islice(self._names(""), looked_at):
            try:
                if (data := self._fetch(made)) is not None:
                    self.envelope.open(made, data)
                    return False
            except Undecodable as error:
                if error.reason != "forged":
                    return False
                forged = True
        return forged

    def stats(self) -> Statistics:
        total = self.counters.total()
        hits, misses = total["hits"], total["misses"]
        size, used = self._usage()
        return {
            "driver": type(self).__name__,
            "hits": hits,
            "misses": misses,
            "hit_rate": hit_rate(hits, misses),
            "evictions": total["evictions"],
            "evicted_due_to_memory": 0,
            "expired": total["expired"],
            "rejected": total["rejected"],
            "undecodable": total["undecodable"],
            "errors": total["errors"],
            "size": size,
            "max_size": self.options.get("MAX_ENTRIES"),
            "memory_usage_bytes": used,
            "max_memory_bytes": self.options.get("max_bytes"),
            "default_ttl": self.default_timeout,
            "enabled": True,
        }

    def _usage(self) -> tuple[int | None, int | None]:
        """Entries and bytes, where they are known without a search."""
        return None, None

    # Parts

    def _find(self, made: str, *, stale: bool = False) -> tuple[Any, Times] | None:
        with self._failing("get"):
            opened = self._verified(made)
            if opened is None or not _serves(opened, stale):
                return None
            try:
                return self.envelope.value(opened), opened.times
            except Undecodable as error:
                self._undecodable(made, error)
        return None

    def _add(self, made: str, value: Any, times: Times) -> bool:
        data = self._sealed(made, value, times)
        added = False

        def change(old: bytes | None) -> bytes | None:
            nonlocal added
            added = old is None or self._opened(made, old) is None
            return data if added else None

        if data is None or times.expires <= times.created:
            return data is not None and self._find(made) is None
        with self._failing("add") as outcome:
            self._exchange(made, change)
        return added and not outcome.failed

    def _touch(self, made: str, left: float | None) -> bool:
        expires = math.inf if left is None else time.time() + left
        touched = False

        def change(old: bytes | None) -> bytes | None:
            nonlocal touched
            opened = None if old is None else self._opened(made, old)
            touched = opened is not None
            if opened is None:
                return None
            times = opened.times
            moved = Times(times.created, expires, math.inf, times.cost)
            return self.envelope.renewed(made, opened, moved)

        with self._failing("touch") as outcome:
            self._exchange(made, change)
        return touched and not outcome.failed

    def _incr(self, made: str, delta: int) -> int | None:
        number: int | None = None

        def change(old: bytes | None) -> bytes | None:
            nonlocal number
            opened = None if old is None else self._opened(made, old)
            if opened is None:
                return None
            try:
                value = self.envelope.value(opened)
            except Undecodable as error:
                self._undecodable(made, error)
                return None
            number = value + delta
            return self.envelope.seal(made, number, opened.times)

        self._exchange(made, change)
        return number

    def _remove(self, made: str) -> bool:
        # Raises what the place raises: that a stale value may still be there
        # is not for this class to hide.
        return self._erase(made)

    def _verified(self, made: str) -> Opened | None:
        """Return an entry whose MAC is right, if there is one."""
        data = self._fetch(made)
        return None if data is None else self._proven(made, data)

    def _proven(self, made: str, data: bytes) -> Opened | None:
        try:
            return self.envelope.open(made, data)
        except Undecodable as error:
            self._undecodable(made, error)
            return None

    def _opened(self, made: str, data: bytes) -> Opened | None:
        """Return an entry that is right and has not expired."""
        opened = self._proven(made, data)
        return None if opened is None or not _serves(opened, stale=False) else opened

    def _undecodable(self, made: str, error: Undecodable) -> None:
        self.counters.count("undecodable")
        self.counters.count(error.reason)
        logger.warning("%s: dropped %r: %s", self.location, made, error)

    def _sealed(self, made: str, value: Any, times: Times) -> bytes | None:
        """Return the bytes of an entry; None: too large, which is counted."""
        data = self.envelope.seal(made, resolved(value), times)
        if len(data) <= self._most:
            return data
        self.counters.count("rejected")
        return None

    def _put(self, made: str, value: Any, times: Times) -> None:
        data = self._sealed(made, value, times)
        with self._failing("set") as outcome:
            if data is None or times.expires <= times.created:
                self._erase(made)
            else:
                self._write(made, data)
        if outcome.failed:
            # The old value is worse than none; a full disk lets files go.
            with suppress(*self.failures):
                self._erase(made)

    def _lease(self, made: str) -> Lease | None:
        """A key beside the entry, which expires when its owner dies."""
        name = LEASES + made
        lasts: float = self.options["lease_timeout"]
        times = Times(time.time(), time.time() + lasts)
        # The token makes these bytes nobody else's.
        sealed = self.envelope.seal(name, secrets.token_hex(8), times)
        taken = False

        def take(old: bytes | None) -> bytes | None:
            nonlocal taken
            taken = old is None or self._opened(name, old) is None
            return sealed if taken else None

        with self._failing("lease") as outcome:
            self._exchange(name, take)
        if outcome.failed:
            return lambda: None  # nobody else can take it either: compute
        return (lambda: self._free(name, sealed)) if taken else None

    def _free(self, name: str, taken: bytes) -> None:
        # A late owner does not free what another has taken since.
        with self._failing("lease"):
            self._erase(name, taken.__eq__)

    def _failing(self, doing: str) -> _Failing:
        return _Failing(self, doing)

    def _matching(self, pattern: str, version: int | None) -> Iterator[str]:
        matches: Callable[[str], re.Match[str] | None]
        matches = self._pattern(pattern, version).fullmatch
        begin = self.make_key(pattern.partition("*")[0], version)
        if self.key_func is not default_key_func:
            begin = ""
        return (
            made
            for made in self._names(begin)
            if matches(made) and not made.startswith(LEASES)
        )


def _serves(opened: Opened, stale: bool) -> bool:
    times = opened.times
    return (times.expires if stale else times.fresh_until) > time.time()


class _Failing:
    """Counts and logs what the place raises, and goes on."""

    def __init__(self, cache: StoredCache, doing: str) -> None:
        self._cache = cache
        self._doing = doing
        self.failed = False

    def __enter__(self) -> _Failing:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, self._cache.failures):
            return False
        self.failed = True
        self._cache.counters.count("errors")
        logger.warning("%s: %s failed: %s", self._cache.location, self._doing, error)
        return not _strict.get()
