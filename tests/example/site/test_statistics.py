"""Figures, against the same figures computed from what is published."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import Any

import pytest
from django.test import Client

from example_project.airports import worldmap
from example_project.airports.models import Airport, Country

from .conftest import Record

pytestmark = pytest.mark.django_db

Published = dict[str, Record]


def figures(records: list[Record]) -> dict[str, Any]:
    heights = [record["elevation"] for record in records]
    return {
        "airports": len(records),
        "with_iata": sum(bool(record["iata"]) for record in records),
        "countries": len({record["country"] for record in records}),
        "zones": len({record["tz"] for record in records}),
        "highest": max(heights),
        "lowest": min(heights),
        "average": pytest.approx(fmean(heights)),
    }


def of(published: Published, country: str) -> list[Record]:
    return [record for record in published.values() if record["country"] == country]


def test_totals(client: Client, published: Published) -> None:
    for address in ("/", "/countries/"):
        totals = client.get(address).context["totals"]
        assert totals == figures(list(published.values()))


def test_every_country(client: Client, published: Published) -> None:
    shown = client.get("/countries/").context["countries"]
    assert {country.code for country in shown} == {
        record["country"] for record in published.values()
    }
    for country in shown:
        expected = figures(of(published, country.code))
        assert {
            "airports": country.airport_count,
            "with_iata": country.iata_count,
            "zones": country.zone_count,
            "highest": country.highest,
            "average": country.average,
        } == {
            name: expected[name]
            for name in ("airports", "with_iata", "zones", "highest", "average")
        }


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("", lambda c: (-c.airport_count, c.name)),
        ("nonsense", lambda c: (-c.airport_count, c.name)),
        ("airports", lambda c: (-c.airport_count, c.name)),
        ("name", lambda c: c.name),
        ("iata", lambda c: (-c.iata_count, c.name)),
        ("zones", lambda c: (-c.zone_count, c.name)),
        ("highest", lambda c: (-c.highest, c.name)),
    ],
)
def test_orders_of_countries(client: Client, order: str, key: Any) -> None:
    shown = client.get("/countries/", {"order": order}).context["countries"]
    assert shown == sorted(shown, key=key)


def test_the_start_page_names_the_largest(client: Client, published: Published) -> None:
    counts = Counter(record["country"] for record in published.values())
    shown = client.get("/").context["countries"]
    assert [(c.code, c.airport_count) for c in shown][:5] == counts.most_common(5)
    assert len(shown) == 12


@pytest.mark.parametrize("code", ["DE", "US", "NZ", "LU", "XK"])
def test_a_country(client: Client, published: Published, code: str) -> None:
    records = of(published, code)
    context = client.get(f"/countries/{code}/").context
    assert context["totals"] == figures(records)
    for name, field in (("subdivisions", "subd"), ("zones", "tz")):
        counts = Counter(record[field] for record in records)
        assert [(row["value"], row["count"]) for row in context[name]] == sorted(
            counts.items(), key=lambda item: (-item[1], item[0])
        )
    highest = sorted(records, key=lambda r: (-r["elevation"], r["name"]))[:5]
    assert [a.code for a in context["highest"]] == [r["icao"] for r in highest]


def test_a_country_without_airports(client: Client) -> None:
    Country.objects.create(code="VA", name="Holy See")
    response = client.get("/countries/VA/")
    assert response.status_code == 200
    assert "There is no airport of Holy See" in response.text
    assert "Holy See" not in client.get("/countries/").text


@pytest.mark.parametrize("code", ["XX", "de", "DEU"])
def test_an_unknown_country_is_not_found(client: Client, code: str) -> None:
    assert client.get(f"/countries/{code}/").status_code == 404


def test_the_map(published: Published) -> None:
    counts = Counter(
        (int((r["lon"] + 180) / 2), int((84 - r["lat"]) / 2))
        for r in published.values()
        if -60 < r["lat"] < 84
    )
    drawn = worldmap.world(
        Airport.objects.all(), highlight=Country.objects.get(pk="IS")
    )
    shades = [(1, 2), (3, 9), (10, 29), (30, 10**6)]
    for path, (least, most) in zip(drawn.shades, shades, strict=True):
        expected = {
            f"{x}.5 {y}.5h0" for (x, y), n in counts.items() if least <= n <= most
        }
        assert set(path.split("M")[1:]) == expected
    assert set(drawn.highlight.split("M")[1:]) == {
        f"{int((r['lon'] + 180) / 2)}.5 {int((84 - r['lat']) / 2)}.5h0"
        for r in of(published, "IS")
    }
