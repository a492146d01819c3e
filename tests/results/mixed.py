"""What the processes of ``test_mixed`` do, and what each read has to see.

Each process writes a counter of its own, in three tables, and reads those of
all. ``Ledger`` is a file that all of them map: when each value's commit
returned, on the clock of the machine. A read that begins later, by
``max_age`` on another host, has to see that value or a newer one; and none
that nobody has begun to write.
"""

from __future__ import annotations

import mmap
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import connection, connections
from django.db.models import Max

from s3cache.replica import clock
from s3cache.results.counters import counters
from tests.library.models import Author
from tests.testapp.models import Category, Product

#: The most that a counter comes to.
MOST = 200_000

READERS = 2


class Ledger:
    """When each value of each counter was committed; shared by processes."""

    def __init__(self, path: Path, counters: int) -> None:
        size = 8 * counters * (MOST + 1)
        with path.open("a+b") as file:
            if file.tell() < size:
                file.truncate(size)  # sparse
            self._map = mmap.mmap(file.fileno(), size)
        self._times = memoryview(self._map).cast("d")

    def begin(self, counter: int, value: int) -> None:
        """Somebody is about to write the value."""
        self._times[counter * (MOST + 1)] = value

    def begun(self, counter: int) -> int:
        """The last value that somebody has begun to write."""
        return int(self._times[counter * (MOST + 1)])

    def returned(self, counter: int, value: int) -> None:
        """The commit of the value has returned."""
        self._times[counter * (MOST + 1) + value] = clock.now()

    def seen_by(self, counter: int, moment: float, at_least: int) -> int:
        """The last value whose commit had returned at a moment."""
        first = counter * (MOST + 1)
        value = at_least
        while value < MOST and 0 < self._times[first + value + 1] <= moment:
            value += 1
        return value

    def close(self) -> None:
        """Give the file back."""
        self._times.release()
        self._map.close()


@dataclass(frozen=True)
class Job:
    """One process of several."""

    ledger: Path
    #: By counter, which host its writer is on.
    hosts: tuple[int, ...]
    counter: int
    max_age: float
    seed: int
    cache: dict[str, object]
    #: The keys of the categories, by counter.
    keys: tuple[str, ...]


def ways(job: Job, counter: int) -> list[Callable[[], int]]:
    """Different ways to read what a counter has come to."""
    name, key = str(counter), job.keys[counter]
    part = Product.objects.filter(region=name)
    return [
        lambda: Author.objects.get(name=name).born,
        lambda: Author.objects.filter(name=name).values_list("born", flat=True)[0],
        lambda: [author.born for author in Author.objects.filter(name=name)][0],
        lambda: int(Category.objects.get(pk=key).name),
        lambda: int(Category.objects.filter(pk=key).first().name),  # type: ignore[union-attr]
        lambda: Product.objects.filter(region=name).count(),
        lambda: Product.objects.partition("by_region", region=name).count(),
        lambda: Product.objects.filter(region=name).aggregate(n=Max("stock"))["n"] or 0,
        lambda: part.order_by("-stock").first().stock if part.exists() else 0,  # type: ignore[union-attr]
    ]


def write(job: Job, value: int) -> None:
    """Have all tables say so; what was done before is done once."""
    name = str(job.counter)
    Author.objects.filter(name=name).update(born=value)
    Category.objects.filter(pk=job.keys[job.counter]).update(name=str(value))
    Product.objects.get_or_create(
        sku=f"{name}-{value}", defaults={"region": name, "stock": value}
    )


class Wrong(AssertionError):
    """A read saw what it must not have seen."""


def play(job: Job, seconds: float) -> dict[str, int]:
    """Write and read for so long; what was counted. Raises ``Wrong``."""
    settings.CACHES = {"default": job.cache}
    with closing(Ledger(job.ledger, len(job.hosts))) as ledger:
        until = clock.now() + seconds
        failed: list[BaseException] = []
        counted: Counter[str] = Counter()
        jobs = [_writer, *[_reader] * READERS]

        def run(index: int) -> None:
            try:
                counted.update(jobs[index](job, ledger, until, index))
            except BaseException as error:
                failed.append(error)
            finally:
                connections.close_all()

        threads = [
            threading.Thread(target=run, args=[index]) for index in range(len(jobs))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
    for counts in counters.read().values():
        for event in ("hit", "miss", "wait", "bypass", "stale"):
            counted[event] += getattr(counts, event)
    counters.clear()
    return dict(counted)


def _writer(job: Job, ledger: Ledger, until: float, index: int) -> Counter[str]:
    # One that was killed may or may not have written what it had begun.
    value = max(ledger.begun(job.counter), 1)
    written = 0
    while clock.now() < until and value < MOST:
        ledger.begin(job.counter, value)
        write(job, value)
        ledger.returned(job.counter, value)
        value, written = value + 1, written + 1
    return Counter(written=written)


def _reader(job: Job, ledger: Ledger, until: float, index: int) -> Counter[str]:
    chance = random.Random(f"{job.seed} {job.counter} {index} {until}")
    least = [0] * len(job.hosts)
    read = rebuilt = 0
    while clock.now() < until:
        counter = chance.randrange(len(job.hosts))
        on_this_host = job.hosts[counter] == job.hosts[job.counter]
        way = chance.randrange(9)
        began = clock.now() - (0 if on_this_host else job.max_age)
        expected = least[counter] = ledger.seen_by(counter, began, least[counter])
        found = ways(job, counter)[way]()
        if not expected <= found <= ledger.begun(counter):
            raise Wrong(
                f"way {way} of counter {counter} saw {found}, not {expected} to "
                f"{ledger.begun(counter)}; on its own host: {on_this_host}"
            )
        read += 1
        if chance.random() < 0.0005:
            connection.rebuild_replica()  # type: ignore[attr-defined]
            rebuilt += 1
    return Counter(read=read, rebuilt=rebuilt)
