"""The figures that pages, commands and endpoints show.

Plain values without behaviour beyond sums and shares: whoever shows them needs
to know nothing of where they come from. Moments are seconds since the epoch,
durations are seconds, sizes bytes, money dollars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeVar

from s3cache.metrics.histogram import Histogram
from s3cache.results.counters import Reads

__all__ = [
    "SCOPES",
    "SPANS",
    "Advice",
    "CacheFigures",
    "CacheNow",
    "DatabaseFigures",
    "History",
    "HostFigures",
    "Member",
    "Model",
    "ModelMoney",
    "Money",
    "Point",
    "ProcessFigures",
    "QueryFigures",
    "ReadFigures",
    "Reads",
    "RequestFigures",
    "Scope",
    "Snapshot",
    "Span",
    "SlowQuery",
    "total",
]

#: Whose numbers: this process's, its host's, or those of all hosts.
Scope = Literal["process", "host", "fleet"]
SCOPES: Final[tuple[Scope, ...]] = ("process", "host", "fleet")

#: A day by the minute, or a month (30 days) by the hour.
Span = Literal["day", "month"]
SPANS: Final[tuple[Span, ...]] = ("day", "month")

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


_T = TypeVar("_T", Reads, Histogram)


def total(numbers: Iterable[_T], nothing: _T) -> _T:
    """The sum of ``numbers``."""
    return sum(numbers, nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFigures:
    """The reads of one model by one action.

    ``model`` is a label in lower case, or "sql" for SQL that was written by
    hand; ``action`` one of get, list, page, count, exists, aggregate, query.
    ``partition`` is the name of the partition of ``S3Meta`` that the reads
    were confined to, or "".
    """

    database: str
    model: str
    action: str
    partition: str = ""
    reads: Reads = Reads()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: its reads, and what became of its cached results.

    ``changes`` are the commits that changed its rows, whoever made them. Each
    of them invalidated the results that depended on those rows.
    ``saved_requests`` are the reads that the cache answered: each would have
    been one GET, at the least, without it.
    """

    database: str
    model: str
    reads: Reads = Reads()
    changes: int = 0

    @property
    def saved_requests(self) -> int:
        """Reads that were answered without any work, for one GET each."""
        return self.reads.answered


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFigures:
    """The requests of one kind to one database's store.

    ``kind`` is GET, PUT, LIST or DELETE. ``failed`` are those without an
    answer, and with 5xx. ``sent`` and ``received`` are bytes of bodies.
    """

    database: str
    kind: str
    number: int = 0
    failed: int = 0
    seconds: float = 0.0
    sent: int = 0
    received: int = 0
    latency: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheNow:
    """One cache of ``CACHES`` that keeps statistics, or a part of it, now.

    ``tier`` is the alias of the tier or shard of a composed cache, and "" for
    the cache as a whole.
    """

    alias: str
    driver: str
    tier: str = ""
    size: int | None = None
    """Entries; None where counting them costs too much."""
    max_size: int | None = None
    memory: int | None = None
    """Bytes; None where they are not known."""
    max_memory: int | None = None
    ttl: float | None = None
    state: str = "closed"
    """Of a tier: "open" and "half-open" mean that it keeps failing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFigures(CacheNow):
    """The same with what has happened to it.

    Of a cache in the memory of each process, sizes and limits are the sums
    over the processes.
    """

    hits: int = 0
    misses: int = 0
    stale: int = 0
    errors: int = 0
    evictions: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    """By cause: "entries", "memory", "expired", "rejected", "undecodable"."""

    @property
    def hit_rate(self) -> float:
        """The share of hits, 0.0 if nothing was asked."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFigures:
    """Where one database's replica is, and what was committed."""

    database: str
    """The alias."""
    store: str
    """For people: ``s3://bucket/location``, or the directory."""
    position: int = 0
    """The last log entry that the replica has applied."""
    lag: int = 0
    """Entries that other hosts are known to have, and this one not yet."""
    asked_ago: float | None = None
    """Seconds since the store was last asked with success; None: never."""
    is_stale: bool = False
    """Older than ``max_age`` because the store does not answer."""
    stale_reads: int = 0
    """Times that a read had to do with what the replica knew before."""
    commits: int = 0
    """Entries that were created here."""
    transactions: int = 0
    """Transactions in them."""
    conflicts: int = 0
    """Blocks that raised ``TransactionConflict``."""
    retries: int = 0
    """Times that a commit found its number taken, and went on to the next."""
    unpacked: int | None = None
    """Entries since the newest catalog that this host knows of."""
    unrecorded: int | None = None
    """Entries whose records are not written, as far as this host knows."""
    replica_bytes: int = 0
    """The file with its WAL."""
    is_many: bool = False
    """All databases of tenants together: they are at no one position."""
    lacking_packs: int = 0
    """Packs that this replica has not loaded, for nobody asked for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process or a host, as far as it has told of itself."""

    host: str
    seen: float
    """When it last did."""
    reads: Reads = Reads()
    requests: int = 0
    memory: int | None = None
    """Resident bytes; None where they are not known."""
    is_this: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFigures(Member):
    """One process of a host."""

    pid: int
    command: str
    """What runs in it, in a word or two."""
    started: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFigures(Member):
    """One host."""

    processes: int = 0
    positions: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    """By database."""
    lag: int = 0
    """Entries that it lacks, of all databases."""
    replica_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFigures:
    """One statement, without its parameters, and how often it was read."""

    database: str
    model: str
    action: str
    sql: str
    tables: tuple[str, ...] = ()
    reads: Reads = Reads()
    cache_seconds: float = 0.0
    """What the hits took, in all; label CACHE."""
    db_seconds: float = 0.0
    """What the others took, in all; label DB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowQuery:
    """One execution that took long: SQL without parameters."""

    database: str
    sql: str
    tables: tuple[str, ...]
    """What its result depends on."""
    source: Literal["CACHE", "DB"]
    seconds: float
    rows: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What is not as good as it could be, and what to try.

    ``kind`` is one of ``low``, ``none``, ``writes``, ``unrepeated``,
    ``large`` and ``slow``; see the reference page.
    """

    database: str
    model: str
    kind: str
    hit_rate: float
    message: str
    """A sentence for people, translated when it is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All figures of one moment."""

    scope: Scope
    taken_at: float
    since: float
    """When counting began: at the first start, or the last reset."""
    databases: tuple[DatabaseFigures, ...] = ()
    reads: tuple[ReadFigures, ...] = ()
    """By database, model, action and partition, in this order."""
    models: tuple[Model, ...] = ()
    """Sums of them, with what changed; by database and model."""
    requests: tuple[RequestFigures, ...] = ()
    caches: tuple[CacheFigures, ...] = ()
    processes: tuple[ProcessFigures, ...] = ()
    """Of this host alone."""
    hosts: tuple[HostFigures, ...] = ()
    """Those that share a cache with this one, and this one."""
    shares: bool = False
    """Whether hosts tell each other, through a cache that they share."""

    @property
    def all_reads(self) -> Reads:
        """The sum over all of them."""
        return total((one.reads for one in self.models), Reads())

    @property
    def all_requests(self) -> int:
        """The number of store requests of all kinds."""
        return sum(one.number for one in self.requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What happened within one minute or hour that began at ``start``."""

    start: float
    reads: Reads = Reads()
    requests: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    """By kind."""
    failed: int = 0
    seconds: float = 0.0
    """Of all requests together."""
    sent: int = 0
    received: int = 0
    commits: int = 0
    conflicts: int = 0
    retries: int = 0
    changes: int = 0
    evictions: int = 0
    latency: Histogram = field(default_factory=Histogram)
    """Of all requests."""
    cost: float = 0.0
    """Of the requests, in dollars."""
    saved: float = 0.0
    """What the reads that the cache answered would have cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A series: one point for each step in which anything happened.

    Times without a point are times in which nothing did, or in which no
    process was there.
    """

    scope: Scope
    span: Span
    step: float
    """Seconds: 60 or 3,600."""
    start: float
    end: float
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMoney:
    """What one model costs and saves, in dollars."""

    database: str
    model: str
    saved_today: float = 0.0
    """What today's reads that the cache answered would have cost."""
    saved_requests_today: int = 0
    month: float = 0.0
    """Its share of a month at the current rates: of PUTs by its changes, of
    GETs and LISTs by its reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """What was paid and saved, at the prices of ``S3CACHE["PRICES"]``."""

    scope: Scope
    source: str
    """Where the prices are from, with the date."""
    spent: float = 0.0
    """Requests since ``Snapshot.since``."""
    saved: float = 0.0
    """What the reads that the cache answered would have cost since then."""
    spent_today: float = 0.0
    saved_today: float = 0.0
    """Today begins at midnight in Django's current time zone."""
    month: float = 0.0
    """Requests of 30 days at the rates of the last hour."""
    saved_month: float = 0.0
    models: tuple[ModelMoney, ...] = ()
