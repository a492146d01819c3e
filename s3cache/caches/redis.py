"""
What a Redis behind django-redis can do beyond Django's API.

Nothing here needs django-redis to be installed: without it, there is none.
"""

from __future__ import annotations

import math
import re
import secrets
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

from django.core.cache.backends.base import BaseCache

from s3cache.caches.getting import Lease

__all__ = [
    "BytesSerializer",
    "delete_pattern",
    "exchange",
    "is_redis",
    "keys",
    "lease",
    "unpickles",
]

_ATTEMPTS: Final = 100
_SCANNED_AT_ONCE: Final = 1000

_FREE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""
_EXCHANGE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
if ARGV[3] == '' then
    redis.call('SET', KEYS[1], ARGV[2])
else
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
"""


class BytesSerializer:
    """
    A django-redis ``SERIALIZER`` for tiers and shards: bytes and nothing else.

    With django-redis's default whoever can write to the Redis can run code in
    the processes that read from it.
    """

    def __init__(self, options: Any = None) -> None:
        pass

    def dumps(self, value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise TypeError(
                f"This Redis takes bytes only, not a {type(value).__qualname__}: "
                "use it through a TieredCache or ShardedCache."
            )
        return value

    def loads(self, value: bytes) -> bytes:
        return value


def is_redis(cache: BaseCache) -> bool:
    """Whether this is django-redis with one server, or one and replicas."""
    # A cache of it has imported it; to ask of others must not: with redis-py
    # it takes a process a quarter of a second.
    its = getattr(sys.modules.get("django_redis.cache"), "RedisCache", ())
    if not isinstance(cache, its):
        return False
    from django_redis.client import DefaultClient, SentinelClient

    return type(cache.client) in {DefaultClient, SentinelClient}


def unpickles(cache: BaseCache) -> bool:
    """Whether this is a Redis behind django-redis that unpickles."""
    if not is_redis(cache):
        return False
    serializer = cache.client._serializer  # type: ignore[attr-defined]
    return any("Pickle" in kind.__name__ for kind in type(serializer).__mro__)


def lease(cache: Any, key: str, version: Any, seconds: float) -> Lease | None:
    """
    Take `key` for so many seconds at most, or return None: it is taken.

    Nobody waits in Redis. A late owner does not free what another has taken.
    """
    client = cache.client.get_client(write=True)
    name = cache.client.make_key(key, version=version)
    token = secrets.token_hex(8).encode()
    if not client.set(name, token, nx=True, px=math.ceil(seconds * 1000)):
        return None

    def free() -> None:
        client.eval(_FREE, 1, name, token)

    return free


def exchange(
    cache: Any,
    key: str,
    version: Any,
    change: Callable[[Any], tuple[bytes, float | None] | None],
) -> None:
    """
    Replace what is there by what `change` makes of it; atomic.

    `change` gets None where there is nothing, is called again when another
    was faster, and returns the new bytes with their seconds, or None: leave
    it.
    """
    client = cache.client.get_client(write=True)
    name = cache.client.make_key(key, version=version)
    for _ in range(_ATTEMPTS):
        raw = client.get(name)
        made = change(None if raw is None else cache.client.decode(raw))
        if made is None:
            return
        data, left = made
        encoded = cache.client.encode(data)
        life: Any = "" if left is None else max(1, math.ceil(left * 1000))
        if raw is None:
            px = None if left is None else life
            if client.set(name, encoded, nx=True, px=px):
                return
        elif client.eval(_EXCHANGE, 1, name, raw, encoded, life):
            return
    raise TimeoutError(f"{key!r} was changed by others {_ATTEMPTS} times in a row")


def keys(cache: Any, pattern: str, version: Any) -> Iterable[str]:
    """Yield the keys that match, ``*`` for anything, while Redis goes on."""
    found: Iterable[str] = cache.iter_keys(
        _escaped(pattern), version=version, itersize=_SCANNED_AT_ONCE
    )
    return found


def delete_pattern(cache: Any, pattern: str, version: Any) -> int:
    """Delete the keys that match; return how many."""
    return int(
        cache.delete_pattern(
            _escaped(pattern), version=version, itersize=_SCANNED_AT_ONCE
        )
    )


def _escaped(pattern: str) -> str:
    """Only ``*`` is special to us; Redis knows ``?`` and ``[...]``, too."""
    return re.sub(r"([?\[\]\\])", r"\\\1", pattern)
