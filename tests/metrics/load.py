"""What processes of these tests do; each function runs in one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from datetime import timezone as datetime_timezone
from typing import Any

from django.core.cache import caches
from django.db import connection
from django.http import QueryDict
from django.test import override_settings
from django.utils import timezone

from s3cache.dashboard import pages
from s3cache.dashboard.selection import Selection
from s3cache.metrics import fleet, keeping, show
from s3cache.metrics.figures import Scope
from tests.testapp.models import Gear, Product

#: Entries that the cache "small" has room for.
SMALL = 4


def begin(shared: str) -> None:
    """Have a cache of one's own, and one in files that hosts share.

    It is about noon, so that today does not end.
    """
    hours = 12 - datetime.now(UTC).hour
    timezone.activate(datetime_timezone(timedelta(hours=hours)))
    override_settings(
        CACHES={
            "default": {"BACKEND": "s3cache.caches.MemoryCache"},
            "small": {
                "BACKEND": "s3cache.caches.MemoryCache",
                "OPTIONS": {"MAX_ENTRIES": SMALL},
            },
            "shared": {
                "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                "LOCATION": shared,
            },
        },
        S3CACHE={"METRICS_CACHE": "shared"},
    ).enable()


def create(names: Iterable[str]) -> list[Any]:
    """Commit one after the other; their keys."""
    return [Gear.objects.create(name=name).pk for name in names]


def get(pk: Any, times: int) -> None:
    """The first time it is a miss."""
    for _ in range(times):
        Gear.objects.get(pk=pk)


def count_products(region: str, times: int) -> None:
    """Of one partition."""
    for _ in range(times):
        Product.objects.filter(region=region).count()


def count_past_the_cache(times: int) -> None:
    """Products, too."""
    for _ in range(times):
        Product.objects.skip_cache().count()


def fill(number: int) -> None:
    """Put so many entries into the cache "small", and ask for one more."""
    for key in range(number):
        caches["small"].set(str(key), key)
    caches["small"].get("nothing")


def catch_up() -> None:
    """Ask the store."""
    connection.catch_up()  # type: ignore[attr-defined]


def flush() -> bool:
    """Add what was counted to the book."""
    return keeping.flush()


def exchange() -> None:
    """Add it, and tell other hosts."""
    keeping.flush()
    book = keeping.book()
    if book is not None:
        fleet.exchange(book)


def snapshot(scope: Scope) -> dict[str, Any]:
    """All that is shown."""
    return asdict(show.snapshot(scope))


def history(scope: Scope) -> dict[str, Any]:
    """What happened today, by the minute."""
    return asdict(show.history("day", scope))


def money(scope: Scope) -> dict[str, Any]:
    """What it cost."""
    return asdict(show.money(scope))


def tiles(scope: Scope) -> dict[str, tuple[str, str]]:
    """The large figures of the page: values and notes, by their labels."""
    found = pages.overview(Selection(scope))["tiles"]
    return {one.label: (one.value, one.note) for one in found}


def rows(scope: Scope) -> dict[tuple[str, str], tuple[int, int, str]]:
    """Its table of models: hits, misses and what was saved today."""
    found = pages.models(Selection(scope), QueryDict())["rows"]
    return {
        (one.label, one.action): (
            one.reads.answered,
            one.reads.miss,
            one.figures[-1],
        )
        for one in found
    }
