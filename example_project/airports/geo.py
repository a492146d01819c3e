"""
Geometry on the globe: distances, bearings and the boxes to search in.

A database without spatial functions finds neighbours in two steps: a box of
latitudes and longitudes, which an index can serve, and the exact distance of
what lies in it. The globe is a sphere here, which is off by 0.5 % at most.

Angles are in degrees, distances in kilometres.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, atan2, cos, degrees, radians, sin, sqrt

EARTH_RADIUS = 6371.0088
#: No two places are further apart.
HALF_CIRCUMFERENCE = 20_015.12

COMPASS = (
    *("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE"),
    *("S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"),
)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on the map, which does not cross the date line."""

    south: float
    north: float
    west: float
    east: float


def distance(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Return the great-circle distance by the haversine formula."""
    phi1, phi2 = radians(lat1), radians(lat2)
    half_chord = (
        sin((phi2 - phi1) / 2) ** 2
        + cos(phi1) * cos(phi2) * sin(radians(lon2 - lon1) / 2) ** 2
    )
    # Rounding can lift antipodes above 1.
    return 2 * EARTH_RADIUS * asin(sqrt(min(1.0, half_chord)))


def bearing(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Return the course to set off on, clockwise from north, 0 to 360."""
    phi1, phi2, turn = radians(lat1), radians(lat2), radians(lon2 - lon1)
    east = sin(turn) * cos(phi2)
    north = cos(phi1) * sin(phi2) - sin(phi1) * cos(phi2) * cos(turn)
    return degrees(atan2(east, north)) % 360


def compass_point(course: float) -> str:
    """Return the nearest of the 16 points of the compass, such as "NNE"."""
    return COMPASS[round(course / 22.5) % 16]


def boxes_around(lat: float, lon: float, radius: float) -> list[Box]:
    """
    Return one or two boxes that hold every place within the radius.

    Two where the circle crosses the date line; the whole turn of longitudes
    where it holds a pole.
    """
    angle = radius / EARTH_RADIUS
    south, north = lat - degrees(angle), lat + degrees(angle)
    if south <= -90 or north >= 90:
        return [Box(max(south, -90.0), min(north, 90.0), -180.0, 180.0)]
    # The circle's meridians touch it nearer to the pole than its centre, so
    # the width at the centre's latitude would be too small.
    width = degrees(asin(min(1.0, sin(angle) / cos(radians(lat)))))
    west, east = lon - width, lon + width
    if west < -180:
        return [
            Box(south, north, west + 360, 180.0),
            Box(south, north, -180.0, east),
        ]
    if east > 180:
        return [
            Box(south, north, west, 180.0),
            Box(south, north, -180.0, east - 360),
        ]
    return [Box(south, north, west, east)]
