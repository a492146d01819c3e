"""What a page says that it cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import RequestFactory

from example_project import cost
from example_project.airports.models import Country


def answer(response: HttpResponseBase, *, queries: int = 0) -> HttpResponseBase:
    """Send a request through the middleware to a view of so many queries."""

    def view(request: HttpRequest) -> HttpResponseBase:
        for _ in range(queries):
            Country.objects.exists()
        return response

    return cost.CostMiddleware(view)(RequestFactory().get("/"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request takes 12.3 ms."""
    times = iter((100.0, 100.0123))
    monkeypatch.setattr("time.perf_counter", lambda: next(times))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("queries", "text"),
    [
        (0, "0 store requests, 0 queries, 12 ms"),
        (1, "0 store requests, 1 query, 12 ms"),
        (3, "0 store requests, 3 queries, 12 ms"),
    ],
)
def test_queries_are_counted(queries: int, text: str) -> None:
    response = answer(HttpResponse("<!-- cost -->"), queries=queries)
    assert isinstance(response, HttpResponse)
    assert response.text == text
    assert response["Server-Timing"] == f'total;dur=12.3;desc="{text}"'


def test_a_meter_more(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def hits(tick: cost.Tick) -> Iterator[None]:
        for _ in range(3):
            tick()
        yield

    monkeypatch.setattr(cost, "METERS", {"cache hit": hits})
    response = answer(HttpResponse("<!-- cost -->"))
    assert isinstance(response, HttpResponse)
    assert response.text == "3 cache hits, 12 ms"


def test_the_length_is_that_of_the_page() -> None:
    page = HttpResponse("cost: <!-- cost -->", headers={"Content-Length": "19"})
    response = answer(page)
    assert isinstance(response, HttpResponse)
    assert int(response["Content-Length"]) == len(response.content) > 19


def test_a_page_without_the_mark_is_left_alone() -> None:
    response = answer(HttpResponse(b"\x00\xff"))
    assert isinstance(response, HttpResponse)
    assert response.content == b"\x00\xff"


def test_a_streamed_response_is_not_read() -> None:
    def parts() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    response = answer(StreamingHttpResponse(parts()))
    assert "Server-Timing" not in response.headers


@pytest.mark.django_db
def test_a_failure_leaves_no_meter_behind() -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        raise RuntimeError

    before = list(connection.execute_wrappers)
    with pytest.raises(RuntimeError):
        cost.CostMiddleware(view)(RequestFactory().get("/"))
    assert connection.execute_wrappers == before
