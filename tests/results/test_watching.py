"""Whoever watches is told of each read, what became of it and why."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connection, transaction
from django.db.models.functions import Now, Random

from s3cache.results.watching import (
    Read,
    Watch,
    Why,
    watch,
    watch_always,
    watchers,
)
from s3cache.stores.base import Request
from tests.db.test_reads import store_down
from tests.engine import Host, MakeHost
from tests.library.models import Author, Book, Tag
from tests.results.seen import directory, on_loop
from tests.testapp.models import Category, Product

pytestmark = directory

MEMORY = {"default": {"BACKEND": "s3cache.caches.MemoryCache"}}


class Journal(Watch):
    """All that a watch is told, in order."""

    def __init__(self) -> None:
        self.told: list[Read] = []
        self.statements: list[tuple[Read, float, list[str]]] = []
        self.add = self.told.append

    def measured(self, read: Read, seconds: float, requests: Sequence[Request]) -> None:
        self.add(read)
        self.statements.append((read, seconds, [one.kind for one in requests]))


def reads(do: Callable[[], Any]) -> list[Read]:
    with watch(Journal()) as seen:
        do()
    return seen.told


def one(do: Callable[[], Any]) -> Read:
    (read,) = reads(do)
    return read


@pytest.fixture
def memory(settings: Any) -> Iterator[None]:
    settings.CACHES = MEMORY
    yield
    caches["default"].clear()


def names() -> list[str]:
    return [author.name for author in Author.objects.order_by("name")]


def test_a_miss_and_then_a_hit(host: Host) -> None:
    first, second = one(names), one(names)
    assert (first.event, first.why) == ("miss", Why.ABSENT)
    assert (second.event, second.why) == ("hit", Why.KEPT)
    assert (first.alias, first.label, first.action) == (
        "default",
        "library.author",
        "list",
    )
    assert first.tables == second.tables == ("library_author",)


def test_tables_are_all_that_the_statement_reads(host: Host) -> None:
    read = one(lambda: list(Book.objects.filter(tags__note="x", author__born=1)))
    assert read.tables == (
        "library_author",
        "library_book",
        "library_book_tags",
        "library_tag",
    )


@pytest.mark.parametrize(
    ("do", "why"),
    [
        (lambda: list(Author.objects.order_by(Random())), Why.IMPURE),
        (lambda: list(Author.objects.annotate(now=Now())), Why.IMPURE),
        (lambda: list(Author.objects.select_for_update()), Why.NOT_KEPT),
        (lambda: list(Product.objects.skip_cache()), Why.SKIPPED),
        (transaction.atomic(lambda: list(Author.objects.all())), Why.BLOCK),
    ],
)
def test_what_goes_past_the_cache_and_why(
    host: Host, do: Callable[[], Any], why: Why
) -> None:
    read = one(do)
    assert (read.event, read.why) == ("bypass", why)
    assert len(read.tables) == 1


def test_fresh_is_a_miss_that_was_asked_for(host: Host) -> None:
    list(Product.objects.all())
    read = one(lambda: list(Product.objects.fresh()))
    assert (read.event, read.why) == ("miss", Why.FRESH)


def test_what_is_excluded(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"EXCLUDE": ["library"]}
    read = one(names)
    assert (read.event, read.why) == ("bypass", Why.EXCLUDED)
    assert (read.label, read.action) == ("library.author", "list")


def test_a_cache_that_keeps_nothing(host: Host, settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    }
    assert one(names).why is Why.NO_CACHE


def test_sql_by_hand(host: Host) -> None:
    def do() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM library_tag")

    read = one(do)
    assert (read.label, read.action, read.tables) == ("sql", "query", ("library_tag",))
    assert one(transaction.atomic(do)).why is Why.BLOCK


def test_writes_are_no_reads(host: Host) -> None:
    def do() -> None:
        Tag.objects.create(name="x")
        Tag.objects.filter(name="x").update(note="y")
        with transaction.atomic():
            Tag.objects.filter(name="x").update(note="z")

    assert reads(do) == []


@pytest.mark.usefixtures("hot_path")
def test_a_hit_of_the_hot_path(host: Host, memory: None) -> None:
    Category.objects.create(name="a")
    for _ in range(3):
        Category.objects.get(name="a")
    first = one(lambda: Category.objects.get(name="a"))
    assert (first.event, first.why, first.action) == ("hit", Why.HOT, "get")
    assert first.tables == ("testapp_category",)
    # It is the same object each time, so that a set of them stays small.
    assert one(lambda: Category.objects.get(name="a")) is first


@pytest.mark.usefixtures("hot_path")
def test_reads_on_an_event_loop(host: Host, memory: None) -> None:
    async def ask() -> list[Read]:
        for _ in range(3):
            await Product.objects.acount()
        with watch(Journal()) as seen:
            await Product.objects.acount()  # on the loop
            assert [tag async for tag in Tag.objects.all()] == []  # in a thread
        return seen.told

    hot, slow = on_loop(ask)
    assert (hot.label, hot.why) == ("testapp.product", Why.HOT)
    assert (slow.label, slow.why) == ("library.tag", Why.ABSENT)


def test_tasks_at_once_are_told_of_their_own_reads(host: Host) -> None:
    async def ask(model: Any) -> set[str]:
        with watch(Watch()) as seen:
            for _ in range(5):
                assert [row async for row in model.objects.all()] == []
                await asyncio.sleep(0)
        return {read.label for read in seen.reads}

    async def both() -> list[set[str]]:
        return [*await asyncio.gather(ask(Author), ask(Tag))]

    assert on_loop(both) == [{"library.author"}, {"library.tag"}]


def test_threads_at_once_are_told_of_their_own_reads(host: Host) -> None:
    found: dict[str, set[str]] = {}
    ready = threading.Barrier(2)

    def run(model: Any) -> None:
        with watch(Watch()) as seen:
            ready.wait()
            for _ in range(5):
                list(model.objects.all())
        found[model.__name__] = {read.label for read in seen.reads}
        connection.close()

    threads = [threading.Thread(target=run, args=(model,)) for model in (Author, Tag)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"Author": {"library.author"}, "Tag": {"library.tag"}}


def test_a_copy_of_the_context_is_watched_in_another_thread(host: Host) -> None:
    def run() -> None:
        names()
        connection.close()

    with watch(Watch()) as seen:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(run,))
        thread.start()
        thread.join()
    assert {read.label for read in seen.reads} == {"library.author"}


def test_one_watch_within_another(host: Host) -> None:
    with watch(Watch()) as outer:
        names()
        with watch(Watch()) as inner:
            list(Tag.objects.all())
        names()
    assert {read.label for read in inner.reads} == {"library.tag"}
    assert {(read.label, read.event) for read in outer.reads} == {
        ("library.author", "miss"),
        ("library.author", "hit"),
        ("library.tag", "miss"),
    }


def test_a_statement_s_time_and_store_requests(hosts: MakeHost) -> None:
    with hosts(max_age=0) as host, watch(Journal()) as seen:
        host.catch_up()
        names()
    ((read, seconds, requests),) = seen.statements
    assert read.event == "miss"
    assert seconds > 0
    assert requests == ["GET"]


def test_stale_is_said_beside(hosts: MakeHost) -> None:
    with hosts(max_age=0.0) as host:
        names()
        host.pass_time(10)
        with store_down():
            read = one(names)
    assert (read.event, set(read.beside)) == ("hit", {"stale"})


def test_nobody_watches_when_all_is_over(host: Host) -> None:
    with pytest.raises(ZeroDivisionError), watch(Watch()) as seen:
        names()
        raise ZeroDivisionError
    names()
    assert {read.event for read in seen.reads} == {"miss"}
    assert seen not in watchers


def test_what_watches_always_is_told_of_all_contexts(host: Host) -> None:
    everything = Journal()
    watch_always(everything, on=True)
    try:
        names()
        with watch(Watch()) as seen:
            names()
    finally:
        watch_always(everything, on=False)
    names()
    assert [read.event for read in everything.told] == ["miss", "hit"]
    assert {read.event for read in seen.reads} == {"hit"}
