"""Many changes at once: results change once, and are warm afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import IntegrityError, connections, transaction
from django.db.models import QuerySet

from s3cache import tenants
from s3cache.exceptions import (
    CommitOutcomeUnknown,
    S3CacheError,
    StoreRefused,
    StoreUnavailable,
    TransactionConflict,
)
from s3cache.replica.replica import forget_replica
from s3cache.warming import NotTried, background, bulk
from tests.db.hosts import FaultyStore, faulty, lost_after, lost_before, says
from tests.engine import NEVER, Bucket, Host, MakeHost
from tests.forks import in_child
from tests.results.seen import HIT, MISS, directory, events
from tests.testapp.models import Gear, Product
from tests.warming.conftest import Declare

__all__ = ["faulty"]

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
    with bulk(Gear, warm="heavy gears") as batch:
        pass
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


# What is wrong with the store is no error of an item


@pytest.fixture
def far(hosts: MakeHost, faulty: FaultyStore) -> Iterator[FaultyStore]:
    """The store of a host that waits a moment for it, and has made a gear."""
    with hosts(storage="faulty", commit_timeout=0.1, max_age=NEVER):
        Gear.objects.create(name="first")
        yield faulty


def after_two(far: FaultyStore, action: Any) -> tuple[Any, list[str]]:
    """What ``bulk()`` raises if the store fails; and the items begun."""
    begun: list[str] = []

    def work(name: str) -> None:
        if len(begun) == 2:
            far.on("PUT", "_log/", action)
            far.on("GET", "_log/", action)
        begun.append(name)
        Gear.objects.create(name=name)

    with pytest.raises(S3CacheError) as raised, bulk(Gear, atomic=False) as batch:
        batch.run(work, iter("abcde"))
    assert [one.item for one in batch.outcomes] == list("abcde")
    assert [one.ok for one in batch.outcomes] == [True, True, False, False, False]
    assert [one.item for one in batch.not_tried] == ["d", "e"]
    assert [one.item for one in batch.failed] == ["c", "d", "e"]
    assert batch.outcomes[2].error is raised.value
    assert batch.warmed is None  # which would wait for the store, too
    assert {one.error.__cause__ for one in batch.not_tried if one.error} == {
        raised.value
    }
    far.heal()
    return raised.value, begun


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lost_before, CommitOutcomeUnknown),
        (lost_after, CommitOutcomeUnknown),
        (says(403), StoreRefused),
    ],
)
def test_a_store_that_fails_ends_a_job_and_loses_nothing(
    far: FaultyStore, action: Any, error: type[Exception]
) -> None:
    """The items that are left are not tried, each for as long again."""
    raised, begun = after_two(far, action)
    assert type(raised) is error
    assert begun == ["a", "b", "c"]
    Gear.objects.create(name="the outcome is known now")
    done = {gear.name for gear in Gear.objects.all()}
    assert done >= {"first", "a", "b"}
    assert not done & {"d", "e"}
    assert ("c" in done) is (action is lost_after)


def test_what_was_not_tried_can_be_done_later(far: FaultyStore) -> None:
    with pytest.raises(StoreRefused), bulk(Gear, atomic=False) as batch:
        far.on("PUT", "_log/", says(403))
        batch.run(lambda name: Gear.objects.create(name=name), "abc")
    far.heal()
    with bulk(Gear, atomic=False) as later:
        later.run(
            lambda name: Gear.objects.create(name=name),
            [one.item for one in batch.failed],  # refused, and so not done
        )
    assert later.failed == []
    assert Gear.objects.count() == 4


def test_of_one_commit_nothing_is_left_and_the_rest_not_tried(
    far: FaultyStore,
) -> None:
    def work(name: str) -> None:
        Gear.objects.create(name=name)
        if name == "b":
            raise StoreUnavailable("as a read that needs the store")

    with pytest.raises(StoreUnavailable), bulk(Gear) as batch:
        batch.run(work, "abcd")
    assert [type(one.error) for one in batch.outcomes] == [
        *(StoreUnavailable, StoreUnavailable, NotTried, NotTried),
    ]
    assert Gear.objects.count() == 1


# What goes wrong after the commit is no error of the work


def test_what_cannot_be_warmed_keeps_nobody_from_going_on(
    host: Host, declare: Declare
) -> None:
    """Who sees an error believes that nothing was done, and does it again."""
    declare("broken")(lambda: Gear.objects.all()[: 1 // 0])
    later: list[str] = []
    with transaction.atomic():
        with bulk(Gear, warm=["broken", "heavy gears"]) as batch:
            batch.run(lambda name: Gear.objects.create(name=name), ["cog"])
        transaction.on_commit(lambda: later.append("hook"))
    warmed: Any = batch.warmed
    assert warmed.by_source["broken"].failed == warmed.failed == 1
    assert warmed.by_source["heavy gears"].stored == 2
    assert later == ["hook"]


def test_a_model_that_is_not_kept_is_refused_before_the_work(
    host: Host, elsewhere: str
) -> None:
    with (
        pytest.raises(ImproperlyConfigured, match="'elsewhere', which lives in no b"),
        bulk(Gear, using=elsewhere),
    ):
        raise AssertionError
    with bulk(Gear, using=elsewhere, warm=False) as batch:
        pass
    assert batch.warmed is not None


def test_an_event_loop_is_refused_before_the_work(host: Host) -> None:
    worked: list[str] = []

    async def work() -> None:
        with bulk(Gear, atomic=False):
            worked.append("in vain")

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(work())
    assert worked == []


# Several databases, threads and processes


@pytest.fixture
def second(host: Host) -> Iterator[str]:
    """The alias of another database in a bucket, with gears."""
    alias = tenants.open("second")
    connection: Any = connections[alias]
    with connection.schema_editor() as editor:
        editor.create_model(Gear)
    yield alias
    tenants.close("second")
    forget_replica(Path(connection.settings_dict["NAME"]))


def test_it_is_warmed_in_the_database_that_was_written(second: str) -> None:
    gears = Gear.objects.using(second)
    with bulk(Gear, using=second) as batch:
        batch.run(lambda name: gears.create(name=name), ["cog"])
    assert batch.warmed is not None
    assert batch.warmed.stored == 4
    assert events(gears.count) == HIT
    assert events(Gear.objects.count) == MISS


def test_jobs_of_several_threads_and_within_one_another(
    host: Host, declare: Declare
) -> None:
    """Each is a commit, and queries wait for the last of them."""
    warmed: list[int] = []

    @declare("x")
    def counted() -> QuerySet[Gear]:
        warmed.append(1)
        return Gear.objects.all()

    inside = threading.Barrier(4)
    stored: list[int] = []

    def job(name: str) -> None:
        try:
            with bulk(Gear, warm=False), bulk(Gear) as batch:
                batch.run(lambda n: Gear.objects.create(name=f"{name}{n}"), range(5))
                inside.wait(60)
                background.ask(["x"])
                inside.wait(60)
                assert warmed == []
            stored.append(batch.warmed.stored if batch.warmed else 0)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=job, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    job("d")
    for thread in threads:
        thread.join()
    assert background.wait(60)
    assert warmed == [1]
    assert len(stored) == 4
    assert Gear.objects.count() == 20


def test_a_child_of_a_fork_that_leaves_a_job_warms_again() -> None:
    job = background.held()
    job.__enter__()

    def leave() -> bool:
        job.__exit__(None, None, None)
        background.ask(["nonsense"])
        return background.wait(60) and background.last is not None

    try:
        assert in_child(leave)
    finally:
        job.__exit__(None, None, None)
