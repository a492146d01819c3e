"""
Cache backends for Django, useful with or without a database in a bucket.

    MemoryCache      in this process, with limits that hold
"""

from __future__ import annotations

from s3cache.caches.memory import MemoryCache

__all__ = ["MemoryCache"]
