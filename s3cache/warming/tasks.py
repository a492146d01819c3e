"""Warming as a task of Django's task framework, from Django 6.0 on."""

from __future__ import annotations

from collections.abc import Sequence

from django.tasks import task

from s3cache.facade import SAMPLE_SIZE
from s3cache.warming.named import warm_names
from s3cache.warming.planning import check_names
from s3cache.warming.registry import queries

__all__ = ["warm"]


@task
def warm(
    names: Sequence[str] | None = None,
    *,
    partitions: bool = True,
    sample_size: int = SAMPLE_SIZE,
    force_refresh: bool = False,
) -> dict[str, int]:
    """
    Warm models, by their labels, and named queries; None: all queries.

    Returns how many ``reads`` were looked at, ``stored`` and ``failed``. Raise
    `LookupError` for a name that there is not::

        warm.enqueue(["shop.Product", "front page"])
    """
    if names is None:
        names = [query.name for query in queries()]
    check_names(names)
    report = warm_names(
        names,
        partitions=partitions,
        sample_size=sample_size,
        force_refresh=force_refresh,
    )
    return {
        "reads": report.reads,
        "stored": report.stored,
        "failed": report.failed,
    }
