"""Warming as a task of Django's task framework, from Django 6.0 on."""

from __future__ import annotations

from collections.abc import Sequence

from django.tasks import task

from s3cache.facade import SAMPLE_SIZE
from s3cache.warming.planning import steps_of
from s3cache.warming.steps import take_steps

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

    Returns how many ``reads`` were looked at, ``stored`` and ``failed``::

        warm.enqueue(["shop.Product", "front page"])
    """
    steps = steps_of(names, partitions=partitions, sample_size=sample_size)
    report = take_steps(steps, force_refresh=force_refresh)
    return {
        "reads": report.reads,
        "stored": report.stored,
        "failed": report.failed,
    }
