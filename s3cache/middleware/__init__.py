"""Middleware, for ``MIDDLEWARE`` of a project's settings."""

from __future__ import annotations

from s3cache.middleware.read_your_writes import ReadYourWritesMiddleware

__all__ = ["ReadYourWritesMiddleware"]
