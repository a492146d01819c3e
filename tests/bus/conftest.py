"""Fixtures for tests of what hosts tell each other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches

from s3cache.bus import bus
from s3cache.bus.bus import Bus, bus_for
from tests.db.hosts import faulty, processes
from tests.engine import bucket, host, hosts, tables
from tests.redis_server import RedisServer, redis, redis_program, redis_server

__all__ = [
    "bucket",
    "faulty",
    "host",
    "hosts",
    "processes",
    "redis_program",
    "redis_server",
    "tables",
]


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for what threads bring about; fail if they never do."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail("it never happened")
        time.sleep(0.001)


@pytest.fixture
def alias(redis_server: RedisServer, settings: Any) -> Iterator[str]:
    """The CACHES alias of a Redis of the test's own."""
    name = f"redis-{secrets.token_hex(4)}"
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        name: redis(redis_server),
    }
    yield name
    found = bus._buses.pop(name, None)
    if found is not None:
        found.end()
    caches.close_all()


@pytest.fixture
def one(alias: str) -> Bus:
    """The bus of this process."""
    return bus_for(alias)


@pytest.fixture
def other(alias: str) -> Iterator[Bus]:
    """A bus as another process would have it."""
    made = Bus(alias)
    yield made
    made.end()
