"""Queries that the tests' project wants warm; found by autodiscovery."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import QuerySet

from s3cache.facade import Read
from s3cache.warming import query
from tests.testapp.models import Gear


@query("heavy gears", ttl=600)
def heavy_gears() -> Iterator[QuerySet[Gear] | Read]:
    yield Gear.objects.order_by("-weight")[:10]
    yield Read(Gear.objects.heavy(), "count")
