"""Entries are found, and removed, by what their keys begin with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.core.cache.backends.base import BaseCache, default_key_func
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache

from s3cache.caches.composed import ComposedCache

__all__ = ["iter_keys_of", "keys_of", "remove"]

#: Keys that Redis looks at in one step.
_AT_ONCE = 1000


def keys_of(cache: BaseCache, prefix: str) -> list[str]:
    """
    The keys that begin with `prefix`, as callers wrote them.

    `prefix` has none of the characters that patterns give a meaning. Raise
    `NotImplementedError` for a cache that cannot list its keys.
    """
    return list(iter_keys_of(cache, prefix))


def iter_keys_of(cache: BaseCache, prefix: str) -> Iterator[str]:
    """The same, some at a time where the cache can do that."""
    return (key for key in _listed(cache, prefix) if key.startswith(prefix))


def remove(cache: BaseCache, keys: Sequence[str]) -> int:
    """Remove entries; return how many keys these were."""
    if keys:
        cache.delete_many(keys)
    return len(keys)


def _listed(cache: Any, prefix: str) -> Iterable[str]:
    if isinstance(cache, ComposedCache):
        _refuse_unless_listed(cache)
    if hasattr(cache, "iter_keys"):  # django-redis
        return cache.iter_keys(f"{prefix}*", itersize=_AT_ONCE)  # type: ignore[no-any-return]
    if hasattr(cache, "keys"):  # ours
        return cache.keys(f"{prefix}*")  # type: ignore[no-any-return]
    if cache.key_func is default_key_func:
        before = cache.make_key("")
        made: Iterable[str] | None = None
        if isinstance(cache, LocMemCache):
            with cache._lock:  # type: ignore[attr-defined]
                made = list(cache._cache)  # type: ignore[attr-defined]
        elif isinstance(cache, RedisCache):
            client = cache._cache.get_client(None)
            found = client.scan_iter(f"{before}{prefix}*", count=_AT_ONCE)
            made = (key.decode() for key in found)
        if made is not None:
            return (key.removeprefix(before) for key in made if key.startswith(before))
    raise NotImplementedError(
        f"{type(cache).__name__} does not list its keys, so that those of a model "
        f"cannot be found in it. What a write has changed is not read any more, and "
        f"goes when its time is over; another S3CACHE['KEY_VERSION'] makes all "
        f"results unreachable, and clear() of the cache itself empties it."
    )


def _refuse_unless_listed(cache: ComposedCache) -> None:
    for member in cache.members:
        if not member.lists_keys:
            raise NotImplementedError(
                f"The cache {member.alias!r} is a part of this one, and "
                f"{type(member.cache).__name__} does not list its keys: nothing was "
                f"removed."
            )
