"""An airport's page, its neighbours above all."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from example_project.airports import geo, radar
from example_project.airports.models import Airport, TimeZone
from example_project.airports.neighbours import nearest

from .conftest import Record

pytestmark = pytest.mark.django_db


def test_facts(client: Client) -> None:
    response = client.get("/airports/EDDF/")
    assert response.status_code == 200
    for fact in (
        "<h1>Frankfurt am Main International Airport</h1>",
        "Frankfurt am Main, Hesse, Germany",
        '<b class="code">FRA</b>',
        '<b class="code">EDDF</b>',
        "50.0264°\xa0N, 8.5431°\xa0E",
        "364 ft (111 m)",
        'href="/airports/?zone=Europe%2FBerlin"',
        "Local time",
    ):
        assert fact in response.text


def test_an_airport_in_the_south_west(client: Client) -> None:
    assert "27.1648°\xa0S, 109.4220°\xa0W" in client.get("/airports/SCIP/").text


def test_its_links_lead_to_its_neighbours_country_and_zone(client: Client) -> None:
    text = client.get("/airports/EDDF/").text
    for address in ("/airports/EDFE/", "/countries/DE/", "/airports/EDDF/edit/"):
        assert f'href="{address}"' in text
        assert client.get(address).status_code in {200, 302}


@pytest.mark.parametrize("code", ["XXXX", "eddf", "../x", "é", "%00"])
def test_an_unknown_airport_is_not_found(client: Client, code: str) -> None:
    response = client.get(f"/airports/{code}/")
    assert response.status_code == 404
    assert "There is nothing at this address" in response.text
    assert 'type="search"' in response.text


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("EDDF", "many around it"),
        ("KJFK", "very many around it"),
        ("NFNG", "near the date line, west of it"),
        ("NFCI", "near the date line, east of it"),
        ("NZSP", "at the pole"),
        ("CYLT", "the northernmost"),
        ("SCIP", "an island far from everything"),
        ("FHAW", "another one"),
    ],
)
def test_neighbours_are_the_nearest_of_all(
    code: str, why: str, published: dict[str, Record]
) -> None:
    here = published[code]

    def away(there: Record) -> float:
        return geo.distance(here["lat"], here["lon"], there["lat"], there["lon"])

    expected = sorted(
        (away(record), other) for other, record in published.items() if other != code
    )[:8]
    found = [
        (neighbour.distance, neighbour.airport.code)
        for neighbour in nearest(Airport.objects.get(pk=code))
    ]
    assert found == expected


def test_fewer_neighbours_than_wanted(django_assert_max_num_queries: Any) -> None:
    Airport.objects.exclude(pk__in=["EDDF", "NZSP", "SCIP"]).delete()
    with django_assert_max_num_queries(10):
        found = nearest(Airport.objects.get(pk="EDDF"))
    assert [neighbour.airport.code for neighbour in found] == ["SCIP", "NZSP"]


def test_the_only_airport(client: Client) -> None:
    Airport.objects.exclude(pk="EDDF").delete()
    assert "no other airport" in client.get("/airports/EDDF/").text


def test_in_a_dense_place_neighbours_take_two_queries(
    django_assert_num_queries: Any,
) -> None:
    airport = Airport.objects.get(pk="EDDF")
    with django_assert_num_queries(2):
        nearest(airport)


@pytest.mark.parametrize(
    ("farthest", "reach"),
    [(0, 1), (0.3, 1), (1, 1), (1.1, 2), (38.5, 50), (50, 50), (51, 100), (2999, 5000)],
)
def test_the_radar_reaches_a_round_number(farthest: float, reach: float) -> None:
    assert radar.reach_for(farthest) == reach


def test_the_radar_shows_north_up() -> None:
    screen = radar.draw(nearest(Airport.objects.get(pk="EDDF")))
    north = screen.blips[4]  # Anspach/Taunus, 29 km north
    assert screen.reach == 50
    assert abs(north.x) < 2
    assert north.y == pytest.approx(-58, abs=1)


def test_names_are_text(client: Client) -> None:
    Airport.objects.filter(pk="EDDF").update(name="<b>&'\" <!-- cost -->")
    text = client.get("/airports/EDDF/").text
    assert "<h1>&lt;b&gt;&amp;&#x27;&quot; &lt;!-- cost --&gt;</h1>" in text


def test_a_time_zone_that_this_machine_lacks(client: Client) -> None:
    TimeZone.objects.create(name="Mars/Olympus", region="Mars")
    Airport.objects.filter(pk="EDDF").update(timezone="Mars/Olympus")
    text = client.get("/airports/EDDF/").text
    assert "Mars/Olympus" in text
    assert "Local time" not in text
