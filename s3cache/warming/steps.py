"""Reads are made one after the other, or by several threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from django.db import connections

from s3cache.facade.warmer import Readable, warm

__all__ = ["Report", "Step", "take_steps"]

logger = logging.getLogger("s3cache.warming")


@dataclass(frozen=True, slots=True)
class Step:
    """A read that is to be warm, for `ttl` seconds; `source`: who says so."""

    read: Readable
    source: str
    ttl: float | None = None


@dataclass(slots=True)
class Report:
    """How many reads were looked at, stored and failed, in all and by source.

    What is not stored and has not failed was there already, or is not kept.
    """

    reads: int = 0
    stored: int = 0
    failed: int = 0
    by_source: dict[str, Report] = field(default_factory=dict)

    def count(self, source: str, stored: int, *, failed: bool = False) -> None:
        """Count one more read."""
        for one in (self, self.by_source.setdefault(source, Report())):
            one.reads += 1
            one.stored += stored
            one.failed += failed


def take_steps(
    steps: Iterable[Step],
    *,
    force_refresh: bool = False,
    workers: int = 1,
    each: Callable[[], object] = lambda: None,
    report: Report | None = None,
) -> Report:
    """
    Have the results of all steps in the cache.

    One that fails is logged and counted, and keeps no other from being made.
    `workers`: how many threads make them, each with connections of its own,
    which are closed in the end; 1: this thread, with its own. `each` is
    called after each step. They are counted in `report`, or in a new one.
    """
    told = Report() if report is None else report
    lock = threading.Lock()
    left = iter(steps)

    def next_steps() -> Iterator[Step]:
        while True:
            with lock:
                step = next(left, None)
            if step is None:
                return
            yield step

    def work() -> None:
        for step in next_steps():
            stored = 0
            error: Exception | None = None
            try:
                found = warm(step.read, force_refresh=force_refresh, ttl=step.ttl)
                stored = found.stored
            except Exception as raised:
                # Of the project's queries, too: any error is possible.
                error = raised
                logger.warning("%s was not warmed: %s", step.source, error)
            with lock:
                told.count(step.source, stored, failed=error is not None)
                each()

    def work_apart() -> None:
        try:
            work()
        finally:
            connections.close_all()

    if workers <= 1:
        work()
        return told
    threads = [
        threading.Thread(target=work_apart, name=f"s3cache-warm-{number}")
        for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told
