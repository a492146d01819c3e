"""What is read before somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet

from s3cache.facade import Read
from s3cache.warming import query

from . import statistics, worldmap
from .models import Airport


@query("front page", after=["airports.Airport", "airports.Country"])
def front_page() -> Iterator[QuerySet[Any, Any] | Read]:
    """Whatever `views.index` reads, as it reads it."""
    airports = Airport.objects.all()
    yield Read(airports, "aggregate", aggregates=statistics.TOTALS)
    yield worldmap.count_by_cell(airports, None)
    yield statistics.largest(12)
