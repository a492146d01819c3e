"""
The only code that talks to a store.

A store is a bucket (``S3Store``) or a directory (``DirectoryStore``), named by
an alias of Django's ``STORAGES``. ``S3Store`` stays in ``s3cache.stores.s3``,
so that a database in a directory does not wait for boto3's import.
"""

from __future__ import annotations

from s3cache.stores.base import Answer, Listed, Request, RequestCounts, Store, observe
from s3cache.stores.directory import DirectoryStore
from s3cache.stores.registry import store_for

__all__ = [
    "Answer",
    "DirectoryStore",
    "Listed",
    "Request",
    "RequestCounts",
    "Store",
    "observe",
    "store_for",
]
