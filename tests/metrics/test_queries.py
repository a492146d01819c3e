"""The statements that are read most often, and slow reads."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from django.db import connection

from s3cache.metrics import keeping, show
from s3cache.metrics.book import DAY
from s3cache.metrics.figures import Reads
from s3cache.results import queries
from s3cache.results.queries import Queries
from tests.engine import Host
from tests.forks import in_child
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


def test_those_of_all_processes_of_a_host(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"SLOW_QUERY": 1}

    def note(event: str, seconds: float) -> bool:
        what = "default", "testapp.gear", "list", "SELECT 1", ("testapp_gear",)
        queries.queries.note(*what, event, seconds, 3)
        return keeping.flush()

    for event, seconds in (("miss", 1.5), ("wait", 0.5)):
        assert in_child(partial(note, event, seconds))
    for _ in range(2):
        assert note("hit", 0.25)  # what has been added once is not added again

    (top,) = show.top_queries()
    assert top.reads == Reads(hit=2, miss=1, wait=1)
    assert (top.cache_seconds, top.db_seconds) == (1.0, 1.5)
    (slow,) = show.slow_queries()
    assert (slow.seconds, slow.source, slow.tables) == (1.5, "DB", ("testapp_gear",))
    (own,) = show.top_queries(20, "process")
    assert own.reads == Reads(hit=2)
    show.reset()
    assert show.top_queries() == ()


def test_a_host_knows_so_many_and_no_more(host: Host) -> None:
    book = keeping.book()
    assert book is not None
    now = time.time()

    def read(number: int) -> queries.Statement:
        events = {"hit": 3 if number == 0 else 1}
        sql = f"SELECT {number}"
        return queries.Statement("default", "a", "get", sql, (), events)

    many = 3 * queries.MOST_STATEMENTS
    with book.writing(now) as writer:
        for begin in range(0, many, 100):
            writer.add_statements(map(read, range(begin, begin + 100)))
        slow = queries.Slow("default", "SELECT 1", (), False, 1.0, 1, now)
        writer.add_slow([slow] * 2 * queries.MOST_SLOW)
    with book.reading() as reader:
        found = {one.sql: one.number for one in reader.statements(10_000)}
        assert len(reader.slow()) == queries.MOST_SLOW
    assert len(found) <= queries.MOST_STATEMENTS
    assert found["SELECT 0"] == 3
    with book.writing(now + DAY + 1) as writer:
        writer.add_statements([read(1)])
        assert [one.sql for one in writer.statements(9)] == ["SELECT 1"]


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
    found = some.statements()
    assert len(found) <= queries.MOST_STATEMENTS
    assert found["s3", "SELECT 0"].number == 3  # those that are read most stay
    assert len(some.slow()[1]) == queries.MOST_SLOW
