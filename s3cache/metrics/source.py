"""The numbers that figures are made of, gathered at one moment."""

from __future__ import annotations

import heapq
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from s3cache.metrics import fleet, keeping
from s3cache.metrics.book import (
    HOUR,
    SIX_HOURS,
    Answered,
    Book,
    Bucket,
    Lately,
    Page,
    Paid,
    Reader,
)
from s3cache.metrics.figures import Scope
from s3cache.metrics.fleet import HostPage
from s3cache.metrics.processes import ProcessPage, read_processes
from s3cache.metrics.series import by_what, label_of
from s3cache.metrics.tally import (
    Groups,
    add_groups,
    add_to,
    grouped,
    take_tally,
)
from s3cache.results.counters import Reads
from s3cache.results.queries import Slow, Statement, queries

__all__ = ["Source", "gather", "source_of"]

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
    started: float
    """When this process began."""
    own: Groups
    """What this process has counted, or this host with ``is_of_host``."""
    is_of_host: bool = False
    book: Book | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    processes: list[tuple[Page, ProcessPage]] = field(default_factory=list)
    others: Groups = field(default_factory=dict)
    """What other hosts have counted, if they were asked for."""
    hosts: list[tuple[Page, HostPage]] = field(default_factory=list)
    """What those say."""
    _models: dict[str, dict[str, Lately]] = field(default_factory=dict)

    @property
    def since(self) -> float:
        """When counting began: of a host at its first start, or a reset."""
        marked = self.marks.get("since", self.started)
        return self.started if self.scope == "process" else min(marked, self.now)

    @property
    def began(self) -> float:
        """When the history began, whatever was reset."""
        return min(self.marks.get("began", self.since), self.now)

    @cached_property
    def reads(self) -> dict[tuple[str, str], dict[str, Reads]]:
        """By database and model: the reads by action and partition in one."""
        return self.reads_of(None)

    def reads_of(
        self, models: Collection[str] | None
    ) -> dict[tuple[str, str], dict[str, Reads]]:
        """The same of some models (labels), None: of all."""
        found: dict[tuple[str, str], list[Mapping[str, float]]] = {}
        for groups in (self.own, self.others):
            for (kind, alias, model), numbers in groups.items():
                if kind == "read" and (models is None or model in models):
                    found.setdefault((alias, model), []).append(numbers)
        return {key: by_what(some) for key, some in found.items()}

    @cached_property
    def totals(self) -> Groups:
        """All else that was counted."""
        sums = {
            key: numbers.copy() for key, numbers in self.own.items() if key[0] != "read"
        }
        for key, numbers in self.others.items():
            if key[0] != "read":
                add_to(sums.setdefault(key, {}), numbers)
        return sums

    @cached_property
    def changes(self) -> dict[tuple[str, str], dict[str, float]]:
        """By database and model: what happened to its rows."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        for (kind, alias, name), numbers in self.totals.items():
            if kind == "event":
                for table, number in numbers.items():
                    if table:
                        its = found.setdefault((alias, label_of(table)), {})
                        its[name] = number
        return found

    @cached_property
    def host(self) -> HostPage | None:
        """What this host says; None if nothing but a process was asked for."""
        if self.book is None or not self.is_of_host:
            return None
        return fleet.host_page(self.book, self.marks, self.own, self.processes)

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

    def lately(self, database: str) -> dict[str, Lately]:
        """What happened to each model in this hour and the last one."""
        if database not in self._models:
            since = self.now - HOUR
            self._models[database] = _together(
                self._read(lambda r, s: r.models(s, HOUR, database, since, self.now))
            )
        return self._models[database]

    def answered_since(self, database: str, since: float) -> dict[str, float]:
        """The reads of each model that the cache answered, in whole hours.

        From the first that begins then, at most a day ago.
        """
        # Narrow ones until a wide one begins: those are a third of all.
        wide = -(-since // SIX_HOURS) * SIX_HOURS
        until = min(wide - 1, self.now)

        def read(reader: Reader, scope: str) -> list[dict[str, Answered]]:
            return [
                *reader.answered(scope, HOUR, database, _first(since, HOUR), until),
                *reader.answered(
                    scope, SIX_HOURS, database, _first(wide, SIX_HOURS), self.now
                ),
            ]

        sums: dict[str, float] = {}
        for models in self._read(read):
            for model, one in models.items():
                sums[model] = sums.get(model, 0) + one.hit + one.wait
        return sums

    def model_answered_since(self, database: str, since: float, model: str) -> float:
        """The same of one model."""
        found = self.model(HOUR, [database], _first(since, HOUR), model)
        return sum(one.get("hit", 0) + one.get("wait", 0) for _, one in found)

    def statements(self, limit: int, database: str | None) -> list[Statement]:
        """What this host, or without a book this process, has read most."""
        if self.is_of_host:
            return self._read_own(lambda reader: reader.statements(limit, database))
        some = [
            one
            for one in queries.statements().values()
            if database in (None, one.database)
        ]
        return heapq.nlargest(limit, some, key=lambda one: one.number)

    def slow(self) -> list[Slow]:
        """Its slow reads."""
        return self._read_own(Reader.slow) if self.is_of_host else queries.slow()[1]

    def _read(self, read: Callable[[Reader, str], list[_T]]) -> list[_T]:
        scopes = ("host", "others") if self.scope == "fleet" else ("host",)
        return self._read_own(
            lambda reader: [one for scope in scopes for one in read(reader, scope)]
        )

    def _read_own(self, read: Callable[[Reader], list[_T]]) -> list[_T]:
        return _reading(self.book, read) or []


def _first(since: float, width: int) -> float:
    """From when on to ask, without the bucket that it is in the middle of."""
    return since + width - 1


def _together(some: Iterable[dict[str, Lately]]) -> dict[str, Lately]:
    sums: dict[str, Lately] = {}
    for models in some:
        for model, one in models.items():
            if model in sums:
                sums[model].add(one)
            else:
                sums[model] = one
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
    is_fleet = scope == "fleet"
    found = _reading(
        book,
        lambda reader: (
            reader.totals("host"),
            reader.totals("others") if is_fleet else {},
            reader.marks(),
            read_processes(reader.pages("process"), now),
            reader.pages("host", now - fleet.KEPT) if is_fleet else [],
        ),
    )
    if found is None:
        return _of_process(scope, now, None)
    totals, others, marks, processes, hosts = found
    if not has_all:
        add_groups(totals, grouped(keeping.pending()))
    page, own = keeping.own_process()
    processes = [(page, own)] + [one for one in processes if one[0].name != page.name]
    return Source(
        scope,
        now,
        own.started,
        totals,
        is_of_host=True,
        book=book,
        marks=marks,
        processes=processes,
        others=others,
        hosts=fleet.read_hosts(hosts, now),
    )


def source_of(scope: Scope | Source) -> Source:
    """What was gathered, or is now."""
    return scope if isinstance(scope, Source) else gather(scope)


def _of_process(scope: Scope, now: float, book: Book | None) -> Source:
    """What it has counted itself; what happened over time is its host's."""
    page, own = keeping.own_process()
    return Source(
        scope,
        now,
        own.started,
        grouped(take_tally()),
        book=book,
        marks=_reading(book, Reader.marks) or {},
        processes=[(page, own)],
    )


def _reading(book: Book | None, read: Callable[[Reader], _T]) -> _T | None:
    """What ``read`` returns; None if that cannot be had."""
    if book is None:
        return None
    try:
        with book.reading() as reader:
            return read(reader)
    except (OSError, sqlite3.Error) as error:
        keeping.logger.warning("What was counted cannot be read now: %s", error)
        return None
