"""``s3cache.db`` with all reads made several times, so that they are hot.

Django's test models have Django's manager, and no ``TestCase`` asks the same
twice. Here their default managers are ``S3Manager``, results are kept in a
``MemoryCache``, and what may be hot is read twice before it is read by the
test. Only while a test counts queries nothing is: a hit is none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.db import connections
from django.db.models import base
from django.db.models.fields import related_descriptors

from s3cache.db.base import DatabaseWrapper
from s3cache.managers import S3Manager, S3QuerySet
from s3cache.results import hot
from s3cache.results.open_blocks import are_open
from tests.conformance.engines.s3cache_db import S3CacheDirectory

#: Tests that look at more than what is read, by what they find.
_SKIPS = {
    "A queryset that has its rows already has not compiled its query.": {
        "queries.tests.Queries1Tests.test_tickets_2076_7256",
    },
    "The name of the queryset's class is S3QuerySet.": {
        "pagination.tests.ModelPaginationTests."
        "test_paginating_unordered_queryset_raises_warning",
    },
}

#: What is read, of querysets and of managers.
_OF_QUERYSETS = ("_fetch_all", "aggregate", "count", "exists", "in_bulk")
_OF_MANAGERS = ("get",)


class S3CacheHot(S3CacheDirectory):
    def settings(self, folder: Path) -> dict[str, Any]:
        # Read by the child process before any model is made.
        base.Manager = S3Manager  # type: ignore[attr-defined]
        # It counts without a join if that is a model's manager.
        related_descriptors.Manager = S3Manager  # type: ignore[attr-defined]
        hooks: Any = hot
        hooks._is_here = _unless_queries_count(hot._is_here)
        features: Any = DatabaseWrapper.features_class
        features.django_test_skips = _with_more(features.django_test_skips)
        for name in _OF_QUERYSETS:
            original = vars(S3QuerySet)[name]
            setattr(S3QuerySet, name, _of_recorded(original))
        for name in _OF_MANAGERS:
            setattr(S3Manager, name, _three_times(vars(S3Manager)[name]))
        cache = {
            "LOCATION": "hot",
            "OPTIONS": {"MAX_ENTRIES": 100_000},
            **self.cache(folder),
        }
        return {**super().settings(folder), "CACHES": {"default": cache}}

    def cache(self, folder: Path) -> dict[str, Any]:
        """The backend, and what it needs beside a limit."""
        return {"BACKEND": "s3cache.caches.MemoryCache"}


class S3CacheHotElsewhere(S3CacheHot):
    """In Django's own cache in memory, which has bytes instead of objects."""

    def cache(self, folder: Path) -> dict[str, Any]:
        return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


class S3CacheHotInFiles(S3CacheHot):
    """In a cache that processes could share."""

    def cache(self, folder: Path) -> dict[str, Any]:
        return {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": str(folder / "cache"),
        }


def _with_more(skips: Any) -> Any:
    def django_test_skips(features: Any) -> dict[str, set[str]]:
        return {**skips.__get__(features), **_SKIPS}

    return property(django_test_skips)


def _queries_count(alias: str) -> bool:
    connection = connections[alias]
    return connection.force_debug_cursor or bool(connection.execute_wrappers)


def _unless_queries_count(original: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def is_here(source: Any) -> bool:
        return original(source) and not _queries_count(source.alias)

    return is_here


def _of_recorded(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def read(rows: S3QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        recorded = rows._recorded
        is_spent = any(isinstance(one, Iterator) for one in args)
        if recorded is not None and not is_spent and not _leave_alone():
            for _ in range(2):
                original(rows._like(*recorded), *args, **kwargs)
        return original(rows, *args, **kwargs)

    return read


def _three_times(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def read(manager: S3Manager[Any], *args: Any, **kwargs: Any) -> Any:
        if manager._hot_path() is not None and not _leave_alone():
            for _ in range(2):
                original(manager, *args, **kwargs)
        return original(manager, *args, **kwargs)

    return read


def _leave_alone() -> bool:
    return any(are_open(alias) or _queries_count(alias) for alias in connections)
