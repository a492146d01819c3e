"""What was compiled once gives what Django gives, for other values, too.

Each test has a read that is hot, and takes away what is kept of it: by a
write, mostly.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

import pytest
from django.core.cache import caches
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, models, transaction
from django.db.models.signals import post_init
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import CaptureQueriesContext, override_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from s3cache.managers import S3Manager
from s3cache.results import statements
from s3cache.results.hot import drop_hot
from tests.engine import Bucket, Host, MakeHost
from tests.results.seen import HIT, MISS, directory, events, on_loop, totals
from tests.testapp.models import Gear, Measured, Place, PlaceProxy, Product, Shop

pytestmark = [directory, pytest.mark.usefixtures("hot_path")]

M = TypeVar("M", bound=models.Model)


@pytest.fixture(autouse=True)
def memory_cache(settings: Any) -> Iterator[None]:
    """Results in a MemoryCache, which holds objects."""
    settings.CACHES = {
        "default": {"BACKEND": "s3cache.caches.MemoryCache", "LOCATION": "compiled"}
    }
    caches["default"].clear()
    yield
    caches["default"].clear()


@pytest.fixture
def gear(host: Host) -> Gear:
    return Gear.objects.create(name="cog", weight=5)


def compiles(read: Callable[[], object]) -> bool:
    """Whether ``read`` has Django compile anything."""
    seen = []
    as_sql = SQLCompiler.as_sql

    def note(self: SQLCompiler, *args: Any, **kwargs: Any) -> Any:
        seen.append(self)
        return as_sql(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLCompiler, "as_sql", note)
        try:
            read()
        except models.ObjectDoesNotExist:
            pass
    return bool(seen)


def uncompiled(read: Callable[[], M]) -> M:
    """What ``read`` returns, for which Django has nothing to compile."""
    found: list[M] = []
    assert not compiles(lambda: found.append(read()))
    return found[0]


def known(get: Callable[[], M]) -> Callable[[], M]:
    """Have a read compiled, for the values that it has."""
    try:
        get()
    except models.ObjectDoesNotExist:
        pass
    return get


def as_django(model: type[models.Model], **lookups: Any) -> dict[str, Any]:
    """The attributes of an object that Django has made, past all caches."""
    return vars(model._base_manager.get(**lookups))


# What comes of it


def test_a_row_that_was_written_is_read_without_compiling(gear: Gear) -> None:
    get = known(partial(Gear.objects.get, pk=gear.pk))
    for weight in (6, 7):
        Gear.objects.filter(pk=gear.pk).update(weight=weight)
        assert uncompiled(get).weight == weight
        assert get() == gear


def test_a_row_of_another_key_is(gear: Gear) -> None:
    other = Gear.objects.create(name="wheel", weight=1)
    known(partial(Gear.objects.get, pk=gear.pk))
    found = uncompiled(partial(Gear.objects.get, pk=other.pk))
    assert (found.pk, found.name) == (other.pk, "wheel")


def test_an_object_is_as_django_makes_it(host: Host) -> None:
    one, two = (
        Measured.objects.create(
            money=Decimal("7.50"),
            real=0.1,
            flag=True,
            day=dt.date(2024, 2, 29),
            moment=dt.datetime(2024, 2, 29, 23, 59, 59, 7, dt.UTC),
            time=dt.time(1, 2, 3, 4),
            span=dt.timedelta(days=-1, microseconds=1),
            uid=uuid.uuid4(),
            address="::1",
        )
        for _ in range(2)
    )
    for lookup in ("pk", "uid"):
        known(partial(Measured.objects.get, **{lookup: getattr(one, lookup)}))
        get = partial(Measured.objects.get, **{lookup: getattr(two, lookup)})
        made, expected = vars(uncompiled(get)), as_django(Measured, pk=two.pk)
        assert list(made) == list(expected)
        state, usual = made.pop("_state"), expected.pop("_state")
        assert {name: getattr(state, name) for name in vars(usual)} == vars(usual)
        assert repr(made) == repr(expected)


def test_a_child_and_a_proxy_get_their_own(host: Host) -> None:
    one, two = (Shop.objects.create(name=name, rooms=9) for name in ("one", "two"))
    for model in (Shop, Place, PlaceProxy):
        known(partial(model.objects.get, pk=one.pk))
        found = uncompiled(partial(model.objects.get, pk=two.pk))
        assert type(found) is model
        expected = as_django(model, pk=two.pk)
        assert {**vars(found), "_state": 0} == {**expected, "_state": 0}


def test_a_class_makes_its_objects_itself(
    gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_db = vars(models.Model)["from_db"].__func__

    def counting(cls: Any, *args: Any, **kwargs: Any) -> Any:
        made = from_db(cls, *args, **kwargs)
        made.weight += 100
        return made

    get = known(partial(Gear.objects.get, pk=gear.pk))
    Gear.objects.filter(pk=gear.pk).update(weight=6)
    monkeypatch.setattr(Gear, "from_db", classmethod(counting))
    assert get().weight == 106


def test_who_listens_sees_each_object_once(gear: Gear) -> None:
    seen = []

    def listen(instance: Gear, **kwargs: Any) -> None:
        seen.append(instance)

    get = known(partial(Gear.objects.get, pk=gear.pk))
    Gear.objects.filter(pk=gear.pk).update(weight=6)
    post_init.connect(listen, sender=Gear)
    try:
        found = get()
    finally:
        post_init.disconnect(listen, sender=Gear)
    assert [id(one) for one in seen] == [id(found)]


# What is not there, or there twice


def test_a_row_that_goes_and_comes(gear: Gear) -> None:
    get = known(partial(Gear.objects.get, pk=gear.pk))
    Gear.objects.all().delete()
    for _ in range(2):
        with pytest.raises(Gear.DoesNotExist, match=r"^Gear matching query does not"):
            get()
    Gear.objects.create(pk=gear.pk, name="new")
    assert uncompiled(get).name == "new"


def test_two_rows(gear: Gear) -> None:
    get = known(partial(Gear.objects.get, name="cog"))
    Gear.objects.create(name="cog")
    with pytest.raises(Gear.MultipleObjectsReturned, match="it returned 2!"):
        get()
    gear.delete()
    assert get().pk != gear.pk


@pytest.mark.parametrize("weight", [2**63, -(2**63) - 1, 2**100, -1])
def test_numbers_that_sqlite_has_not_got(gear: Gear, weight: int) -> None:
    known(partial(Gear.objects.get, weight=5))
    with pytest.raises(Gear.DoesNotExist):
        Gear.objects.get(weight=weight)


def test_a_negative_number_is_djangos_to_look_for(gear: Gear) -> None:
    known(partial(Gear.objects.get, weight=5))
    Gear.objects.filter(pk=gear.pk).update(weight=-7)
    assert Gear.objects.get(weight=-7) == gear


texts = st.text(max_size=5)
whole = st.integers(-2, 3)


@hypothesis_settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(st.tuples(texts, whole), max_size=5), name=texts, weight=whole)
def test_any_values(
    host: Host, rows: list[tuple[str, int]], name: str, weight: int
) -> None:
    """With each pair of values the outcome is that of Django's own manager."""
    Gear.objects.all().delete()
    Gear.objects.bulk_create(Gear(name=one, weight=number) for one, number in rows)

    def outcome(manager: Any, **lookups: Any) -> object:
        try:
            return manager.get(**lookups).pk
        except (Gear.DoesNotExist, Gear.MultipleObjectsReturned) as error:
            return type(error)

    for one, number in [*rows, (name, weight)]:
        for lookups in ({"name": one}, {"weight": number, "name": one}):
            expected = outcome(Gear._base_manager, **lookups)
            assert outcome(Gear.objects, **lookups) == expected


# What others see of it


def test_its_statement_is_djangos(gear: Gear) -> None:
    with CaptureQueriesContext(connection) as usual:
        known(get := partial(Gear.objects.get, pk=gear.pk))
    Gear.objects.filter(pk=gear.pk).update(weight=6)
    with CaptureQueriesContext(connection) as again:
        get()
    assert [one["sql"] for one in again] == [one["sql"] for one in usual]
    assert len(again) == 1


def test_an_execute_wrapper_may_change_it(gear: Gear) -> None:
    other = Gear.objects.create(name="wheel")
    get = known(partial(Gear.objects.get, pk=gear.pk))
    Gear.objects.filter(pk=gear.pk).update(weight=6)

    def wrap(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        return execute(sql, (other.pk.hex,), many, context)

    with connection.execute_wrapper(wrap):
        assert get() == other
    assert get() == gear


def test_it_is_counted_as_any_miss(gear: Gear) -> None:
    get = known(partial(Gear.objects.get, pk=gear.pk))
    Gear.objects.filter(pk=gear.pk).update(weight=6)
    before = totals("testapp.gear", "get")
    assert events(get) == MISS
    assert totals("testapp.gear", "get")["miss"] == before["miss"] + 1


def test_its_result_is_where_others_look_for_it(gear: Gear, settings: Any) -> None:
    """Whoever shares the cache, and has not compiled it."""
    locmem = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": locmem, "LOCATION": "compiled"}}
    get = known(partial(Gear.objects.get, pk=gear.pk))
    Gear.objects.filter(pk=gear.pk).update(weight=6)
    assert not compiles(get)
    drop_hot(Gear)
    found: list[dict[str, int]] = []
    assert compiles(lambda: found.append(events(get)))
    assert found == [HIT]


def test_one_row_stays_when_another_is_written(gear: Gear) -> None:
    other = Gear.objects.create(name="wheel")
    known(partial(Gear.objects.get, pk=gear.pk))
    Gear.objects.get(pk=other.pk)
    Gear.objects.filter(pk=gear.pk).update(weight=6)
    assert events(partial(Gear.objects.get, pk=other.pk)) == {"hit": 1}


def test_who_wants_to_know_the_query_gets_the_right_one(
    gear: Gear, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Gear.objects.create(name="wheel")
    known(partial(Gear.objects.get, pk=gear.pk))
    seen: list[Any] = []
    monkeypatch.setattr(statements, "computed", statements.computed)
    statements.computed.append(lambda reading, sql, params: seen.append(reading.query))
    try:
        Gear.objects.get(pk=other.pk)
    finally:
        statements.computed.pop()
    [query] = seen
    assert query.where.children[0].rhs == other.pk


@pytest.mark.parametrize("ask", [lambda rows: rows.fresh(), lambda rows: rows.all()])
def test_what_somebody_asked_of_the_cache_is_their_own(
    gear: Gear, bucket: Bucket, ask: Callable[[Any], Any]
) -> None:
    """Nor is anything kept of the thread that asked."""
    known(partial(ask(Gear.objects).get, pk=gear.pk))
    for weight in (6, 7):
        Gear.objects.filter(pk=gear.pk).update(weight=weight)
        get = partial(Gear.objects.all().get, pk=gear.pk)
        with bucket.requests() as seen:
            assert uncompiled(get).weight == weight
        assert not seen
    hot = Gear.objects._hot_path()
    assert hot is not None
    compiled = [
        recipe.compiled
        for shape in hot.shapes
        for recipe in shape.recipes.values()
        if recipe.compiled is not None
    ]
    assert compiled
    for one in compiled:
        assert "s3cache_hints" not in vars(one.query)
        assert "s3cache_taken" not in vars(one.query)


# When it is Django's to read


def test_in_a_block(gear: Gear) -> None:
    get = known(partial(Gear.objects.get, pk=gear.pk))
    with transaction.atomic():
        Gear.objects.filter(pk=gear.pk).update(weight=6)
        assert compiles(get)
        assert get().weight == 6
        transaction.set_rollback(True)
    assert get().weight == 5


def test_on_an_event_loop(gear: Gear) -> None:
    get = known(partial(Gear.objects.get, pk=gear.pk))
    Gear.objects.filter(pk=gear.pk).update(weight=6)

    async def read() -> None:
        with pytest.raises(SynchronousOnlyOperation):
            get()
        assert (await Gear.objects.aget(pk=gear.pk)).weight == 6

    on_loop(read)


def test_after_a_change_of_settings(gear: Gear) -> None:
    get = known(partial(Gear.objects.get, pk=gear.pk))
    with override_settings(S3CACHE={"HOT_PATH": False}):
        assert compiles(get)


def test_what_another_host_wrote(hosts: MakeHost, gear: Gear, host: Host) -> None:
    get = known(partial(Gear.objects.get, pk=gear.pk))
    with hosts("other"):
        Gear.objects.filter(pk=gear.pk).update(weight=9)
    host.catch_up()
    assert uncompiled(get).weight == 9


@pytest.mark.parametrize(
    "lookups",
    [
        {"name__iexact": "cog"},
        {"name__contains": "cog"},
        {"pk": None},
        {"weight__lt": 6, "name": "cog"},
    ],
)
def test_other_lookups(gear: Gear, lookups: dict[str, Any]) -> None:
    get = partial(Gear.objects.get, **lookups)
    for weight in (5, 4):
        Gear.objects.filter(pk=gear.pk).update(weight=weight)
        if None in lookups.values():
            with pytest.raises(Gear.DoesNotExist):
                get()
        else:
            assert get().weight == weight


def test_a_manager_that_joins(host: Host) -> None:
    """Its objects have more than their own columns."""
    assert issubclass(type(Product.objects), S3Manager)
    one = Product.objects.create(sku="one", changed=dt.datetime.now(dt.UTC))
    get = partial(Product.objects.select_related("category").get, pk=one.pk)
    for stock in (1, 2):
        Product.objects.filter(pk=one.pk).update(stock=stock)
        assert get().stock == stock
        assert get().category is None


def test_keys_that_look_like_others(host: Host) -> None:
    key = uuid.uuid4()
    Gear.objects.create(pk=key, name="cog")
    known(partial(Gear.objects.get, pk=key))
    assert Gear.objects.get(pk=str(key)).pk == key
    assert Gear.objects.get(pk=key.hex).pk == key
