"""Fixtures for tests of warming: those of results."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from s3cache.warming import registry
from tests.db.hosts import processes
from tests.engine import bucket, elsewhere, host, hosts, tables
from tests.results.conftest import empty_caches

__all__ = [
    "bucket",
    "elsewhere",
    "empty_caches",
    "host",
    "hosts",
    "processes",
    "tables",
]

Declare = Callable[..., Callable[[registry.Make], registry.Make]]


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Declares queries, until the end of the test."""
    before = {one.name: one for one in registry.queries()}
    monkeypatch.setattr(registry, "_queries", before)
    return registry.query
