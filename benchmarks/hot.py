"""``python -m benchmarks.hot``: warm reads, next to Django on SQLite.

Django's database is in memory. Each figure is the median of rounds that take
turns, in microseconds of the processor; the ratio is what counts, and is the
median of theirs. ``--cache`` names another backend than ``MemoryCache``.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MEMORY = "s3cache.caches.MemoryCache"
#: How many times as fast as plain Django ``get(pk)`` is with other caches.
LEAST_ELSEWHERE = 15
PLAIN = "default"
BUCKET = "bucket"
ROUNDS = 41
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
        both("in_bulk(200)", 5, lambda rows: rows.in_bulk(range(1, 201)), 10),
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

#: Of a round; the first settles what a change of settings has undone.
MISSES = 200


def misses() -> list[Miss]:
    """Reads of the table that `reads` has filled."""
    from django.apps import apps

    thing: Any = apps.get_model("benchmarks", "Thing")
    many: Any = apps.get_model("benchmarks", "Many")
    numbers = itertools.count(ROWS + 1)
    # Those that were read before are forgotten before it is their turn again.
    keys = itertools.cycle(many.objects.values_list("pk", flat=True))

    def bulk() -> None:
        many.objects.in_bulk(list(itertools.islice(keys, 20)))

    def rows(manager: Any) -> Any:
        return manager.filter(stock__gt=-next(numbers))

    def absent() -> None:
        with contextlib.suppress(thing.DoesNotExist):
            thing.objects.get(pk=next(numbers))

    usual = thing._base_manager  # not hot
    return [
        Miss("get(pk), absent", absent),
        Miss(
            "in_bulk(20)", lambda: many.objects.in_bulk([*itertools.islice(keys, 20)])
        ),
        Miss("filter().count()", lambda: rows(thing.objects).count()),
        Miss("get(), not hot", lambda: rows(usual).get(pk=7)),
        Miss(
            "page of 50, not hot",
            lambda: list(rows(usual).filter(region="r1").order_by("sku")[50:100]),
        ),
    ]


@dataclass(frozen=True)
class Measured:
    """A read in two ways: medians in microseconds, and how many times as long.

    That is the median of the rounds' ratios. The two ways follow each other in
    a round, so that both are slow where the machine is for a while.
    """

    slow: float
    fast: float
    ratio: float


def measure(
    slow: Callable[[], object], fast: Callable[[], object], repeat: int
) -> Measured:
    """Do both in turns, each ``repeat`` times in a round."""
    found: list[tuple[float, float]] = []
    for number in range(-2, ROUNDS):
        seconds = _seconds(slow, repeat), _seconds(fast, repeat)
        if number >= 0:
            found.append(seconds)
    median = statistics.median
    return Measured(
        median(one for one, _ in found) / repeat * 1e6,
        median(other for _, other in found) / repeat * 1e6,
        median(one / other for one, other in found),
    )


def measure_miss(miss: Miss) -> Measured:
    """With the result cache, and without it."""
    from django.test.utils import override_settings

    def reads(values: dict[str, object]) -> Callable[[], None]:
        def read() -> None:
            with override_settings(S3CACHE=values):
                for _ in range(MISSES):
                    miss.read()

        return read

    measured = measure(reads({}), reads({"CACHE": None}), 1)
    return replace(measured, slow=measured.slow / MISSES, fast=measured.fast / MISSES)


def _seconds(call: Callable[[], object], repeat: int) -> float:
    # Nothing waits here, so whoever shares the machine has no say.
    started = time.process_time()
    for _ in range(repeat):
        call()
    return time.process_time() - started


async def _many(rows: Any) -> None:
    for _ in range(200):
        await rows.aget(pk=7)


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
            found = measure(read.plain, read.bucket, read.repeat)
            least = read.target
            if options.cache != MEMORY:
                least = LEAST_ELSEWHERE if read.name == "get(pk)" else 0
            missed += found.ratio < least
            target = f"{least:g}" if least else ""
            print(
                f"{read.name:22} {found.slow:10.1f} {found.fast:10.1f} "
                f"{found.ratio:7.1f} {target:>7}",
                flush=True,
            )
        print(f"\n{'misses':22} {'off us':>10} {'on us':>10} {'ratio':>7} {'most':>7}")
        for miss in misses():
            found = measure_miss(miss)
            missed += found.ratio > MOST_OF_A_MISS
            print(
                f"{miss.name:22} {found.fast:10.1f} {found.slow:10.1f} "
                f"{found.ratio:7.2f} {MOST_OF_A_MISS:7}",
                flush=True,
            )
        from django.db import connections

        connections.close_all()
    return int(bool(missed) and options.check)


if __name__ == "__main__":
    sys.exit(main())
