"""The numbers that figures are made of, gathered at one moment."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from s3cache.metrics import fleet, keeping
from s3cache.metrics.book import HOUR, SIX_HOURS, Book, Bucket, Page, Paid, Reader
from s3cache.metrics.figures import Scope
from s3cache.metrics.fleet import HostPage
from s3cache.metrics.processes import ProcessPage, read_processes
from s3cache.metrics.tally import (
    SEPARATOR,
    Groups,
    add_groups,
    add_to,
    grouped,
    take_tally,
)
from s3cache.results.counters import EVENTS
from s3cache.results.queries import Slow, Statement, queries

__all__ = ["Source", "gather"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Source:
    """The numbers of a scope, and what processes and hosts say.

    Whoever shows several figures at once makes all of them from one of these:
    they are of the same moment, and the book is read, and written, once. What
    happened over time is read when it is asked for; where that fails, nothing
    did.
    """

    scope: Scope
    now: float
    totals: Groups
    since: float
    book: Book | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    processes: list[tuple[Page, ProcessPage]] = field(default_factory=list)
    hosts: list[tuple[Page, HostPage]] = field(default_factory=list)
    """The others."""
    host: HostPage | None = None
    """This one; None if there is no book, or nothing but a process was asked
    for."""
    _models: dict[str, dict[str, Bucket]] = field(default_factory=dict)

    @cached_property
    def reads(self) -> dict[tuple[str, str], dict[str, dict[str, int]]]:
        """By database and model: events, by action and partition in one."""
        found: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
        for (kind, alias, model), numbers in self.totals.items():
            if kind != "read":
                continue
            its = found[alias, model] = {}
            for key, number in numbers.items():
                what, _, event = key.rpartition(SEPARATOR)
                if event in EVENTS:  # those that this release knows of
                    if what not in its:
                        its[what] = {}
                    its[what][event] = int(number)
        return found

    def buckets(
        self, width: int, of: Iterable[str], since: float
    ) -> list[tuple[int, Bucket]]:
        """What happened since then, by the beginnings of minutes or so."""
        return self._read(lambda r, s: r.buckets(s, width, of, since, self.now))

    def paid(self, width: int, of: Iterable[str], since: float) -> Paid:
        """What of it is a matter of money, all together."""
        sums = Paid()
        for one in self._read(lambda r, s: r.paid(s, width, of, since, self.now)):
            sums.hit += one.hit
            sums.wait += one.wait
            sums.GET += one.GET
            sums.PUT += one.PUT
            sums.LIST += one.LIST
            sums.DELETE += one.DELETE
        return sums

    def model(
        self, width: int, databases: Iterable[str], since: float, model: str
    ) -> list[tuple[int, Bucket]]:
        """What happened to one model since then."""
        return self._read(
            lambda r, s: r.model(s, width, databases, since, self.now, model)
        )

    def lately(self, database: str) -> dict[str, Bucket]:
        """What happened to each model in this hour and the last one."""
        if database not in self._models:
            since = self.now - HOUR
            self._models[database] = _together(
                self._read(lambda r, s: r.models(s, HOUR, database, since, self.now))
            )
        return self._models[database]

    def models_since(self, database: str, since: float) -> dict[str, Bucket]:
        """What happened to each model since then, in whole hours.

        From the first that begins then, at most a day ago.
        """
        # Narrow ones until a wide one begins: those are a third of all.
        wide = -(-since // SIX_HOURS) * SIX_HOURS
        until = min(wide - 1, self.now)

        def read(reader: Reader, scope: str) -> list[dict[str, Bucket]]:
            return [
                *reader.models(scope, HOUR, database, _first(since, HOUR), until),
                *reader.models(
                    scope, SIX_HOURS, database, _first(wide, SIX_HOURS), self.now
                ),
            ]

        return _together(self._read(read))

    def model_since(self, database: str, since: float, model: str) -> Bucket:
        """The same of one model."""
        sums: Bucket = {}
        for _, numbers in self.model(HOUR, [database], _first(since, HOUR), model):
            add_to(sums, numbers)
        return sums

    def statements(self) -> list[Statement]:
        """What this host, or without a book this process, has read lately."""
        if self.host is None:
            return list(queries.statements().values())
        return self._read_own(Reader.statements)

    def slow(self) -> list[Slow]:
        """Its slow reads."""
        return queries.slow()[1] if self.host is None else self._read_own(Reader.slow)

    def _read(self, read: Callable[[Reader, str], list[_T]]) -> list[_T]:
        scopes = ("host", "others") if self.scope == "fleet" else ("host",)
        return self._read_own(
            lambda reader: [one for scope in scopes for one in read(reader, scope)]
        )

    def _read_own(self, read: Callable[[Reader], list[_T]]) -> list[_T]:
        if self.book is None:
            return []
        try:
            with self.book.reading() as reader:
                return read(reader)
        except (OSError, sqlite3.Error) as error:
            keeping.logger.warning("The history cannot be read now: %s", error)
            return []


def _first(since: float, width: int) -> float:
    """From when on to ask, without the bucket that it is in the middle of."""
    return since + width - 1


def _together(some: Iterable[dict[str, Bucket]]) -> dict[str, Bucket]:
    sums: dict[str, Bucket] = {}
    for models in some:
        for model, numbers in models.items():
            if (its := sums.setdefault(model, numbers)) is not numbers:
                add_to(its, numbers)
    return sums


def gather(scope: Scope = "fleet") -> Source:
    """What this process knows of now; the store is not asked.

    What cannot be read is left out: at the least, there is what this process
    has counted itself.
    """
    now = time.time()
    book = keeping.book()
    has_all = book is not None and keeping.flush()
    if scope == "process" or book is None:
        return _of_process(scope, now, book)
    try:
        with book.reading() as reader:
            totals = reader.totals("host")
            others = reader.totals("others") if scope == "fleet" else {}
            marks = reader.marks()
            processes = read_processes(reader.pages("process"), now)
            heard = now - fleet.KEPT
            hosts = reader.pages("host", heard) if scope == "fleet" else []
    except (OSError, sqlite3.Error) as error:
        keeping.logger.warning("What was counted cannot be read now: %s", error)
        return _of_process(scope, now, None)
    if not has_all:
        add_groups(totals, grouped(keeping.pending()))
    page, own = keeping.own_process()
    processes = [(page, own)] + [one for one in processes if one[0].name != page.name]
    since = min(marks.get("since", own.started), now)
    host = fleet.host_page(book, since, totals, [page for _, page in processes])
    add_groups(totals, others)
    return Source(
        scope,
        now,
        totals,
        since,
        book,
        marks,
        processes,
        fleet.read_hosts(hosts, now),
        host,
    )


def _of_process(scope: Scope, now: float, book: Book | None) -> Source:
    page, own = keeping.own_process()
    totals = grouped(take_tally())
    return Source(scope, now, totals, own.started, book, processes=[(page, own)])
