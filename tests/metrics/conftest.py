"""Fixtures for tests of statistics."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest
from django.core.cache import caches

from s3cache.metrics import keeping, tally
from s3cache.results.counters import counters
from s3cache.results.queries import queries
from tests.db.hosts import processes
from tests.engine import bucket, host, hosts, tables

__all__ = ["bucket", "host", "hosts", "processes", "tables"]


@pytest.fixture(autouse=True)
def nothing_counted() -> Iterator[None]:
    """Begin with nothing kept, counted, or added to a book."""
    caches["default"].clear()
    counters.clear()
    queries.clear()
    keeping._kept = keeping._Kept()
    tally._tenants.clear()
    tally._ended = deque()  # what other tests leave ends whenever it is collected
    tally._forget_tenants()
    yield
    keeping._kept = keeping._Kept()
