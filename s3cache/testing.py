"""
For tests of projects: what was read, what it cost, and another host.

For any test runner. With pytest the same are fixtures, which need no import:
``s3cache_reads``, ``s3cache_requests`` and ``s3cache_other_host``.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from django.db import connections

from s3cache.db.base import DatabaseWrapper
from s3cache.db.creation import STORE_DIRECTORY
from s3cache.replica.replica import forget_replica
from s3cache.results.watching import Read, Watch, watch
from s3cache.stores import Request, observe

__all__ = ["Reads", "Requests", "count_requests", "other_host", "watch_reads"]


class Reads(Watch):
    """What was read, in order: `list` of `s3cache.results.watching.Read`."""

    def __init__(self) -> None:
        self.list: list[Read] = []
        self.add = self.list.append

    @property
    def events(self) -> list[str]:
        """What became of each: ``hit``, ``miss``, ``wait`` or ``bypass``."""
        return [read.event for read in self.list]

    @property
    def tables(self) -> set[str]:
        """All tables that were read, in lower case."""
        return {table for read in self.list for table in read.tables}

    @property
    def are_cached(self) -> bool:
        """Whether something was read, and nothing but from caches."""
        return bool(self.list) and {*self.events} <= {"hit", "wait"}


@contextmanager
def watch_reads() -> Iterator[Reads]:
    """
    Gather what is read inside, from all databases in buckets.

    By this thread, and by tasks and ``sync_to_async`` that it starts. In a
    `TestCase`, which is a transaction, everything is a ``bypass``.
    """
    with watch(Reads()) as reads:
        yield reads


class Requests(Counter[str]):
    """How many store requests of each kind: GET, PUT, DELETE, LIST."""

    def __init__(self) -> None:
        super().__init__()
        #: Each of them, with its key, status and seconds.
        self.list: list[Request] = []

    def note(self, request: Request) -> None:
        """Count one more."""
        self.list.append(request)
        self[request.kind] += 1


@contextmanager
def count_requests() -> Iterator[Requests]:
    """
    Count the store requests that are made inside.

    As `watch_reads`, by this context: what a keeper or a writer of records
    does beside it is not counted.
    """
    requests = Requests()
    with observe(requests.note):
        yield requests


@contextmanager
def other_host(using: str = "default") -> Iterator[DatabaseWrapper]:
    """
    Be another host inside: one with a replica of its own, in this process.

    It sees what has been committed, and what it commits other hosts see when
    they ask the store: after `max_age`, with `fresh()` or `catch_up()`. It is
    this thread's alone. For a `TransactionTestCase`; raise `RuntimeError`
    outside of tests and inside of transactions, where no host sees another.
    """
    here = cast(DatabaseWrapper, connections[using])
    settings: dict[str, Any] = here.settings_dict
    if STORE_DIRECTORY not in settings:
        raise RuntimeError("other_host() is for test databases in a bucket.")
    if here.in_atomic_block or here.block is not None:
        raise RuntimeError(
            "other_host() sees nothing of an open transaction: "
            "use TransactionTestCase, or django_db(transaction=True)."
        )
    with tempfile.TemporaryDirectory(prefix="s3cache-host-") as directory:
        path = Path(directory) / "replica.sqlite3"
        there = DatabaseWrapper({**settings, "NAME": str(path)}, using)
        connections[using] = there
        try:
            yield there
        finally:
            connections[using] = here
            there.close()
            forget_replica(path)
