"""Is this process alive, and can it answer?"""

from __future__ import annotations

import logging
from typing import Any, Final, cast

from django.conf import settings
from django.core.cache import caches
from django.db import DatabaseError, connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from s3cache import conf
from s3cache.db.base import DatabaseWrapper
from s3cache.facade.statistics import driver_statistics
from s3cache.replica import clock
from s3cache.results.counters import Reads, counters

logger = logging.getLogger("s3cache.endpoints")

_OF_CACHES: Final = (
    "hits",
    "misses",
    "hit_rate",
    "size",
    "evictions",
    "memory_usage_bytes",
)


@never_cache
@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """Say that the process answers; touches nothing."""
    return JsonResponse({"status": "alive"})


@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Say whether every database can be read, and how it stands.

    Status 503 if one cannot. Asks the store as a read does: at most one GET
    in `max_age` seconds, however often it is called. While the store is down
    and `stale_if_error` lasts, reads are answered, so the process is ready.
    """
    databases = {alias: _database(alias) for alias in conf.bucket_aliases()}
    is_ready = all(database["ready"] for database in databases.values())
    return JsonResponse(
        {
            "status": "ready" if is_ready else "not ready",
            "databases": databases,
            "results": _results(),
            "caches": _caches(),
        },
        status=200 if is_ready else 503,
    )


def _database(alias: str) -> dict[str, Any]:
    connection = cast(DatabaseWrapper, connections[alias])
    try:
        connection.refresh()
        replica = connection.replica
        age = clock.now() - replica.side.asked_at
        return {
            "ready": True,
            "position": replica.position().number,
            "age": round(max(age, 0.0), 3),
            "stale": age > replica.options.max_age,
        }
    except DatabaseError as error:
        # What it says may name a bucket: that is for the log.
        logger.warning("%s is not ready: %s", alias, error)
        return {"ready": False, "error": type(error).__name__}


def _results() -> dict[str, Any]:
    reads = sum(counters.read().values(), Reads())
    return {
        "hits": reads.answered,
        "misses": reads.miss,
        "hit_rate": reads.hit_rate,
    }


def _caches() -> dict[str, Any]:
    """Of the caches that keep statistics."""
    found: dict[str, Any] = {}
    for alias in settings.CACHES:
        try:
            told = driver_statistics(caches[alias])
        except Exception as error:
            # Any cache serves, so any error is possible; none of them keeps
            # this process from answering.
            logger.warning("The cache %r says nothing of itself: %s", alias, error)
            found[alias] = {"error": type(error).__name__}
            continue
        if told:
            found[alias] = {name: told.get(name) for name in _OF_CACHES}
    return found
