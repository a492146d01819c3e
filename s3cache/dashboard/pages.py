"""What each page of the statistics shows: figures, ready for a template."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from types import MappingProxyType
from typing import Any, Final, Literal, cast
from urllib.parse import urlencode

from django.apps import apps
from django.contrib.admin.utils import quote
from django.core.paginator import Paginator
from django.db import connections
from django.db.models import Model as DjangoModel
from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from s3cache import conf
from s3cache.dashboard import numbers
from s3cache.dashboard.commits import UNUSABLE
from s3cache.dashboard.selection import Selection
from s3cache.dashboard.series import Slot, charts_of, history_of, slots, table_of
from s3cache.db.base import DatabaseWrapper
from s3cache.metrics import show
from s3cache.metrics.figures import (
    CacheFigures,
    DatabaseFigures,
    Money,
    Reads,
)

logger = logging.getLogger("s3cache.dashboard")

__all__ = ["caches", "hosts", "model", "models", "overview", "queries"]

Context = dict[str, Any]

#: A model's label and an action, and what became of those reads.
_Found = tuple[tuple[str, str], Reads]

#: Rows of one page of a long table.
ROWS: Final = 50

#: Rows of what an overview shows of a long table.
FEW: Final = 6

#: Characters of a statement that are shown at once.
SHORT: Final = 120

#: Reads below which a hit rate says nothing yet.
ENOUGH: Final = 10

#: Entries that a replica may lack before it is worth a word.
LAG: Final = 50


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of an overview, large."""

    label: str
    value: str
    note: str = ""
    state: Literal["", "good", "bad"] = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not as it should be."""

    text: str
    is_bad: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """
    The reads of one model by one action.

    ``address`` is that of its page, relative to that of all models;
    ``figures`` are the numbers behind the hit rate, and what else there is.
    """

    label: str
    name: str
    action: str
    reads: Reads
    figures: Sequence[str]
    address: str = ""
    advice: str = ""


def overview(selection: Selection, *, with_table: bool = False) -> Context:
    """The figures that matter most, over time, and what to look at."""
    unusable = _look_for_news(selection)
    source = show.gather(selection.scope)
    databases = show.databases(source, database=selection.database)
    money = show.money(source, database=selection.database, models=())
    steps = slots(history_of(source, selection), selection.period)
    advice = show.advice(source, database=selection.database)
    reads = show.by_action(source, database=selection.database).items()
    worst = [one for one in nsmallest(FEW, reads, _by_rate) if one[1].asked >= ENOUGH]
    return {
        "tiles": list(_tiles(databases, money, steps)),
        "findings": [*unusable, *_findings(databases, show.caches(source))],
        "charts": charts_of(steps),
        "table": table_of(steps) if with_table else None,
        "worst": list(_rows(selection, worst)),
        "advice": [(_name(one.model), one) for one in advice[:FEW]],
        "prices": money.source,
        "since": source.since,
    }


def models(selection: Selection, query: QueryDict) -> Context:
    """Reads by model and action, the worst hit rates first."""
    source = show.gather(selection.scope)
    saved = show.saved_today(source, database=selection.database)
    advice = show.advice(source, database=selection.database)
    hints: dict[str, list[str]] = {}
    for told in advice:
        hints.setdefault(told.model, []).append(told.message)
    found = list(show.by_action(source, database=selection.database).items())
    names = {label: _name(label) for label in {label for (label, _), _ in found}}
    text = query.get("q", "").strip()
    if text:
        found = [
            (key, reads)
            for key, reads in found
            if text.lower() in f"{' '.join(key)} {names[key[0]]}".lower()
        ]
    order = query.get("order", "")
    if order not in ORDERS:
        order = "rate"
    keys: dict[str, Callable[[_Found], Any]] = {
        "rate": _by_rate,
        "reads": lambda one: -one[1].number,
        "misses": lambda one: -one[1].miss,
        "saved": lambda one: -saved.get(one[0][0], 0.0),
        "name": lambda one: (names[one[0][0]].lower(), one[0][1]),
    }
    found.sort(key=keys[order])
    page = Paginator(found, ROWS).get_page(query.get("p"))
    return {
        "rows": list(_rows(selection, page, hints, saved)),
        "page": page,
        "text": text,
        "order": order,
        "orders": [(name, label, name == order) for name, label in ORDERS.items()],
        "kept": urlencode({"q": text, "order": order}),
    }


def model(
    selection: Selection, label: str, *, with_table: bool = False
) -> Context | None:
    """All about one model; None if there is none of this label."""
    found = _model(label)
    if found is not None:
        label = found._meta.label_lower
    if selection.period == "hour":
        # Of one model there are figures by the hour.
        selection = replace(selection, period="day")
    source = show.gather(selection.scope)
    reads = show.reads(source, database=selection.database, models=[label])
    if found is None and not reads:
        return None
    mine = show.model_money(source, database=selection.database, models=[label])
    steps = slots(history_of(source, selection, label), selection.period)
    advice = show.advice(source, database=selection.database, models=[label])
    total = sum((one.reads for one in reads), Reads())
    changes = show.changes(label, source, database=selection.database)
    options = getattr(found, "_s3meta", None)
    written = numbers.signs()
    return {
        "selection": selection,
        "label": label,
        "name": _name(label),
        "tiles": [
            Tile(
                _("Hit rate"),
                numbers.percent(total.hit_rate if total.asked else None),
                _("since counting began"),
            ),
            Tile(_("Reads"), numbers.number(total.number)),
            Tile(_("Changes"), numbers.number(changes), _("commits with its rows")),
            Tile(
                _("Saved today"),
                numbers.money(sum(one.saved_today for one in mine)),
                _requests(sum(one.saved_requests_today for one in mine)),
            ),
            Tile(
                _("Cost of a month"),
                numbers.money(sum(one.month for one in mine)),
                _("at the current rate"),
            ),
        ],
        "advice": advice,
        "rows": [
            Row(
                label,
                one.partition or _("all rows"),
                one.action,
                one.reads,
                [
                    *_counts(one.reads, written),
                    numbers.number(one.reads.stale, 0, written),
                ],
            )
            for one in sorted(reads, key=lambda one: _by_rate(("", one.reads)))
        ],
        "charts": charts_of(steps, requests=False),
        "table": table_of(steps) if with_table else None,
        "is_in_a_bucket": found is not None
        and found._base_manager.db in conf.bucket_aliases(),
        "partitions": getattr(options, "partitions", {}) or {},
    }


def caches(selection: Selection) -> Context:
    """The caches with their tiers or shards."""
    by_alias: dict[str, list[CacheFigures]] = {}
    for one in show.caches(selection.scope):
        by_alias.setdefault(one.alias, []).append(one)
    return {"caches": by_alias}


def hosts(selection: Selection) -> Context:
    """Databases, hosts, and the processes of this host."""
    unusable = _look_for_news(selection)
    source = show.gather(selection.scope)
    now = source.now
    return {
        "findings": unusable,
        "databases": show.databases(source, database=selection.database),
        "hosts": [(one, now - one.seen) for one in show.hosts(source)],
        "processes": [
            (one, now - one.started, now - one.seen) for one in show.processes(source)
        ],
        "requests": [
            (one, one.latency.percentile(50), one.latency.percentile(99))
            for one in show.requests(source, database=selection.database)
        ],
        "shares": show.shares(),
    }


def queries(selection: Selection) -> Context:
    """The slowest reads, and those that were made most often."""
    source = show.gather("host")
    slow = show.slow_queries(ROWS // 2, source, database=selection.database)
    top = show.top_queries(ROWS // 2, source, database=selection.database)
    return {
        "slow": [(one, _in_short(one.sql)) for one in slow],
        "top": [(one, _in_short(one.sql)) for one in top],
    }


def _in_short(sql: str) -> str:
    """A statement without its columns, if it is long, and its end."""
    if len(sql) <= SHORT:
        return sql
    sql = re.sub(r"^(SELECT (?:DISTINCT )?).*? FROM ", r"\1… FROM ", sql, flags=re.S)
    return sql if len(sql) <= SHORT else f"{sql[:SHORT]}…"


# Orders of the table of models

ORDERS: Final[Mapping[str, str | Promise]] = {
    "rate": gettext_lazy("Worst hit rate"),
    "reads": gettext_lazy("Most reads"),
    "misses": gettext_lazy("Most misses"),
    "saved": gettext_lazy("Most saved"),
    "name": gettext_lazy("Name"),
}


def _by_rate(one: tuple[object, Reads]) -> tuple[bool, float, int]:
    """What comes first by its hit rate: of too few reads it says nothing."""
    reads = one[1]
    asked = reads.asked
    rate = reads.answered / asked if asked else 2.0
    return asked < ENOUGH, rate, -reads.number


def _rows(
    selection: Selection,
    found: Iterable[_Found],
    hints: Mapping[str, Sequence[str]] = MappingProxyType({}),
    saved: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[Row]:
    """What a page shows of the reads by model and action."""
    query, written = selection.query, numbers.signs()
    for (label, action), reads in found:
        money = numbers.money(saved.get(label), written)
        yield Row(
            label,
            _name(label),
            action,
            reads,
            [*_counts(reads, written), money],
            f"{quote(label)}/{query}",
            " ".join(hints.get(label, ())),
        )


def _counts(reads: Reads, written: numbers.Signs) -> Iterator[str]:
    """What a hit rate is made of."""
    for count in (reads.number, reads.answered, reads.miss, reads.bypass):
        yield numbers.number(count, 0, written)


# Parts of the overview


def _tiles(
    databases: Sequence[DatabaseFigures], money: Money, steps: Sequence[Slot]
) -> Iterator[Tile]:
    hits, misses = sum(s.hits for s in steps), sum(s.misses for s in steps)
    asked = hits + misses
    rate = hits / asked if asked else None
    yield Tile(
        _("Hit rate"),
        numbers.percent(rate),
        _("of %(number)s reads") % {"number": numbers.number(asked)},
        "" if rate is None else "good" if rate >= 0.8 else "bad" if rate < 0.5 else "",
    )
    requests = sum(sum(one.requests.values()) for one in steps)
    failed = sum(one.failed for one in steps)
    yield Tile(
        _("Store requests"),
        numbers.number(requests),
        ngettext("%(number)s failed", "%(number)s failed", failed)
        % {"number": numbers.number(failed)},
        "bad" if failed else "",
    )
    together = Slot(0.0)
    for one in steps:
        for bucket, number in one.buckets.items():
            together.buckets[bucket] = together.buckets.get(bucket, 0) + number
    yield Tile(
        _("Latency"),
        numbers.duration(together.latency(50)),
        _("99 of 100 within %(time)s")
        % {"time": numbers.duration(together.latency(99))},
    )
    yield Tile(
        _("Saved today"),
        numbers.money(money.saved_today),
        _("%(spent)s spent") % {"spent": numbers.money(money.spent_today)},
    )
    yield Tile(
        _("A month like this"),
        numbers.money(money.month),
        _("%(saved)s without the cache")
        % {"saved": numbers.money(money.month + money.saved_month)},
    )
    lag = max((one.lag for one in databases), default=0)
    asked_ago = max(
        (one.asked_ago for one in databases if one.asked_ago is not None),
        default=None,
    )
    yield Tile(
        _("Entries behind the log"),
        numbers.number(lag),
        _("asked %(time)s ago") % {"time": numbers.ago(asked_ago)}
        if asked_ago is not None
        else "",
        "bad" if lag > LAG else "",
    )


def _findings(
    databases: Sequence[DatabaseFigures], caches: Sequence[CacheFigures]
) -> Iterator[Finding]:
    for one in databases:
        yield from _of_database(one)
    for cache in caches:
        name = f"{cache.alias} / {cache.tier}" if cache.tier else cache.alias
        if cache.state != "closed":
            yield Finding(
                _("The cache %(name)s keeps failing and is passed over.")
                % {"name": name}
            )
        elif cache.errors:
            yield Finding(
                _("The cache %(name)s failed %(number)s times.")
                % {"name": name, "number": numbers.number(cache.errors)},
                is_bad=False,
            )


def _look_for_news(selection: Selection) -> list[Finding]:
    """Do what a read does first, so that "asked long ago" means "in vain".

    Returns which databases could not even be read as they were.
    """
    found = []
    for alias in conf.bucket_aliases():
        if selection.database in (None, alias):
            try:
                cast(DatabaseWrapper, connections[alias]).refresh()
            except UNUSABLE as error:
                # What it says may name a bucket: that is for the log.
                logger.warning("%s cannot be asked for news: %s", alias, error)
                text = _("The database %(name)s cannot be read: %(error)s.")
                its = {"name": alias, "error": type(error).__name__}
                found.append(Finding(text % its))
    return found


def _of_database(one: DatabaseFigures) -> Iterator[Finding]:
    if one.is_stale:
        yield Finding(
            _(
                "The store of %(name)s does not answer: reads are older than they "
                "may be."
            )
            % {"name": one.database}
        )
    if one.lag > LAG:
        yield Finding(
            _("The replica of %(name)s lacks %(number)s entries of the log.")
            % {"name": one.database, "number": numbers.number(one.lag)},
            is_bad=False,
        )


def _requests(count: int) -> str:
    return ngettext("%(number)s request", "%(number)s requests", count) % {
        "number": numbers.number(count)
    }


def _model(label: str) -> type[DjangoModel] | None:
    try:
        return apps.get_model(label)
    except (LookupError, ValueError):
        return None


def _name(label: str) -> str:
    """What people call a model; its label if there is none."""
    label, _at, namespace = label.partition("@")
    found = _model(label)
    if found is not None:
        name = str(found._meta.verbose_name_plural)
    else:
        name = _("SQL written by hand") if label == "sql" else label
    return f"{name} ({namespace})" if namespace else name
