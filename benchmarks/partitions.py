"""``python -m benchmarks.partitions``: what partitions do to the hit rate.

Rows in 20 regions. Nine operations of ten read one region, as a list, a page,
a count or a sum; one of ten writes to a row. The same operations are done on a
model that declares the partition and on one that does not, whose results
depend on the table as a whole. What counts is the share of reads that are
hits.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.hot import MEMORY, configure

REGIONS = 20
ROWS = 40
"""Rows of each region."""
WRITES = 0.1
OPERATIONS = 4_000
WARM_UP = 200

TARGET = 5.0
"""How many times as high the hit rate has to be."""


def tables() -> tuple[Any, Any]:
    """The model with the partition, and the one without, filled."""
    from django.db import connections, models

    from s3cache.models import S3Model

    class Row(S3Model):
        region = models.CharField(max_length=8)
        name = models.CharField(max_length=40)
        stock = models.IntegerField(default=0)

        class Meta:
            abstract = True

        def __str__(self) -> str:
            return self.name

    class Parted(Row):
        class Meta:
            app_label = "benchmarks"

        class S3Meta:
            partitions: ClassVar = {"by_region": ["region"]}

    class Whole(Row):
        class Meta:
            app_label = "benchmarks"

    for model in (Parted, Whole):
        with connections["bucket"].schema_editor() as editor:
            editor.create_model(model)
        model.objects.bulk_create(
            [
                model(region=f"r{region}", name=f"{region}-{row}")
                for region in range(REGIONS)
                for row in range(ROWS)
            ]
        )
    return Parted, Whole


def hit_rate(model: Any, operations: int, seed: int) -> float:
    """The share of reads that the cache answered."""
    from django.db.models import Sum

    from s3cache.results.counters import counters

    chance = random.Random(seed)
    reads: list[Callable[[Any], object]] = [
        lambda rows: list(rows),
        lambda rows: list(rows.order_by("name")[:25]),
        lambda rows: rows.count(),
        lambda rows: rows.aggregate(Sum("stock")),
    ]
    for number in range(WARM_UP + operations):
        if number == WARM_UP:
            counters.clear()
        region = f"r{chance.randrange(REGIONS)}"
        read = chance.choice(reads)
        if chance.random() < WRITES:
            name = f"{region[1:]}-{chance.randrange(ROWS)}"
            rows = model.objects.filter(name=name)
            rows.update(stock=chance.randrange(100))
        else:
            read(model.objects.filter(region=region))
    counts = counters.read().values()
    hits = sum(one.hit for one in counts)
    return hits / sum(one.hit + one.miss + one.wait + one.bypass for one in counts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both; return 1 if ``--check`` finds the target missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partitions")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="s3cache-benchmarks-") as directory:
        configure(Path(directory), MEMORY)
        rates = [
            hit_rate(model, options.operations, options.seed) for model in tables()
        ]
        from django.db import connections

        connections.close_all()
    parted, whole = rates
    ratio = parted / whole if whole else float("inf")
    print(f"{REGIONS} regions, {WRITES:.0%} writes: hits of all reads, in percent")
    print(f"{'by region':22}{100 * parted:8.1f}")
    print(f"{'whole table':22}{100 * whole:8.1f}")
    print(f"{'times as many':22}{ratio:8.1f}  target {TARGET:g}")
    return int(ratio < TARGET and options.check)


if __name__ == "__main__":
    sys.exit(main())
