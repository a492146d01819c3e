"""What is asked of a cache that may be a Redis."""

from __future__ import annotations

import sys

import pytest
from django.core.cache import caches

from s3cache.caches.redis import is_redis


def test_who_has_no_redis_does_not_import_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each process asks, of the cache that its results are in."""
    monkeypatch.delitem(sys.modules, "django_redis.cache", raising=False)
    assert not is_redis(caches["default"])
    assert "django_redis.cache" not in sys.modules
