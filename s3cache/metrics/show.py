"""The functions that return figures; see ``s3cache.metrics.figures``.

None of them asks the store, and none raises because a source is missing: what
is not known is 0, None or left out. What this process has counted is in what
they return, up to now; what others have, up to a few seconds ago.
"""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from django.utils import timezone

from s3cache import conf
from s3cache.metrics import fleet, keeping
from s3cache.metrics.advice import advise
from s3cache.metrics.book import DAY, HOUR, MINUTE, MONTH, Book, Page, Reader, add_to
from s3cache.metrics.figures import (
    Advice,
    CacheFigures,
    DatabaseFigures,
    History,
    HostFigures,
    Model,
    ModelMoney,
    Money,
    ProcessFigures,
    QueryFigures,
    ReadFigures,
    Reads,
    RequestFigures,
    Scope,
    SlowQuery,
    Snapshot,
    Span,
)
from s3cache.metrics.fleet import HostPage
from s3cache.metrics.histogram import Histogram
from s3cache.metrics.prices import current
from s3cache.metrics.processes import ProcessPage, read_processes
from s3cache.metrics.series import (
    CACHES,
    changes_of,
    label_of,
    point,
    reads_of,
)
from s3cache.metrics.tally import CacheState, Tally, replicas, take_tally
from s3cache.replica import clock
from s3cache.results.queries import queries

__all__ = [
    "advice",
    "history",
    "money",
    "reset",
    "slow_queries",
    "snapshot",
    "top_queries",
]

_STEPS: Final[dict[Span, tuple[int, int]]] = {
    "day": (MINUTE, DAY),
    "month": (HOUR, MONTH),
}

#: Seconds of the rates that a month is extrapolated from, and the least.
_RATE: Final = 3600
_LEAST: Final = 60.0


@dataclass
class _Source:
    """The numbers of a scope, and what processes and hosts say."""

    scope: Scope
    now: float
    tally: Tally
    since: float
    book: Book | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    processes: list[tuple[Page, ProcessPage]] = field(default_factory=list)
    hosts: list[tuple[Page, HostPage]] = field(default_factory=list)


def _source(scope: Scope) -> _Source:
    now = time.time()
    page, own = keeping.own_process()
    alone = _Source("process", now, take_tally(), own.started)
    alone.processes = [(page, own)]
    book = keeping.book()
    if scope == "process" or book is None:
        return alone
    has_all = keeping.flush()
    try:
        with book.reading() as reader:
            tally = reader.totals("host")
            others = reader.totals("others") if scope == "fleet" else {}
            marks = reader.marks()
            processes = reader.pages("process")
            hosts = reader.pages("host") if scope == "fleet" else []
    except (OSError, sqlite3.Error) as error:
        keeping.logger.warning("What was counted cannot be read now: %s", error)
        return alone
    for more in (others, {} if has_all else keeping.pending()):
        for key, number in more.items():
            tally[key] = tally.get(key, 0) + number
    return _Source(
        scope,
        now,
        tally,
        marks.get("since", own.started),
        book,
        marks,
        read_processes(processes, now) or alone.processes,
        fleet.read_hosts(hosts, now),
    )


def snapshot(scope: Scope = "fleet", *, database: str | None = None) -> Snapshot:
    """All figures of this moment, of one database or of all."""
    source = _source(scope)
    reads = tuple(_reads(source.tally, database))
    hosts = tuple(_hosts(source))
    return Snapshot(
        scope=scope,
        taken_at=source.now,
        since=source.since,
        databases=tuple(_databases(source, database, hosts)),
        reads=reads,
        models=tuple(_models(source, reads, database)),
        requests=tuple(_requests(source.tally, database)),
        caches=tuple(_caches(source)),
        processes=tuple(_processes(source)),
        hosts=hosts,
        shares=_shares(),
    )


def _shares() -> bool:
    try:
        return fleet.shared_cache() is not None
    except Exception:
        # It is not configured right, as a check says.
        return False


def _reads(tally: Tally, database: str | None) -> Iterable[ReadFigures]:
    found: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for key, number in tally.items():
        if key[0] == "read" and database in (None, key[1]):
            found[key[1:5]][key[5]] = int(number)
    for (alias, model, action, partition), events in sorted(found.items()):
        yield ReadFigures(
            database=alias,
            model=model,
            action=action,
            partition=partition,
            reads=Reads(**events),
        )


def _models(
    source: _Source, reads: Iterable[ReadFigures], database: str | None
) -> Iterable[Model]:
    sums: dict[tuple[str, str], Reads] = defaultdict(Reads)
    for one in reads:
        sums[one.database, one.model] += one.reads
    changes: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for key, number in source.tally.items():
        if key[0] == "event" and key[3] and database in (None, key[1]):
            changes[key[1], label_of(key[3])][key[2]] = number
    for alias, model in sorted(sums.keys() | changes.keys()):
        yield Model(
            database=alias,
            model=model,
            reads=sums[alias, model],
            changes=changes_of(changes[alias, model], source.scope),
        )


def _requests(tally: Tally, database: str | None) -> Iterable[RequestFigures]:
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for key, number in tally.items():
        if key[0] == "request" and database in (None, key[1]):
            found[key[1], key[2]][key[3]] = number
    for (alias, kind), numbers in sorted(found.items()):
        buckets = {
            int(what[1:]): int(number)
            for what, number in numbers.items()
            if what[0] == "b"
        }
        yield RequestFigures(
            database=alias,
            kind=kind,
            number=int(numbers.get("number", 0)),
            failed=int(numbers.get("failed", 0)),
            seconds=numbers.get("seconds", 0.0),
            sent=int(numbers.get("sent", 0)),
            received=int(numbers.get("received", 0)),
            latency=Histogram(buckets),
        )


def _events(tally: Tally, database: str) -> dict[str, int]:
    return {
        key[2]: int(number)
        for key, number in tally.items()
        if key[0] == "event" and key[1] == database and not key[3]
    }


_EVENTS: Final = ("stale_reads", "commits", "transactions", "conflicts", "retries")


def _databases(
    source: _Source, database: str | None, hosts: Iterable[HostFigures]
) -> Iterable[DatabaseFigures]:
    opened = replicas()
    for alias in conf.bucket_aliases():
        if database not in (None, alias):
            continue
        events = _events(source.tally, alias)
        counted: Any = {name: events.get(name, 0) for name in _EVENTS}
        replica = opened.get(alias)
        if replica is None:  # this process has not used it yet
            yield DatabaseFigures(database=alias, store="", **counted)
            continue
        side = replica.side
        position = side.number
        newest = max([position, *(one.positions.get(alias, 0) for one in hosts)])
        age = max(clock.now() - side.asked_at, 0.0) if side.asked_at else None
        reached = {
            name: source.marks.get(f"{name} {alias}", replica.reached.get(name))
            for name in ("packed", "recorded")
        }
        yield DatabaseFigures(
            database=alias,
            store=replica.store.name,
            position=position,
            lag=newest - position,
            asked_ago=age,
            is_stale=age is None or age > replica.options.max_age,
            unpacked=_behind(position, reached["packed"]),
            unrecorded=_behind(position, reached["recorded"]),
            replica_bytes=replica.size(),
            lacking_packs=replica.lacking_packs(),
            **counted,
        )


def _behind(position: int, reached: float | None) -> int | None:
    return None if reached is None else max(position - int(reached), 0)


_COUNTS: Final = ("hits", "misses", "stale", "errors")


def _caches(source: _Source) -> Iterable[CacheFigures]:
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for key, number in source.tally.items():
        if key[0] == "cache":
            counts[key[1], key[2]][key[3]] = int(number)
    states: dict[tuple[str, str], list[tuple[float, CacheState]]] = defaultdict(list)
    for page, process in source.processes:
        for state in process.caches:
            states[state.alias, state.tier].append((page.seen, state))
    for (alias, tier), some in sorted(states.items()):
        its = counts[alias, tier]
        _seen, newest = max(some, key=lambda one: one[0])
        # What they share is there once; what each has for itself adds up.
        each = [one for _, one in some] if newest.is_own else [newest]
        yield CacheFigures(
            alias=alias,
            tier=tier,
            driver=newest.driver,
            ttl=newest.ttl,
            state=newest.state,
            size=_sum(one.size for one in each),
            max_size=_sum(one.max_size for one in each),
            memory=_sum(one.memory for one in each),
            max_memory=_sum(one.max_memory for one in each),
            evictions={
                cause: number
                for cause, number in its.items()
                if number and cause not in _COUNTS
            },
            **{name: its.get(name, 0) for name in _COUNTS},
        )


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [one for one in numbers if one is not None]
    return sum(known) if known else None


def _processes(source: _Source) -> Iterable[ProcessFigures]:
    own, _ = keeping.own_process()
    host = _host_name(source)
    for page, process in source.processes:
        yield ProcessFigures(
            host=host,
            pid=process.pid,
            command=process.command,
            started=process.started,
            seen=page.seen,
            reads=Reads(**process.reads),
            requests=process.requests,
            memory=process.memory,
            is_this=page.name == own.name,
        )


def _host_name(source: _Source) -> str:
    return fleet.host_name(source.book) if source.book is not None else ""


def _hosts(source: _Source) -> Iterable[HostFigures]:
    if source.book is None:
        return
    own = fleet.own_page(source.book)
    told = [(source.now, own), *((page.seen, host) for page, host in source.hosts)]
    newest: dict[str, int] = {}
    for _, host in told:
        for alias, number in host.positions.items():
            newest[alias] = max(number, newest.get(alias, 0))
    for seen, host in told:
        yield HostFigures(
            host=host.host,
            seen=seen,
            processes=host.processes,
            reads=Reads(**host.reads),
            requests=host.requests,
            positions=host.positions,
            lag=sum(newest[alias] - n for alias, n in host.positions.items()),
            replica_bytes=host.replica_bytes,
            memory=host.memory,
            is_this=host is own,
        )


# Over time


def history(
    span: Span = "day",
    scope: Scope = "fleet",
    *,
    database: str | None = None,
    model: str | None = None,
) -> History:
    """What happened by the minute of a day, or by the hour of a month.

    Of one model: its reads and changes, by the hour for both spans. The scope
    "process" has no history of its own; it is answered with its host's.
    """
    keeping.flush()
    width, length = _STEPS[span]
    end = time.time()
    if model is not None:
        width = HOUR
    start = (end - length) // width * width
    aliases = [database] if database is not None else list(conf.bucket_aliases())
    if model is not None:
        found = _read(scope, lambda r, s: r.model(s, aliases, start, model))
    else:
        of = [*aliases, CACHES]
        found = _read(scope, lambda r, s: r.buckets(s, width, of, start))
    sums: dict[int, dict[str, float]] = {}
    for at, numbers in found:
        # Most buckets are the only ones of their time: those need no copy.
        if sums.setdefault(at, numbers) is not numbers:
            add_to(sums[at], numbers)
    prices = current()
    return History(
        scope=scope,
        span=span,
        step=width,
        start=start,
        end=end,
        points=tuple(point(at, sums[at], prices, scope) for at in sorted(sums)),
    )


_T = TypeVar("_T")


def _read(scope: Scope, read: Callable[[Reader, str], list[_T]]) -> list[_T]:
    """What a scope has in the book; nothing where there is none."""
    book = keeping.book()
    if book is None:
        return []
    try:
        with book.reading() as reader:
            found = read(reader, "host")
            return found + read(reader, "others") if scope == "fleet" else found
    except (OSError, sqlite3.Error) as error:
        keeping.logger.warning("The history cannot be read now: %s", error)
        return []


def _sums(
    scope: Scope, width: int, of: Iterable[str], since: float
) -> dict[str, float]:
    sums: dict[str, float] = {}
    for _, numbers in _read(scope, lambda r, s: r.buckets(s, width, of, since)):
        add_to(sums, numbers)
    return sums


def _model_sums(
    scope: Scope, database: str, since: float
) -> dict[str, dict[str, float]]:
    """By model."""
    sums: dict[str, dict[str, float]] = {}
    for models in _read(scope, lambda r, s: r.models(s, [database], since)):
        for model, numbers in models.items():
            add_to(sums.setdefault(model, {}), numbers)
    return sums


# Money


#: The events of reads that needed no query.
_ANSWERED: Final = ("hit", "wait")


def money(scope: Scope = "fleet", *, database: str | None = None) -> Money:
    """What was spent and saved, and what a month costs at this rate."""
    source = _source(scope)
    prices = current()
    aliases = [database] if database is not None else list(conf.bucket_aliases())
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    today = _sums(scope, HOUR, aliases, midnight.timestamp() + HOUR)
    lately = _sums(scope, MINUTE, aliases, source.now - _RATE)
    factor = MONTH / min(max(source.now - source.since, _LEAST), _RATE)
    requests: dict[str, int] = defaultdict(int)
    for one in _requests(source.tally, database):
        requests[one.kind] += one.number
    answered = sum(
        number
        for key, number in source.tally.items()
        if key[0] == "read" and key[5] in _ANSWERED and database in (None, key[1])
    )

    def saved(some: Mapping[str, float]) -> float:
        return prices.of({"GET": reads_of(some).answered})

    return Money(
        scope=scope,
        source=prices.source,
        spent=prices.of(requests),
        saved=prices.of({"GET": answered}),
        spent_today=prices.of(today),
        saved_today=saved(today),
        month=prices.of(lately) * factor,
        saved_month=saved(lately) * factor,
        models=tuple(
            one
            for alias in aliases
            for one in _model_money(
                scope, alias, midnight.timestamp(), source.now, factor
            )
        ),
    )


def _model_money(
    scope: Scope, alias: str, midnight: float, now: float, factor: float
) -> Iterable[ModelMoney]:
    prices = current()
    lately = _sums(scope, MINUTE, [alias], now - _RATE)
    writing = prices.of({"PUT": lately.get("PUT", 0)}) * factor
    asking = prices.of({k: lately.get(k, 0) for k in ("GET", "LIST")}) * factor
    today = _model_sums(scope, alias, midnight + HOUR)
    shares = _model_sums(scope, alias, now - _RATE)
    all_changes = sum(changes_of(one, "fleet") for one in shares.values())
    all_reads = sum(reads_of(one).number for one in shares.values())
    for model in sorted(today.keys() | shares.keys()):
        answered = reads_of(today.get(model, {})).answered
        its = shares.get(model, {})
        month = 0.0
        if all_changes:
            month += writing * changes_of(its, "fleet") / all_changes
        if all_reads:
            month += asking * reads_of(its).number / all_reads
        yield ModelMoney(
            database=alias,
            model=model,
            saved_today=prices.of({"GET": answered}),
            saved_requests_today=answered,
            month=month,
        )


# What to look at


def advice(*, database: str | None = None) -> tuple[Advice, ...]:
    """What to try, the worst first; by the reads of all hosts lately."""
    keeping.flush()
    now = time.time()
    found: list[Advice] = []
    slow = {one.model for one in top_queries(100) if _is_slow(one)}
    for alias in conf.bucket_aliases():
        if database in (None, alias):
            found.extend(advise(alias, _model_sums("fleet", alias, now - _RATE), slow))
    return tuple(sorted(found, key=lambda one: (one.hit_rate, one.model, one.kind)))


def _is_slow(query: QueryFigures) -> bool:
    number = query.reads.number - query.reads.answered
    return number > 0 and query.db_seconds / number >= conf.settings().slow_query


def top_queries(
    limit: int = 20, *, database: str | None = None
) -> tuple[QueryFigures, ...]:
    """The statements that this process read most often, the first first."""
    return tuple(
        QueryFigures(
            database=one.database,
            model=one.label,
            action=one.action,
            sql=one.sql,
            tables=one.tables,
            reads=Reads(**one.events),
            cache_seconds=one.cache_seconds,
            db_seconds=one.db_seconds,
        )
        for one in queries.most_read(limit, database)
    )


def slow_queries(
    limit: int = 20, *, database: str | None = None
) -> tuple[SlowQuery, ...]:
    """The slowest reads of this process lately, the slowest first."""
    return tuple(
        SlowQuery(
            database=one.database,
            sql=one.sql,
            tables=one.tables,
            source="CACHE" if one.was_kept else "DB",
            seconds=one.seconds,
            rows=one.rows,
            at=one.at,
        )
        for one in queries.slowest(limit, database)
    )


def reset(*, database: str | None = None) -> None:
    """Count from 0 again, on this host; the history stays.

    Raises ``sqlite3.Error`` or ``OSError`` if the book cannot be changed.
    """
    keeping.flush()
    book = keeping.book()
    if book is None:
        return
    begins: list[tuple[str, ...]] = [()]
    if database is not None:
        begins = [(kind, database) for kind in ("read", "request", "event")]
    with book.writing(time.time()) as writer:
        writer.clear_totals(begins)
