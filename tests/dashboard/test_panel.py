"""The panel of django-debug-toolbar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.db import connection
from django.http import HttpResponse
from django.test import RequestFactory

from s3cache.dashboard.panel import ReadsPanel
from s3cache.results.watching import watchers
from tests.engine import Host
from tests.library.models import Author


class Toolbar:
    """What a panel has of its toolbar; ``browser/`` has a real one."""

    def __init__(self) -> None:
        self.stats: dict[str, Any] = {}
        self.server_timing_stats: dict[str, Any] = {}
        self.request_id = "1"
        self.store = self

    def save_panel(self, request_id: str, panel_id: str, stats: Any) -> None:
        json.dumps(stats)  # it is kept so


def panel() -> ReadsPanel:
    return ReadsPanel(Toolbar(), lambda request: HttpResponse())


def seen(view: Callable[[], object]) -> ReadsPanel:
    """The panel after a request that did this."""
    made = panel()
    made.enable_instrumentation()
    try:
        view()
    finally:
        made.disable_instrumentation()
    made.generate_stats(RequestFactory().get("/"), HttpResponse())
    made.generate_server_timing(RequestFactory().get("/"), HttpResponse())
    return made


def test_each_read_with_its_reason(host: Host) -> None:
    caches["default"].clear()
    Author.objects.create(name="<Ann>")

    def view() -> None:
        for _ in range(2):
            list(Author.objects.filter(born=1901))
        list(Author.objects.order_by("?"))

    found = seen(view)
    stats = found.get_stats()
    assert [(one["event"], one["model"], one["action"]) for one in stats["reads"]] == [
        ("miss", "library.author", "list"),
        ("hit", "library.author", "list"),
        ("bypass", "library.author", "list"),
    ]
    miss, hit, bypass = stats["reads"]
    assert miss["tables"] == "library_author"
    assert hit["why"] == "its result was in the cache"
    assert bypass["why"] == "the same rows may give another result"
    assert miss["milliseconds"] > 0
    assert found.nav_subtitle == "3 reads, 1 hits, 0 store requests"
    assert "library_author" in found.content
    list(Author.objects.all())
    assert len(found.get_stats()["reads"]) == 3


def test_the_requests_that_a_read_waited_for(host: Host) -> None:
    host.pass_time(200_000.0)
    found = seen(lambda: Author.objects.filter(born=1).count())
    (read,) = found.get_stats()["reads"]
    assert len(read["requests"]) == 1
    assert read["requests"][0].startswith("GET ")
    assert "_log/" in found.content


def test_queries_show_them_too(host: Host) -> None:
    host.pass_time(200_000.0)
    connection.force_debug_cursor = True
    try:
        Author.objects.filter(born=2).count()
        assert "GET _log/" in connection.queries[-1]["store"]
    finally:
        connection.force_debug_cursor = False


def test_requests_on_the_event_loop(host: Host) -> None:
    async def request() -> ReadsPanel:
        made = panel()
        made.enable_instrumentation()
        await sync_to_async(lambda: Author.objects.filter(born=3).exists())()
        made.disable_instrumentation()
        return made

    made = asyncio.run(request())
    made.generate_stats(RequestFactory().get("/"), HttpResponse())
    assert made.get_stats()["number"] == 1


def test_nobody_watches_afterwards(host: Host) -> None:
    def view() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        seen(view)
    assert not [one for one in watchers if "panel" in type(one).__module__]
