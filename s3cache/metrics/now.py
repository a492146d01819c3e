"""The figures of this moment: all of them, or some."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any, Final

from django.db import Error

from s3cache import conf
from s3cache.metrics import fleet, keeping
from s3cache.metrics.figures import (
    CacheFigures,
    CacheNow,
    DatabaseFigures,
    HostFigures,
    Model,
    ProcessFigures,
    ReadFigures,
    Reads,
    RequestFigures,
    Scope,
    Snapshot,
    total,
)
from s3cache.metrics.histogram import Histogram
from s3cache.metrics.processes import caches_of, together
from s3cache.metrics.series import changes_of
from s3cache.metrics.source import Source, source_of
from s3cache.metrics.tally import EVICTIONS, SEPARATOR, replicas, tenants
from s3cache.replica import clock
from s3cache.replica.replica import Replica

__all__ = [
    "by_action",
    "caches",
    "changes",
    "databases",
    "hosts",
    "processes",
    "reads",
    "requests",
    "shares",
    "snapshot",
]


def snapshot(
    scope: Scope | Source = "fleet",
    *,
    database: str | None = None,
    models: Collection[str] | None = None,
) -> Snapshot:
    """All figures of this moment, of one database or of all.

    ``reads`` and ``models`` for those ``models`` (labels), None: for all.
    """
    source = source_of(scope)
    return Snapshot(
        scope=source.scope,
        taken_at=source.now,
        since=source.since,
        databases=databases(source, database=database),
        reads=reads(source, database=database, models=models),
        models=tuple(_models(source, database, models)),
        requests=requests(source, database=database),
        caches=caches(source),
        processes=processes(source),
        hosts=hosts(source),
        shares=shares(),
    )


# Parts of it, for whoever shows no more


def shares() -> bool:
    """Whether hosts tell each other what they count."""
    try:
        return fleet.shared_cache() is not None
    except Exception:
        # It is not configured right, as a check says.
        return False


def reads(
    scope: Scope | Source = "fleet",
    *,
    database: str | None = None,
    models: Collection[str] | None = None,
) -> tuple[ReadFigures, ...]:
    """``Snapshot.reads``."""
    source = source_of(scope)
    found = source.reads if models is None else source.reads_of(models)
    return tuple(
        ReadFigures(
            database=alias,
            model=model,
            action=action,
            partition=partition,
            reads=its,
        )
        for (alias, model), parts in sorted(found.items())
        if database in (None, alias)
        for what, its in sorted(parts.items())
        for action, _, partition in [what.partition(SEPARATOR)]
    )


def by_action(
    scope: Scope | Source = "fleet", *, database: str | None = None
) -> dict[tuple[str, str], Reads]:
    """The reads by model and action, whatever the database and partition."""
    sums: dict[tuple[str, str], Reads] = {}
    for (alias, model), parts in source_of(scope).reads.items():
        if database in (None, alias):
            for what, its in parts.items():
                key = model, what.partition(SEPARATOR)[0]
                sums[key] = sums[key] + its if key in sums else its
    return sums


def _models(
    source: Source, database: str | None, models: Collection[str] | None
) -> Iterable[Model]:
    changes = source.changes
    for alias, model in sorted(source.reads.keys() | changes.keys()):
        if database not in (None, alias):
            continue
        if models is not None and model not in models:
            continue
        yield Model(
            database=alias,
            model=model,
            reads=total(source.reads.get((alias, model), {}).values(), Reads()),
            changes=changes_of(changes.get((alias, model), {}), source.scope),
        )


def changes(
    model: str, scope: Scope | Source = "fleet", *, database: str | None = None
) -> int:
    """``Model.changes`` of one model, in all databases or one."""
    source = source_of(scope)
    return sum(
        changes_of(numbers, source.scope)
        for (alias, label), numbers in source.changes.items()
        if label == model and database in (None, alias)
    )


def requests(
    scope: Scope | Source = "fleet", *, database: str | None = None
) -> tuple[RequestFigures, ...]:
    """``Snapshot.requests``."""
    return tuple(
        RequestFigures(
            database=alias,
            kind=kind,
            number=int(numbers.get("number", 0)),
            failed=int(numbers.get("failed", 0)),
            seconds=numbers.get("seconds", 0.0),
            sent=int(numbers.get("sent", 0)),
            received=int(numbers.get("received", 0)),
            latency=Histogram(
                {int(w[1:]): int(n) for w, n in numbers.items() if w[0] == "b"}
            ),
        )
        for (of, alias, kind), numbers in sorted(source_of(scope).totals.items())
        if of == "request" and database in (None, alias)
    )


_EVENTS: Final = ("stale_reads", "commits", "transactions", "conflicts", "retries")


def databases(
    scope: Scope | Source = "fleet", *, database: str | None = None
) -> tuple[DatabaseFigures, ...]:
    """``Snapshot.databases``."""
    return tuple(_databases(source_of(scope), database))


def _databases(source: Source, database: str | None) -> Iterable[DatabaseFigures]:
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
        elsewhere = (host.positions.get(alias, 0) for _, host in source.hosts)
        newest = max([position, *elsewhere])
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


def caches(scope: Scope | Source = "fleet") -> tuple[CacheFigures, ...]:
    """``Snapshot.caches``."""
    return tuple(_caches(source_of(scope)))


def _caches(source: Source) -> Iterable[CacheFigures]:
    told = [(source.now, one) for one in caches_of(source.processes)]
    told += [(page.seen, one) for page, host in source.hosts for one in host.caches]
    for state in together(told, lambda one: not one.spans_hosts):
        numbers = source.totals.get(("cache", state.alias, state.tier), {})
        its = {what: int(number) for what, number in numbers.items()}
        yield CacheFigures(
            **{one.name: getattr(state, one.name) for one in fields(CacheNow)},
            evictions=_evictions(its),
            hits=its.get("hits", 0),
            misses=its.get("misses", 0),
            stale=its.get("stale", 0),
            errors=its.get("errors", 0),
        )


def _evictions(counts: Mapping[str, int]) -> dict[str, int]:
    """By cause: what no limit of bytes removed was for another reason."""
    causes = {cause: counts.get(cause, 0) for cause in EVICTIONS.values()}
    entries = causes.pop("evictions") - causes["memory"]
    causes = {"entries": entries, **causes}
    return {cause: number for cause, number in causes.items() if number > 0}


def processes(scope: Scope | Source = "fleet") -> tuple[ProcessFigures, ...]:
    """``Snapshot.processes``."""
    source, own = source_of(scope), keeping.own_name()
    host = source.host.host if source.host is not None else ""
    return tuple(
        ProcessFigures(
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
        for page, process in source.processes
    )


def hosts(scope: Scope | Source = "fleet") -> tuple[HostFigures, ...]:
    """``Snapshot.hosts``."""
    return tuple(_hosts(source_of(scope)))


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
