"""A map of the world that consists of nothing but airports."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass

from django.db.models import Count, F, IntegerField, Q, QuerySet
from django.db.models.functions import Cast

from .models import Airport, Country

CELL = 2.0  # degrees
NORTH, SOUTH = 84.0, -60.0  # the few airports of inner Antarctica are left out
# The fewest airports in a cell for each of the shades, faint to strong.
SHADES = (1, 3, 10, 30)


@dataclass(frozen=True, slots=True)
class WorldMap:
    """
    Dots to draw: paths of an SVG whose unit is one cell.

    ``shades`` go from faint to strong; ``highlight`` lies above them.
    """

    shades: list[str]
    highlight: str = ""
    width: int = int(360 / CELL)
    height: int = int((NORTH - SOUTH) / CELL)


def world(airports: QuerySet[Airport], highlight: Country | None = None) -> WorldMap:
    """Draw the airports, and above all those of one country."""
    shades: list[list[str]] = [[] for _ in SHADES]
    marks = []
    for column, row, count, marked in count_by_cell(airports, highlight):
        # A line of no length: with round ends it is a dot.
        dot = f"M{column}.5 {row}.5h0"
        shades[bisect(SHADES, count) - 1].append(dot)
        if marked:
            marks.append(dot)
    return WorldMap(["".join(shade) for shade in shades], "".join(marks))


def count_by_cell(
    airports: QuerySet[Airport], highlight: Country | None
) -> QuerySet[Airport, tuple[int, int, int, int]]:
    """
    Return column, row, airports and marked airports of each cell in use.

    Both terms are positive, so that to cut off digits is to round down.
    """
    cells: QuerySet[Airport, tuple[int, int, int, int]] = (
        airports.order_by()
        .filter(latitude__gt=SOUTH, latitude__lt=NORTH)
        .annotate(
            column=Cast((F("longitude") + 180) / CELL, IntegerField()),
            row=Cast((NORTH - F("latitude")) / CELL, IntegerField()),
        )
        .values("column", "row")
        .annotate(count=Count("pk"), marked=Count("pk", filter=Q(country=highlight)))
        .values_list("column", "row", "count", "marked")
    )
    return cells
