"""What a tally says of a minute or an hour: fewer numbers, by their names.

Those of a database are "hit", "GET", "commits" and so on, as in ``Point``; of
caches "evictions". Those of models are kept by the hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Final

from django.apps import apps
from django.db.models import Model

from s3cache.metrics.figures import Point, Reads, Scope
from s3cache.metrics.histogram import MOST_BUCKETS, Histogram
from s3cache.metrics.prices import Prices
from s3cache.metrics.tally import SEPARATOR, Groups, Tally
from s3cache.results.counters import EVENTS
from s3cache.stores.base import KINDS

__all__ = [
    "CACHES",
    "by_model",
    "by_series",
    "by_what",
    "changes_of",
    "label_of",
    "point",
    "reads_of",
    "sums_of",
]

#: What the buckets of caches, which belong to no database, are of.
CACHES: Final = ""

#: Of each event, in ``Reads``.
_PLACES: Final = {event: place for place, event in enumerate(EVENTS)}

_BUCKETS: Final = {f"b{number}": number for number in range(MOST_BUCKETS)}
_COUNTED: Final = frozenset(
    ["again", "changed", "commits", "conflicts", "moved", "retries"]
)


def by_series(tally: Tally) -> dict[str, dict[str, float]]:
    """The numbers of each database, and those of caches."""
    found: dict[str, dict[str, float]] = {}

    def add(of: str, name: str, number: float) -> None:
        numbers = found.setdefault(of, {})
        numbers[name] = numbers.get(name, 0) + number

    for (kind, of, *rest), number in tally.items():
        match kind, rest:
            case "read", [*_, event]:
                add(of, event, number)
            case "request", [its_kind, "number"]:
                add(of, its_kind, number)
            case "request", [_, what]:
                add(of, what, number)
            case "event", [name, _] if name in _COUNTED:
                add(of, name, number)
            case "cache", ["", "evictions"]:
                add(CACHES, "evictions", number)
    return found


def by_model(tally: Tally) -> dict[str, dict[str, dict[str, float]]]:
    """The reads and changes of each model, by database and model."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (kind, database, *rest), number in tally.items():
        match kind, rest:
            case "read", [model, *_, event]:
                what = event
            case "event", ["again" | "changed" | "moved" as what, table]:
                model = label_of(table)
            case _:
                continue
        numbers = found.setdefault(database, {}).setdefault(model, {})
        numbers[what] = numbers.get(what, 0) + number
    return found


def reads_of(numbers: Mapping[str, float]) -> Reads:
    """The reads among some numbers."""
    return Reads(*[int(numbers.get(name, 0)) for name in EVENTS])


def changes_of(numbers: Mapping[str, float], scope: Scope) -> int:
    """The changes of a table, or all, among some numbers.

    Each host applies what others commit, too: of all hosts together, it
    counts for the one that committed it.
    """
    own = numbers.get("changed", 0)
    of_others = numbers.get("moved", 0) - numbers.get("again", 0)
    return int(own if scope == "fleet" else own + of_others)


def point(
    start: float, numbers: Mapping[str, float], prices: Prices, scope: Scope
) -> Point:
    """What the numbers of one minute or hour say."""
    reads = reads_of(numbers)
    requests: dict[str, int] = {
        kind: int(numbers[kind]) for kind in KINDS if kind in numbers
    }
    known = numbers.get
    return Point(
        start=start,
        reads=reads,
        requests=requests,
        failed=int(known("failed", 0)),
        seconds=known("seconds", 0.0),
        sent=int(known("sent", 0)),
        received=int(known("received", 0)),
        commits=int(known("commits", 0)),
        conflicts=int(known("conflicts", 0)),
        retries=int(known("retries", 0)),
        changes=changes_of(numbers, scope),
        evictions=int(known("evictions", 0)),
        latency=Histogram(
            {
                _BUCKETS[name]: int(value)
                for name, value in numbers.items()
                if name in _BUCKETS
            }
        ),
        cost=prices.of(requests),
        saved=prices.of({"GET": reads.answered}),
    )


def sums_of(totals: Groups) -> tuple[dict[str, int], int]:
    """All reads by event, and the number of store requests."""
    reads = dict.fromkeys(EVENTS, 0)
    requests = 0
    for (kind, *_), numbers in totals.items():
        if kind == "read":
            for key, number in numbers.items():
                event = _split(key)[1]
                if event in reads:
                    reads[event] += int(number)
        elif kind == "request":
            requests += int(numbers.get("number", 0))
    return reads, requests


def by_what(some: Iterable[Mapping[str, float]]) -> dict[str, Reads]:
    """Reads of a model by action and partition in one, all together.

    Without events that this release does not know of.
    """
    found: dict[str, list[float]] = {}
    for numbers in some:
        for key, number in numbers.items():
            what, event = _split(key)
            if event in _PLACES:
                if what not in found:
                    found[what] = [0] * len(EVENTS)
                found[what][_PLACES[event]] += number
    return {what: Reads(*map(int, sums)) for what, sums in found.items()}


@lru_cache(maxsize=4096)  # the same few for all models
def _split(key: str) -> tuple[str, str]:
    """What was read, and what became of it."""
    what, _, event = key.rpartition(SEPARATOR)
    return what, event


def label_of(table: str) -> str:
    """The label of the model of a table, or the table's name."""
    model = _models().get(table)
    return table if model is None else model._meta.label_lower


@cache
def _models() -> Mapping[str, type[Model]]:
    return {
        model._meta.db_table.lower(): model
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy
    }
