"""Measuring what is used through Django, in a process of its own."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from benchmarks.peers.figures import Told
from benchmarks.peers.mixed import MixedLoad, OtherHost, Request, Stocks
from benchmarks.peers.settings import Place, Settings
from benchmarks.s3_server import Running

#: Rows of a whole round, and at least.
ROWS, FEWEST_ROWS = 2_000, 200

#: Rows of another table, which are only counted; and what that is called.
MANY, FEWEST_MANY = 100_000, 1_000
COUNT_MANY = f"count() of {MANY:,}"

#: Warehouses that a page tells the stock of.
WAREHOUSES = 200

#: Seconds that an operation is measured for at most, that reads and writes
#: take turns for, and that another host reads meanwhile.
LONGEST, MIXED, ELSEWHERE = 4.0, 10.0, 3.0

#: Seconds of reads and writes before those that are measured: by then what
#: is to be in a cache is there.
BEFORE = 4.0

#: Seconds that what is read on a host of s3cache may be old.
MAX_AGE = 1.0

Do = Callable[[], object]


def measure(
    settings: Callable[[Place], Settings],
    place: Place,
    scale: float,
    *,
    saves_at_the_end: bool = False,
    anew: Callable[[Place, Any], Stocks] | None = None,
    elsewhere: Callable[[Place, Any], Any] | None = None,
) -> Told:
    """A round; ``scale`` is how long it is compared with a whole one.

    With ``saves_at_the_end`` an operation is a request of its own: the peer
    takes data to the bucket at the end of one. ``anew`` gives the stocks
    that somebody finds who knows nothing but the bucket; without it there is
    nothing but the database. ``elsewhere`` gives the manager of a host that
    reads meanwhile.
    """
    import django
    from django.conf import settings as django_settings

    chosen = settings(place)
    apps = ["benchmarks", *chosen.pop("INSTALLED_APPS", [])]
    django_settings.configure(
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=apps,
        USE_TZ=True,
        **chosen,
    )
    django.setup()
    model = _model("s3cache" in apps)
    request = _request if saves_at_the_end else nullcontext
    with request():
        _fill(model, rows_of(scale))
    server = Running(place.store)

    def find() -> Stocks:
        if anew is not None:
            return anew(place, model)
        return dict(_past_caches(model.objects.values_list("pk", "stock")))

    operations = {}
    for name, (do, most) in _operations(model, request).items():
        operations[name] = _measured(do, most, scale, server)
    load = MixedLoad(model.objects, request)
    before = load.run(BEFORE * scale, server)["counts"]
    mixed = load.run(MIXED * scale, server)
    counts = mixed["counts"]
    # Those were not measured, but what is wrong is wrong.
    counts.update({name: before[name] for name in before.keys() - {"reads", "writes"}})
    if elsewhere is not None:
        objects = elsewhere(place, model)
        with OtherHost(load, objects, MAX_AGE) as other:
            load.run(ELSEWHERE * scale, server)
        counts["read elsewhere"] = other.reads
        counts["stale elsewhere"] = other.stale
    counts["lost"] = load.lost(find())
    # At the end: some write all that they have anew, again and again.
    many = _large_model("s3cache" in apps)
    with request():
        if "s3cache" in apps:
            _create(many)
        _load(many, many_of(scale))
    count = _within(request, lambda: many.objects.count())
    operations[COUNT_MANY] = _measured(count, 400, scale, server)
    return {"operations": operations, "mixed": mixed}


def _model(is_ours: bool) -> Any:
    if is_ours:
        from benchmarks.bucket_models import BucketItem

        return BucketItem
    from benchmarks.models import SmallItem

    return SmallItem


def _large_model(is_ours: bool) -> Any:
    if is_ours:
        from benchmarks.bucket_models import LargeBucketItem

        return LargeBucketItem
    from benchmarks.models import LargeItem

    return LargeItem


def rows_of(scale: float) -> int:
    """How many rows a round has."""
    return max(int(ROWS * scale), FEWEST_ROWS)


def many_of(scale: float) -> int:
    """How many rows are counted in a round."""
    return max(int(MANY * scale), FEWEST_MANY)


def _fill(model: Any, rows: int) -> None:
    from benchmarks.databases import create_tables
    from benchmarks.models import SmallItem

    create_tables("default")
    if model is not SmallItem:
        _create(model)
    _load(model, rows)


def _create(model: Any) -> None:
    from django.db import connection

    with connection.schema_editor() as editor:
        editor.create_model(model)


def _load(model: Any, rows: int) -> None:
    """Load rows by batches; they have stocks from 0 to 999."""
    from benchmarks.databases import items

    made = items(model, rows)
    while batch := list(itertools.islice(made, 10_000)):
        model.objects.bulk_create(batch)


def _measured(do: Do, most: int, scale: float, server: Running) -> Told:
    """Seconds of an operation, and what it asks of the store."""
    do()  # the first time is everybody's slowest
    asked = server.counts()
    seconds = list(_times(do, max(int(most * scale), 5), LONGEST * scale))
    return {"seconds": seconds, "requests": dict(server.counts() - asked)}


@contextmanager
def _request() -> Iterator[None]:
    """What Django does around a request: at its end connections are closed."""
    from django.db import connection

    try:
        yield
    finally:
        connection.close()


def _operations(model: Any, request: Request) -> dict[str, tuple[Do, int]]:
    """What is measured one by one, and how often at most."""
    from django.db.models import F

    from benchmarks.databases import item

    rng = random.Random(1)
    objects = model.objects
    with request():
        keys = sorted(objects.values_list("pk", flat=True))
    popular = keys[:100]
    in_warehouses = keys[-WAREHOUSES:]

    def update(key: int) -> None:
        objects.filter(pk=key).update(stock=F("stock") + 1)

    def write_and_read() -> None:
        update(keys[0])
        objects.get(pk=keys[0])

    def page() -> None:
        objects.get(pk=rng.choice(popular))
        objects.in_bulk(in_warehouses)

    found: dict[str, tuple[Do, int]] = {
        "get(pk), one of 100": (lambda: objects.get(pk=rng.choice(popular)), 2000),
        "count()": (lambda: objects.count(), 1000),
        "list(100)": (lambda: list(objects.order_by("pk")[:100]), 400),
        "filter(region).count()": (
            lambda: objects.filter(region=f"r{rng.randrange(5)}").count(),
            400,
        ),
        f"page of {WAREHOUSES} warehouses": (page, 200),
        "create()": (lambda: item(model).save(), 200),
        "update(stock + 1)": (lambda: update(rng.choice(popular)), 200),
        "update, then get(pk)": (write_and_read, 200),
    }
    return {name: (_within(request, do), most) for name, (do, most) in found.items()}


def _within(request: Request, do: Do) -> Do:
    if request is nullcontext:
        return do

    def whole() -> None:
        with request():
            do()

    return whole


def _times(do: Do, most: int, longest: float) -> Iterator[float]:
    """Seconds of so many calls, or of as many as take so long; at least 5."""
    begun = time.perf_counter()
    for number in range(most):
        started = time.perf_counter()
        if number >= 5 and started - begun > longest:
            return
        do()
        yield time.perf_counter() - started


def _past_caches(rows: Any) -> Any:
    """What the database says, and no cache."""
    if hasattr(rows, "nocache"):  # cacheops
        return rows.nocache()
    if "cachalot" in sys.modules:
        from cachalot.api import cachalot_disabled

        with cachalot_disabled():
            return list(rows)
    return rows
