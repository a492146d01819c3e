"""The airports nearest to another one."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nsmallest

from django.db.models import Q

from . import geo
from .models import Airport

FIRST_RADIUS = 40.0  # km; holds enough in most of Europe and North America


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An airport as seen from another; the distance is in kilometres."""

    airport: Airport
    distance: float
    bearing: float

    @property
    def compass_point(self) -> str:
        return geo.compass_point(self.bearing)


def nearest(airport: Airport, count: int = 8) -> list[Neighbour]:
    """
    Return the nearest other airports, nearest first.

    Looks into a box around the airport and makes it three times as wide until
    the circle in it holds enough. What lies in a corner of the box does not
    count: outside the box there may be nearer ones.
    """
    lat, lon = airport.latitude, airport.longitude
    radius = FIRST_RADIUS
    while True:
        inside = Q()
        for box in geo.boxes_around(lat, lon, radius):
            inside |= Q(
                latitude__range=(box.south, box.north),
                longitude__range=(box.west, box.east),
            )
        positions = (
            Airport.objects.filter(inside)
            .exclude(pk=airport.pk)
            .order_by()
            .values_list("pk", "latitude", "longitude")
        )
        found = [
            (away, pk)
            for pk, *position in positions
            if (away := geo.distance(lat, lon, *position)) <= radius
        ]
        if len(found) >= count or radius >= geo.HALF_CIRCUMFERENCE:
            break
        radius *= 3

    closest = nsmallest(count, found)
    airports = Airport.objects.select_related("country").in_bulk(
        [pk for _, pk in closest]
    )
    return [
        Neighbour(other, away, geo.bearing(lat, lon, other.latitude, other.longitude))
        for away, pk in closest
        # One that was deleted between the two queries is left out.
        if (other := airports.get(pk)) is not None
    ]
