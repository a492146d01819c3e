"""The hot path gives what the usual way gives, and refuses what it must.

One test for each way in which a short cut would be wrong.
"""

from __future__ import annotations

import contextvars
import copy
import datetime as dt
import pickle
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, models, transaction
from django.db.models.signals import post_init, pre_init
from django.shortcuts import get_object_or_404
from django.test.utils import override_settings

from s3cache.exceptions import RowChanged
from s3cache.facade import Read
from s3cache.log.catch_up import rebuild
from s3cache.managers import S3Manager, S3QuerySet
from s3cache.replica.asking import Asking
from s3cache.replica.file import ReplicaFile
from s3cache.replica.side_file import SideFile
from s3cache.results.compiled import Compiled
from s3cache.results.hot import NOT_HOT, Hot
from tests.db.hosts import Turns, each_on, on, together
from tests.db.test_reads import store_down
from tests.engine import Host, MakeHost
from tests.results.seen import directory, on_loop, totals
from tests.testapp.models import (
    Category,
    Coded,
    Counted,
    Gear,
    Grid,
    Place,
    PlaceProxy,
    Product,
    Shop,
)

pytestmark = [directory, pytest.mark.usefixtures("hot_path")]


@pytest.fixture(autouse=True)
def memory_cache(settings: Any) -> Iterator[None]:
    """Results in a MemoryCache, which the hot path needs."""
    settings.CACHES = {
        "default": {
            "BACKEND": "s3cache.caches.MemoryCache",
            "LOCATION": "hot",
            "OPTIONS": {"MAX_ENTRIES": 10_000},
        }
    }
    caches["default"].clear()
    yield
    caches["default"].clear()


class Usual(Exception):
    """The usual way was taken."""


def is_hot(read: Callable[[], Any]) -> bool:
    """Whether ``read`` is answered without a queryset and a statement."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Usual

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.QuerySet, "__init__", refuse)
        patch.setattr(Compiled, "row", refuse)
        patch.setattr(Compiled, "rows", refuse)
        try:
            read()
        except Usual:
            return False
        except models.ObjectDoesNotExist:
            pass
        return True


def warm(read: Callable[[], Any]) -> Callable[[], Any]:
    """Make the read until it is hot: lists are kept at the second time."""
    for _ in range(3):
        try:
            read()
        except models.ObjectDoesNotExist:
            pass
    return read


@pytest.fixture
def gear(host: Host) -> Gear:
    return Gear.objects.create(name="cog", weight=5)


# What is hot


def test_get_by_primary_key(gear: Gear) -> None:
    for lookup in ({"pk": gear.pk}, {"id": gear.pk}):
        assert is_hot(warm(partial(Gear.objects.get, **lookup)))
        found = Gear.objects.get(**lookup)
        assert found == gear
        assert found.__dict__.keys() == gear.__dict__.keys()
        assert (found.name, found.weight) == ("cog", 5)
        assert not found._state.adding
        assert found._state.db == "default"


def test_get_by_another_field(gear: Gear) -> None:
    assert is_hot(warm(lambda: Gear.objects.get(name="cog")))
    assert is_hot(warm(lambda: Gear.objects.get(weight=5)))
    assert Gear.objects.get(name="cog") == gear
    gear.name = "wheel"
    gear.save()
    with pytest.raises(Gear.DoesNotExist):
        Gear.objects.get(name="cog")
    assert Gear.objects.get(weight=5).name == "wheel"


def test_count(gear: Gear) -> None:
    assert is_hot(warm(Gear.objects.count))
    assert Gear.objects.count() == 1
    Gear.objects.all().delete()
    assert Gear.objects.count() == 0
    assert is_hot(warm(Gear.objects.count))
    assert Gear.objects.count() == 0


def test_what_is_not_there_is_known_not_to_be(host: Host) -> None:
    key = uuid.uuid4()
    get = warm(lambda: Gear.objects.get(pk=key))
    assert is_hot(get)
    with pytest.raises(
        Gear.DoesNotExist, match=r"^Gear matching query does not exist\.$"
    ):
        get()
    Gear.objects.create(pk=key, name="new")
    assert get().name == "new"


def test_the_error_is_that_of_the_model_that_was_asked(host: Host) -> None:
    for model in (Place, PlaceProxy):
        get = warm(partial(model.objects.get, name="nowhere"))
        assert is_hot(get)
        with pytest.raises(model.DoesNotExist, match=model.__name__):
            get()


def test_a_proxy_gets_its_own_objects(host: Host) -> None:
    place = Place.objects.create(name="here")
    for model in (Place, PlaceProxy):
        get = warm(partial(model.objects.get, pk=place.pk))
        assert is_hot(get)
        assert type(get()) is model


def test_hits_are_counted(gear: Gear) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    before = totals("testapp.gear", "get")["hit"]
    get()
    assert totals("testapp.gear", "get")["hit"] == before + 1


def test_one_row_stays_hot_when_others_change(gear: Gear) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    count = warm(Gear.objects.count)
    Gear.objects.create(name="other")
    assert is_hot(get)
    assert not is_hot(count)
    Gear.objects.filter(pk=gear.pk).update(weight=6)
    assert not is_hot(get)
    assert get().weight == 6


# Async


def test_hits_are_answered_on_the_event_loop(gear: Gear) -> None:
    """Not by a thread: none may be used here."""
    warm(lambda: Gear.objects.get(pk=gear.pk))
    warm(Gear.objects.count)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Usual

    async def ask() -> tuple[Gear, int]:
        return await Gear.objects.aget(pk=gear.pk), await Gear.objects.acount()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3cache.managers.sync_to_async", refuse)
        assert on_loop(ask) == (gear, 1)


def test_misses_are_answered_by_a_thread(gear: Gear) -> None:
    async def ask() -> tuple[Gear, int]:
        return await Gear.objects.aget(pk=gear.pk), await Gear.objects.acount()

    assert on_loop(ask) == (gear, 1)


@pytest.mark.parametrize(
    "read",
    [
        lambda: Gear.objects.get(name="cog"),
        lambda: Gear.objects.count(),
        lambda: list(Gear.objects.all()),
    ],
    ids=["get", "count", "list"],
)
def test_calls_that_may_wait_are_refused_on_an_event_loop(
    gear: Gear, read: Callable[[], Any]
) -> None:
    # As by Django, which refuses all of them, and not only those that do wait.
    assert is_hot(warm(read))

    async def ask() -> Any:
        return read()

    with pytest.raises(SynchronousOnlyOperation):
        on_loop(ask)


def test_a_task_within_a_transaction_sees_it(gear: Gear) -> None:
    from asgiref.sync import async_to_sync

    warm(lambda: Gear.objects.get(pk=gear.pk))
    warm(Gear.objects.count)
    with transaction.atomic():
        Gear.objects.update(weight=9)
        Gear.objects.create(name="in it")
        assert async_to_sync(Gear.objects.aget)(pk=gear.pk) == gear
        assert async_to_sync(Gear.objects.acount)() == 2


def test_a_transaction_in_a_thread_of_a_task_is_that_task_s(gear: Gear) -> None:
    warm(Gear.objects.count)

    def write() -> int:
        with transaction.atomic():
            Gear.objects.create(name="not yet")
            found = Gear.objects.count()
            transaction.set_rollback(True)
        return found

    async def ask() -> tuple[int, int]:
        return await sync_to_async(write)(), await Gear.objects.acount()

    assert on_loop(ask) == (2, 1)


# Nobody shares what can be changed


def test_every_caller_has_an_object_of_his_own(gear: Gear) -> None:
    warm(lambda: Gear.objects.get(pk=gear.pk))
    one, other = (Gear.objects.get(pk=gear.pk) for _ in range(2))
    one.name = "changed"
    one.extra = 1  # type: ignore[attr-defined]
    one._state.fields_cache["x"] = 1
    assert other.name == Gear.objects.get(pk=gear.pk).name == "cog"
    assert not hasattr(other, "extra")
    assert not other._state.fields_cache


def test_rows_with_values_that_can_be_changed_are_not_hot(host: Host) -> None:
    """JSON; and a FileField makes an object of its value."""
    product = Product.objects.create(sku="1", data={"list": []})
    get = warm(lambda: Product.objects.get(pk=product.pk))
    assert not is_hot(get)
    get().data["list"].append(1)
    assert get().data == {"list": []}


def test_an_object_can_be_copied_pickled_saved_and_deleted(gear: Gear) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    for made in (
        copy.copy(get()),
        copy.deepcopy(get()),
        pickle.loads(pickle.dumps(get())),  # noqa: S301
    ):
        assert made == gear
        assert made.name == "cog"
    found = get()
    found.weight = 7
    found.save()
    assert get().weight == 7
    found.delete()
    with pytest.raises(Gear.DoesNotExist):
        get()


def test_an_object_remembers_its_row(gear: Gear) -> None:
    """So save(if_unchanged=True) is as safe as ever."""
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    mine, other = get(), get()
    other.weight = 7
    other.save(if_unchanged=True)
    mine.weight = 8
    with pytest.raises(RowChanged):
        mine.save(if_unchanged=True)
    mine.refresh_from_db()
    assert mine.weight == 7


# Values that are equal and not the same


@pytest.mark.parametrize("value", ["5", True, 5.0, 5.5, None, b"5", [5]])
def test_values_of_other_types_go_the_usual_way(gear: Gear, value: object) -> None:
    warm(lambda: Gear.objects.get(weight=5))
    Gear.objects.create(name="one", weight=1)

    def outcome(get: Callable[..., Any]) -> object:
        try:
            return get(weight=value)
        except Exception as error:
            return type(error)

    for _ in range(3):
        assert outcome(Gear.objects.get) == outcome(Gear.objects.all().get)


def test_a_key_as_text_goes_the_usual_way(gear: Gear) -> None:
    warm(lambda: Gear.objects.get(pk=gear.pk))
    assert Gear.objects.get(pk=str(gear.pk)) == gear
    assert not is_hot(warm(lambda: Gear.objects.get(pk=str(gear.pk))))


@pytest.mark.parametrize("name", ["nothing", "name__iexact", "weight__x", "pk__in"])
def test_lookups_of_other_kinds_raise_what_django_raises(gear: Gear, name: str) -> None:
    def outcome(get: Callable[..., Any]) -> object:
        try:
            return get(**{name: "COG"})
        except Exception as error:
            return type(error), str(error)

    for _ in range(3):
        assert outcome(Gear.objects.get) == outcome(Gear.objects.all().get)


def test_several_rows_are_an_error_every_time(gear: Gear) -> None:
    Gear.objects.create(name="cog")
    for _ in range(3):
        with pytest.raises(Gear.MultipleObjectsReturned):
            Gear.objects.get(name="cog")


# Which models and managers


def test_other_kinds_of_models(host: Host) -> None:
    shop = Shop.objects.create(name="shop", rooms=2)
    Coded.objects.create(code="A", name="a")
    Grid.objects.create(x=1, y=2, value=3)
    counted = Counted.objects.create()
    for _ in range(3):
        assert Shop.objects.get(pk=shop.pk).name == "shop"
        assert Shop.objects.get(rooms=2).name == "shop"
        assert Coded.objects.get(pk="A").name == "a"
        assert Grid.objects.get(pk=(1, 2)).value == 3
        assert Counted.objects.get(pk=counted.pk) == counted
        assert Shop.objects.count() == Grid.objects.count() == 1
    Place.objects.filter(pk=shop.pk).update(name="the parent's")
    assert Shop.objects.get(pk=shop.pk).name == "the parent's"
    assert Shop.objects.get(rooms=2).name == "the parent's"
    Place.objects.filter(pk=shop.pk).delete()
    assert Shop.objects.count() == 0


def test_managers_of_relations_and_of_other_databases_are_not_hot(host: Host) -> None:
    category = Category.objects.create(name="a")
    product = Product.objects.create(sku="1", category=category)
    Product.objects.create(sku="2")
    warm(Product.objects.count)
    assert category.products.count() == 1
    assert product.related.count() == 0
    assert Product.objects.using("default").count() == 2
    assert Product.objects.db_manager("default")._hot_path() is None
    assert category.products._hot_path() is None


def test_a_manager_that_is_of_another_database_by_itself(host: Host) -> None:
    class Elsewhere(S3Manager[Gear]):
        def __init__(self) -> None:
            super().__init__()
            self._db = "elsewhere"

    manager = Elsewhere()
    manager.model = Gear
    assert manager.filter(name="cog").db == "elsewhere"
    assert manager._hot_path() is None


def test_a_manager_with_a_queryset_of_its_own_is_not_hot(host: Host) -> None:
    class Filtering(S3Manager[Gear]):
        def get_queryset(self) -> Any:
            return super().get_queryset().filter(weight=1)

    class Queryset(S3QuerySet[Gear]):
        def filter(self, *args: Any, **kwargs: Any) -> Any:
            return super().filter(*args, **kwargs)

    class Inside(S3QuerySet[Gear]):
        def _filter_or_exclude_inplace(self, *args: Any) -> None:
            super()._filter_or_exclude_inplace(*args)  # type: ignore[misc]

    class Routed(S3QuerySet[Gear]):
        @property
        def db(self) -> str:
            return super().db

    own = [S3Manager.from_queryset(one)() for one in (Queryset, Inside, Routed)]
    for manager in (Filtering(), *own):
        manager.model = Gear
        assert manager._hot_path() is None
    assert isinstance(Gear.objects._hot_path(), Hot)


@pytest.mark.parametrize("signal", [pre_init, post_init])
def test_who_wants_to_see_each_instance_sees_it(
    gear: Gear, signal: models.signals.ModelSignal
) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    seen: list[Any] = []

    def receive(**kwargs: Any) -> None:
        seen.append(kwargs["signal"])

    signal.connect(receive, sender=Gear)
    try:
        get()
        assert seen
    finally:
        signal.disconnect(receive, sender=Gear)
    assert is_hot(get)


# When it must not answer


def test_a_transaction_sees_what_it_wrote(gear: Gear) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    count = warm(Gear.objects.count)
    with transaction.atomic():
        Gear.objects.update(weight=9)
        Gear.objects.create(name="new")
        assert get().weight == 9
        assert count() == 2
        # Code that runs in a context of its own is in the transaction, too.
        assert contextvars.Context().run(count) == 2
        transaction.set_rollback(True)
    assert get().weight == 5
    assert count() == 1
    assert is_hot(get)


def test_another_thread_is_not_in_the_transaction(host: Host, gear: Gear) -> None:
    warm(Gear.objects.count)
    turns = Turns()

    def write() -> int:
        with transaction.atomic():
            Gear.objects.create(name="new")
            turns.say("written")
            turns.wait("read")
            return Gear.objects.count()

    def read() -> int:
        turns.wait("written")
        found = Gear.objects.count()
        turns.say("read")
        return found

    assert together([*each_on(host, write, 1), *each_on(host, read, 1)]) == [2, 1]


def test_without_autocommit_nothing_is_hot(gear: Gear) -> None:
    count = warm(Gear.objects.count)
    transaction.set_autocommit(False)
    try:
        Gear.objects.create(name="new")
        assert count() == 2
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert count() == 1


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_transaction_begun_by_hand_sees_what_it_wrote(gear: Gear, end: str) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE testapp_gear SET weight = 6")
        assert get().weight == 6
        cursor.execute(end)
    assert warm(get)().weight == (6 if end == "COMMIT" else 5)
    assert is_hot(get)


def test_a_write_of_another_connection_is_seen(host: Host, gear: Gear) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    for weight in range(10, 15):
        with on(host):
            Gear.objects.update(weight=weight)
        assert get().weight == weight
        assert is_hot(get)


Behind = tuple[Host, Callable[[], Gear]]


@pytest.fixture
def behind(hosts: MakeHost) -> Iterator[Behind]:
    """A host that keeps a row that another has changed, and how it is read."""
    a, b = hosts(), hosts(max_age=60)
    with a:
        gear = Gear.objects.create(name="cog")
    with b:
        get = warm(lambda: Gear.objects.get(pk=gear.pk))
        with a:
            Gear.objects.update(name="new")
        yield b, get


def test_a_write_of_another_host_is_seen_after_max_age(behind: Behind) -> None:
    b, get = behind
    with b:
        assert is_hot(get)
        assert get().name == "cog"
        b.pass_time(61)
        assert get().name == "new"
        assert is_hot(warm(get))


def by_sql(host: Host) -> None:
    inner: Any = host.connection.connection
    inner.execute("SELECT * FROM testapp_gear")


def by_a_cursor(host: Host) -> None:
    host.sql("SELECT * FROM testapp_gear")


def past_the_cache(host: Host) -> None:
    assert Gear.objects.skip_cache().get().name == "new"


def in_a_block(host: Host) -> None:
    with transaction.atomic():
        assert Gear.objects.get().name == "new"


def by_another_statement(host: Host) -> None:
    assert Gear.objects.order_by("weight").first() is not None


@pytest.mark.parametrize(
    "see", [by_sql, by_a_cursor, past_the_cache, in_a_block, by_another_statement]
)
def test_who_has_seen_an_entry_does_not_go_back_behind_it(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, see: Callable[[Host], None]
) -> None:
    """Nor does another process, if who applied it could not tell of it."""
    b, get = behind
    with b:
        with monkeypatch.context() as patch:
            for name in ("moved_to", "set_asked"):
                patch.setattr(SideFile, name, lambda *args: None)
            b.catch_up()
        side = b.connection.replica.side
        told = side.number
        see(b)
        assert side.number == told + 1
        assert not side.is_moving()
        assert get().name == "new"


def test_nor_behind_a_replica_that_was_made_anew(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that died before it could say so."""

    class Died(Exception):
        pass

    def copy_over_and_die(self: ReplicaFile, other: ReplicaFile) -> None:
        copy_over(self, other)
        raise Died

    copy_over = ReplicaFile.copy_over
    b, get = behind
    with b:
        replica = b.connection.replica
        with monkeypatch.context() as patch, pytest.raises(Died):
            patch.setattr(ReplicaFile, "copy_over", copy_over_and_die)
            patch.setattr(Asking, "expect_news", lambda *args: None)
            replica.run(rebuild(replica.position(), ()))
        by_sql(b)
        assert get().name == "new"


def test_every_read_asks_with_a_max_age_of_0(hosts: MakeHost) -> None:
    a, b = hosts(), hosts(max_age=0)
    with b:
        count = warm(Gear.objects.count)
        for number in range(1, 4):
            with a:
                Gear.objects.create(name="cog")
            assert count() == number


def test_hosts_do_not_answer_for_each_other(hosts: MakeHost) -> None:
    """The same alias, now of one replica and then of another."""
    a, b = hosts(), hosts()
    b.catch_up()
    with a:
        Gear.objects.create(name="cog")
        assert warm(Gear.objects.count)() == 1
    with b:
        assert warm(Gear.objects.count)() == 0
    with a:
        assert Gear.objects.count() == 1


def test_a_connection_that_a_thread_has_put_in_place(hosts: MakeHost) -> None:
    """The settings of the alias stay as they are meanwhile."""
    a, b = hosts(), hosts()
    b.catch_up()
    with a:
        Gear.objects.create(name="cog")
        assert warm(Gear.objects.count)() == 1
        with on(b):
            assert warm(Gear.objects.count)() == 0
        assert warm(Gear.objects.count)() == 1
        with on(b):
            assert Gear.objects.count() == 0


def test_a_replica_that_is_made_anew_or_closed(host: Host, gear: Gear) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    host.connection.rebuild_replica()
    assert get() == gear
    host.restart()
    assert get() == gear
    assert is_hot(warm(get))


def test_a_changed_schema_is_learned_anew(gear: Gear) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX weights ON testapp_gear (weight)")
    assert get() == gear
    assert is_hot(warm(get))


def test_the_store_being_down_is_left_to_the_usual_way(hosts: MakeHost) -> None:
    host = hosts(max_age=60, stale_if_error=600)
    with host:
        count = warm(Gear.objects.count)
        host.pass_time(61)
        with store_down():
            assert count() == 0
            assert totals()["stale"] == 1


# Settings


@pytest.mark.parametrize(
    "options",
    [
        {"HOT_PATH": False},
        {"CACHE": None},
        {"EXCLUDE": ["testapp"]},
        {"INCLUDE": ["library"]},
    ],
)
def test_settings_that_turn_it_off(
    gear: Gear, settings: Any, options: dict[str, Any]
) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    assert is_hot(get)
    settings.S3CACHE = options
    assert not is_hot(warm(get))
    assert get() == gear
    settings.S3CACHE = {}
    assert is_hot(warm(get))


def test_another_cache_is_used_at_once(gear: Gear, settings: Any) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    }
    assert not is_hot(get)
    assert is_hot(warm(get))
    assert get() == gear
    caches["default"].clear()


def test_the_key_version_makes_hot_results_unreachable(
    gear: Gear, settings: Any
) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    settings.S3CACHE = {"KEY_VERSION": 2}
    assert not is_hot(get)


def test_a_router_of_the_project_decides_each_time(gear: Gear) -> None:
    class Router:
        def db_for_read(self, model: object, **hints: object) -> str:
            return "default"

    with override_settings(DATABASE_ROUTERS=[Router()]):
        get = warm(lambda: Gear.objects.get(pk=gear.pk))
        assert not is_hot(get)


def test_time_zones_are_those_of_the_settings(host: Host, settings: Any) -> None:
    """A row that is kept has moments of one kind; another setting, others."""
    product = Product.objects.create(sku="1")
    get = warm(lambda: Product.objects.get(pk=product.pk))
    assert get().changed.tzinfo is dt.UTC
    settings.USE_TZ = False
    assert get().changed.tzinfo is None


def test_what_is_evicted_is_read_again(gear: Gear) -> None:
    get = warm(lambda: Gear.objects.get(pk=gear.pk))
    caches["default"].clear()
    assert not is_hot(get)
    assert get() == gear


HEAVY: dict[str, Callable[[models.QuerySet[Gear]], object]] = {
    "get": lambda gears: gears.get(name="cog").weight,
    "filter and get": lambda gears: gears.filter(name="cog").get().weight,
    "list": lambda gears: [one.weight for one in gears.filter(name="cog")],
    "first": lambda gears: gears.order_by("name").first().weight,  # type: ignore[union-attr]
    "count": lambda gears: gears.filter(weight__gt=6).count(),
    "exists": lambda gears: gears.filter(weight__gt=6).exists(),
    "aggregate": lambda gears: gears.aggregate(models.Max("weight")),
    "absent": lambda gears: get_or_none(gears, weight=7),
}


def get_or_none(gears: models.QuerySet[Gear], **lookups: Any) -> Gear | None:
    try:
        return gears.get(**lookups)
    except Gear.DoesNotExist:
        return None


#: What a facade is told to compute for these, whatever is there.
BY_HAND: dict[str, Callable[[models.QuerySet[Gear]], Read]] = {
    "get": lambda gears: Read(gears, "get", {"name": "cog"}),
    "list": lambda gears: Read(gears.filter(name="cog")),
    "first": lambda gears: Read(gears.order_by("name")[:1]),
    "count": lambda gears: Read(gears.filter(weight__gt=6), "count"),
    "exists": lambda gears: Read(gears.filter(weight__gt=6), "exists"),
    "aggregate": lambda gears: Read(
        gears, "aggregate", {}, {"weight__max": models.Max("weight")}
    ),
    "absent": lambda gears: Read(gears, "get", {"weight": 7}),
}


@pytest.mark.parametrize("backend", ["memory", "locmem"])
@pytest.mark.parametrize(
    ("name", "by_hand"),
    [*((name, False) for name in HEAVY), *((name, True) for name in BY_HAND)],
)
def test_what_is_computed_anew_replaces_what_is_hot(
    gear: Gear, settings: Any, name: str, by_hand: bool, backend: str
) -> None:
    """Planted is what no commit explains: a row that has changed by itself."""
    if backend == "locmem":
        settings.CACHES = {
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
        }

    def read() -> object:
        return HEAVY[name](Gear.objects.all())

    before = read()
    assert is_hot(warm(read))
    with closing(sqlite3.connect(connection.replica.path)) as behind:  # type: ignore[attr-defined]
        behind.execute("UPDATE testapp_gear SET weight = 7")
        behind.commit()
    assert read() == before
    if by_hand:
        wanted = BY_HAND[name](Gear.objects.all())
        assert Gear.objects.cache.warm_query(wanted, force_refresh=True) == 1
        found = HEAVY[name](Gear.objects.skip_cache())
    else:
        found = HEAVY[name](Gear.objects.fresh())
    assert found != before
    assert read() == found
    assert is_hot(read)


def test_a_write_while_something_is_computed_by_hand(host: Host, gear: Gear) -> None:
    """What was read before it is not what is hot after it."""
    is_written: list[bool] = []

    def write_after(execute: Any, *args: Any) -> Any:
        result = execute(*args)
        if not is_written:
            is_written.append(True)
            with on(host):
                Gear.objects.update(weight=9)
        return result

    def read() -> int:
        return Gear.objects.filter(weight__gt=6).count()

    assert is_hot(warm(read))
    wanted = Read(Gear.objects.filter(weight__gt=6), "count")
    with connection.execute_wrapper(write_after):
        Gear.objects.cache.warm_query(wanted, force_refresh=True)
    assert [read() for _ in range(3)] == [1, 1, 1]


def test_get_of_a_queryset_is_hot(gear: Gear) -> None:
    for get in (
        lambda: Gear.objects.all().get(pk=gear.pk),
        lambda: Gear.objects.filter(weight=5).get(name="cog"),
        lambda: Gear.objects.exclude(weight=7).get(),
        lambda: get_object_or_404(Gear, name="cog"),
    ):
        assert is_hot(warm(get))
        assert get() == gear
    gears = Gear.objects.filter(weight=5)
    warm(lambda: gears.all().get(name="cog"))
    assert on_loop(lambda: gears.aget(name="cog")) == gear


def test_get_of_several_rows_or_of_a_slice_is_as_ever(gear: Gear) -> None:
    Gear.objects.create(name="wheel", weight=5)
    for _ in range(3):
        with pytest.raises(Gear.MultipleObjectsReturned):
            Gear.objects.filter(weight=5).get()
        with pytest.raises(TypeError, match="once a slice has been taken"):
            Gear.objects.all()[:1].get(name="cog")
        assert Gear.objects.order_by("name")[:1].get() == gear


def test_other_wishes_are_not_for_the_hot_path(gear: Gear) -> None:
    def skipping() -> int:
        return Gear.objects.all().skip_cache().filter(weight=5).count()

    assert not is_hot(warm(skipping))
    assert not is_hot(lambda: Gear.objects.filter(weight=5).count())


def test_what_was_never_asked_is_not_known(host: Host) -> None:
    hot = Hot(Gear)
    assert hot.get(hot.root, (), {"pk": 1}) is NOT_HOT
    assert hot.find(hot.root, "count", ()) is None


def test_what_cannot_be_kept_is_answered_all_the_same(
    gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError("full")

    monkeypatch.setattr(type(caches["default"]), "keep", fail)
    assert Gear.objects.get(pk=gear.pk) == gear
    assert totals("testapp.gear", "get") == {"miss": 1, "failed": 1}
