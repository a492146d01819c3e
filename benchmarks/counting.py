"""``python -m benchmarks.counting``: what counting costs, and showing it.

First, a warm ``get(pk)`` with the counter of its model and action, and with
nothing in its place: medians of rounds that take turns. Then, what it takes to
read the figures of 200 models, 20 hosts and a month of history, to add what a
process has counted, and now and then what all other hosts have.

Judged is what a page, or an endpoint, asks for: of a history that is as many
steps as a chart has. All minutes of a day, and all hours of a month, are there
for whoever calls ``history`` without ``step``; what they take is told.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.book import HOSTS, fill
from benchmarks.hot import BUCKET, MEMORY, configure, reads

#: Nanoseconds that counting may add to a warm get(pk).
MOST_NANOSECONDS = 60

#: Seconds that each of the figures of a page may take.
MOST_SECONDS = 0.05

ROUNDS, REPEAT = 60, 5_000

Works = dict[str, Callable[[], object]]


def seconds(work: Callable[[], object], repeat: int = 1) -> float:
    """The processor's time for one call."""
    numbers = range(repeat)
    start = time.process_time()
    for _ in numbers:
        work()
    return (time.process_time() - start) / repeat


def cost_of_a_count() -> tuple[float, float, float]:
    """Nanoseconds of a count, of a warm get(pk), and of one without it."""
    from s3cache.results import hot

    (get,) = [one.bucket for one in reads() if one.name == "get(pk)"]
    seconds(get, 10)
    recipes = [
        recipe
        for one in list(hot._all)
        for shape in one.shapes
        for recipe in shape.recipes.values()
    ]
    tick = recipes[0].hit
    counted, uncounted, count, empty = [], [], [], []
    hits = [(recipe, recipe.hit) for recipe in recipes]
    for _ in range(ROUNDS):
        # bool() does nothing: so there is only the call itself too much.
        for recipe, _hit in hits:
            object.__setattr__(recipe, "hit", bool)
        uncounted.append(seconds(get, REPEAT))
        for recipe, hit in hits:
            object.__setattr__(recipe, "hit", hit)
        counted.append(seconds(get, REPEAT))
        count.append(seconds(tick, 20 * REPEAT))
        empty.append(_loop(20 * REPEAT))
    alone = statistics.median(count) - statistics.median(empty)
    return (
        1e9 * alone,
        1e9 * statistics.median(counted),
        1e9 * statistics.median(uncounted),
    )


def _loop(repeat: int) -> float:
    numbers = range(repeat)
    start = time.process_time()
    for _ in numbers:
        pass
    return (time.process_time() - start) / repeat


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all; return 1 if ``--check`` finds a target missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counting")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="s3cache-benchmarks-") as directory:
        configure(Path(directory), MEMORY)
        count, counted, uncounted = cost_of_a_count()
        print(f"a count             {count:8.0f} ns (at most {MOST_NANOSECONDS})")
        print(f"get(pk), counted    {counted:8.0f} ns")
        print(f"get(pk), a no-op    {uncounted:8.0f} ns")
        missed = count > MOST_NANOSECONDS
        fill(BUCKET)
        for name, took in timed(shown()):
            print(
                f"{name:19} {1000 * took:8.1f} ms (at most {1000 * MOST_SECONDS:.0f})"
            )
            missed |= took > MOST_SECONDS
        for name, took in timed(whole()):
            print(f"{name:19} {1000 * took:8.1f} ms")
        took = statistics.median(map(seconds, hearing()))
        print(
            f"{'of other hosts':19} {1000 * took:8.1f} ms, every {fleet_pace():.0f} s"
        )
        from django.db import connections

        connections.close_all()
    return int(missed and options.check)


def timed(works: Works) -> Iterator[tuple[str, float]]:
    """What each of them takes."""
    for name, work in works.items():
        yield name, statistics.median(seconds(work) for _ in range(9))


def shown() -> Works:
    """What pages and endpoints ask for."""
    from s3cache.dashboard.selection import Period, Selection
    from s3cache.dashboard.series import history_of
    from s3cache.metrics import keeping, show

    def history(period: Period, model: str | None = None) -> object:
        return history_of(show.gather(), Selection(period=period), model)

    return {
        "adding to the book": keeping.flush,
        "snapshot": show.snapshot,
        "an hour": lambda: history("hour"),
        "a day": lambda: history("day"),
        "a month": lambda: history("month"),
        "of one model": lambda: history("month", "shop1.thing1"),
        "money": show.money,
        "advice": show.advice,
    }


def whole() -> Works:
    """What nobody shows: a point for each minute, or hour, of all the time."""
    from s3cache.metrics import show

    return {
        "all minutes": lambda: show.history("day"),
        "all hours": lambda: show.history("month"),
    }


def fleet_pace() -> float:
    """Seconds between two times that hosts tell each other."""
    from s3cache.metrics import fleet

    return fleet.EVERY


def hearing() -> Iterator[Callable[[], object]]:
    """What adds the numbers of all other hosts, each of which has grown."""
    import msgspec

    from s3cache.metrics import fleet, keeping

    book = keeping.book()
    if book is None:
        raise RuntimeError("there is no book")
    page = fleet._own_page(book)
    totals = fleet._totals(page)
    for more in range(1, 8):
        grown = [
            (key, {what: number + more for what, number in numbers.items()})
            for key, numbers in totals.items()
        ]
        its = msgspec.structs.replace(page, totals=fleet._encode(grown))
        names = [f"host-{number}" for number in range(HOSTS - 1)]
        heard = {
            name: fleet._encode(msgspec.structs.replace(its, host=name))
            for name in names
        }

        def hear(heard: dict[str, bytes] = heard) -> None:
            now = time.time()
            with book.writing(now) as writer:
                fleet._add(writer, heard, now)

        yield hear


if __name__ == "__main__":
    sys.exit(main())
