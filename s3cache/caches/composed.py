"""
What `TieredCache` and `ShardedCache` share: a cache made of other caches.

Each key has a route: the members that hold it, the fastest first. A value is
written to all of them, from the last to the first, and read from the first
that has it. The last one that answers decides where only one can: ``add``
and ``incr``.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, TypedDict

from django.core.cache import caches
from django.core.cache.backends.base import default_key_func
from django.core.exceptions import ImproperlyConfigured

from s3cache.caches.base import positive, resolved
from s3cache.caches.breaker import State
from s3cache.caches.changes import Changes
from s3cache.caches.envelope import Envelope, keys
from s3cache.caches.foreign import ForeignMember
from s3cache.caches.getting import Found, GettingCache, Lease
from s3cache.caches.members import Health, Member, OwnMember
from s3cache.caches.statistics import Counters, Statistics, hit_rate
from s3cache.caches.times import Times
from s3cache.conf import optional, positive_seconds, refuse, text

__all__ = ["ComposedCache", "MemberOptions", "MemberStatistics"]

_FOREIGN_ONLY: Final = (
    "serializer",
    "compression",
    "compression_threshold",
    "max_entry_bytes",
    "signing_keys",
    "encryption_keys",
)
"""Options about the bytes that caches of other packages are given."""


class MemberOptions(NamedTuple):
    """A member, as OPTIONS name it."""

    alias: str
    ttl: float | None = None
    """Seconds that an entry stays in it at most."""


class MemberStatistics(TypedDict):
    """What a composed cache has seen of one member."""

    cache: str
    """Its alias."""
    driver: str
    """The name of its class."""
    ttl: float | None
    state: State
    """Of its circuit breaker; "closed" is good."""
    hits: int
    misses: int
    hit_rate: float
    errors: int
    """Operations that it failed, or did not answer."""
    skipped: int
    """Operations that it was not asked for, since it kept failing."""
    undecodable: int
    rejected: int
    promoted: int
    """Entries that a slower tier had, and that were stored here then."""
    untold: int
    """Keys whose last change it has not heard of."""
    stats: Statistics | None
    """Its own, of all its users; None for caches of other packages."""


class ComposedStatistics(Statistics):
    """What ``stats()`` of a composed cache returns."""

    members: list[MemberStatistics]


def read_members(path: str, value: object) -> tuple[MemberOptions, ...]:
    """Read a list of aliases, or of ``{"cache": alias, "ttl": seconds}``."""
    allowed = "a list of CACHES aliases, or of dicts {'cache': alias, 'ttl': seconds}"
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise refuse(path, value, f"{allowed}, and not empty")
    read = []
    for number, one in enumerate(value):
        here = f"{path}[{number}]"
        if isinstance(one, str) and one:
            read.append(MemberOptions(one))
        elif isinstance(one, Mapping) and "cache" in one and {*one} <= {"cache", "ttl"}:
            ttl = optional(positive_seconds)(f"{here}['ttl']", one.get("ttl"))
            read.append(MemberOptions(text(f"{here}['cache']", one["cache"]), ttl))
        else:
            raise refuse(
                here, one, "a CACHES alias or {'cache': alias, 'ttl': seconds}"
            )
    aliases = [one.alias for one in read]
    if len({*aliases}) < len(aliases):
        raise refuse(path, value, "a list in which no alias is twice")
    return tuple(read)


class _Shared:
    """What all objects of one composed cache share, over all threads."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.changes = Changes()
        self.health: dict[str, Health] = {}


_shared: Final[dict[tuple[object, ...], _Shared]] = {}
_resolving = threading.local()


class ComposedCache(GettingCache):
    """The base of `TieredCache` and `ShardedCache`."""

    readers = {
        **GettingCache.readers,
        "failure_threshold": positive,
        "retry_after": positive_seconds,
        "max_entry_bytes": positive,
        "signing_keys": optional(keys),
        "encryption_keys": keys,
    }
    defaults = {
        **GettingCache.defaults,
        "compression_threshold": 1024,
        "failure_threshold": 3,
        "retry_after": 30,
        "max_entry_bytes": 64 * 2**20,
        "signing_keys": None,
        "encryption_keys": (),
    }

    members_option: ClassVar[str]
    """The option that lists the members."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        given = params.get("OPTIONS") or {}
        if not self.options[self.members_option]:
            raise ImproperlyConfigured(
                f"OPTIONS of s3cache.caches.{type(self).__name__} lack "
                f"{self.members_option!r}: a list of CACHES aliases."
            )
        self.listed: tuple[MemberOptions, ...] = self.options[self.members_option]
        self._foreign_only = [name for name in _FOREIGN_ONLY if name in given]
        self._members: tuple[Member, ...] | None = None
        failures, pause = self.options["failure_threshold"], self.options["retry_after"]
        identity = (type(self), location, self.listed, failures, pause)
        self._shared = _shared.setdefault(identity, _Shared())
        self._changes = self._shared.changes
        self.counters = self._shared.counters

    @property
    def members(self) -> tuple[Member, ...]:
        """The members in the order of the option; made at the first use."""
        if self._members is None:
            self._members = self._resolve()
        return self._members

    @abstractmethod
    def _route(self, made: str) -> Sequence[Member]:
        """Return the members that hold a key, the fastest first."""

    # Beyond Django's API

    def clear(self) -> None:
        """Clear every member, as Django's own backends do: all of it."""
        with self._changes.changing(None):
            for member in reversed(self.members):
                member.clear()

    def get_many(
        self, keys: Iterable[Any], version: int | None = None
    ) -> dict[Any, Any]:
        mades = {self.make_and_validate_key(key, version): key for key in keys}
        found = self._find_many(list(mades))
        for made in mades:
            self._count(made in found)
        return {mades[made]: value for made, (value, _) in found.items()}

    def keys(
        self, pattern: str = "*", version: int | None = None, limit: int | None = None
    ) -> list[str]:
        """
        Return the keys that match, as callers wrote them, of all members.

        Those of members that cannot list their keys are not among them.
        """
        made = self.make_key(pattern, version)
        prefix = "" if not self.key_prefix or self._is_opaque else f"{self.key_prefix}:"
        found: dict[str, None] = {}
        for member in self.members:
            if member.lists_keys:
                for key in member.keys(made, limit):
                    found[key.removeprefix(prefix)] = None
        return list(found)[:limit]

    def delete_pattern(self, pattern: str, version: int | None = None) -> int:
        """
        Delete the keys that match, ``*`` for anything, from all members.

        Returns the highest number that one of them deleted. Raises
        `NotImplementedError`, with nothing deleted, where a member cannot
        list its keys.
        """
        for member in self.members:
            if not member.lists_keys:
                raise NotImplementedError(
                    f"delete_pattern() cannot reach the cache {member.alias!r}: "
                    f"{type(member.cache).__name__} does not list its keys."
                )
        made = self.make_key(pattern, version)
        with self._changes.changing(None):
            return self._deleted(
                [member.delete_pattern(made) for member in reversed(self.members)]
            )

    def stats(self) -> ComposedStatistics:
        """Return what happened since the start, of each member too."""
        total = self.counters.total()
        hits, misses = total["hits"], total["misses"]
        of_members = [self._member_stats(member) for member in self.members]
        own = [one["stats"] for one in of_members if one["stats"] is not None]
        return {
            "driver": type(self).__name__,
            "hits": hits,
            "misses": misses,
            "hit_rate": hit_rate(hits, misses),
            "evictions": sum(one["evictions"] for one in own),
            "evicted_due_to_memory": sum(one["evicted_due_to_memory"] for one in own),
            "expired": sum(one["expired"] for one in own),
            "rejected": sum(one["rejected"] for one in (*own, *of_members)),
            "undecodable": sum(one["undecodable"] for one in (*own, *of_members)),
            "errors": sum(one["errors"] for one in of_members),
            "size": None,
            "max_size": None,
            "memory_usage_bytes": None,
            "max_memory_bytes": None,
            "default_ttl": self.default_timeout,
            "enabled": True,
            "members": of_members,
        }

    def reset_stats(self) -> None:
        """Count from 0 again; members' own counts go on."""
        self.counters.clear()
        for member in self.members:
            member.health.counters.clear()

    # The async API: what is near is answered on the event loop

    async def aget(
        self, key: Any, default: Any = None, version: int | None = None
    ) -> Any:
        made = self.make_and_validate_key(key, version)
        found = self._near(made)
        if found is None:
            found = await self._offload(self._find, made)
        self._count(found is not None)
        return default if found is None else found[0]

    async def _afind(self, made: str) -> Found | None:
        return self._near(made) or await super()._afind(made)

    def _near(self, made: str) -> Found | None:
        """Look where nothing waits."""
        nearest = next(iter(self._route(made)), None)
        found = None if nearest is None or nearest.waits else nearest.find(made)
        if nearest is not None and found is not None:
            nearest.counted(hit=True)
        return found

    @property
    def waits(self) -> bool:
        """Whether operations may wait for a disk or a network."""
        return any(member.waits for member in self.members)

    @property
    def shares(self) -> bool:
        """Whether other processes see what is in it, and its leases."""
        return any(member.shares for member in self.members)

    @property
    def spans_hosts(self) -> bool:
        """Whether other hosts see all that is in it."""
        return all(member.spans_hosts for member in self.members)

    async def _offload(self, work: Callable[..., Any], *args: Any) -> Any:
        return await super()._offload(work, *args) if self.waits else work(*args)

    # What get_or_set and Django's API stand on

    def _find(self, made: str, *, stale: bool = False) -> Found | None:
        number = self._changes.number(made)
        lacking: list[Member] = []
        old: Found | None = None
        for member in self._route(made):
            found = member.find(made, stale=stale)
            member.counted(hit=found is not None)
            if found is not None and found[1].fresh_until > time.time():
                self._promote(made, found, lacking, number)
                return found
            if found is not None and (
                old is None or found[1].fresh_until > old[1].fresh_until
            ):
                old = found
            lacking.append(member)
        return old

    def _find_many(self, names: Sequence[str]) -> dict[str, Found]:
        return {
            made: found for made in names if (found := self._find(made)) is not None
        }

    def _promote(
        self, made: str, found: Found, to: Sequence[Member], number: int | None
    ) -> None:
        """Store in faster members what a slower one had."""

    def _put(self, made: str, value: Any, times: Times) -> None:
        value = resolved(value)
        with self._changes.changing(made):
            self._write(self._route(made), made, value, times)

    def _write(
        self, members: Sequence[Member], made: str, value: Any, times: Times
    ) -> None:
        try:
            for member in reversed(members):
                member.put(made, value, times)
        except Exception:
            # What one of them refuses must not be in another.
            for member in reversed(members):
                member.remove(made)
            raise

    def _add(self, made: str, value: Any, times: Times) -> bool:
        value = resolved(value)
        route = self._route(made)
        with self._changes.changing(made):
            if len(route) > 1 and self._find(made) is not None:
                return False
            for number in range(len(route) - 1, -1, -1):
                added = route[number].add(made, value, times)
                if added is not None:
                    if added:
                        self._write(route[:number], made, value, times)
                    return added
        return False

    def _touch(self, made: str, left: float | None) -> bool:
        with self._changes.changing(made):
            route = reversed(self._route(made))
            touched = [member.touch(made, left) for member in route]
        return any(touched)

    def _incr(self, made: str, delta: int) -> int | None:
        route = self._route(made)
        with self._changes.changing(made):
            for number in range(len(route) - 1, -1, -1):
                member = route[number]
                result = member.incr(made, delta)
                if result is None:
                    continue
                # The slower ones lack it, or do not answer.
                if slower := route[number + 1 :]:
                    found = member.find(made)
                    if found is not None:
                        self._write(slower, made, *found)
                for faster in route[:number]:
                    faster.remove(made)
                return result
        return None

    def _remove(self, made: str) -> bool:
        with self._changes.changing(made):
            route = reversed(self._route(made))
            removed = [member.remove(made)[1] for member in route]
        return any(removed)

    def _lease(self, made: str) -> Lease | None:
        """Take it where other processes see it: in the nearest such member."""
        for member in self._route(made):
            if member.shares:
                answered, lease = member.lease(made)
                if answered:
                    return lease
        return super()._lease(made)

    # Parts

    def _deleted(self, numbers: Sequence[int]) -> int:
        """The number of keys, of what each member has deleted."""
        return sum(numbers)

    def _member_stats(self, member: Member) -> MemberStatistics:
        total = member.health.counters.total()
        hits, misses = total["hits"], total["misses"]
        cache = member.cache
        stats: Statistics | None = None
        if isinstance(cache, GettingCache):
            stats = cache.stats()
        return {
            "cache": member.alias,
            "driver": type(cache).__name__,
            "ttl": member.ttl,
            "state": member.health.breaker.state,
            "hits": hits,
            "misses": misses,
            "hit_rate": hit_rate(hits, misses),
            "errors": total["errors"],
            "skipped": total["skipped"],
            "undecodable": total["undecodable"],
            "rejected": total["rejected"],
            "promoted": total["promoted"],
            "untold": len(member.health.untold),
            "stats": stats,
        }

    @property
    def _is_opaque(self) -> bool:
        """Whether nothing tells what a made key was made of."""
        return self.key_func is not default_key_func

    def _split(self, made: str) -> tuple[str, Any]:
        """
        Return the key, and the version, that the members get.

        They add a prefix of their own, so a key there is as readable as if it
        had been stored there directly.
        """
        if self._is_opaque:
            return made, None
        start = len(self.key_prefix) + 1
        version, _, key = made[start:].partition(":")
        return (f"{self.key_prefix}:{key}" if self.key_prefix else key), version

    def _resolve(self) -> tuple[Member, ...]:
        under_way: list[str] = _resolving.__dict__.setdefault("aliases", [])
        members = []
        for listed in self.listed:
            if listed.alias in under_way:
                raise ImproperlyConfigured(
                    f"The cache {listed.alias!r} is made of itself: "
                    + " -> ".join([*under_way, listed.alias])
                )
            under_way.append(listed.alias)
            try:
                members.append(self._member(listed))
            finally:
                under_way.pop()
        if self._foreign_only and all(isinstance(one, OwnMember) for one in members):
            raise ImproperlyConfigured(
                f"OPTIONS of s3cache.caches.{type(self).__name__} have "
                f"{self._foreign_only[0]!r}, which is for caches of other packages; "
                f"{', '.join(repr(one.alias) for one in members)} have an option of "
                "their own."
            )
        return tuple(members)

    def _member(self, listed: MemberOptions) -> Member:
        cache = caches[listed.alias]
        health = self._shared.health.setdefault(
            listed.alias,
            Health(self.options["failure_threshold"], self.options["retry_after"]),
        )
        if isinstance(cache, GettingCache):
            if isinstance(cache, ComposedCache):
                cache.members  # noqa: B018 - a loop is found now
            return OwnMember(listed.alias, cache, self._split, health, listed.ttl)
        return ForeignMember(
            listed.alias,
            self._envelope(),
            self._split,
            health,
            listed.ttl,
            self.options["lease_timeout"],
        )

    def _envelope(self) -> Envelope:
        options = self.options
        return Envelope(
            self.serializer,
            compression=options["compression"],
            threshold=options["compression_threshold"],
            most=options["max_entry_bytes"],
            signing_keys=options["signing_keys"],
            encryption_keys=options["encryption_keys"],
        )
