"""What caches do for the site, outside of any transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connection
from django.test import Client

from s3cache.results.repeats import Asked

PAGES = [
    "/",
    "/airports/?country=DE&q=berg&page=2",
    "/airports/EDDF/",
    "/countries/",
    "/countries/DE/",
    "/api/airports/?country=DE&page=2",
]


@pytest.fixture(autouse=True)
def db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The database as it is, in no transaction; these tests only read."""
    caches["default"].clear()
    with django_db_blocker.unblock():
        yield
        connection.close()


@pytest.mark.parametrize("address", PAGES)
def test_the_second_visitor_gets_the_page_of_the_first(address: str) -> None:
    first, second = Client().get(address), Client().get(address)
    assert second["X-Cache-Status"] == "HIT"
    assert 'desc="0 store requests, 0 queries, ' in second["Server-Timing"]
    cost = re.compile(r"<strong class=.cost.>.*?</strong>")
    assert cost.sub("", second.text) == cost.sub("", first.text)
    age, whose = second["Cache-Control"].split(", ")
    assert 0 <= int(age.removeprefix("max-age=")) <= 60
    assert whose == "public"


def test_the_footer_says_so() -> None:
    Client().get("/countries/")
    assert "ms, cache: hit</strong>" in Client().get("/countries/").text


def test_another_address_with_the_same_queries_makes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The choices of the search form are kept at the second time."""
    # Of which nothing is that other tests have asked for.
    connection.ensure_connection()
    statements = connection.statements  # type: ignore[attr-defined]
    monkeypatch.setattr(statements, "_asked", Asked())
    statuses = [
        Client().get(f"/airports/?country=DE&page=2&from={n}")["X-Cache-Status"]
        for n in range(3)
    ]
    assert statuses == ["MISS", "MISS", "HIT"]


def test_who_has_the_newest_page_is_told_so_without_a_query() -> None:
    address = "/api/airports/?country=CH"
    etag = Client().get(address)["ETag"]
    response = Client().get(address, headers={"If-None-Match": etag})
    assert (response.status_code, response.content) == (304, b"")
    assert "0 queries" in response["Server-Timing"]


def test_who_is_logged_in_gets_a_page_of_his_own() -> None:
    visitor = Client()
    visitor.cookies["sessionid"] = "of somebody"
    Client().get("/countries/")
    response = visitor.get("/countries/")
    assert response["Cache-Control"].endswith("private")
    assert "Cookie" in response["Vary"]
