"""Measuring one case on several databases, round by round."""

from __future__ import annotations

import gc
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from benchmarks.databases import DATABASES, Database, Sizes
from s3cache.stores.base import RequestCounts


class Case:
    """An operation that is measured; its subclasses say which.

    Only ``run`` is timed. It does ``operations`` of them, and all figures are
    for one. ``rounds`` is for the whole benchmark; ``--quick`` does fewer.
    """

    name: str
    rounds: int
    operations: int = 1
    databases: Sequence[Database] = DATABASES

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes

    def prepare(self, database: Database) -> Any:
        """Make what ``run`` uses."""

    def run(self, database: Database, prepared: Any) -> None:
        """Do it."""
        raise NotImplementedError

    def tidy(self, database: Database, prepared: Any) -> None:
        """See to it that the next round finds what this one found."""


@dataclass
class Measured:
    """What was measured of a case on one database, by operation.

    ``seconds`` is time that passed, ``cpu`` what this process computed in
    it, in all threads. The first round is not timed; ``first_requests`` are
    what it asked of the store.
    """

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    requests: list[Counter[str]] = field(default_factory=list)
    first_requests: Counter[str] = field(default_factory=Counter)
    operations: int = 1

    @cached_property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)

    @cached_property
    def p90(self) -> float:
        """Nine in ten rounds took no longer, in seconds."""
        if len(self.seconds) == 1:
            return self.seconds[0]
        return statistics.quantiles(self.seconds, n=10, method="inclusive")[-1]

    @cached_property
    def median_cpu(self) -> float:
        """Of the seconds of computing."""
        return statistics.median(self.cpu)

    def mean_requests(self) -> dict[str, float]:
        """Requests to the store by kind, for one operation."""
        total: Counter[str] = Counter()
        for one in self.requests:
            total.update(one)
        count = len(self.requests) * self.operations
        return {kind: number / count for kind, number in total.items() if number}

    def most(self, kind: str) -> float:
        """The most requests of a kind in any round, for one operation."""
        rounds = [self.first_requests, *self.requests]
        return max(one[kind] for one in rounds) / self.operations


#: What was measured of a case, by the name of the database.
Results = dict[str, Measured]


def measure(case: Case, rounds: int) -> Results:
    """Run a case ``rounds`` times on each of its databases, in turn."""
    results = {
        database.name: Measured(operations=case.operations)
        for database in case.databases
    }
    for number in range(-1, rounds):
        # Nobody is always the one after the other.
        start = number % len(case.databases)
        for database in (*case.databases[start:], *case.databases[:start]):
            measured = results[database.name]
            if number < 0:
                measured.first_requests = _measure_once(case, database, Measured())
            else:
                measured.requests.append(_measure_once(case, database, measured))
    return results


def _measure_once(case: Case, database: Database, measured: Measured) -> Counter[str]:
    """Add the times to ``measured``; return the requests."""
    prepared = case.prepare(database)
    stores = database.stores()
    gc.collect()
    before = [store.requests for store in stores]
    cpu = time.process_time()
    started = time.perf_counter()
    case.run(database, prepared)
    seconds = time.perf_counter() - started
    cpu = time.process_time() - cpu
    after = [store.requests for store in stores]
    case.tidy(database, prepared)
    measured.seconds.append(seconds / case.operations)
    measured.cpu.append(cpu / case.operations)
    return _difference(before, after)


def _difference(
    before: Iterable[RequestCounts], after: Iterable[RequestCounts]
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for earlier, later in zip(before, after, strict=True):
        sent = later - earlier
        counts.update(GET=sent.get, PUT=sent.put, DELETE=sent.delete, LIST=sent.list)
    return counts
