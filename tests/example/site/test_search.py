"""Search, filters and pages."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db.models import QuerySet
from django.test import Client
from django.urls import reverse

from example_project.airports.models import Airport

from .conftest import Record

pytestmark = pytest.mark.django_db

Published = dict[str, Record]


def search(client: Client, **query: Any) -> Any:
    response = client.get(reverse("airports:search"), query)
    assert response.status_code == 200
    return response


def codes(client: Client, **query: Any) -> list[str]:
    """The codes on the first page."""
    return [airport.code for airport in search(client, **query).context["page"]]


def found(client: Client, **query: Any) -> set[str]:
    """The codes on all pages."""
    airports: QuerySet[Airport] = (
        search(client, **query).context["page"].paginator.object_list
    )
    return set(airports.values_list("pk", flat=True))


def test_without_a_filter_all_airports_are_there_by_name(
    client: Client, published: Published
) -> None:
    expected = sorted(published.values(), key=lambda a: (a["name"], a["icao"]))
    assert codes(client) == [airport["icao"] for airport in expected[:25]]
    assert found(client) == set(published)


def test_country(client: Client, published: Published) -> None:
    expected = {a["icao"] for a in published.values() if a["country"] == "DE"}
    assert found(client, country="DE") == expected
    assert "<h1>Airports in Germany</h1>" in search(client, country="DE").text


def test_time_zone(client: Client, published: Published) -> None:
    zone = "America/Argentina/Ushuaia"
    expected = {a["icao"] for a in published.values() if a["tz"] == zone}
    assert found(client, zone=zone) == expected != set()


def test_only_with_an_iata_code(client: Client, published: Published) -> None:
    expected = {a["icao"] for a in published.values() if a["iata"]}
    assert found(client, iata="on") == expected


def test_filters_add_up(client: Client, published: Published) -> None:
    expected = {
        a["icao"]
        for a in published.values()
        if a["iata"]
        and a["country"] == "US"
        and a["tz"] == "America/Anchorage"
        and "bay" in f"{a['name']} {a['city']}".lower()
    }
    query = {"country": "US", "zone": "America/Anchorage", "iata": "on", "q": "bay"}
    assert found(client, **query) == expected != set()


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("FRA", "EDDF"),
        ("fra", "EDDF"),
        (" eddf ", "EDDF"),
        ("frankfurt am main", "EDDF"),
        ("egilsstadir", "BIEG"),
        ("EGILSSTAÐIR", "BIEG"),
    ],
)
def test_what_is_meant_comes_first(client: Client, text: str, first: str) -> None:
    assert codes(client, q=text)[0] == first


def test_all_words_must_occur_in_any_order(client: Client) -> None:
    assert found(client, q="kennedy york") == found(client, q="York KENNEDY")
    assert "KJFK" in found(client, q="kennedy york")
    assert "EDDF" not in found(client, q="kennedy york")


@pytest.mark.parametrize("text", ["%", "_YM", "_a", "\\", "'", '"', "--"])
def test_signs_of_sql_are_only_signs(
    client: Client, published: Published, text: str
) -> None:
    expected = {
        code
        for code, a in published.items()
        if text.lower()
        in " ".join((a["icao"], a["iata"], a["name"], a["city"], a["subd"])).lower()
    }
    assert found(client, q=text) == expected


def test_what_was_typed_comes_back_as_text(client: Client) -> None:
    page = search(client, q='"><script>alert(1)</script>').text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("name", lambda a: (a["name"], a["icao"])),
        ("city", lambda a: (a["city"], a["name"], a["icao"])),
        ("code", lambda a: a["icao"]),
        ("highest", lambda a: (-a["elevation"], a["name"], a["icao"])),
    ],
)
def test_orders(client: Client, published: Published, order: str, key: Any) -> None:
    swiss = [a for a in published.values() if a["country"] == "CH"]
    assert codes(client, country="CH", order=order) == [
        airport["icao"] for airport in sorted(swiss, key=key)[:25]
    ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"country": "XX"}, "Select a valid choice"),
        ({"zone": "Mars/Olympus"}, "Select a valid choice"),
        ({"order": "luck"}, "Select a valid choice"),
        ({"q": "\x00"}, "Null characters are not allowed."),
        ({"q": "x" * 101}, "at most 100 characters"),
    ],
)
def test_what_cannot_be_searched_for_is_said(
    client: Client, query: dict[str, str], message: str
) -> None:
    response = search(client, **query)
    assert message in response.text
    assert "please correct the field that is marked" in response.text
    assert 'aria-invalid="true"' in response.text
    assert response.context["page"].paginator.count == 0


def test_nothing_found(client: Client) -> None:
    page = search(client, q="no airport has this name").text
    assert "No airport is like that" in page
    assert "load_airports" not in page


# Pages


def page_of(client: Client, page: object, **query: str) -> Any:
    return search(client, page=page, **query).context["page"]


def test_pages_hold_each_airport_once(client: Client, published: Published) -> None:
    expected = {a["icao"] for a in published.values() if a["country"] == "IT"}
    count = -(-len(expected) // 25)
    pages = [
        [airport.code for airport in page_of(client, number + 1, country="IT")]
        for number in range(count)
    ]
    assert [len(page) for page in pages[:-1]] == [25] * (count - 1)
    seen = [code for page in pages for code in page]
    assert len(seen) == len(set(seen))
    assert set(seen) == expected


@pytest.mark.parametrize(
    ("asked", "shown"),
    [("1", 1), ("2", 2), ("", 1), ("x", 1), ("1.5", 1), ("999999", 20)],
)
def test_a_page_that_is_not_there_shows_another(
    client: Client, asked: str, shown: int
) -> None:
    page = page_of(client, asked, country="DE")
    assert page.paginator.num_pages == 20
    assert page.number == shown


def test_links_to_pages_keep_the_filters(client: Client) -> None:
    text = search(client, country="DE", q="berg", page="1").text
    links = re.findall(r'<a rel="next" href="([^"]+)"', text)
    assert len(links) == 1
    for part in ("country=DE", "q=berg", "page=2"):
        assert part in links[0]


def test_the_first_and_the_last_page_end_the_links(client: Client) -> None:
    first = search(client, country="DE").text
    last = search(client, country="DE", page="999").text
    assert 'rel="prev"' not in first
    assert 'rel="next"' in first
    assert 'rel="prev"' in last
    assert 'rel="next"' not in last


def test_one_page_has_no_links_to_pages(client: Client) -> None:
    assert 'class="pages"' not in search(client, country="LU").text
