"""The neighbours of an airport as on a radar screen: north is up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, floor, log10, radians, sin

from .neighbours import Neighbour

RADIUS = 100.0  # of the outer ring, in units of the drawing


@dataclass(frozen=True, slots=True)
class Blip:
    """An airport on the screen, its centre being 0, 0."""

    number: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Radar:
    """A screen that reaches so many kilometres, and what is on it."""

    reach: float
    blips: list[Blip]

    @property
    def half(self) -> float:
        """Kilometres to the inner ring."""
        return self.reach / 2


def reach_for(farthest: float) -> float:
    """Return the round number (1, 2 or 5 times a power of 10) to reach."""
    power = 10.0 ** floor(log10(max(farthest, 1.0)))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= farthest)


def draw(neighbours: Sequence[Neighbour]) -> Radar:
    """Place the neighbours, numbered from 1, by distance and bearing."""
    reach = reach_for(max((n.distance for n in neighbours), default=1.0))
    return Radar(
        reach,
        [
            Blip(
                number,
                round(neighbour.distance / reach * RADIUS * sin(course), 1),
                round(neighbour.distance / reach * RADIUS * -cos(course), 1),
            )
            for number, neighbour in enumerate(neighbours, start=1)
            for course in (radians(neighbour.bearing),)
        ],
    )
