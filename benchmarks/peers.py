"""``python -m benchmarks.peers``: s3cache next to what else there is.

Each peer has a process of its own, with the same rows, the same operations and
the same load. Those with a bucket have the benchmarks' own S3 server (see
``benchmarks.s3_server``), those with a Redis or a PostgreSQL one that nobody
else uses. What a machine has not got is named, and left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.s3_server import Running, running

ROWS = 2_000
WORKERS = 16
LATENCIES = (0.0, 0.02)
BUCKET = "peers"

Figures = dict[str, Any]


class Missing(Exception):
    """What a peer needs is not here; the message says what to install."""


@dataclass(frozen=True)
class Place:
    """Where a peer is measured: a folder, a store, and what is started."""

    folder: Path
    store: str
    stack: ExitStack


#: The settings of a peer.
Settings = dict[str, Any]


def s3cache_settings(place: Place, *, records: bool = False) -> Settings:
    """The bucket, with results in the memory of the process."""
    storage = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "endpoint_url": place.store,
            "region_name": "us-east-1",
            "access_key": "x",
            "secret_key": "x",
            "bucket_name": BUCKET,
            "location": secrets.token_hex(4),
        },
    }
    return {
        "STORAGES": {"bucket": storage},
        "DATABASES": {
            "default": {
                "ENGINE": "s3cache.db",
                "NAME": place.folder / "replica.sqlite3",
                "OPTIONS": {"storage": "bucket", "records": records},
            }
        },
        "CACHES": {"default": {"BACKEND": "s3cache.caches.MemoryCache"}},
    }


def sqlite_settings(place: Place, name: str = "") -> Settings:
    """Django's own backend, as it is recommended for servers."""
    return {
        "DATABASES": {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": name or place.folder / "plain.sqlite3",
                "OPTIONS": {
                    "init_command": (
                        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"
                    ),
                    "transaction_mode": "IMMEDIATE",
                    "timeout": 60,
                },
            }
        }
    }


def postgresql_settings(place: Place) -> Settings:
    """A server on a socket of its own, as Debian configures it, with fsync."""
    if find_spec("psycopg") is None:
        raise Missing("psycopg: pip install 'psycopg[binary]'")
    from tests.records import postgresql

    try:
        folder = place.stack.enter_context(postgresql.server())
    except postgresql.Unavailable as error:
        raise Missing(f"PostgreSQL: {error}") from error
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "test",
        "HOST": str(folder),
        "CONN_MAX_AGE": None,
    }
    return {"DATABASES": {"default": database}}


def cachalot_settings(place: Place) -> Settings:
    """Whole tables are invalidated; results are in Redis."""
    if find_spec("cachalot") is None:
        raise Missing("django-cachalot: pip install django-cachalot")
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": _redis(place)}
    return {
        **sqlite_settings(place),
        "CACHES": {"default": cache},
        "INSTALLED_APPS": ["cachalot"],
    }


def cacheops_settings(place: Place) -> Settings:
    """Results are invalidated by conditions; they are in Redis."""
    if find_spec("cacheops") is None:
        raise Missing("django-cacheops: pip install django-cacheops")
    return {
        **sqlite_settings(place),
        "CACHEOPS_REDIS": _redis(place),
        "CACHEOPS": {"benchmarks.*": {"ops": "all", "timeout": 300}},
        "INSTALLED_APPS": ["cacheops"],
    }


def _redis(place: Place) -> str:
    from tests.redis_server import NEEDED, RedisServer, program

    if program() is None:
        raise Missing(NEEDED)
    server = RedisServer()
    server.start()
    place.stack.callback(server.stop)
    return server.url


PEERS: dict[str, Callable[[Place], Settings]] = {
    "s3cache": s3cache_settings,
    "s3cache, with records": lambda place: s3cache_settings(place, records=True),
    "SQLite file": sqlite_settings,
    "SQLite in memory": lambda place: sqlite_settings(
        place, "file:peers?mode=memory&cache=shared"
    ),
    "PostgreSQL": postgresql_settings,
    "django-cachalot": cachalot_settings,
    "django-cacheops": cacheops_settings,
}
HAVE_A_BUCKET = {"s3cache", "s3cache, with records"}


# In the process of a peer


def measure(name: str, place: Place, quick: bool) -> Figures:
    """All figures of one peer."""
    import django
    from django.conf import settings

    chosen = PEERS[name](place)
    installed = ["s3cache"] if name in HAVE_A_BUCKET else []
    settings.configure(
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        **{
            **chosen,
            "INSTALLED_APPS": [
                *installed,
                "benchmarks",
                *chosen.get("INSTALLED_APPS", []),
            ],
        },
    )
    django.setup()
    from benchmarks.databases import create_tables, items
    from benchmarks.models import SmallItem

    create_tables("default")
    # What is loaded by a batch has a stock from 0 to 999.
    SmallItem._default_manager.bulk_create(items(SmallItem, ROWS))
    server = Running(place.store)
    figures: Figures = {"operations": {}}
    for operation, (do, rounds) in _operations().items():
        count = max(rounds // 20, 5) if quick else rounds
        do()  # the first time is everybody's slowest
        before = server.counts()
        seconds = [_timed(do) for _ in range(count)]
        figures["operations"][operation] = _summary(seconds) | {
            "requests": dict(server.counts() - before)
        }
    figures["mixed"] = mixed(server, seconds=1.0 if quick else 10.0)
    return figures


def _operations() -> dict[str, tuple[Callable[[], object], int]]:
    """What is measured one by one, and how often."""
    from django.db.models import F

    from benchmarks.databases import item
    from benchmarks.models import SmallItem

    rng = random.Random(1)
    objects = SmallItem._default_manager
    keys = sorted(objects.values_list("pk", flat=True))
    popular = keys[:100]
    return {
        "get(pk), one of 100": (lambda: objects.get(pk=rng.choice(popular)), 2000),
        "count()": (lambda: objects.count(), 1000),
        "list(100)": (lambda: list(objects.order_by("pk")[:100]), 400),
        "filter(region).count()": (
            lambda: objects.filter(region=f"r{rng.randrange(5)}").count(),
            400,
        ),
        "create()": (lambda: item(SmallItem).save(), 200),
        "update(F)": (
            lambda: objects.filter(pk=rng.choice(popular)).update(stock=F("stock") + 1),
            200,
        ),
        "get(pk) after a write": (
            lambda: (
                objects.filter(pk=keys[0]).update(stock=F("stock") + 1),
                objects.get(pk=keys[0]),
            ),
            200,
        ),
    }


def _timed(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def _summary(seconds: Sequence[float]) -> Figures:
    return {
        "median": statistics.median(seconds),
        "p90": statistics.quantiles(seconds, n=10, method="inclusive")[-1],
        "n": len(seconds),
    }


def mixed(server: Running, seconds: float) -> Figures:
    """Nine reads and a write of ten, by threads, over rows by Zipf's law.

    A read is stale if it says less than the writes that this process was
    told of before it began; an update is lost if it was acknowledged, and
    the row does not have it in the end.
    """
    from django.db import connections
    from django.db.models import F

    from benchmarks.models import SmallItem

    objects = SmallItem._default_manager
    begun = dict(objects.order_by("pk").values_list("pk", "stock")[:ROWS])
    keys = list(begun)
    weights = list(itertools.accumulate(1 / n for n in range(1, len(keys) + 1)))
    acknowledged: Counter[int] = Counter()
    told = threading.Lock()
    found: Counter[str] = Counter()
    ready = threading.Barrier(WORKERS + 1)
    ends_at = [0.0]

    def work(number: int) -> None:
        rng = random.Random(number)
        counted: Counter[str] = Counter()
        ready.wait()
        while time.perf_counter() < ends_at[0]:
            [key] = rng.choices(keys, cum_weights=weights)
            try:
                if rng.random() < 0.1:
                    objects.filter(pk=key).update(stock=F("stock") + 1)
                    with told:
                        acknowledged[key] += 1
                    counted["writes"] += 1
                else:
                    least = begun[key] + acknowledged[key]
                    counted["stale"] += objects.get(pk=key).stock < least
                    counted["reads"] += 1
            except Exception as error:  # whatever a peer raises under load
                counted["errors"] += 1
                counted[f"error: {type(error).__name__}"] += 1
        with told:
            found.update(counted)
        connections.close_all()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
    before = server.counts()
    started = time.perf_counter()
    ends_at[0] = started + seconds
    ready.wait()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - started
    requests = server.counts() - before
    operations = found["reads"] + found["writes"]
    ended = dict(_past_caches(objects.values_list("pk", "stock")))
    return {
        **found,
        "per second": operations / passed,
        "lost": sum(
            max(begun[key] + count - ended[key], 0)
            for key, count in acknowledged.items()
        ),
        "requests per operation": requests.total() / max(operations, 1),
    }


def _past_caches(rows: Any) -> Any:
    """What the database says, and no cache."""
    for way in ("skip_cache", "nocache"):
        if hasattr(rows, way):
            return getattr(rows, way)()
    if find_spec("cachalot") is not None and "cachalot" in sys.modules:
        from cachalot.api import cachalot_disabled

        with cachalot_disabled():
            return list(rows)
    return rows


# The whole


def run(name: str, latency: float, quick: bool) -> Figures:
    """Measure a peer in a process of its own; raise ``Missing``."""
    with running(latency) as server:
        server.create_bucket(BUCKET)
        done = subprocess.run(  # noqa: S603 - our own words
            [
                *(sys.executable, "-m", "benchmarks.peers", "--measure", name),
                *("--store", server.address, *(["--quick"] if quick else [])),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode == 3:
        raise Missing(done.stdout.strip())
    if done.returncode:
        raise RuntimeError(f"{name} ended with status {done.returncode}")
    figures: Figures = json.loads(done.stdout)
    return figures


def lines(results: dict[str, Figures], missing: dict[str, str]) -> Iterator[str]:
    """The tables, as Markdown."""
    names = list(results)
    if names:
        yield f"| median ms (p90), n | {' | '.join(names)} |"
        yield f"|---|{'---|' * len(names)}"
        for operation in results[names[0]]["operations"]:
            cells = [results[name]["operations"][operation] for name in names]
            words = [
                f"{one['median'] * 1000:.3f} ({one['p90'] * 1000:.3f}), {one['n']}"
                for one in cells
            ]
            yield f"| {operation} | {' | '.join(words)} |"
        for row in ("per second", "requests per operation", "stale", "lost", "errors"):
            words = [f"{results[name]['mixed'].get(row, 0):,.4g}" for name in names]
            yield f"| mixed: {row} | {' | '.join(words)} |"
    for name, why in missing.items():
        yield f"\nMISSING: {name}: {why}"


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    described = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description="Measure s3cache and its peers, each in a process of its own.",
    )
    add = described.add_argument
    add("--peer", action="append", choices=tuple(PEERS), help="default: all")
    add("--quick", action="store_true", help="only to see that all works")
    add("--json", type=Path, metavar="FILE", help="the result for programs")
    add("--measure", choices=tuple(PEERS), help=argparse.SUPPRESS)
    add("--store", help=argparse.SUPPRESS)
    return described


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all peers, or be one; return the exit status."""
    options = parser().parse_args(arguments)
    if options.measure:
        with (
            tempfile.TemporaryDirectory(prefix="s3cache-peers-") as folder,
            ExitStack() as stack,
        ):
            place = Place(Path(folder), options.store, stack)
            try:
                print(json.dumps(measure(options.measure, place, options.quick)))
            except Missing as error:
                print(error)
                return 3
        return 0
    results: dict[str, Figures] = {}
    missing: dict[str, str] = {}
    for name in options.peer or PEERS:
        for latency in LATENCIES if name in HAVE_A_BUCKET else LATENCIES[:1]:
            label = f"{name}, {latency * 1000:g} ms" if name in HAVE_A_BUCKET else name
            try:
                results[label] = run(name, latency, options.quick)
            except Missing as error:
                missing[label] = str(error)
            print(f"{label}: {'missing' if label in missing else 'done'}", flush=True)
    print(f"\n{platform.platform()}, Python {platform.python_version()}\n")
    print("\n".join(lines(results, missing)))
    if options.json is not None:
        options.json.write_text(json.dumps({"results": results, "missing": missing}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
