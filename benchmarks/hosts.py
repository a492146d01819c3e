"""``python -m benchmarks.hosts``: several hosts on one database.

Each host is a process with a replica of its own, on a directory that answers
as late as a bucket does. Measured: how long it takes until what one writes is
read on another, with Redis and without a poll; and what share of the commits
each of ten hosts gets that write as fast as they can, with Redis and without.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LATENCY = 0.020
NEVER = 100_000.0

#: What is to be shown.
MOST_MEDIAN = 0.050
SMALLEST_SHARE = 0.1


def configure(folder: Path, name: str, redis: str, max_age: float) -> None:
    """Make this process the host ``name``."""
    import django
    from django.conf import settings

    store = folder / "store"
    caches = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    if redis:
        caches["redis"] = {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": redis,
        }
    options: dict[str, Any] = {"storage": "s3", "max_age": max_age, "records": False}
    if redis:
        options["redis"] = "redis"
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "benchmarks.delayed",
                "NAME": folder / f"{name}.sqlite3",
                "STORE": store,
                "LATENCY": LATENCY,
                "OPTIONS": options,
            }
        },
        STORAGES={
            "s3": {
                "BACKEND": "django.core.files.storage.FileSystemStorage",
                "OPTIONS": {"location": str(store)},
            }
        },
        CACHES=caches,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["s3cache", "benchmarks"],
        USE_TZ=True,
        S3CACHE={"CACHE": None},
    )
    django.setup()


def listen() -> None:
    """Wait until commits of others would be heard of."""
    from django.db import connection

    from s3cache.db.news import news_of

    replica = connection.replica  # type: ignore[attr-defined]
    replica.position()
    news = news_of(replica)
    while news is not None and not news.hears:
        time.sleep(0.001)


def host(pipe: Connection, folder: Path, name: str, redis: str) -> None:
    """What a host does: whatever it is told."""
    configure(folder, name, redis, NEVER)
    from benchmarks.models import Category

    listen()
    pipe.send("ready")
    while True:
        order, argument = pipe.recv()
        if order == "read":
            # Until it is there; no read asks the store, and each is a query.
            while not Category.objects.filter(name=argument).exists():
                time.sleep(0.0002)
            pipe.send(time.monotonic())
        elif order == "write":
            Category.objects.create(name=argument)
            pipe.send(time.monotonic())
        elif order == "write for":
            pipe.send(_write_for(argument, name))
        else:
            return


def _write_for(seconds: float, name: str) -> int:
    from benchmarks.models import Category
    from s3cache.exceptions import StoreUnavailable

    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end:
        try:
            Category.objects.create(name=name)
        except StoreUnavailable:  # others were first, for 20 s
            continue
        done += 1
    return done


def start(folder: Path, names: list[str], redis: str) -> list[tuple[Any, Connection]]:
    """Begin hosts as processes, and wait for them."""
    context = multiprocessing.get_context("spawn")
    begun = []
    for name in names:
        pipe, other = context.Pipe()
        process = context.Process(target=host, args=(other, folder, name, redis))
        process.start()
        begun.append((process, pipe))
    for _process, pipe in begun:
        pipe.recv()
    return begun


def stop(begun: list[tuple[Any, Connection]]) -> None:
    """End them."""
    for process, pipe in begun:
        pipe.send(("stop", None))
        process.join()


def measure(redis: str, seconds: float, writes: int) -> dict[str, Any]:
    """All figures."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="hosts-") as made:
        folder = Path(made)
        _prepare(folder)
        begun = start(folder, ["writer", "reader"], redis)
        (_, writer), (_, reader) = begun
        delays = []
        for number in range(writes):
            reader.send(("read", f"row {number}"))
            writer.send(("write", f"row {number}"))
            delays.append(reader.recv() - writer.recv())
        stop(begun)
        figures["read elsewhere, median ms"] = 1000 * statistics.median(delays)
        figures["read elsewhere, p90 ms"] = 1000 * statistics.quantiles(delays, n=10)[8]
        figures["n"] = writes
        for label, url in (("with Redis", redis), ("without", "")):
            names = [f"{label} {number}".replace(" ", "-") for number in range(10)]
            begun = start(folder, names, url)
            for _process, pipe in begun:
                pipe.send(("write for", seconds))
            counts = [pipe.recv() for _process, pipe in begun]
            stop(begun)
            figures[f"10 writers {label}"] = {
                "commits a second": sum(counts) / seconds,
                "each": sorted(counts),
                "slowest, share": min(counts) * len(counts) / max(sum(counts), 1),
            }
    return figures


def _prepare(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_create_tables, args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("the tables could not be created")


def _create_tables(folder: Path) -> None:
    configure(folder, "first", "", NEVER)
    from django.db import connection

    from benchmarks.models import Category

    with connection.schema_editor() as editor:
        editor.create_model(Category)


def missed(figures: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    found = []
    if figures["read elsewhere, median ms"] > 1000 * MOST_MEDIAN:
        found.append("a write takes too long to be read elsewhere")
    for label in ("with Redis", "without"):
        if figures[f"10 writers {label}"]["slowest, share"] < SMALLEST_SHARE:
            found.append(f"the slowest of ten writers {label} waits too long")
    return found


def main() -> int:
    """Measure, print, and say whether a target was missed."""
    described = argparse.ArgumentParser(prog="python -m benchmarks.hosts")
    described.add_argument("--seconds", type=float, default=20.0)
    described.add_argument("--writes", type=int, default=200)
    described.add_argument("--check", action="store_true")
    given = described.parse_args()
    from tests.redis_server import RedisServer

    server = RedisServer()
    server.start()
    try:
        figures = measure(server.url, given.seconds, given.writes)
    finally:
        server.stop()
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    wrong = missed(figures)
    for one in wrong:
        sys.stderr.write(f"missed: {one}\n")
    return 1 if given.check and wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
