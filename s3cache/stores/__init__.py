"""
The only code that talks to a store.

A store is a bucket (``S3Store``) or a directory (``DirectoryStore``), named by
an alias of Django's ``STORAGES``.
"""

from __future__ import annotations

from s3cache.stores.base import Answer, Listed, Request, RequestCounts, Store, observe
from s3cache.stores.directory import DirectoryStore

__all__ = [
    "Answer",
    "DirectoryStore",
    "Listed",
    "Request",
    "RequestCounts",
    "Store",
    "observe",
]
