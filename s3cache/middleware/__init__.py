"""Middleware, for ``MIDDLEWARE`` of a project's settings."""

from __future__ import annotations

from s3cache.middleware.cache_control import CacheControlMiddleware
from s3cache.middleware.read_your_writes import ReadYourWritesMiddleware
from s3cache.middleware.responses import ResponseCacheMiddleware
from s3cache.middleware.rules import cache_response
from s3cache.middleware.status import CacheStatusMiddleware

__all__ = [
    "CacheControlMiddleware",
    "CacheStatusMiddleware",
    "ReadYourWritesMiddleware",
    "ResponseCacheMiddleware",
    "cache_response",
]
