"""What S3Model and its company promise between hosts, on the real engine."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.db.models import Sum

from s3cache.exceptions import RowChanged, TransactionConflict
from s3cache.transactions import retry_on_conflict, serializable
from tests.engine import Bucket, Host, MakeHost, bucket, host, hosts, tables
from tests.testapp.models import Category, Gear, Grid, Place, Product, Shop

__all__ = ["bucket", "host", "hosts", "tables"]


@pytest.fixture
def here(hosts: MakeHost) -> Host:
    return hosts("here")


@pytest.fixture
def there(hosts: MakeHost) -> Host:
    return hosts("there")


@pytest.fixture
def gear(here: Host, there: Host) -> Gear:
    """A row that both hosts have, as it was loaded here."""
    with here:
        here.catch_up()
        Gear.objects.create(name="anvil", weight=100)
        gear = Gear.objects.get()
    there.catch_up()
    return gear


# fresh()


def test_fresh_sees_what_has_been_committed_elsewhere(
    here: Host, there: Host, gear: Gear, bucket: Bucket
) -> None:
    with there:
        Gear.objects.create(name="hammer")

    with here, bucket.requests() as seen:
        assert Gear.objects.count() == 1
        assert seen == []
        assert Gear.objects.fresh().count() == 2
        assert Gear.objects.count() == 2
    assert seen == ["GET log", "GET log"]


@pytest.mark.parametrize(
    "fetch",
    [
        lambda rows: rows.get(name="hammer"),
        lambda rows: rows.filter(name="hammer").exists(),
        lambda rows: list(rows.iterator())[1],
        lambda rows: rows.aggregate(Sum("weight"))["weight__sum"] == 105,
        lambda rows: async_to_sync(rows.aget)(name="hammer"),
    ],
)
def test_however_it_is_fetched(fetch: Any, here: Host, there: Host, gear: Gear) -> None:
    with there:
        Gear.objects.create(name="hammer", weight=5)

    with here:
        assert fetch(Gear.objects.fresh())


def test_inside_a_transaction_fresh_keeps_to_its_snapshot(
    here: Host, there: Host, gear: Gear, bucket: Bucket
) -> None:
    with here, transaction.atomic():
        assert Gear.objects.count() == 1
        with there:
            Gear.objects.create(name="hammer")
        with bucket.requests() as seen:
            assert Gear.objects.fresh().count() == 1
    assert seen == []


# save(if_unchanged=True)


def test_saving_an_unchanged_row_is_one_put(
    here: Host, gear: Gear, bucket: Bucket
) -> None:
    gear.weight = 5
    with here, bucket.requests() as seen:
        gear.save(if_unchanged=True)
    assert seen == ["PUT log"]


def test_a_row_that_changed_on_another_host_is_not_overwritten(
    here: Host, there: Host, gear: Gear
) -> None:
    with there:
        Gear.objects.update(weight=7)
    gear.name = "hammer"

    with here:
        with pytest.raises(
            RowChanged,
            match=rf"^The row of testapp.Gear {gear.pk} changed since it "
            "was loaded, in weight.$",
        ):
            gear.save(if_unchanged=True)
        assert Gear.objects.fresh().values_list("name", "weight").get() == ("anvil", 7)


def test_a_row_that_was_deleted_on_another_host_is_not_inserted_again(
    here: Host, there: Host, gear: Gear
) -> None:
    with there:
        Gear.objects.all().delete()

    with here:
        with pytest.raises(RowChanged, match="was deleted since it was loaded"):
            gear.save(if_unchanged=True)
        assert not Gear.objects.fresh().exists()


def test_other_rows_may_change_meanwhile(here: Host, there: Host, gear: Gear) -> None:
    with there:
        Gear.objects.create(name="hammer")
    gear.weight = 5

    with here:
        gear.save(if_unchanged=True)
        assert Gear.objects.fresh().get(name="anvil").weight == 5


def test_inside_a_transaction_it_shows_at_the_commit(
    here: Host, there: Host, gear: Gear
) -> None:
    with there:
        Gear.objects.update(weight=7)

    with here:
        with pytest.raises(TransactionConflict), transaction.atomic():
            gear.save(if_unchanged=True)
        assert Gear.objects.fresh().get().weight == 7


def test_after_a_refresh_it_can_be_saved(here: Host, there: Host, gear: Gear) -> None:
    with there:
        Gear.objects.update(weight=7)

    with here:
        with pytest.raises(RowChanged):
            gear.save(if_unchanged=True)
        gear.refresh_from_db()
        gear.weight += 1
        gear.save(if_unchanged=True)
        assert Gear.objects.get().weight == 8


# Transactions


def test_a_read_modify_write_is_run_again_on_a_conflict(
    here: Host, there: Host, gear: Gear
) -> None:
    meddled: list[bool] = []

    @retry_on_conflict
    def add_one() -> None:
        gear = Gear.objects.get()
        if not meddled:
            meddled.append(True)
            with there:
                Gear.objects.update(weight=7)
        gear.weight += 1
        gear.save()

    with here:
        add_one()
        assert Gear.objects.get().weight == 8


def skew(here: Host, there: Host, block: Any) -> int:
    """Have each host take what both saw as free; return how much is taken."""
    with here:
        with block():
            free = 100 - (Gear.objects.aggregate(total=Sum("weight"))["total"] or 0)
            with there:
                Gear.objects.create(name="theirs", weight=free)
            Gear.objects.create(name="ours", weight=free)
        return int(Gear.objects.aggregate(total=Sum("weight"))["total"])


def test_serializable_leaves_no_write_skew(here: Host, there: Host) -> None:
    with here:
        here.catch_up()
    there.catch_up()

    with pytest.raises(TransactionConflict):
        skew(here, there, serializable)
    with here:
        assert Gear.objects.fresh().aggregate(total=Sum("weight")) == {"total": 100}


def test_which_atomic_alone_does_not_promise(here: Host, there: Host) -> None:
    with here:
        here.catch_up()
    there.catch_up()

    assert skew(here, there, transaction.atomic) == 200


# Models


def test_models_of_all_kinds_round_trip(host: Host) -> None:
    category = Category.objects.create(name="tools")
    product = Product.objects.create(
        sku="a", price="1.50", data={"a": [1, None]}, blob=b"\0x", category=category
    )
    other = Product.objects.create(sku="b", region="US")
    product.related.add(other)
    shop = Shop.objects.create(name="corner", rooms=2)
    Grid.objects.create(x=1, y=2, value=3)

    loaded = Product.objects.partition("by_region", region="EU").fresh().get()
    assert loaded.pk == product.pk
    assert (loaded.data, bytes(loaded.blob)) == ({"a": [1, None]}, b"\0x")
    assert list(loaded.related.skip_cache()) == [other]
    assert list(category.products.cached(ttl=5)) == [product]
    assert Place.objects.get().pk == shop.pk
    assert Grid.objects.get(pk=(1, 2)).value == 3
    loaded.save(if_unchanged=True)
    shop.save(if_unchanged=True)


def test_keys_are_in_the_order_of_creation(host: Host) -> None:
    made = [Gear.objects.create(name=str(number)) for number in range(20)]

    assert list(Gear.objects.order_by("pk")) == made
