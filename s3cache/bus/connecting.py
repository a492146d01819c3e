"""Redis clients with timeouts, from the alias of a django-redis cache."""

from __future__ import annotations

from typing import Any, Final

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured

from s3cache.caches.redis import is_redis

__all__ = ["SILENCE", "client_for"]

SILENCE: Final = 2.0
"""Seconds after which a Redis that says nothing has failed."""


def client_for(alias: str) -> Any:
    """
    Return a client of the Redis that the CACHES alias names.

    It has connections of its own: the cache's may wait for ever, and try
    again by themselves, and then nobody would know that messages were missed.
    Raise `ImproperlyConfigured` unless it is django-redis.
    """
    cache: Any = caches[alias]
    if not is_redis(cache):
        raise ImproperlyConfigured(
            f"CACHES[{alias!r}] is not django-redis with its default client or "
            "that for Sentinel."
        )
    from redis import ConnectionPool, Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import SentinelConnectionPool

    pool = cache.client.get_client(write=True).connection_pool
    options = {
        **pool.connection_kwargs,
        "socket_timeout": SILENCE,
        "socket_connect_timeout": SILENCE,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }
    own: ConnectionPool
    if isinstance(pool, SentinelConnectionPool):
        options.pop("connection_pool", None)
        make: Any = SentinelConnectionPool
        own = make(
            pool.service_name,
            pool.sentinel_manager,
            connection_class=pool.connection_class,
            **options,
        )
    else:
        own = ConnectionPool(connection_class=pool.connection_class, **options)
    return Redis(connection_pool=own)
