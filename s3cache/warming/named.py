"""Models and queries are warmed by their names."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from s3cache.facade import SAMPLE_SIZE
from s3cache.warming.planning import steps_of
from s3cache.warming.steps import Report, take_steps

__all__ = ["warm_names"]

logger = logging.getLogger("s3cache.warming")


def warm_names(
    names: Iterable[str],
    *,
    using: str | None = None,
    partitions: bool = True,
    sample_size: int = SAMPLE_SIZE,
    force_refresh: bool = False,
) -> Report:
    """
    Warm models, by their labels, and named queries, one after the other.

    `using` is the database of which models are read, None: as their managers
    do. What fails is logged and counted, also where it cannot even be said
    what is to be read: it keeps no other from being warmed.
    """
    report = Report()
    for name in names:
        steps = steps_of(
            [name], using=using, partitions=partitions, sample_size=sample_size
        )
        try:
            take_steps(steps, force_refresh=force_refresh, report=report)
        except Exception as error:
            # Of a project's query, or no table yet; nobody is here to be told.
            report.count(name, 0, failed=True)
            logger.warning("%s was not warmed: %s", name, error)
    return report
