"""Fixtures for tests of the facade: those of results."""

from __future__ import annotations

from tests.db.hosts import processes
from tests.engine import bucket, host, hosts, tables
from tests.redis_server import redis_program, redis_server
from tests.results.conftest import empty_caches

__all__ = [
    "bucket",
    "empty_caches",
    "host",
    "hosts",
    "processes",
    "redis_program",
    "redis_server",
    "tables",
]
