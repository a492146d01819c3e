"""Readers and writers at once, on one replica and on two: nothing stale."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import caches

from s3cache.results.counters import counters
from tests.db.hosts import on, together
from tests.engine import Host, MakeHost
from tests.library.models import Author
from tests.results.seen import directory, totals
from tests.testapp.models import Category, Product

pytestmark = directory

BACKENDS = {
    "locmem": "django.core.cache.backends.locmem.LocMemCache",
    "memory": "s3cache.caches.MemoryCache",
}

WRITES = 40


class Progress:
    """How far each writer is: what has returned has to be seen."""

    def __init__(self, names: list[str]) -> None:
        self.done = dict.fromkeys(names, 0)
        self.left = len(names)


def reads_of(name: str) -> list[Callable[[], int]]:
    """Different ways to read the number that a writer has reached."""
    return [
        lambda: Author.objects.get(name=name).born,
        lambda: Author.objects.filter(name=name).values_list("born", flat=True)[0],
        lambda: int(Category.objects.get(pk=KEYS[name]).name),
        lambda: Product.objects.filter(region=name).count(),
        lambda: len(Product.objects.partition("by_region", region=name)),
    ]


KEYS: dict[str, Any] = {}


def write(name: str, number: int) -> None:
    Author.objects.filter(name=name).update(born=number)
    Category.objects.filter(pk=KEYS[name]).update(name=str(number))
    Product.objects.create(sku=f"{name}{number}", region=name)


def writer(host: Host, name: str, progress: Progress) -> Callable[[], int]:
    def run() -> int:
        with on(host):
            try:
                for number in range(1, WRITES + 1):
                    write(name, number)
                    progress.done[name] = number
            finally:
                progress.left -= 1
        return 0

    return run


def reader(
    host: Host, names: list[str], own: str, progress: Progress, seed: int
) -> Callable[[], int]:
    """Counts what it read; what its own host wrote it sees without asking."""

    def run() -> int:
        chance = random.Random(seed)
        count = 0
        with on(host) as connection:
            while progress.left:
                name = chance.choice(names)
                reached = progress.done[name]
                if name != own:
                    connection.catch_up()
                read = chance.choice(reads_of(name))
                assert read() >= reached
                count += 1
        return count

    return run


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_reader_sees_less_than_what_has_returned(
    hosts: MakeHost, settings: Any, backend: str
) -> None:
    settings.CACHES = {"default": {"BACKEND": BACKENDS[backend], "LOCATION": "stress"}}
    a, b = hosts("a"), hosts("b")
    names = ["a", "b"]
    with a:
        for name in names:
            Author.objects.create(name=name, born=0)
            KEYS[name] = Category.objects.create(name="0").pk
    b.catch_up()
    counters.clear()
    progress = Progress(names)
    together(
        [
            writer(a, "a", progress),
            writer(b, "b", progress),
            *(reader(a, names, "a", progress, seed) for seed in range(2)),
            *(reader(b, names, "b", progress, seed) for seed in range(2)),
        ]
    )
    assert totals()["hit"] > 0
    for host in (a, b):
        host.catch_up()
        with host:
            assert [read() for name in names for read in reads_of(name)] == [
                WRITES
            ] * 10
    caches["default"].clear()
