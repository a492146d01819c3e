"""Pages outside of any transaction, as visitors see them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from django.db import connection
from django.test import Client

from example_project.airports.models import Country
from s3cache.db.base import DatabaseWrapper
from s3cache.replica import clock
from s3cache.warming import starting
from s3cache.warming.background import background

PAGES = [
    "/",
    "/airports/",
    "/airports/?country=DE&q=berg&page=2",
    "/airports/EDDF/",
    "/countries/",
    "/countries/DE/",
    "/login/",
    "/nothing/",
]


@pytest.fixture(autouse=True)
def db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """
    The database as it is; these tests only read.

    In place of pytest-django's fixture, which opens a transaction.
    """
    with django_db_blocker.unblock():
        yield
        connection.close()


@pytest.fixture(scope="session")
def later() -> Iterator[Callable[[float], None]]:
    """
    A function that lets so many seconds pass.

    For all tests that follow: the replica remembers when it asked, and its
    clock must not go back.
    """
    with pytest.MonkeyPatch.context() as patch:

        def pass_(seconds: float) -> None:
            now = clock.now
            patch.setattr(clock, "now", lambda: now() + seconds)

        yield pass_


@pytest.fixture
def aged(later: Callable[[float], None]) -> None:
    """The replica last asked its store a little more than ``max_age`` ago."""
    # What the first request has warmed asks the store, too.
    starting.start()
    assert background.wait(60)
    # Every ten minutes there is one LIST more: have it made now.
    later(700)
    Country.objects.exists()
    later(61)


def store_requests(client: Client, address: str) -> int:
    """What a page says that it cost."""
    cost = re.search(
        r"cost <strong[^>]*>(\d+) store requests?,", client.get(address).text
    )
    assert cost
    return int(cost[1])


@pytest.mark.parametrize("address", PAGES[:-2])
def test_a_second_visit_makes_no_store_request_and_says_so(
    client: Client, aged: None, later: Callable[[float], None], address: str
) -> None:
    store = cast(DatabaseWrapper, connection).store
    requests = store.requests
    assert store_requests(client, address) == 1
    assert (store.requests - requests).total == 1
    assert store_requests(client, address) == 0
    later(50)
    assert store_requests(client, address) == 0
    assert (store.requests - requests).total == 1


def test_one_request_is_enough_for_all_pages(client: Client, aged: None) -> None:
    assert sum(store_requests(client, address) for address in PAGES) == 1


def test_a_page_without_data_costs_nothing(client: Client, aged: None) -> None:
    assert store_requests(client, "/login/") == 0
    assert store_requests(client, "/nothing/") == 0
