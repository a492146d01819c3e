"""Distances, bearings and boxes on the globe."""

from __future__ import annotations

import math
import random

import pytest

from example_project.airports import geo

JFK = (40.639928, -73.778692)
LHR = (51.4706, -0.461941)
POLE = (90.0, 0.0)


def destination(
    lat: float, lon: float, course: float, kilometres: float
) -> tuple[float, float]:
    """Where one arrives: the inverse of distance and bearing."""
    phi, angle, turn = map(
        math.radians, (lat, math.degrees(kilometres / geo.EARTH_RADIUS), course)
    )
    phi2 = math.asin(
        math.sin(phi) * math.cos(angle)
        + math.cos(phi) * math.sin(angle) * math.cos(turn)
    )
    lon2 = math.radians(lon) + math.atan2(
        math.sin(turn) * math.sin(angle) * math.cos(phi),
        math.cos(angle) - math.sin(phi) * math.sin(phi2),
    )
    return math.degrees(phi2), (math.degrees(lon2) + 540) % 360 - 180


def test_a_known_distance() -> None:
    # On the ellipsoid it is 5,554.9 km.
    assert geo.distance(*JFK, *LHR) == pytest.approx(5_554.9, rel=0.005)


def test_distance_is_the_same_both_ways_and_zero_to_itself() -> None:
    assert geo.distance(*JFK, *LHR) == geo.distance(*LHR, *JFK)
    assert geo.distance(*JFK, *JFK) == 0


@pytest.mark.parametrize("lat", [-90, -33.3, 0, 45, 90])
def test_nothing_is_further_away_than_the_antipodes(lat: float) -> None:
    away = geo.distance(lat, 10, -lat, -170)
    assert away == pytest.approx(geo.HALF_CIRCUMFERENCE, abs=0.1)
    assert away <= geo.HALF_CIRCUMFERENCE


@pytest.mark.parametrize(
    ("place", "course", "point"),
    [
        ((1, 0), 0, "N"),
        ((0, 1), 90, "E"),
        ((-1, 0), 180, "S"),
        ((0, -1), 270, "W"),
        (POLE, 0, "N"),
        ((0.0001, -0.01), 270.57, "W"),
        ((1, -0.1), 354.29, "N"),
    ],
)
def test_bearing(place: tuple[float, float], course: float, point: str) -> None:
    assert geo.bearing(0, 0, *place) == pytest.approx(course, abs=0.01)
    assert geo.compass_point(geo.bearing(0, 0, *place)) == point


@pytest.mark.parametrize("lat", [-90, -89, -60, -17.7, 0, 48, 75, 89.9, 90])
@pytest.mark.parametrize("lon", [-180, -179.3, 0, 8.5, 179.9, 180])
@pytest.mark.parametrize("radius", [1, 40, 1080, 9000, 19000])
def test_boxes_hold_every_place_within_the_radius(
    lat: float, lon: float, radius: float
) -> None:
    boxes = geo.boxes_around(lat, lon, radius)
    seeded = random.Random(f"{lat} {lon} {radius}")
    for _ in range(50):
        course, share = seeded.uniform(0, 360), seeded.uniform(0, 1) ** 0.2
        there = destination(lat, lon, course, radius * share * 0.999999)
        assert any(
            box.south <= there[0] <= box.north and box.west <= there[1] <= box.east
            for box in boxes
        ), (there, boxes)


def test_a_box_is_not_the_whole_world() -> None:
    (box,) = geo.boxes_around(50, 8, 40)
    assert box.north - box.south == pytest.approx(0.72, abs=0.01)
    assert box.east - box.west == pytest.approx(1.12, abs=0.01)


def test_a_circle_over_the_date_line_takes_two_boxes() -> None:
    west, east = sorted(geo.boxes_around(-17, 179.9, 40), key=lambda box: box.west)
    assert (west.west, east.east) == (-180, 180)
    assert west.east < -179.7 < 179.5 < east.west
