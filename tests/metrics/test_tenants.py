"""Tenants count as one database, however many there are."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from django.db import connections

from s3cache import tenants
from s3cache.metrics import keeping, show
from s3cache.metrics.figures import Model, Reads, Snapshot
from s3cache.metrics.tally import take_tally
from s3cache.results.counters import counters
from tests.engine import Bucket
from tests.test_tenants import make, ready
from tests.testapp.models import Category

__all__ = ["ready"]

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

LABEL = "testapp.category"


def of_tenants(snapshot: Snapshot) -> Model:
    (found,) = [
        one
        for one in snapshot.models
        if (one.database, one.model) == ("default:*", LABEL)
    ]
    return found


def use(*names: str) -> None:
    """Commit once in the database of each, and read that twice."""
    for name in names:
        with tenants.using(name):
            Category.objects.create(name=f"of {name}")
            for _ in range(2):
                assert Category.objects.count() == 1


def test_their_numbers_are_added_up(bucket: Bucket) -> None:
    made = ("acme", "bolt", "coil")
    make(*made)
    use(*made)
    stores = [connections[f"default:{name}"].store for name in made]  # type: ignore[attr-defined]
    # One of them ends, another is forgotten here: their numbers stay.
    tenants.drop("bolt")
    asked = {
        kind: sum(getattr(store.requests, kind.lower()) for store in stores)
        for kind in ("GET", "PUT", "LIST", "DELETE")
    }
    del stores
    tenants.close("coil")
    gc.collect()
    snapshot = show.snapshot("host")
    model = of_tenants(snapshot)
    assert model.reads == Reads(hit=3, miss=3)
    assert model.changes == 3
    requests = {
        one.kind: one.number for one in snapshot.requests if one.database == "default:*"
    }
    assert requests == asked
    (database,) = [one for one in snapshot.databases if one.database == "default:*"]
    assert database.is_many
    # One of the two transactions of each made its tables.
    assert database.commits == 6
    assert database.replica_bytes > 0

    only = show.snapshot("host", database="default:*")
    assert {one.database for one in only.reads} == {"default:*"}
    (point,) = show.history("day", "host", database="default:*").points
    assert point.reads == Reads(hit=3, miss=3)
    money = show.money("host", database="default:*")
    assert money.saved == pytest.approx(3 * 0.0004 / 1000)
    spent = 0.005 * (asked["PUT"] + asked["LIST"]) + 0.0004 * asked["GET"]
    assert money.spent == pytest.approx(spent / 1000)
    (statement,) = [
        one
        for one in show.top_queries(100, database="default:*")
        if one.model == LABEL and one.action == "count"
    ]
    assert statement.reads == Reads(hit=3, miss=3)


def test_a_tenant_leaves_no_name_behind(bucket: Bucket) -> None:
    """Else a process that has seen thousands would grow."""
    make("acme")
    use("acme")
    keeping.flush()
    book = keeping.book()
    assert book is not None
    with book.reading() as reader:
        kept = {of for _, of, _ in reader.totals("host")}
    counted = {key[0] for key in counters.by_key()}
    assert {name for name in kept | counted if ":" in name} == {"default:*"}


def test_without_their_router_there_are_none(settings: Any) -> None:
    assert [one.database for one in show.snapshot("host").databases][1:] == [
        "default:*"
    ]
    settings.DATABASE_ROUTERS = []
    assert [one.database for one in show.snapshot("host").databases] == ["default"]
    assert {key[1] for key in take_tally() if key[0] == "event"} <= {"default"}
