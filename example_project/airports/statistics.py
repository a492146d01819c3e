"""Figures about all airports and those of countries, by aggregation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from django.db.models import Aggregate, Avg, Count, F, Max, Min, Q, QuerySet

from .models import Airport, Country

WITH_IATA = ~Q(iata="")

#: Orders that the table of countries can be in: label and ``order_by`` terms.
COUNTRY_ORDERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "airports": ("Airports", ("-airport_count", "name")),
    "name": ("Name", ("name",)),
    "iata": ("IATA codes", ("-iata_count", "name")),
    "zones": ("Time zones", ("-zone_count", "name")),
    "highest": ("Highest airport", ("-highest", "name")),
}


class Totals(TypedDict):
    """The figures of a set of airports; elevations in feet."""

    airports: int
    with_iata: int
    countries: int
    zones: int
    highest: float | None
    lowest: float | None
    average: float | None


TOTALS: Mapping[str, Aggregate] = {
    "airports": Count("pk"),
    "with_iata": Count("pk", filter=WITH_IATA),
    "countries": Count("country", distinct=True),
    "zones": Count("timezone", distinct=True),
    "highest": Max("elevation"),
    "lowest": Min("elevation"),
    "average": Avg("elevation"),
}


def totals(airports: QuerySet[Airport]) -> Totals:
    """Return the figures of these airports, in one query."""
    return cast("Totals", airports.aggregate(**TOTALS))


def largest(count: int) -> QuerySet[Country]:
    """Return the countries with most airports, and how many they have."""
    return Country.objects.annotate(airport_count=Count("airports")).order_by(
        "-airport_count", "name"
    )[:count]


def countries(order: str = "airports") -> QuerySet[Country]:
    """Return the countries that have airports, each with its figures."""
    return (
        Country.objects.annotate(
            airport_count=Count("airports"),
            iata_count=Count("airports", filter=~Q(airports__iata="")),
            zone_count=Count("airports__timezone", distinct=True),
            highest=Max("airports__elevation"),
            average=Avg("airports__elevation"),
        )
        .filter(airport_count__gt=0)
        .order_by(*COUNTRY_ORDERS[order][1])
    )


def breakdown(airports: QuerySet[Airport], field: str) -> list[dict[str, Any]]:
    """Return how many of the airports have each value, most frequent first."""
    rows: QuerySet[Airport, Any] = (
        airports.values(value=F(field))
        .annotate(count=Count("pk"))
        .order_by("-count", "value")
    )
    return list(rows)
