"""The functions that return figures; see ``s3cache.metrics.figures``.

Each takes a scope, or what ``gather`` returns for one: several of them that
are shown together are then of the same moment, and cost less.

None of them asks the store, and none raises because a source is missing: what
is not known is 0, None or left out. What this process has counted is in what
they return, up to now; what others have, up to when they last added it: a few
seconds ago, or before they had nothing to do any more.
"""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Final

from django.utils import timezone
from msgspec.structs import asdict

from s3cache import conf
from s3cache.metrics import keeping
from s3cache.metrics.advice import advise
from s3cache.metrics.book import DAY, HOUR, MINUTE, MONTH, QUARTER, SIX_HOURS
from s3cache.metrics.figures import (
    Advice,
    History,
    ModelMoney,
    Money,
    QueryFigures,
    Reads,
    Scope,
    SlowQuery,
    Span,
)
from s3cache.metrics.now import (
    by_action,
    caches,
    changes,
    databases,
    hosts,
    processes,
    reads,
    requests,
    shares,
    snapshot,
)
from s3cache.metrics.prices import current
from s3cache.metrics.series import CACHES, point
from s3cache.metrics.sizes import rows_of
from s3cache.metrics.source import Source, gather, source_of
from s3cache.metrics.tally import add_to
from s3cache.results.queries import Statement

__all__ = [
    "advice",
    "by_action",
    "caches",
    "changes",
    "databases",
    "gather",
    "history",
    "hosts",
    "model_money",
    "money",
    "processes",
    "reads",
    "requests",
    "reset",
    "saved_today",
    "shares",
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
    source = source_of(scope)
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
    source = source_of(scope)
    prices = current()
    aliases = _databases_of(database)
    # Midnight is at a quarter of an hour everywhere.
    today = source.paid(QUARTER, aliases, _midnight() + QUARTER - 1)
    lately = source.paid(MINUTE, aliases, source.now - _RATE)
    factor = _factor(source)
    made: dict[str, float] = defaultdict(float)
    for (kind, of, name), numbers in source.totals.items():
        if kind == "request" and of in aliases:
            made[name] += numbers.get("number", 0)
    answered = sum(
        its.answered
        for (of, _), parts in source.reads.items()
        if of in aliases
        for its in parts.values()
    )
    return Money(
        scope=source.scope,
        source=prices.source,
        spent=prices.of(made),
        saved=prices.of({"GET": answered}),
        spent_today=prices.of(asdict(today)),
        saved_today=prices.of({"GET": today.hit + today.wait}),
        month=prices.of(asdict(lately)) * factor,
        saved_month=prices.of({"GET": lately.hit + lately.wait}) * factor,
        models=model_money(source, database=database, models=models),
    )


def model_money(
    scope: Scope | Source = "fleet",
    *,
    database: str | None = None,
    models: Collection[str] | None = None,
) -> tuple[ModelMoney, ...]:
    """``Money.models``."""
    if models is not None and not models:
        return ()
    source = source_of(scope)
    return tuple(
        one
        for alias in _databases_of(database)
        for one in _model_money(source, alias, models)
    )


def saved_today(
    scope: Scope | Source = "fleet", *, database: str | None = None
) -> dict[str, float]:
    """``ModelMoney.saved_today`` by model, whatever the database."""
    source, prices, midnight = source_of(scope), current(), _midnight()
    sums: dict[str, float] = {}
    for alias in _databases_of(database):
        add_to(sums, source.answered_since(alias, midnight))
    return {model: prices.of({"GET": int(number)}) for model, number in sums.items()}


def _model_money(
    source: Source, alias: str, models: Collection[str] | None
) -> Iterable[ModelMoney]:
    prices, midnight, factor = current(), _midnight(), _factor(source)
    paid = source.paid(MINUTE, [alias], source.now - _RATE)
    writing = prices.of({"PUT": paid.PUT}) * factor
    asking = prices.of({"GET": paid.GET, "LIST": paid.LIST}) * factor
    lately = source.lately(alias)
    changed = {model: its.changes for model, its in lately.items()}
    read = {model: its.number for model, its in lately.items()}
    all_changes, all_reads = sum(changed.values()), sum(read.values())
    if models is None:
        today = source.answered_since(alias, midnight)
    else:
        today = {
            one: source.model_answered_since(alias, midnight, one) for one in models
        }
    for model in sorted(today.keys() | (lately.keys() if models is None else ())):
        answered = int(today.get(model, 0))
        month = 0.0
        if all_changes:
            month += writing * changed.get(model, 0) / all_changes
        if all_reads:
            month += asking * read.get(model, 0) / all_reads
        yield ModelMoney(
            database=alias,
            model=model,
            saved_today=prices.of({"GET": answered}),
            saved_requests_today=answered,
            month=month,
        )


def _midnight() -> float:
    """When today began, in Django's current time zone."""
    now = timezone.localtime()
    return now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def _factor(source: Source) -> float:
    """How many times as long as what the rates are of a month is."""
    return MONTH / min(max(source.now - source.began, _LEAST), _RATE)


# What to look at


def advice(
    scope: Scope | Source = "fleet",
    *,
    database: str | None = None,
    models: Collection[str] | None = None,
) -> tuple[Advice, ...]:
    """What to try, the worst first; by the reads of the last hour or two.

    For those ``models`` (labels), None: for all.
    """
    source = source_of(scope)
    limit = conf.settings().slow_query
    slow = {one.label for one in source.statements(100, None) if _is_slow(one, limit)}
    found: list[Advice] = []
    for alias in _databases_of(database):
        lately = source.lately(alias)
        if models is not None:
            lately = {one: lately[one] for one in models if one in lately}
        found.extend(advise(alias, lately, slow, partial(rows_of, alias)))
    return tuple(sorted(found, key=lambda one: (one.hit_rate, one.model, one.kind)))


def _is_slow(one: Statement, limit: float) -> bool:
    number = one.events.get("miss", 0) + one.events.get("bypass", 0)
    return number > 0 and one.db_seconds / number >= limit


def top_queries(
    limit: int = 20, scope: Scope | Source = "host", *, database: str | None = None
) -> tuple[QueryFigures, ...]:
    """The statements that were read most often lately, the first first.

    Those of a host: others tell nothing of theirs.
    """
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
        for one in source_of(scope).statements(limit, database)
    )


def slow_queries(
    limit: int = 20, scope: Scope | Source = "host", *, database: str | None = None
) -> tuple[SlowQuery, ...]:
    """The slowest reads of a host lately, the slowest first."""
    some = [one for one in source_of(scope).slow() if database in (None, one.database)]
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
