"""The three ways in which Django's tests are run.

1. As they are: ``TestCase`` rolls each test back.
2. Every commit real: ``TestCase`` believes that the database has no
   transactions, and behaves as ``TransactionTestCase`` does: class data is
   made anew for each test, and the database is flushed after it.
3. As 2, and before one SELECT in twenty outside ``atomic()`` the replica is
   lost and rebuilt from the store.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.test import TestCase, TransactionTestCase

from tests.conformance.engines import Engine
from tests.conformance.job import Job

ONE_SELECT_IN = 20
ONE_TEST_IN = 10


def dice(seed: int, *words: str) -> random.Random:
    """Numbers that depend on these words and on nothing that ran before."""
    return random.Random(zlib.crc32(" ".join((str(seed), *words)).encode()))


class Checker:
    """Compares the replicas with those of a second host, now and then."""

    def __init__(self, engine: Engine, job: Job, write: Callable[..., None]) -> None:
        self.checks = 0
        self._engine = engine
        self._job = job
        self._write = write
        self._test = ""
        self._dice = dice(job.seed)

    def next_test(self, name: str) -> None:
        self._test = name
        self._dice = dice(self._job.seed, "check", name)

    def before_flush(self, aliases: Iterable[str]) -> None:
        """In one test in ten, while its rows are still there."""
        if self._dice.randrange(ONE_TEST_IN) == 0:
            for alias in aliases:
                self._check(connections[alias], "kept", from_nothing=False)

    def at_the_end(self, used: Iterable[BaseDatabaseWrapper]) -> None:
        """Against a host that has nothing but the store."""
        self._test = f"{self._job.app}, after its last test"
        for connection in used:
            self._check(connection, "new", from_nothing=True)

    def _check(
        self, connection: BaseDatabaseWrapper, name: str, *, from_nothing: bool
    ) -> None:
        if connection.in_atomic_block:
            return
        folder = Path(self._job.folder) / f"{name} {connection.alias}"
        folder.mkdir(exist_ok=True)
        self.checks += 1
        with aside(connection):
            found = self._engine.differences(
                connection, folder, from_nothing=from_nothing
            )
        if found:
            reason = f"{connection.alias}: " + "; ".join(found)
            self._write("replica differs", test=self._test, reason=reason)


class Mode(contextlib.AbstractContextManager["Mode"]):
    """Django's test classes as the job's mode wants them, while entered."""

    def __init__(self, engine: Engine, job: Job, checker: Checker) -> None:
        self.lost = 0
        self._engine = engine
        self._job = job
        self._checker = checker
        self._undo = contextlib.ExitStack()
        self._dice = dice(job.seed, "lose", job.app)
        self._flushing = False

    def next_test(self, name: str) -> None:
        self._dice = dice(self._job.seed, "lose", name)
        self._checker.next_test(name)

    def counts(self) -> dict[str, int]:
        return {"rebuilds": self.lost, "checks": self._checker.checks}

    def __enter__(self) -> Mode:
        if self._job.mode > 1:
            self._replace(
                TestCase,
                "_databases_support_transactions",
                classmethod(lambda cls: False),
            )
            self._replace(TransactionTestCase, "_fixture_teardown", self._teardown())
        if self._job.mode > 2:
            connection_created.connect(self._watch)
            self._undo.callback(connection_created.disconnect, self._watch)
            for connection in connections.all():
                self._watch(connection)
        return self

    def __exit__(self, *exc: object) -> None:
        self._undo.close()

    def _replace(self, owner: type, name: str, value: object) -> None:
        self._undo.callback(setattr, owner, name, vars(owner)[name])
        setattr(owner, name, value)

    def _teardown(self) -> Callable[[TransactionTestCase], None]:
        """Looks before it flushes; a flush is left alone."""
        original = vars(TransactionTestCase)["_fixture_teardown"]

        def _fixture_teardown(test: TransactionTestCase) -> None:
            names = test._databases_names(include_mirrors=False)  # type: ignore[attr-defined]
            self._checker.before_flush(names)
            self._flushing = True
            try:
                original(test)
            finally:
                self._flushing = False

        return _fixture_teardown

    def _watch(self, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
        if self._lose_sometimes not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._lose_sometimes)

    def _lose_sometimes(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: Any,
        many: bool,
        context: Mapping[str, Any],
    ) -> Any:
        connection: BaseDatabaseWrapper = context["connection"]
        if (
            sql.lstrip(" (\n").upper().startswith(("SELECT", "WITH"))
            and not self._flushing
            and not connection.in_atomic_block
            and connection.get_autocommit()
            and self._dice.randrange(ONE_SELECT_IN) == 0
        ):
            self.lost += 1
            with aside(connection):
                self._engine.lose_replica(connection)
        return execute(sql, params, many, context)


@contextlib.contextmanager
def aside(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Keep what is done inside out of the queries that a test counts."""
    kept = connection.queries_log
    connection.queries_log = deque(maxlen=kept.maxlen)
    try:
        yield
    finally:
        connection.queries_log = kept
