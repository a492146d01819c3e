"""``python -m benchmarks.hot``: warm reads, next to Django on SQLite.

Django's database is in memory. Each figure is the median of rounds that take
turns, in microseconds of the processor; the ratio is what counts. ``--cache``
names another backend than ``MemoryCache``.

A second table has reads that nobody repeats, with the result cache and
without: what it costs those who gain nothing by it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY = "s3cache.caches.MemoryCache"
#: How many times as fast as plain Django ``get(pk)`` is with other caches.
LEAST_ELSEWHERE = 15
PLAIN = "default"
BUCKET = "bucket"
ROUNDS = 15
ROWS = 2_500
MANY_ROWS = 28_000

#: Hit again and again, so that no read asks the store meanwhile.
MAX_AGE = 100_000


@dataclass(frozen=True)
class Read:
    """A read, and how many times as fast as on plain Django it has to be."""

    name: str
    target: float
    plain: Callable[[], object]
    bucket: Callable[[], object]
    repeat: int = 200


def configure(directory: Path, cache: str) -> None:
    """Set Django up with both databases."""
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={
            PLAIN: {
                "ENGINE": "django.db.backends.sqlite3",
                # Shared, since aget() uses a thread of its own.
                "NAME": "file:plain?mode=memory&cache=shared",
            },
            BUCKET: {
                "ENGINE": "s3cache.db",
                "NAME": directory / "replica.sqlite3",
                "OPTIONS": {
                    "storage": BUCKET,
                    "max_age": MAX_AGE,
                    "records": False,  # written meanwhile, by a thread
                },
            },
        },
        DATABASE_ROUTERS=["s3cache.routers.S3Router"],
        STORAGES={
            BUCKET: {
                "BACKEND": "django.core.files.storage.FileSystemStorage",
                "OPTIONS": {"location": str(directory / "store")},
            }
        },
        CACHES={"default": {"BACKEND": cache, "OPTIONS": {"MAX_ENTRIES": 100_000}}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["s3cache", "benchmarks"],
        USE_TZ=True,
    )
    django.setup()


def reads() -> list[Read]:
    """The reads, of tables that are filled."""
    from django.db import connections, models
    from django.db.models import Sum

    from benchmarks.databases import values
    from s3cache.models import S3Model

    class Columns(models.Model):
        sku = models.CharField(max_length=40, unique=True)
        name = models.CharField(max_length=100)
        region = models.CharField(max_length=8)
        price = models.DecimalField(max_digits=10, decimal_places=2)
        stock = models.IntegerField()
        is_active = models.BooleanField()
        created = models.DateTimeField()
        notes = models.TextField()

        class Meta:
            abstract = True
            app_label = "benchmarks"

        def __str__(self) -> str:
            return self.sku

    class PlainThing(Columns):
        class Meta:
            app_label = "benchmarks"

    class Thing(Columns, S3Model):
        id = models.BigAutoField(primary_key=True)

        class Meta:
            app_label = "benchmarks"

    class PlainMany(Columns):
        class Meta:
            app_label = "benchmarks"

    class Many(Columns, S3Model):
        class Meta:
            app_label = "benchmarks"

    for model, alias, number in (
        (PlainThing, PLAIN, ROWS),
        (Thing, BUCKET, ROWS),
        (PlainMany, PLAIN, MANY_ROWS),
        (Many, BUCKET, MANY_ROWS),
    ):
        with connections[alias].schema_editor() as editor:
            editor.create_model(model)
        made = []
        for key in range(1, number + 1):
            columns = values()
            del columns["category_id"]
            made.append(model(**columns | {"sku": f"sku-{key}"}))
        model._default_manager.bulk_create(made)
    plain: Any = PlainThing._default_manager
    bucket: Any = Thing.objects

    def both(
        name: str, target: float, read: Callable[[Any], object], repeat: int = 200
    ) -> Read:
        return Read(name, target, lambda: read(plain), lambda: read(bucket), repeat)

    return [
        both("get(pk)", 60, lambda rows: rows.get(pk=7)),
        both("get(sku)", 60, lambda rows: rows.get(sku="sku-7")),
        both("count()", 50, lambda rows: rows.count()),
        both("filter().count()", 40, lambda rows: rows.filter(region="r1").count()),
        both("filter().exists()", 40, lambda rows: rows.filter(region="r1").exists()),
        both("aggregate()", 0, lambda rows: rows.aggregate(Sum("stock"))),
        Read(
            f"aggregate() of {MANY_ROWS:,}",
            50,
            lambda: PlainMany._default_manager.aggregate(Sum("stock")),
            lambda: Many.objects.aggregate(Sum("stock")),
            10,
        ),
        both("list(100)", 10, lambda rows: list(rows.all()[:100]), 20),
        both(
            "page of 50",
            10,
            lambda rows: list(rows.filter(region="r1").order_by("sku")[50:100]),
            20,
        ),
        Read(
            "200 times aget(pk)",
            60,
            lambda: asyncio.run(_many(plain)),
            lambda: asyncio.run(_many(bucket)),
            1,
        ),
    ]


@dataclass(frozen=True)
class Miss:
    """A read with values that no other one has."""

    name: str
    read: Callable[[], object]


#: How many times as long a miss may take as without the result cache.
MOST_OF_A_MISS = 1.05


def misses() -> list[Miss]:
    """Reads of the table that `reads` has filled."""
    from django.apps import apps

    thing: Any = apps.get_model("benchmarks", "Thing")
    numbers = itertools.count(ROWS + 1)

    def rows(manager: Any) -> Any:
        return manager.filter(stock__gt=-next(numbers))

    def absent() -> None:
        with contextlib.suppress(thing.DoesNotExist):
            thing.objects.get(pk=next(numbers))

    usual = thing._base_manager  # not hot
    return [
        Miss("get(pk), absent", absent),
        Miss("filter().count()", lambda: rows(thing.objects).count()),
        Miss("get(), not hot", lambda: rows(usual).get(pk=7)),
        Miss(
            "page of 50, not hot",
            lambda: list(rows(usual).filter(region="r1").order_by("sku")[50:100]),
        ),
    ]


def measure_miss(miss: Miss) -> tuple[float, float]:
    """The medians without the result cache and with it, in microseconds."""
    from django.test.utils import override_settings

    found: tuple[list[float], list[float]] = ([], [])
    for number in range(-2, ROUNDS):
        for times, values in zip(found, ({"CACHE": None}, {}), strict=True):
            with override_settings(S3CACHE=values):
                miss.read()  # settles what a change of settings has undone
                seconds = _seconds(miss.read, 100)
            if number >= 0:
                times.append(seconds / 100 * 1e6)
    return statistics.median(found[0]), statistics.median(found[1])


def _seconds(call: Callable[[], object], repeat: int) -> float:
    # Nothing waits here, so whoever shares the machine has no say.
    started = time.process_time()
    for _ in range(repeat):
        call()
    return time.process_time() - started


async def _many(rows: Any) -> None:
    for _ in range(200):
        await rows.aget(pk=7)


def measure(read: Read) -> tuple[float, float]:
    """The medians of both databases, in microseconds."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(-2, ROUNDS):
        for times, call in zip(found, (read.plain, read.bucket), strict=True):
            seconds = _seconds(call, read.repeat)
            if number >= 0:
                times.append(seconds / read.repeat * 1e6)
    return statistics.median(found[0]), statistics.median(found[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all; return 1 if ``--check`` finds a target missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hot")
    parser.add_argument("--cache", default=MEMORY)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    missed = 0
    with tempfile.TemporaryDirectory(prefix="s3cache-benchmarks-") as directory:
        configure(Path(directory), options.cache)
        all_reads = reads()
        gc.collect()
        gc.freeze()
        print(f"{'':22} {'plain us':>10} {'s3cache us':>10} {'ratio':>7} {'target':>7}")
        for read in all_reads:
            plain, bucket = measure(read)
            ratio = plain / bucket
            least = read.target
            if options.cache != MEMORY:
                least = LEAST_ELSEWHERE if read.name == "get(pk)" else 0
            missed += ratio < least
            target = f"{least:g}" if least else ""
            print(
                f"{read.name:22} {plain:10.1f} {bucket:10.1f} {ratio:7.1f} {target:>7}",
                flush=True,
            )
        print(f"\n{'misses':22} {'off us':>10} {'on us':>10} {'ratio':>7} {'most':>7}")
        for miss in misses():
            off, on = measure_miss(miss)
            missed += on / off > MOST_OF_A_MISS
            print(
                f"{miss.name:22} {off:10.1f} {on:10.1f} {on / off:7.2f} "
                f"{MOST_OF_A_MISS:7}",
                flush=True,
            )
        from django.db import connections

        connections.close_all()
    return int(bool(missed) and options.check)


if __name__ == "__main__":
    sys.exit(main())
