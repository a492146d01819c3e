"""Figures for programs: as JSON, and as measures with labels.

Labels are bounded: databases, models, actions, events, kinds of requests,
caches and tiers. Never a key, a value or a statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from s3cache.metrics.figures import Advice, Money, Reads, Snapshot
from s3cache.metrics.histogram import Histogram

__all__ = ["BOUNDS", "Measure", "as_json", "cumulated", "measures"]

#: Seconds of the buckets that are shown to programs.
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

_PERCENTILES: Final = (50, 90, 95, 99)


def as_json(
    snapshot: Snapshot, money: Money, advice: tuple[Advice, ...] = ()
) -> dict[str, Any]:
    """All of it, as what JSON knows."""
    told = asdict(snapshot)
    for its, request in zip(told["requests"], snapshot.requests, strict=True):
        its["latency"] = {
            f"p{percent}": request.latency.percentile(percent)
            for percent in _PERCENTILES
        }
    rated: dict[str, Any] = {
        "reads": snapshot.reads,
        "models": snapshot.models,
        "processes": snapshot.processes,
        "hosts": snapshot.hosts,
    }
    for name, figures in rated.items():
        for its, one in zip(told[name], figures, strict=True):
            its["hit_rate"] = one.reads.hit_rate
    for its, cache in zip(told["caches"], snapshot.caches, strict=True):
        its["hit_rate"] = cache.hit_rate
    told["hit_rate"] = snapshot.all_reads.hit_rate
    told["money"] = asdict(money)
    told["advice"] = [asdict(one) for one in advice]
    return told


@dataclass(frozen=True, slots=True)
class Measure:
    """Numbers of one name, by the values of its labels."""

    name: str
    text: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    samples: tuple[tuple[tuple[str, ...], float], ...]


def measures(snapshot: Snapshot) -> Iterator[Measure]:
    """What monitoring systems want to know."""
    yield Measure(
        "s3cache_reads",
        "Reads by what became of them.",
        "counter",
        ("database", "model", "action", "partition", "event"),
        tuple(
            (
                (one.database, one.model, one.action, one.partition, event),
                getattr(one.reads, event),
            )
            for one in snapshot.reads
            for event in Reads.__slots__
            if getattr(one.reads, event)
        ),
    )
    yield Measure(
        "s3cache_changes",
        "Commits that changed rows of a model.",
        "counter",
        ("database", "model"),
        tuple(((one.database, one.model), one.changes) for one in snapshot.models),
    )
    yield from _of_requests(snapshot)
    yield from _of_databases(snapshot)
    yield from _of_caches(snapshot)
    yield Measure(
        "s3cache_processes",
        "Processes that are alive.",
        "gauge",
        (),
        (((), len(snapshot.processes)),),
    )


def _of_requests(snapshot: Snapshot) -> Iterator[Measure]:
    for name, text in (
        ("failed", "Store requests without an answer, or with 5xx."),
        ("sent", "Bytes of bodies that were sent to the store."),
        ("received", "Bytes of bodies that came from the store."),
    ):
        word = name if name == "failed" else f"{name}_bytes"
        yield Measure(
            f"s3cache_store_requests_{word}",
            text,
            "counter",
            ("database", "kind"),
            tuple(
                ((one.database, one.kind), getattr(one, name))
                for one in snapshot.requests
            ),
        )


def _of_databases(snapshot: Snapshot) -> Iterator[Measure]:
    told: tuple[tuple[str, str, Literal["counter", "gauge"]], ...] = (
        ("position", "The last log entry that the replica has.", "gauge"),
        (
            "lag",
            "Entries that other hosts have, and this one not yet.",
            "gauge",
        ),
        ("asked_ago", "Seconds since the store was asked with success.", "gauge"),
        ("unpacked", "Entries since the newest catalog.", "gauge"),
        ("unrecorded", "Entries whose records are not written.", "gauge"),
        ("replica_bytes", "Bytes of the replica.", "gauge"),
        ("commits", "Log entries that were created.", "counter"),
        ("transactions", "Transactions in them.", "counter"),
        ("conflicts", "Blocks that raised TransactionConflict.", "counter"),
        ("retries", "Times that another host was first.", "counter"),
        ("stale_reads", "Times that a read had to do without the store.", "counter"),
    )
    for name, text, kind in told:
        yield Measure(
            f"s3cache_{name}",
            text,
            kind,
            ("database",),
            tuple(
                ((one.database,), float(number))
                for one in snapshot.databases
                if not (one.is_many and kind == "gauge")
                if (number := getattr(one, name)) is not None
            ),
        )


def _of_caches(snapshot: Snapshot) -> Iterator[Measure]:
    told: tuple[tuple[str, str, Literal["counter", "gauge"]], ...] = (
        ("hits", "Keys that a cache had.", "counter"),
        ("misses", "Keys that a cache had not.", "counter"),
        ("errors", "Operations that a cache failed.", "counter"),
        ("size", "Entries of a cache.", "gauge"),
        ("memory", "Bytes that a cache takes.", "gauge"),
        ("max_memory", "Bytes that a cache may take.", "gauge"),
    )
    for name, text, kind in told:
        yield Measure(
            f"s3cache_cache_{name}" + ("_bytes" if "memory" in name else ""),
            text,
            kind,
            ("cache", "tier"),
            tuple(
                ((one.alias, one.tier), float(number))
                for one in snapshot.caches
                if (number := getattr(one, name)) is not None
            ),
        )
    yield Measure(
        "s3cache_cache_removed",
        "Entries that a cache removed or refused, by cause.",
        "counter",
        ("cache", "tier", "cause"),
        tuple(
            ((one.alias, one.tier, cause), number)
            for one in snapshot.caches
            for cause, number in one.evictions.items()
        ),
    )


def cumulated(latency: Histogram) -> list[tuple[float, int]]:
    """How many durations did not exceed each of ``BOUNDS``."""
    return [(bound, latency.up_to(bound)) for bound in BOUNDS]
