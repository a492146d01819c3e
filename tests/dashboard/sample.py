"""The figures of a large installation, made up, the same each time."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from s3cache.metrics import show
from s3cache.metrics.figures import (
    Advice,
    CacheFigures,
    DatabaseFigures,
    History,
    HostFigures,
    Model,
    ModelMoney,
    Money,
    Point,
    ProcessFigures,
    ReadFigures,
    Reads,
    RequestFigures,
    SlowQuery,
    Snapshot,
    Span,
)
from s3cache.metrics.histogram import Histogram, bucket_of

NOW = 1_790_000_000.0
ACTIONS = ("get", "list", "page", "count", "exists")


def label(number: int) -> str:
    return f"shop{number % 7}.thing{number}"


def latency(chance: random.Random, number: int) -> Histogram:
    counts: dict[int, int] = {}
    for _ in range(number):
        bucket = bucket_of(chance.lognormvariate(-4, 0.5))
        counts[bucket] = counts.get(bucket, 0) + 1
    return Histogram(counts)


@cache
def snapshot(models: int = 200, hosts: int = 20) -> Snapshot:
    chance = random.Random(7)
    reads = tuple(
        ReadFigures(
            database="default",
            model=label(number),
            action=action,
            reads=Reads(
                hit=chance.randrange(100_000),
                miss=chance.randrange(20_000),
                bypass=chance.randrange(500),
            ),
        )
        for number in range(models)
        for action in ACTIONS
    )
    return Snapshot(
        scope="fleet",
        taken_at=NOW,
        since=NOW - 900_000,
        databases=(
            DatabaseFigures(
                database="default",
                store="s3://shop/db",
                position=81_532,
                lag=2,
                asked_ago=0.7,
                commits=4_711,
                replica_bytes=48_000_000,
            ),
        ),
        reads=reads,
        models=tuple(
            Model(
                database="default",
                model=label(number),
                reads=reads[number * len(ACTIONS)].reads,
                changes=number,
            )
            for number in range(models)
        ),
        requests=tuple(
            RequestFigures(
                database="default",
                kind=kind,
                number=1000,
                latency=latency(chance, 50),
            )
            for kind in ("GET", "PUT", "LIST", "DELETE")
        ),
        caches=(
            CacheFigures(alias="default", driver="TieredCache", hits=900, misses=100),
            CacheFigures(
                alias="default",
                tier="memory",
                driver="MemoryCache",
                hits=800,
                misses=200,
                evictions={"memory": 12, "entries": 0},
                size=4000,
                memory=30_000_000,
                max_memory=64_000_000,
                ttl=300.0,
            ),
            CacheFigures(
                alias="default", tier="redis", driver="RedisCache", state="open"
            ),
        ),
        processes=tuple(
            ProcessFigures(
                host="web-1",
                pid=100 + number,
                command="gunicorn",
                started=NOW - 5000,
                seen=NOW - 2,
                memory=90_000_000,
            )
            for number in range(8)
        ),
        hosts=tuple(
            HostFigures(host=f"web-{number}", seen=NOW - number, processes=8)
            for number in range(hosts)
        ),
        shares=True,
    )


@cache
def history(span: Span = "day") -> History:
    """A day by the minute or a month by the hour, without a gap."""
    chance = random.Random(8)
    step, count = (60.0, 1440) if span == "day" else (3600.0, 720)
    end = NOW // step * step + step
    points = tuple(
        Point(
            start=end - (count - number) * step,
            reads=Reads(
                hit=chance.randrange(5000),
                miss=chance.randrange(500),
                bypass=chance.randrange(50),
            ),
            requests={"GET": chance.randrange(90), "PUT": chance.randrange(9)},
            latency=latency(chance, 12),
            cost=0.0001,
            saved=0.002,
        )
        for number in range(count)
    )
    return History(
        scope="fleet",
        span=span,
        step=step,
        start=end - count * step,
        end=NOW,
        points=points,
    )


def money(models: int = 200) -> Money:
    return Money(
        scope="fleet",
        source="list prices of 2026-01",
        spent_today=0.12,
        saved_today=3.4,
        month=4.1,
        saved_month=99.0,
        models=tuple(
            ModelMoney(database="default", model=label(number), saved_today=number / 9)
            for number in range(models)
        ),
    )


def advice() -> tuple[Advice, ...]:
    return (
        Advice(
            database="default",
            model=label(3),
            kind="low",
            hit_rate=0.31,
            message="Its hit rate stays at 31 %: keep results for longer.",
        ),
    )


def slow_queries() -> tuple[SlowQuery, ...]:
    return (
        SlowQuery(
            database="default",
            sql="SELECT '<script>' FROM shop_thing WHERE name = ?",
            tables=("shop_thing", "shop_region"),
            source="DB",
            seconds=1.25,
            rows=5000,
            at=NOW,
        ),
    )


def show_reads(monkeypatch: Any, *reads: ReadFigures) -> None:
    """Have the reads be these."""
    sums = {(one.model, one.action): one.reads for one in reads}
    monkeypatch.setattr(show, "reads", lambda *args, **kwargs: reads)
    monkeypatch.setattr(show, "by_action", lambda *args, **kwargs: sums)


def install(monkeypatch: Any) -> None:
    """Have the figures be these."""
    figures, sums, hints, slow = snapshot(), money(), advice(), slow_queries()
    show_reads(monkeypatch, *figures.reads)
    for name in ("databases", "requests", "caches", "processes", "hosts", "shares"):
        part = getattr(figures, name)
        monkeypatch.setattr(show, name, lambda *args, part=part, **kwargs: part)
    monkeypatch.setattr(show, "history", lambda span, *args, **kwargs: history(span))
    saved = {one.model: one.saved_today for one in sums.models}
    monkeypatch.setattr(show, "money", lambda *args, **kwargs: sums)
    monkeypatch.setattr(show, "model_money", lambda *args, **kwargs: sums.models)
    monkeypatch.setattr(show, "saved_today", lambda *args, **kwargs: saved)
    monkeypatch.setattr(show, "advice", lambda *args, **kwargs: hints)
    monkeypatch.setattr(show, "slow_queries", lambda *args, **kwargs: slow)
