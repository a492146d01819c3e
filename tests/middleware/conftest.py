"""Fixtures for tests of the middleware."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.cache import caches

from s3cache.results.counters import counters
from tests.engine import bucket, elsewhere, host, hosts, tables

__all__ = ["bucket", "elsewhere", "host", "hosts", "tables"]


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    """Begin with nothing kept and nothing counted."""
    caches["default"].clear()
    counters.clear()
    yield
    caches["default"].clear()
