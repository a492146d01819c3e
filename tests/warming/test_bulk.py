"""Many changes at once: results change once, and are warm afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from s3cache.exceptions import TransactionConflict
from s3cache.warming import bulk
from tests.engine import Bucket, Host, MakeHost
from tests.results.seen import HIT, directory, events
from tests.testapp.models import Gear, Product

pytestmark = [directory, pytest.mark.usefixtures("bucket")]

SKUS = ["a", "b", "a", "c"]


def create(sku: str) -> Product:
    return Product.objects.create(sku=sku)


def test_all_is_one_commit_and_warm_afterwards(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen, bulk(Product) as batch:
        outcomes = batch.run(create, SKUS)
    assert seen.count("PUT log") == 1
    assert [(one.item, one.ok) for one in outcomes] == [
        *(("a", True), ("b", True), ("a", False), ("c", True)),
    ]
    assert isinstance(outcomes[2].error, IntegrityError)
    assert outcomes[0].result.sku == "a"
    assert batch.failed == [outcomes[2]]
    assert batch.warmed is not None
    assert batch.warmed.stored > 3
    with bucket.requests() as seen:
        assert events(lambda: list(Product.objects.all())) == HIT
        assert events(lambda: Product.objects.get(pk=outcomes[0].result.pk)) == HIT
    assert seen == []
    assert Product.objects.count() == 3


def test_each_item_as_a_commit_of_its_own(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen, bulk(Product, atomic=False) as batch:
        batch.run(create, SKUS)
    assert seen.count("PUT log") == 3
    assert [one.ok for one in batch.outcomes] == [True, True, False, True]
    assert events(Product.objects.count) == HIT


def test_items_of_several_statements_are_undone_alone(host: Host) -> None:
    with bulk(Gear, warm=False) as batch:
        for name in ("cog", "wheel"):
            with batch.item(name) as outcome:
                outcome.result = Gear.objects.create(name=name)
                if name == "wheel":
                    raise ZeroDivisionError
    assert [gear.name for gear in Gear.objects.all()] == ["cog"]
    assert isinstance(batch.failed[0].error, ZeroDivisionError)
    assert batch.warmed is not None
    assert batch.warmed.reads == 0


def test_what_is_warmed_can_be_named(host: Host) -> None:
    with bulk(Gear, warm=["heavy gears"]) as batch:
        batch.run(lambda name: Gear.objects.create(name=name), ["cog"])
    assert batch.warmed is not None
    assert set(batch.warmed.by_source) == {"heavy gears"}
    with pytest.raises(LookupError, match="no query 'x'"), bulk(Gear, warm=["x"]):
        raise AssertionError
    assert Gear.objects.count() == 1


def test_nothing_is_left_if_the_block_raises(host: Host) -> None:
    with pytest.raises(ZeroDivisionError), bulk(Gear) as batch:
        batch.run(lambda name: Gear.objects.create(name=name), ["cog"])
        raise ZeroDivisionError
    assert Gear.objects.count() == 0
    assert isinstance(batch.outcomes[0].error, ZeroDivisionError)
    assert batch.warmed is None


def test_what_was_committed_is_warmed_if_the_block_raises(host: Host) -> None:
    with pytest.raises(ZeroDivisionError), bulk(Gear, atomic=False) as batch:
        batch.run(lambda name: Gear.objects.create(name=name), ["cog"])
        raise ZeroDivisionError
    assert batch.outcomes[0].ok
    assert events(Gear.objects.count) == HIT


def test_a_conflict_is_an_error_of_all(host: Host, hosts: MakeHost) -> None:
    gear = Gear.objects.create(name="cog")

    def grow(step: int) -> None:
        found = Gear.objects.get(pk=gear.pk)
        if not step:
            other = hosts("other")
            with other:
                other.catch_up()
                Gear.objects.filter(pk=gear.pk).update(weight=7)
        found.weight += 1
        found.save()

    with pytest.raises(TransactionConflict), bulk(Gear) as batch:
        batch.run(grow, [0, 1])
    assert {type(one.error) for one in batch.outcomes} == {TransactionConflict}
    host.catch_up()
    assert Gear.objects.get().weight == 7


def test_inside_a_transaction_it_is_warmed_after_that(host: Host) -> None:
    with transaction.atomic():
        with bulk(Gear) as batch:
            batch.run(lambda name: Gear.objects.create(name=name), ["cog"])
        assert batch.warmed is None
    warmed: Any = batch.warmed
    assert warmed.stored == 4
    assert events(Gear.objects.count) == HIT
