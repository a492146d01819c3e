"""The statements that are read most often, and slow reads."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from s3cache.metrics import show
from s3cache.metrics.figures import Reads
from s3cache.results import queries
from s3cache.results.queries import Queries
from tests.engine import Host
from tests.testapp.models import Gear, Product

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


def test_statements_by_how_often_they_are_read(host: Host) -> None:
    for _ in range(3):
        list(Gear.objects.filter(name="a").values("weight"))
    Product.objects.filter(sku="1").exists()

    first, second = show.top_queries()
    assert (first.model, first.action, first.tables) == (
        "testapp.gear",
        "list",
        ("testapp_gear",),
    )
    assert first.reads == Reads(hit=2, miss=1)
    assert first.cache_seconds > 0
    assert first.db_seconds > 0
    assert (second.model, second.reads) == ("testapp.product", Reads(miss=1))
    assert show.top_queries(1) == (first,)
    assert show.top_queries(database="other") == ()


def test_slow_reads_have_no_parameters(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"SLOW_QUERY": 0}
    list(Gear.objects.filter(name="a secret").values("weight"))
    list(Gear.objects.filter(name="a secret").values("weight"))

    found = show.slow_queries()
    assert {one.source for one in found} == {"CACHE", "DB"}
    assert found[0].seconds >= found[1].seconds
    for one in found:
        assert one.tables == ("testapp_gear",)
        assert one.rows == 0
        assert "secret" not in one.sql
    assert show.slow_queries(database="other") == ()


def test_quick_reads_are_not_slow(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"SLOW_QUERY": 60}
    Gear.objects.filter(name="a").count()
    assert show.slow_queries() == ()


def test_sql_by_hand(host: Host) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM testapp_gear WHERE weight > %s", [1])
    (one,) = show.top_queries()
    assert (one.model, one.action) == ("sql", "query")


def test_both_tables_are_bounded(bucket: Any, settings: Any) -> None:
    settings.S3CACHE = {"SLOW_QUERY": 0}
    some = Queries()
    for number in range(3 * queries.MOST_STATEMENTS):
        for _ in range(3 if number == 0 else 1):
            some.note("s3", "a", "get", f"SELECT {number}", (), "miss", 0.1, 0)
    assert len(some.most_read(10_000)) <= queries.MOST_STATEMENTS
    assert some.most_read(1)[0].sql == "SELECT 0"  # those that are read most stay
    assert len(some.slowest(10_000)) == queries.MOST_SLOW
