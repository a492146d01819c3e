"""The catalogue for programs."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from example_project.airports.models import Airport

pytestmark = pytest.mark.django_db
ADDRESS = "/api/airports/"


def get(client: Client, query: str = "") -> Any:
    response = client.get(f"{ADDRESS}?{query}")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    return response.json()


def test_pages(client: Client, published: dict[str, Any]) -> None:
    first = get(client)
    assert first["count"] == len(published)
    assert len(first["results"]) == 25
    assert first["previous"] is None
    second = client.get(first["next"]).json()
    assert second["results"][0] not in first["results"]
    assert len(get(client, "size=1000")["results"]) == 100


def test_an_airport(client: Client) -> None:
    (found,) = get(client, "iata=FRA")["results"]
    airport = Airport.objects.get(iata="FRA")
    assert found["code"] == "EDDF"
    assert found["country_name"] == "Germany"
    assert found["elevation"] == airport.elevation


def test_filters_and_orders(client: Client) -> None:
    found = get(client, "country=DE&least=1000&ordering=-elevation&size=5")["results"]
    heights = [one["elevation"] for one in found]
    assert heights == sorted(heights, reverse=True)
    assert {one["country"] for one in found} == {"DE"}
    named = get(client, "country=DE&name=berg")
    assert all("berg" in one["name"].lower() for one in named["results"])


def test_what_is_wrong(client: Client) -> None:
    assert client.get(f"{ADDRESS}?least=high").status_code == 400
    assert client.get(f"{ADDRESS}?page=0").status_code == 404
    assert client.post(ADDRESS, {"code": "XXXX"}).status_code == 405
