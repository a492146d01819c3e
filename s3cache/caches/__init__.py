"""
Cache backends for Django, useful with or without a database in a bucket.

    MemoryCache      in this process, with limits that hold
    FileSystemCache  in a directory, for the processes of a machine
    S3Cache          in a bucket, for all hosts
    TieredCache      fast caches in front of slow ones
    ShardedCache     keys spread over several caches

Importing one of them does not import the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from s3cache.caches.filesystem import FileSystemCache
    from s3cache.caches.memory import MemoryCache
    from s3cache.caches.s3 import S3Cache
    from s3cache.caches.sharded import ShardedCache
    from s3cache.caches.tiered import TieredCache

__all__ = [
    "FileSystemCache",
    "MemoryCache",
    "S3Cache",
    "ShardedCache",
    "TieredCache",
]

_MODULES: Final = {
    "FileSystemCache": "s3cache.caches.filesystem",
    "MemoryCache": "s3cache.caches.memory",
    "S3Cache": "s3cache.caches.s3",
    "ShardedCache": "s3cache.caches.sharded",
    "TieredCache": "s3cache.caches.tiered",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return found
