"""Fixtures for tests of the result cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches

from s3cache.results.counters import counters
from tests.db.hosts import processes
from tests.engine import bucket, host, hosts, tables

__all__ = ["bucket", "host", "hosts", "processes", "tables"]


@pytest.fixture
def hot_path(settings: Any) -> None:
    """Have the hot path, also where the suite runs without it."""
    settings.S3CACHE = {}


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    """Begin with nothing kept and nothing counted."""
    caches["default"].clear()
    counters.clear()
    yield
    caches["default"].clear()
