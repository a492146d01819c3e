"""The functions that return figures; see ``s3cache.metrics.figures``.

Each takes a scope, or what ``gather`` returns for one: several of them that
are shown together are then of the same moment, and cost less.

None of them asks the store, and none raises because a source is missing: what
is not known is 0, None or left out. What this process has counted is in what
they return, up to now; what others have, up to a few seconds ago.
"""

from __future__ import annotations

import contextlib
import heapq
import sqlite3
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from django.db import Error
from django.utils import timezone
from msgspec.structs import asdict

from s3cache import conf
from s3cache.metrics import fleet, keeping
from s3cache.metrics.advice import advise
from s3cache.metrics.book import DAY, HOUR, MINUTE, MONTH, QUARTER, SIX_HOURS
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
from s3cache.metrics.histogram import Histogram
from s3cache.metrics.prices import current
from s3cache.metrics.series import (
    CACHES,
    changes_of,
    label_of,
    point,
    reads_of,
)
from s3cache.metrics.sizes import rows_of
from s3cache.metrics.source import Source, gather
from s3cache.metrics.tally import (
    EVICTIONS,
    SEPARATOR,
    CacheState,
    add_to,
    replicas,
    tenants,
)
from s3cache.replica import clock
from s3cache.replica.replica import Replica

__all__ = [
    "advice",
    "gather",
    "history",
    "money",
    "reset",
    "slow_queries",
    "snapshot",
    "top_queries",
]

#: Of both spans, in seconds: the widths of their buckets, the narrowest
#: first, and the length. One model has no narrower ones than an hour.
_SPANS: Final[dict[Span, tuple[tuple[int, ...], int]]] = {
    "day": ((MINUTE, QUARTER, HOUR), DAY),
    "month": ((HOUR, SIX_HOURS), MONTH),
}
_MODEL_STEPS: Final[dict[Span, int]] = {"day": HOUR, "month": SIX_HOURS}

#: Seconds of the rates that a month is extrapolated from, and the least.
_RATE: Final = 3600
_LEAST: Final = 60.0


def _source(scope: Scope | Source) -> Source:
    return scope if isinstance(scope, Source) else gather(scope)


def snapshot(
    scope: Scope | Source = "fleet",
    *,
    database: str | None = None,
    models: Collection[str] | None = None,
) -> Snapshot:
    """All figures of this moment, of one database or of all.

    ``reads`` and ``models`` for those ``models`` (labels), None: for all.
    """
    source = _source(scope)
    hosts = tuple(_hosts(source))
    return Snapshot(
        scope=source.scope,
        taken_at=source.now,
        since=source.since,
        databases=tuple(_databases(source, database, hosts)),
        reads=tuple(_reads(source, database, models)),
        models=tuple(_models(source, database, models)),
        requests=tuple(_requests(source, database)),
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


def _reads(
    source: Source, database: str | None, models: Collection[str] | None
) -> Iterable[ReadFigures]:
    for (alias, model), its in sorted(source.reads.items()):
        if database not in (None, alias):
            continue
        if models is not None and model not in models:
            continue
        for what, events in sorted(its.items()):
            action, _, partition = what.partition(SEPARATOR)
            yield ReadFigures(
                database=alias,
                model=model,
                action=action,
                partition=partition,
                reads=Reads(**events),
            )


def _models(
    source: Source, database: str | None, models: Collection[str] | None
) -> Iterable[Model]:
    changes: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for (kind, alias, name), numbers in source.totals.items():
        if kind == "event":
            for table, number in numbers.items():
                if table:
                    changes[alias, label_of(table)][name] = number
    for alias, model in sorted(source.reads.keys() | changes.keys()):
        if database not in (None, alias):
            continue
        if models is not None and model not in models:
            continue
        sums: dict[str, int] = {}
        for events in source.reads.get((alias, model), {}).values():
            add_to(sums, events)
        yield Model(
            database=alias,
            model=model,
            reads=Reads(**sums),
            changes=changes_of(changes[alias, model], source.scope),
        )


def _requests(source: Source, database: str | None) -> Iterable[RequestFigures]:
    for (of, alias, kind), numbers in sorted(source.totals.items()):
        if of != "request" or database not in (None, alias):
            continue
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


_EVENTS: Final = ("stale_reads", "commits", "transactions", "conflicts", "retries")


def _databases(
    source: Source, database: str | None, hosts: Iterable[HostFigures]
) -> Iterable[DatabaseFigures]:
    opened = replicas()
    for alias in conf.bucket_aliases():
        if database not in (None, alias):
            continue
        counted = _counted(source, alias)
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
            lacking_packs=_lacking(replica),
            **counted,
        )
    for alias in conf.counted_databases()[len(conf.bucket_aliases()) :]:
        if database in (None, alias):
            yield DatabaseFigures(
                database=alias,
                store="",
                is_many=True,
                replica_bytes=sum(one.size() for one in tenants(alias)),
                **_counted(source, alias),
            )


def _counted(source: Source, alias: str) -> dict[str, Any]:
    return {
        name: int(source.totals.get(("event", alias, name), {}).get("", 0))
        for name in _EVENTS
    }


def _lacking(replica: Replica) -> int:
    # One that is not open would be, which may take the store.
    if replica.is_open:
        with contextlib.suppress(Error, sqlite3.Error):
            return replica.lacking_packs()
    return 0


def _behind(position: int, reached: float | None) -> int | None:
    return None if reached is None else max(position - int(reached), 0)


_COUNTS: Final = ("hits", "misses", "stale", "errors")


def _caches(source: Source) -> Iterable[CacheFigures]:
    states: dict[tuple[str, str], list[tuple[float, CacheState]]] = defaultdict(list)
    for page, process in source.processes:
        for state in process.caches:
            states[state.alias, state.tier].append((page.seen, state))
    for (alias, tier), some in sorted(states.items()):
        numbers = source.totals.get(("cache", alias, tier), {})
        its = {what: int(number) for what, number in numbers.items()}
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
            evictions=_evictions(its),
            **{name: its.get(name, 0) for name in _COUNTS},
        )


def _evictions(counts: Mapping[str, int]) -> dict[str, int]:
    """By cause: what no limit of bytes removed was for another reason."""
    causes = {cause: counts.get(cause, 0) for cause in EVICTIONS.values()}
    entries = causes.pop("evictions") - causes["memory"]
    causes = {"entries": entries, **causes}
    return {cause: number for cause, number in causes.items() if number > 0}


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [one for one in numbers if one is not None]
    return sum(known) if known else None


def _processes(source: Source) -> Iterable[ProcessFigures]:
    own = keeping.own_name()
    host = source.host.host if source.host is not None else ""
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
            is_this=page.name == own,
        )


def _hosts(source: Source) -> Iterable[HostFigures]:
    own = source.host
    if own is None:
        return
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
    scope: Scope | Source = "fleet",
    *,
    database: str | None = None,
    model: str | None = None,
    since: float | None = None,
    step: int | None = None,
) -> History:
    """What happened by the minute of a day, or by the hour of a month.

    Of one model: its reads and changes, by the hour of a day, or by six hours
    of a month. The scope "process" has no history of its own; it is answered
    with its host's.

    With ``step`` by so many seconds: 900 of a day, 21,600 of a month; and not
    by less than there is. ``since`` (epoch seconds) leaves out what was before
    the step that it is in.
    """
    source = _source(scope)
    widths, length = _SPANS[span]
    start = max(source.now - length, since or 0.0)
    if model is not None:
        width = _MODEL_STEPS[span]
    elif step is None:
        width = widths[0]
    elif step in widths:
        width = step
    else:
        raise ValueError(f"step is {step!r}, but must be one of {widths} of a {span}.")
    start = start // width * width
    of = _databases_of(database)
    if model is not None:
        found = source.model(width, of, start, model)
    else:
        found = source.buckets(width, [*of, CACHES], start)
    sums: dict[int, dict[str, float]] = {}
    for at, numbers in found:
        # Most buckets are the only ones of their time: those need no copy.
        if sums.setdefault(at, numbers) is not numbers:
            add_to(sums[at], numbers)
    prices = current()
    return History(
        scope=source.scope,
        span=span,
        step=width,
        start=start,
        end=source.now,
        points=tuple(point(at, sums[at], prices, source.scope) for at in sorted(sums)),
    )


def _databases_of(database: str | None) -> Sequence[str]:
    return conf.counted_databases() if database is None else [database]


# Money


def money(
    scope: Scope | Source = "fleet",
    *,
    database: str | None = None,
    models: Collection[str] | None = None,
) -> Money:
    """What was spent and saved, and what a month costs at this rate.

    By model for those ``models`` (labels), None: for all.
    """
    source = _source(scope)
    prices = current()
    aliases = _databases_of(database)
    midnight = (
        timezone.localtime()
        .replace(hour=0, minute=0, second=0, microsecond=0)
        .timestamp()
    )
    # Midnight is at a quarter of an hour everywhere.
    today = source.paid(QUARTER, aliases, midnight + QUARTER - 1)
    lately = source.paid(MINUTE, aliases, source.now - _RATE)
    factor = MONTH / min(max(source.now - source.since, _LEAST), _RATE)
    requests: dict[str, float] = defaultdict(float)
    for (kind, of, name), numbers in source.totals.items():
        if kind == "request" and of in aliases:
            requests[name] += numbers.get("number", 0)
    answered = sum(
        events.get("hit", 0) + events.get("wait", 0)
        for (of, _), its in source.reads.items()
        if of in aliases
        for events in its.values()
    )
    return Money(
        scope=source.scope,
        source=prices.source,
        spent=prices.of(requests),
        saved=prices.of({"GET": answered}),
        spent_today=prices.of(asdict(today)),
        saved_today=prices.of({"GET": today.hit + today.wait}),
        month=prices.of(asdict(lately)) * factor,
        saved_month=prices.of({"GET": lately.hit + lately.wait}) * factor,
        models=tuple(
            one
            for alias in (aliases if models is None or models else ())
            for one in _model_money(source, alias, midnight, factor, models)
        ),
    )


def _model_money(
    source: Source,
    alias: str,
    midnight: float,
    factor: float,
    models: Collection[str] | None,
) -> Iterable[ModelMoney]:
    prices = current()
    paid = source.paid(MINUTE, [alias], source.now - _RATE)
    writing = prices.of({"PUT": paid.PUT}) * factor
    asking = prices.of({"GET": paid.GET, "LIST": paid.LIST}) * factor
    lately = source.lately(alias)
    all_changes = sum(changes_of(one, "fleet") for one in lately.values())
    all_reads = sum(reads_of(one).number for one in lately.values())
    if models is None:
        today = source.models_since(alias, midnight)
    else:
        today = {one: source.model_since(alias, midnight, one) for one in models}
    for model in sorted(today.keys() | (lately.keys() if models is None else ())):
        answered = reads_of(today.get(model, {})).answered
        its = lately.get(model, {})
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


def advice(
    scope: Scope | Source = "fleet", *, database: str | None = None
) -> tuple[Advice, ...]:
    """What to try, the worst first; by the reads of the last hour or two."""
    source = _source(scope)
    slow = {one.model for one in top_queries(100, source) if _is_slow(one)}
    found: list[Advice] = []
    for alias in _databases_of(database):
        found.extend(advise(alias, source.lately(alias), slow, partial(rows_of, alias)))
    return tuple(sorted(found, key=lambda one: (one.hit_rate, one.model, one.kind)))


def _is_slow(query: QueryFigures) -> bool:
    number = query.reads.number - query.reads.answered
    return number > 0 and query.db_seconds / number >= conf.settings().slow_query


def top_queries(
    limit: int = 20, scope: Scope | Source = "host", *, database: str | None = None
) -> tuple[QueryFigures, ...]:
    """The statements that were read most often lately, the first first.

    Those of a host: others tell nothing of theirs.
    """
    some = [
        one for one in _source(scope).statements() if database in (None, one.database)
    ]
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
        for one in heapq.nlargest(limit, some, key=lambda one: one.number)
    )


def slow_queries(
    limit: int = 20, scope: Scope | Source = "host", *, database: str | None = None
) -> tuple[SlowQuery, ...]:
    """The slowest reads of a host lately, the slowest first."""
    some = [one for one in _source(scope).slow() if database in (None, one.database)]
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
        for one in heapq.nlargest(limit, some, key=lambda one: one.seconds)
    )


def reset(*, database: str | None = None) -> None:
    """Count from 0 again, on this host; the history stays.

    Raises ``sqlite3.Error`` or ``OSError`` if the book cannot be changed.
    """
    keeping.flush()
    book = keeping.book()
    if book is None:
        return
    with book.writing(time.time()) as writer:
        writer.clear_totals(database)
        writer.clear_statements(database)
