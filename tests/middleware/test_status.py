"""``X-Cache-Status`` says what happened, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.db.models.functions import Random
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory

from s3cache.middleware import CacheStatusMiddleware
from tests.db.test_reads import store_down
from tests.engine import Host, MakeHost
from tests.library.models import Author, Book, Tag
from tests.middleware import site
from tests.results.seen import directory, on_loop

pytestmark = directory


def answer(*reads: Callable[[], Any], **extra: Any) -> HttpResponse:
    def view(request: HttpRequest) -> HttpResponse:
        for read in reads:
            read()
        return HttpResponse("done")

    response = CacheStatusMiddleware(view)(RequestFactory().get("/", **extra))
    assert isinstance(response, HttpResponse)
    return response


def status(*reads: Callable[[], Any]) -> str | None:
    return answer(*reads).get("X-Cache-Status")


def authors() -> None:
    list(Author.objects.all())


def tags() -> None:
    list(Tag.objects.all())


def random() -> None:
    list(Author.objects.order_by(Random()))


def test_a_miss_and_then_a_hit(host: Host) -> None:
    assert status(authors) == "MISS"
    assert status(authors) == "HIT"
    Author.objects.create(name="Ann")
    assert status(authors) == "MISS"


def test_of_several_the_worst_is_said(host: Host) -> None:
    authors()
    assert status(authors, random) == "BYPASS"
    assert status(authors, random, tags) == "MISS"
    assert status(authors, tags) == "HIT"


def test_stale_is_the_worst(hosts: MakeHost) -> None:
    with hosts(max_age=0.0) as host:
        authors()
        host.pass_time(10)
        with store_down():
            assert status(authors, random, tags) == "STALE"


def test_reads_in_a_transaction(host: Host) -> None:
    authors()
    assert status(transaction.atomic(authors)) == "BYPASS"


def test_nothing_was_read(host: Host) -> None:
    def write() -> None:
        Tag.objects.create(name="a")

    def one() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    assert status() is None
    assert status(write) is None
    assert status(one) is None


def test_tables_are_named_with_debug_alone(host: Host, settings: Any) -> None:
    def books() -> None:
        list(Book.objects.filter(author__born=1))

    assert "X-Cache-Table" not in answer(books, tags).headers
    settings.DEBUG = True
    named = answer(books, tags)["X-Cache-Table"]
    assert named == "library_author, library_book, library_tag"


def test_tables_are_named_on_request_of_internal_addresses(
    host: Host, settings: Any
) -> None:
    asking = {"headers": {"X-Cache-Debug": "1"}, "REMOTE_ADDR": "10.0.0.7"}
    assert "X-Cache-Table" not in answer(tags, **asking).headers
    settings.INTERNAL_IPS = ["10.0.0.7"]
    assert answer(tags, **asking)["X-Cache-Table"] == "library_tag"
    assert "X-Cache-Table" not in answer(tags, REMOTE_ADDR="10.0.0.7").headers


def test_what_a_template_reads_counts(host: Host, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.middleware.site"
    settings.MIDDLEWARE = site.MIDDLEWARE[:1]
    assert Client().get("/template/")["X-Cache-Status"] == "MISS"
    assert Client().get("/template/")["X-Cache-Status"] == "HIT"


def test_async_views(host: Host, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.middleware.site"
    settings.MIDDLEWARE = site.MIDDLEWARE[:1]

    async def ask() -> str:
        return str((await AsyncClient().get("/aauthors/"))["X-Cache-Status"])

    assert async_to_sync(ask)() == "MISS"
    assert async_to_sync(ask)() == "HIT"


def test_requests_at_once_are_told_apart_on_a_loop(host: Host) -> None:
    authors()  # the one is a hit, the other a miss
    both: list[str] = []

    async def view(request: HttpRequest) -> HttpResponse:
        model: Any = Author if request.path == "/authors" else Tag
        both.append(request.path)
        while len(both) < 2:  # each is within its request now
            await asyncio.sleep(0)
        assert [row async for row in model.objects.all()] == []
        return HttpResponse()

    async def ask(path: str) -> str:
        made: Any = CacheStatusMiddleware(view)(AsyncRequestFactory().get(path))
        return str((await made)["X-Cache-Status"])

    async def ask_both() -> list[str]:
        return [*await asyncio.gather(ask("/authors"), ask("/tags"))]

    assert on_loop(ask_both) == ["HIT", "MISS"]


def test_requests_at_once_are_told_apart_in_threads(host: Host) -> None:
    authors()
    ready = threading.Barrier(2)
    found: dict[str, str | None] = {}

    def run(name: str, read: Callable[[], None]) -> None:
        found[name] = status(ready.wait, read, ready.wait)
        connection.close()

    threads = [
        threading.Thread(target=run, args=one)
        for one in (("authors", authors), ("tags", tags))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"authors": "HIT", "tags": "MISS"}


def test_an_error_leaves_nobody_watching(host: Host) -> None:
    from s3cache.results.watching import watchers

    before = set(watchers)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        answer(authors, fail)
    assert watchers == before
