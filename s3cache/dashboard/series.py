"""The history in steps that fit a chart, and the charts of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from s3cache.dashboard import numbers
from s3cache.dashboard.charts import Chart, Series
from s3cache.dashboard.selection import Period, Selection
from s3cache.metrics import show
from s3cache.metrics.book import DAY, HOUR, MINUTE, MONTH, QUARTER, SIX_HOURS
from s3cache.metrics.figures import History, Point, Span
from s3cache.metrics.histogram import Histogram
from s3cache.metrics.source import Source

__all__ = ["Slot", "Table", "charts_of", "history_of", "slots", "table_of"]

#: Of each period: what to ask for, how long it is, and a step of a chart.
_PERIODS: Final[dict[Period, tuple[Span, int, int]]] = {
    "hour": ("day", HOUR, MINUTE),
    "day": ("day", DAY, QUARTER),
    "month": ("month", MONTH, SIX_HOURS),
}

KINDS: Final = ("GET", "LIST", "PUT", "DELETE")


@dataclass(slots=True)
class Slot:
    """What happened in one step of a chart, which began at ``start``."""

    start: float
    is_known: bool = False
    hits: int = 0
    misses: int = 0
    bypasses: int = 0
    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    failed: int = 0
    cost: float = 0.0
    saved: float = 0.0
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, point: Point) -> None:
        """Let what happened within a minute or an hour be a part of it."""
        reads = point.reads
        self.is_known = True
        self.hits += reads.hit + reads.wait
        self.misses += reads.miss
        self.bypasses += reads.bypass
        for kind, number in point.requests.items():
            self.requests[kind] = self.requests.get(kind, 0) + number
        self.failed += point.failed
        self.cost += point.cost
        self.saved += point.saved
        mine = self.buckets
        for bucket, number in point.latency.counts.items():
            mine[bucket] = mine.get(bucket, 0) + number

    @property
    def hit_rate(self) -> float | None:
        """The share of hits; None if nothing was asked."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None

    def latency(self, percent: float) -> float | None:
        """A percentile of the store's answers; None without any."""
        return Histogram(self.buckets).percentile(percent) if self.buckets else None


@dataclass(frozen=True, slots=True)
class Table:
    """The figures of charts, for those who read rather than look."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


def history_of(
    source: Source, selection: Selection, model: str | None = None
) -> History:
    """What a chart of that period shows, and no more."""
    span, length, step = _PERIODS[selection.period]
    return show.history(
        span,
        source,
        database=selection.database,
        model=model,
        since=source.now - length,
        step=step,
    )


def slots(history: History, period: Period) -> list[Slot]:
    """
    The steps of a period, the newest last; empty ones included.

    They begin at whole multiples of their length, so that a page that is
    shown again does not draw all of them anew.
    """
    _span, length, step = _PERIODS[period]
    step = max(step, int(history.step))
    newest = history.end // step * step
    count = length // step
    first = newest - (count - 1) * step
    found = [Slot(first + index * step) for index in range(count)]
    for point in history.points:
        index = int((point.start - first) // step)
        if 0 <= index < count:
            found[index].add(point)
    return found


def _values(steps: Sequence[Slot], of: Callable[[Slot], float]) -> list[float | None]:
    return [of(one) if one.is_known else None for one in steps]


def charts_of(steps: Sequence[Slot], *, requests: bool = True) -> list[Chart]:
    """The charts of an overview; without `requests` those of one model.

    Nobody knows which model a request is for, or what it was spent on.
    """
    begin, end = _edges(steps)
    hits, misses = sum(s.hits for s in steps), sum(s.misses for s in steps)
    asked = hits + misses
    charts = [
        Chart(
            name="hit-rate",
            title=_("Hit rate"),
            series=[Series(_("Hit rate"), [one.hit_rate for one in steps], 1)],
            text=_whole_percent,
            first=begin,
            last=end,
            fixed_top=1.0,
            summary=_("%(share)s of %(number)s reads were answered from the cache.")
            % {
                "share": numbers.percent(hits / asked if asked else 0.0),
                "number": numbers.number(asked),
            },
        ),
        Chart(
            name="reads",
            title=_("Reads"),
            series=[
                Series(_("Hits"), _values(steps, lambda one: one.hits), 1),
                Series(_("Misses"), _values(steps, lambda one: one.misses), 2),
                Series(
                    _("Past the cache"), _values(steps, lambda one: one.bypasses), 4
                ),
            ],
            text=numbers.short,
            first=begin,
            last=end,
            bars=True,
            summary=_("%(hits)s hits, %(misses)s misses.")
            % {"hits": numbers.number(hits), "misses": numbers.number(misses)},
        ),
    ]
    if requests:
        charts += [_requests(steps, begin, end), _latency(steps, begin, end)]
    charts.append(_money(steps, begin, end, spent=requests))
    return charts


def _requests(steps: Sequence[Slot], begin: str, end: str) -> Chart:
    totals = {kind: sum(one.requests[kind] for one in steps) for kind in KINDS}
    return Chart(
        name="requests",
        title=_("Store requests"),
        series=[
            Series(
                kind,
                [one.requests[kind] if one.is_known else None for one in steps],
                colour,
            )
            for kind, colour in zip(KINDS, (3, 4, 2, 5), strict=True)
        ],
        text=numbers.short,
        first=begin,
        last=end,
        bars=True,
        summary=", ".join(
            f"{numbers.number(count)} {kind}" for kind, count in totals.items() if count
        )
        or _("No requests."),
    )


def _latency(steps: Sequence[Slot], begin: str, end: str) -> Chart:
    usual = [one.latency(50) for one in steps]
    slow = [one.latency(99) for one in steps]
    known = [value for value in slow if value is not None]
    return Chart(
        name="latency",
        title=_("Latency of the store"),
        series=[
            Series(_("Median"), usual, 3),
            Series(_("99 of 100"), slow, 2),
        ],
        text=numbers.duration,
        first=begin,
        last=end,
        summary=_("99 of 100 requests took at most %(time)s.")
        % {"time": numbers.duration(max(known))}
        if known
        else _("No requests."),
    )


def _money(steps: Sequence[Slot], begin: str, end: str, *, spent: bool) -> Chart:
    series = [Series(_("Saved"), _values(steps, lambda one: one.saved), 1)]
    saved = numbers.money(sum(one.saved for one in steps))
    summary = _("%(saved)s saved.") % {"saved": saved}
    if spent:
        cost = numbers.money(sum(one.cost for one in steps))
        series.append(Series(_("Spent"), _values(steps, lambda one: one.cost), 2))
        summary = _("%(saved)s saved, %(spent)s spent.") % {
            "saved": saved,
            "spent": cost,
        }
    return Chart(
        name="money",
        title=_("Money"),
        series=series,
        text=numbers.money,
        first=begin,
        last=end,
        summary=summary,
    )


def table_of(steps: Sequence[Slot]) -> Table:
    """What the charts show, the newest first."""
    written = numbers.signs()
    known = [one for one in reversed(steps) if one.is_known]
    times = numbers.clock_times(one.start for one in known)
    return Table(
        columns=[
            _("Time"),
            _("Hits"),
            _("Misses"),
            _("Past the cache"),
            _("Hit rate"),
            *KINDS,
            _("Median"),
            _("99 of 100"),
            _("Saved"),
            _("Spent"),
        ],
        rows=[
            (
                time,
                [
                    *map(str, (one.hits, one.misses, one.bypasses)),
                    numbers.percent(one.hit_rate, written),
                    *[str(one.requests[kind]) for kind in KINDS],
                    numbers.duration(one.latency(50), written),
                    numbers.duration(one.latency(99), written),
                    numbers.money(one.saved, written),
                    numbers.money(one.cost, written),
                ],
            )
            for time, one in zip(times, known, strict=True)
        ],
    )


def _whole_percent(share: float) -> str:
    return _("%(number)s%%") % {"number": numbers.number(share * 100)}


def _edges(steps: Sequence[Slot]) -> tuple[str, str]:
    """The times of the first and of the last step."""
    if not steps:
        return "", ""
    zone = timezone.get_current_timezone()
    first, last = (
        datetime.fromtimestamp(one.start, zone) for one in (steps[0], steps[-1])
    )
    if last.timestamp() - first.timestamp() > 2 * 86_400:
        return (
            date_format(first, "SHORT_DATE_FORMAT"),
            date_format(last, "SHORT_DATE_FORMAT"),
        )
    return f"{first:%H:%M}", f"{last:%H:%M}"
