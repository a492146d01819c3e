"""DATABASES for tests that decide where things go, and connect to none."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.test import override_settings


@contextmanager
def databases(
    *, router: bool = True, **engines: str | dict[str, Any]
) -> Iterator[None]:
    """
    Override DATABASES, with "bucket" or "sqlite" or whole entries by alias.

    DATABASE_ROUTERS is `S3Router` alone, or empty.
    """
    known = {
        "bucket": {"ENGINE": "s3cache.db", "OPTIONS": {"storage": "default"}},
        "sqlite": {"ENGINE": "django.db.backends.sqlite3"},
    }
    routers = ["s3cache.routers.S3Router"] if router else []
    with warnings.catch_warnings():
        # Its connections stay as they were, which is all right: none is used.
        warnings.filterwarnings("ignore", "Overriding setting DATABASES", UserWarning)
        overridden = override_settings(
            DATABASES={
                alias: known[entry] if isinstance(entry, str) else entry
                for alias, entry in engines.items()
            },
            DATABASE_ROUTERS=routers,
        )
        overridden.enable()
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Overriding setting DATABASES", UserWarning
            )
            overridden.disable()
