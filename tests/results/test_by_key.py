"""Rows that are kept one by one give what Django's ``in_bulk()`` gives."""

from __future__ import annotations

import copy
import pickle
import random
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import FieldDoesNotExist, SynchronousOnlyOperation
from django.db import OperationalError, connection, models, transaction
from django.db.models.signals import post_init
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from s3cache.managers import S3Manager, S3QuerySet
from s3cache.results import statements
from s3cache.results.by_key import MOST_KEYS, _Call, in_bulk
from s3cache.results.hot import NOT_HOT, Hot, drop_hot
from s3cache.results.versions import Versions
from s3cache.results.watching import Watch, Why, watch
from tests.db.hosts import each_on, on, together
from tests.engine import Host, MakeHost
from tests.results.seen import HIT, MISS, directory, events, on_loop, totals
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


def cache_settings(**options: Any) -> dict[str, Any]:
    return {
        "default": {
            "BACKEND": "s3cache.caches.MemoryCache",
            "LOCATION": "by key",
            "OPTIONS": {"MAX_ENTRIES": 10_000, **options},
        }
    }


@pytest.fixture(autouse=True)
def memory_cache(settings: Any) -> Iterator[None]:
    """Results in a MemoryCache, which keeps objects."""
    settings.CACHES = cache_settings()
    caches["default"].clear()
    yield
    caches["default"].clear()


@pytest.fixture
def gears(host: Host) -> list[Gear]:
    return made(10)


def made(number: int) -> list[Gear]:
    return Gear.objects.bulk_create(
        Gear(name=str(index), weight=index) for index in range(number)
    )


def keys_of(rows: list[Gear]) -> list[uuid.UUID]:
    return [one.pk for one in rows]


def usual(model: type[models.Model], id_list: Any) -> dict[Any, dict[str, Any]]:
    """What Django finds, past all that is kept of a model."""
    return plain(model._base_manager.in_bulk(id_list))


def plain(found: dict[Any, Any]) -> dict[Any, dict[str, Any]]:
    return {
        key: {name: value for name, value in vars(one).items() if name != "_state"}
        for key, one in found.items()
    }


class Usual(Exception):
    """The usual way was taken, or a statement was made."""


def is_hot(read: Callable[[], object]) -> bool:
    """Whether ``read`` is answered without a queryset and a statement."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Usual

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.QuerySet, "__init__", refuse)
        patch.setattr(_Call, "_rows", refuse)
        try:
            read()
        except Usual:
            return False
        return True


def warm(read: Callable[[], Any]) -> Callable[[], Any]:
    """Make the read until it is hot: rows are kept at the second time."""
    for _ in range(3):
        read()
    return read


def compiles(read: Callable[[], object]) -> bool:
    """Whether ``read`` has Django compile anything."""
    seen = []
    as_sql = SQLCompiler.as_sql

    def note(self: SQLCompiler, *args: Any, **kwargs: Any) -> Any:
        seen.append(self)
        return as_sql(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLCompiler, "as_sql", note)
        read()
    return bool(seen)


def statements_of(read: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as seen:
        read()
    return [one["sql"] for one in seen]


# What is hot


def test_rows_that_were_read_twice_are_kept(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    assert is_hot(read)
    found = read()
    assert list(found.items()) == list(Gear._base_manager.in_bulk(keys).items())
    assert plain(found) == usual(Gear, keys)
    assert {type(one) for one in found.values()} == {Gear}
    assert not any(one._state.adding for one in found.values())
    assert {one._state.db for one in found.values()} == {"default"}


def test_so_it_is_of_a_queryset(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    assert is_hot(warm(lambda: Gear.objects.all().in_bulk(keys)))
    assert plain(Gear.objects.all().in_bulk(keys)) == usual(Gear, keys)


def test_other_calls_take_what_is_kept(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    warm(lambda: Gear.objects.in_bulk(keys))
    assert is_hot(lambda: Gear.objects.in_bulk(keys[3:5]))
    assert is_hot(lambda: Gear.objects.in_bulk([keys[7], keys[2], keys[7]]))


def test_a_row_that_get_keeps_is_kept(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    warm(lambda: Gear.objects.in_bulk(keys[:2]))
    for key in keys[2:4]:
        Gear.objects.get(pk=key)
    assert is_hot(lambda: Gear.objects.in_bulk(keys[:4]))
    assert not compiles(lambda: Gear.objects.get(pk=keys[0]))
    assert events(lambda: Gear.objects.get(pk=keys[0])) == HIT


def test_a_row_that_was_written_is_read_alone(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    for weight in (100, 101):
        Gear.objects.filter(pk=keys[4]).update(weight=weight)
        [sql] = statements_of(lambda: plain(read()))
        assert keys[4].hex in sql
        assert keys[5].hex not in sql
        assert is_hot(read)
        assert plain(read()) == usual(Gear, keys)
        assert read()[keys[4]].weight == weight


def test_what_is_missing_is_read_without_compiling(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    Gear.objects.in_bulk(keys[:2])
    assert not compiles(lambda: Gear.objects.in_bulk(keys))


def test_its_statement_is_djangos(gears: list[Gear]) -> None:
    keys = sorted(keys_of(gears))

    def read() -> object:
        return Gear.objects.in_bulk(keys)

    first, second = statements_of(read), statements_of(read)
    assert first == second
    assert len(first) == 1


def test_rows_that_are_not_there_are_left_out(gears: list[Gear]) -> None:
    new = uuid.uuid4()
    keys = [*keys_of(gears), new]
    read = warm(lambda: Gear.objects.in_bulk(keys))
    assert is_hot(read)
    assert new not in read()
    Gear.objects.create(pk=new, name="new")
    assert read()[new].name == "new"
    Gear.objects.filter(pk__in=keys[:5]).delete()
    assert read().keys() == {*keys[5:]}
    assert is_hot(read)


def test_objects_are_each_caller_s_own(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))

    def change(found: dict[Any, Gear]) -> None:
        found[keys[0]].name = "changed"
        found[keys[0]]._state.fields_cache["x"] = 1
        del found[keys[1]]

    change(read())
    assert plain(read()) == usual(Gear, keys)
    assert not read()[keys[0]]._state.fields_cache
    Gear.objects.filter(pk=keys[0]).update(weight=7)
    change(read())  # read just now, and kept
    assert is_hot(read)
    assert plain(read()) == usual(Gear, keys)


def test_saving_an_object_of_it(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    one = read()[keys[0]]
    one.weight = 50
    one.save(if_unchanged=True)
    assert read()[keys[0]].weight == 50


# Which keys


KEYS: dict[str, Callable[[], Any]] = {
    "list": lambda: [1, 2, 3],
    "tuple": lambda: (3, 2, 1),
    "set": lambda: {2, 3, 1},
    "frozenset": lambda: frozenset([1, 2]),
    "dict": lambda: {3: "c", 1: "a"},
    "dict keys": lambda: {3: "c", 1: "a"}.keys(),
    "dict values": lambda: {"c": 3, "a": 1}.values(),
    "range": lambda: range(5),
    "generator": lambda: (key for key in (2, 1)),
    "iterator": lambda: iter([2, 1]),
    "map": lambda: map(int, "21"),
    "again and again": lambda: [2, 2, 1, 2],
    "none": list,
    "nothing": lambda: (),
    "all": lambda: None,
    "text": lambda: ["1", "2"],
    "a text": lambda: "12",
    "bytes": lambda: b"\x01\x02",
    "mixed": lambda: [1, "2"],
    "the same twice": lambda: [1, True, 1.0, "1"],
    "truth": lambda: [True],
    "floats": lambda: [1.0, 2.0],
    "None": lambda: [None, 1],
    "only None": lambda: [None],
    "not there": lambda: [98, 99],
    "negative": lambda: [-1, 1],
    "large": lambda: [2**63 - 1, 1],
    "too large": lambda: [2**63, 1],
    "no keys": lambda: ["x"],
    "unhashable": lambda: [[1], [2]],
    "objects": lambda: list(Counted.objects.all()),
    "a queryset": lambda: Counted.objects.values_list("pk", flat=True),
    "a number": lambda: 7,
}


def outcome(manager: Any, id_list: Any) -> object:
    try:
        found = manager.in_bulk(id_list)
    except Exception as error:
        return type(error), str(error)
    return [(type(key), key, type(one), one.pk) for key, one in found.items()]


@pytest.mark.parametrize("id_list", KEYS.values(), ids=KEYS)
def test_whatever_the_keys_are(host: Host, id_list: Callable[[], Any]) -> None:
    for _ in range(4):
        Counted.objects.create()
    warm(lambda: Counted.objects.in_bulk([1, 2, 3]))
    expected = outcome(Counted._base_manager, id_list())
    for _ in range(3):
        assert outcome(Counted.objects, id_list()) == expected
        assert outcome(Counted.objects.all(), id_list()) == expected


def test_no_keys_are_no_query(gears: list[Gear]) -> None:
    warm(lambda: Gear.objects.in_bulk(keys_of(gears)))
    assert not statements_of(lambda: Gear.objects.in_bulk([]))


TEXTS = ["a", "B", "ä", "a ", "", "z\0z", "\U0001f600", "\uffff", "1", "None"]


def test_keys_of_text_are_in_the_order_of_the_replica(host: Host) -> None:
    for code in TEXTS:
        Coded.objects.create(code=code, name=code)
    read = warm(lambda: Coded.objects.in_bulk([*TEXTS, "not there"]))
    assert is_hot(read)
    assert list(read()) == list(Coded._base_manager.in_bulk(TEXTS))
    assert list(read()) == sorted(TEXTS)


def test_keys_that_look_like_others(gears: list[Gear]) -> None:
    key = gears[0].pk
    for _ in range(2):
        Gear.objects.in_bulk([str(key)])
    assert is_hot(warm(lambda: Gear.objects.in_bulk([key])))
    for other in (str(key), key.hex):
        assert not is_hot(partial(Gear.objects.in_bulk, [other]))
        assert list(Gear.objects.in_bulk([other])) == [key]


# filter(pk__in=...)


def test_a_list_by_keys_is_hot(gears: list[Gear]) -> None:
    keys = keys_of(gears)

    def read() -> list[Gear]:
        return list(Gear.objects.filter(pk__in=keys))

    assert is_hot(warm(read))
    assert is_hot(lambda: list(Gear.objects.all().filter(pk__in=keys[3:5])))
    assert is_hot(lambda: list(Gear.objects.filter(id__in=keys)))
    assert not is_hot(lambda: list(Gear.objects.filter(weight__in=[1, 2])))
    assert is_hot(lambda: Gear.objects.in_bulk(keys))
    assert [vars(one)["name"] for one in read()] == [
        one.name for one in Gear._base_manager.filter(pk__in=keys)
    ]
    Gear.objects.filter(pk=keys[4]).update(weight=100)
    [sql] = statements_of(read)
    assert keys[4].hex in sql
    assert keys[5].hex not in sql
    assert is_hot(read)
    assert {one.pk: one.weight for one in read()}[keys[4]] == 100
    assert events(read) == HIT


def test_its_objects_are_each_caller_s_own(gears: list[Gear]) -> None:
    rows = Gear.objects.filter(pk__in=keys_of(gears))
    warm(lambda: list(rows.all()))
    again = [Gear.objects.filter(pk__in=keys_of(gears)) for _ in range(2)]
    assert [len(one) for one in again] == [10, 10]
    again[0][0].name = "changed"
    assert again[0][0].name == "changed"  # it has its rows
    assert again[1][0].name != "changed"
    assert [one is other for one, other in zip(*again, strict=True)] == [False] * 10


def lists(manager: Any, id_list: Any) -> object:
    try:
        rows = manager.filter(pk__in=id_list)
        return [(type(one), one.pk) for one in rows]
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("id_list", KEYS.values(), ids=KEYS)
def test_lists_whatever_the_keys_are(host: Host, id_list: Callable[[], Any]) -> None:
    for _ in range(4):
        Counted.objects.create()
    expected = lists(Counted._base_manager, id_list())
    for _ in range(2):
        assert lists(Counted.objects, id_list()) == expected
        warm(lambda: list(Counted.objects.filter(pk__in=[1, 2, 3])))
    assert lists(Counted.objects.all(), id_list()) == expected


def test_keys_that_are_changed_afterwards(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    warm(lambda: list(Gear.objects.filter(pk__in=keys)))
    some = keys[:3]
    hot, cold = (
        Gear.objects.filter(pk__in=some),
        Gear._base_manager.filter(pk__in=some),
    )
    some.clear()
    assert list(hot) == list(cold)
    assert len(hot) == 3


USES: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "len": len,
    "bool": bool,
    "in": lambda rows: Gear.objects.all()[0] in rows,
    "repr": repr,
    "query": lambda rows: str(rows.query),
    "model": lambda rows: rows.model,
    "db": lambda rows: rows.db,
    "ordered": lambda rows: rows.ordered,
    "index": lambda rows: rows[1],
    "slice": lambda rows: list(rows[1:3]),
    "count": lambda rows: rows.count(),
    "exists": lambda rows: rows.exists(),
    "aggregate": lambda rows: rows.aggregate(models.Sum("weight")),
    "first": lambda rows: rows.first(),
    "last": lambda rows: rows.order_by("weight").last(),
    "get": lambda rows: rows.get(weight=3),
    "get nothing": lambda rows: rows.filter(weight=300).first(),
    "filter": lambda rows: list(rows.filter(weight__gt=3)),
    "filter twice": lambda rows: list(rows.filter(pk__in=keys_of(rows)[1:])),
    "exclude": lambda rows: list(rows.exclude(weight=3)),
    "order": lambda rows: list(rows.order_by("-weight")),
    "reverse": lambda rows: list(rows.order_by("weight").reverse()),
    "all": lambda rows: list(rows.all()),
    "values": lambda rows: list(rows.values_list("weight", flat=True)),
    "only": lambda rows: [one.weight for one in rows.only("weight")],
    "annotate": lambda rows: [one.n for one in rows.annotate(n=models.F("weight") + 1)],
    "or": lambda rows: set(rows | Gear.objects.filter(weight=9)),
    "and": lambda rows: set(rows & Gear.objects.filter(weight__gt=1)),
    "of others": lambda rows: set(Gear.objects.filter(weight=9) | rows),
    "union": lambda rows: set(rows.union(Gear.objects.filter(weight=9))),
    "within another": lambda rows: set(Gear.objects.filter(pk__in=rows)),
    "iterator": lambda rows: list(rows.iterator()),
    "in_bulk": lambda rows: rows.in_bulk(keys_of(rows)[:2]),
    "pickle": lambda rows: list(pickle.loads(pickle.dumps(rows))),  # noqa: S301
    "pickled query": lambda rows: str(pickle.loads(pickle.dumps(rows.query))),  # noqa: S301
    "copy": lambda rows: list(copy.copy(rows)),
    "deepcopy": lambda rows: list(copy.deepcopy(rows)),
    "fresh": lambda rows: list(rows.fresh()),
    "past the cache": lambda rows: list(rows.skip_cache()),
    "async": lambda rows: on_loop(lambda: collect(rows)),
    "contains": lambda rows: rows.contains(Gear.objects.all()[0]),
    "update": lambda rows: rows.update(weight=7),
    "delete": lambda rows: rows.delete(),
}


async def collect(rows: Any) -> list[Any]:
    return [one async for one in rows]


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("is_fetched", [False, True])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_whatever_is_done_with_it(
    gears: list[Gear], use: Callable[[Any], Any], is_fetched: bool, is_known: bool
) -> None:
    keys = sorted(keys_of(gears))[:6]
    drop_hot(Gear)
    if is_known:
        warm(lambda: list(Gear.objects.filter(pk__in=keys)))
    with transaction.atomic():
        rows: Any = Gear.objects.get_queryset().filter(pk__in=keys)
        if is_fetched:
            len(rows)
        expected = use(rows)
        transaction.set_rollback(True)
    rows = Gear.objects.filter(pk__in=keys)
    if is_fetched:
        len(rows)
    assert use(rows) == expected
    if use is USES["repr"] or use is USES["list"]:
        assert is_hot(warm(lambda: list(Gear.objects.filter(pk__in=keys))))


def test_a_list_that_threads_share(host: Host) -> None:
    keys = keys_of(made(50))
    expected = sorted(keys)
    warm(lambda: list(Gear.objects.filter(pk__in=keys)))
    for _ in range(10):
        Gear.objects.filter(pk=keys[0]).update(weight=7)
        rows = Gear.objects.filter(pk__in=keys)

        def read(rows: Any = rows) -> Any:
            return [one.pk for one in rows]

        def count(rows: Any = rows) -> Any:
            return [None] * rows.count()

        counted, *read_by_all = together(
            [*each_on(host, count, 1), *each_on(host, read, 3)]
        )
        assert len(counted) == 50
        assert read_by_all == [expected] * 3


# In which order

ORDERS: list[tuple[list[Any], bool]] = [
    (["pk"], True),
    (["-pk"], True),
    (["name"], True),
    (["-name", "weight"], True),
    (["weight", "-id", "name"], True),
    (["-weight"], True),
    ([models.F("name").desc()], False),
    (["?"], False),
]


@pytest.mark.parametrize(("ordering", "may_be_hot"), ORDERS)
def test_the_order_of_the_model(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    ordering: list[Any],
    may_be_hot: bool,
) -> None:
    monkeypatch.setattr(Gear._meta, "ordering", ordering)
    drop_hot(Gear)
    chance = random.Random(repr(ordering))
    rows = Gear.objects.bulk_create(
        Gear(name=chance.choice("abÄ"), weight=chance.randrange(-2, 3))
        for _ in range(40)
    )
    keys = chance.sample(keys_of(rows), 30)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    assert is_hot(read) == may_be_hot
    if ordering != ["?"]:
        for _ in range(2):
            assert list(read()) == list(Gear._base_manager.in_bulk(keys))
            assert list(Gear.objects.filter(pk__in=keys)) == list(
                Gear._base_manager.filter(pk__in=keys)
            )
            Gear.objects.filter(pk=keys[3]).update(name="a", weight=1)
    drop_hot(Gear)


def test_null_comes_first(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Category._meta, "ordering", ["name"])
    drop_hot(Category)
    with connection.schema_editor() as editor:
        field = models.CharField(max_length=40, null=True)
        field.set_attributes_from_name("name")
        field.model = Category
        editor.alter_field(Category, Category._meta.get_field("name"), field)
    keys = [Category.objects.create(name=name).pk for name in "bac"]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE testapp_category SET name = NULL WHERE id IN (%s, %s)",
            [keys[0].hex, keys[2].hex],
        )
    read = warm(lambda: Category.objects.in_bulk(keys))
    assert is_hot(read)
    assert list(read()) == list(Category._base_manager.in_bulk(keys))
    assert list(read())[-1] == keys[1]
    drop_hot(Category)


def test_values_that_are_not_of_the_field_s_type(
    gears: list[Gear], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite takes them, and has an order for them, too."""
    monkeypatch.setattr(Gear._meta, "ordering", ["weight"])
    drop_hot(Gear)
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    assert is_hot(read)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE testapp_gear SET weight = 'none' WHERE id = %s", [keys[3].hex]
        )
    for _ in range(3):
        assert list(read()) == list(Gear._base_manager.in_bulk(keys))
        assert list(read())[-1] == keys[3]
    drop_hot(Gear)


# Which querysets


OTHERS: dict[str, Callable[[list[uuid.UUID]], Any]] = {
    "filtered": lambda keys: Gear.objects.filter(weight__gt=3).in_bulk(keys),
    "excluded": lambda keys: Gear.objects.exclude(weight=3).in_bulk(keys),
    "in order": lambda keys: Gear.objects.order_by("-name").in_bulk(keys),
    "of another database": lambda keys: Gear.objects.using("default").in_bulk(keys),
    "only": lambda keys: Gear.objects.only("name").in_bulk(keys),
    "deferred": lambda keys: Gear.objects.defer("name").in_bulk(keys),
    "annotated": lambda keys: Gear.objects.annotate(
        double=models.F("weight") * 2
    ).in_bulk(keys),
    "distinct": lambda keys: Gear.objects.distinct().in_bulk(keys),
    "none": lambda keys: Gear.objects.none().in_bulk(keys),
    "past the cache": lambda keys: Gear.objects.all().skip_cache().in_bulk(keys),
    "fresh": lambda keys: Gear.objects.fresh().in_bulk(keys),
    "for so long": lambda keys: Gear.objects.all().cached(5).in_bulk(keys),
    "by another name": lambda keys: Gear.objects.in_bulk(keys, field_name="id"),
}


@pytest.mark.parametrize("read", OTHERS.values(), ids=OTHERS)
def test_other_querysets_are_as_ever(
    gears: list[Gear], read: Callable[[list[uuid.UUID]], Any]
) -> None:
    keys = keys_of(gears)
    expected = plain(read(keys))
    warm(lambda: Gear.objects.in_bulk(keys))
    assert not is_hot(partial(read, keys))
    for _ in range(3):
        found = read(keys)
        assert plain(found) == expected
        assert list(found) == list(expected)
    assert is_hot(warm(lambda: Gear.objects.in_bulk(keys)))


def test_what_is_wrong_is_an_error(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    warm(lambda: Gear.objects.in_bulk(keys))
    with pytest.raises(TypeError, match="Cannot use 'limit' or 'offset' with in_bulk"):
        Gear.objects.all()[:5].in_bulk(keys)
    with pytest.raises(ValueError, match="must be a unique field but 'name' isn't"):
        Gear.objects.in_bulk(keys, field_name="name")  # type: ignore[misc]
    with pytest.raises(FieldDoesNotExist, match="nothing"):
        Gear.objects.in_bulk(keys, field_name="nothing")  # type: ignore[misc]


def test_related_objects_and_prefetched_ones(host: Host) -> None:
    category = Category.objects.create(name="a")
    product = Product.objects.create(sku="1", category=category)
    keys = [product.pk]
    warm(lambda: Product.objects.in_bulk(keys))
    warm(lambda: Category.objects.in_bulk([category.pk]))
    joined = Product.objects.select_related("category").in_bulk(keys)[product.pk]
    assert "category" in joined._state.fields_cache
    fetched = Category.objects.prefetch_related("products").in_bulk([category.pk])
    assert "products" in fetched[category.pk]._prefetched_objects_cache  # type: ignore[attr-defined]
    assert list(category.products.in_bulk(keys)) == keys


def test_objects_that_cannot_be_kept(host: Host) -> None:
    keys = [Product.objects.create(sku=str(index)).pk for index in range(3)]
    read = warm(lambda: Product.objects.in_bulk(keys))
    assert not is_hot(read)
    assert plain(read()).keys() == usual(Product, keys).keys()


def test_a_child_and_a_proxy_get_their_own(host: Host) -> None:
    keys = [Shop.objects.create(name=name, rooms=9).pk for name in "ab"]
    for model, may_be_hot in ((Shop, False), (Place, True), (PlaceProxy, True)):
        read = warm(partial(model.objects.in_bulk, keys))
        assert is_hot(read) == may_be_hot
        assert {type(one) for one in read().values()} == {model}
        assert plain(read()) == usual(model, keys)
    Place.objects.filter(pk=keys[0]).update(name="new")
    assert Shop.objects.in_bulk(keys)[keys[0]].name == "new"


def test_a_key_of_several_columns(host: Host) -> None:
    Grid.objects.create(x=1, y=2)
    read = warm(lambda: Grid.objects.in_bulk([(1, 2)]))
    assert not is_hot(read)
    assert list(read()) == [(1, 2)]


def test_a_queryset_with_methods_of_its_own(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    seen = []

    class Queryset(S3QuerySet[Gear]):
        def in_bulk(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(args)
            return super().in_bulk(*args, **kwargs)

    class Filtering(S3QuerySet[Gear]):
        def filter(self, *args: Any, **kwargs: Any) -> Any:
            return super().filter(*args, **kwargs).exclude(weight=3)

    class OfManager(S3Manager[Gear]):
        def get_queryset(self) -> Any:
            return super().get_queryset().exclude(weight=3)

    one, other, last = (
        S3Manager.from_queryset(Queryset)(),
        S3Manager.from_queryset(Filtering)(),
        OfManager(),
    )
    for manager in (one, other, last):
        manager.model = Gear
    warm(lambda: one.in_bulk(keys))
    assert len(seen) == 3
    assert on_loop(lambda: one.ain_bulk(keys)).keys() == set(keys)
    assert len(seen) == 4
    for filtering in (other, last):
        assert not is_hot(warm(partial(filtering.in_bulk, keys)))
        assert len(filtering.in_bulk(keys)) == 9


def test_who_listens_sees_each_object(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    seen: list[Any] = []

    def receive(instance: Gear, **kwargs: Any) -> None:
        seen.append(instance)

    post_init.connect(receive, sender=Gear)
    try:
        found = read()
        assert {id(one) for one in seen} == {id(one) for one in found.values()}
        Gear.objects.filter(pk=keys[0]).update(weight=70)
        assert read()[keys[0]].weight == 70
        assert len(seen) == 20
    finally:
        post_init.disconnect(receive, sender=Gear)
    assert is_hot(warm(read))


def test_a_router_of_the_project_decides_each_time(
    gears: list[Gear], settings: Any
) -> None:
    class Router:
        def db_for_read(self, model: object, **hints: object) -> str:
            return "default"

    settings.DATABASE_ROUTERS = [Router()]
    assert not is_hot(warm(lambda: Gear.objects.in_bulk(keys_of(gears))))


# Async


def test_it_is_answered_on_the_event_loop(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    warm(lambda: Gear.objects.in_bulk(keys))

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Usual

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3cache.managers.sync_to_async", refuse)
        assert plain(on_loop(lambda: Gear.objects.ain_bulk(keys))) == usual(Gear, keys)
        of_rows = Gear.objects.all()
        assert plain(on_loop(lambda: of_rows.ain_bulk(keys))) == usual(Gear, keys)


def test_nobody_waits_on_the_event_loop(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    Gear.objects.filter(pk=keys[0]).update(weight=70)

    async def ask() -> Any:
        with pytest.raises(SynchronousOnlyOperation):
            read()
        return await Gear.objects.ain_bulk(keys)

    assert on_loop(ask)[keys[0]].weight == 70
    read()
    caches["default"].clear()
    assert on_loop(lambda: Gear.objects.ain_bulk(keys)).keys() == set(keys)
    assert on_loop(lambda: Gear.objects.ain_bulk()).keys() == set(keys)


# One position


def test_a_transaction_sees_what_it_wrote(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    with transaction.atomic():
        Gear.objects.filter(pk=keys[0]).update(weight=70)
        assert read()[keys[0]].weight == 70
        transaction.set_rollback(True)
    assert read()[keys[0]].weight == 0
    assert is_hot(read)


def test_what_another_host_wrote_is_seen_after_max_age(hosts: MakeHost) -> None:
    a, b = hosts(), hosts(max_age=60)
    with a:
        keys = keys_of(made(3))
    with b:
        read = warm(lambda: Gear.objects.in_bulk(keys))
        with a:
            Gear.objects.filter(pk__in=keys[:2]).update(weight=70)
        assert is_hot(read)
        b.pass_time(61)
        assert [one.weight for one in read().values()] == [70, 70, 2]
        assert is_hot(read)


def set_all(keys: list[uuid.UUID], weight: int) -> None:
    """Change rows in one transaction."""
    with transaction.atomic():
        for key in keys:
            Gear.objects.filter(pk=key).update(weight=weight)


def weights(read: Callable[[], dict[Any, Gear]]) -> set[int]:
    return {one.weight for one in read().values()}


def test_a_commit_between_the_versions_of_two_rows(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of before it, or those of after it."""
    keys = keys_of(made(2))
    read = warm(lambda: Gear.objects.in_bulk(keys))
    set_all(keys, 1)
    assert weights(warm(read)) == {1}
    of_row = Versions.of_row
    is_written: list[bool] = []

    def write_after(self: Versions, table: str, key: Any) -> Any:
        found = of_row(self, table, key)
        if not is_written:
            is_written.append(True)
            with on(host):
                set_all(keys, 2)
                # Known to all threads, as by any read of theirs.
                Gear.objects.skip_cache().get(pk=keys[0])
        return found

    monkeypatch.setattr(Versions, "of_row", write_after)
    assert weights(read) == {2}


def test_a_commit_before_the_others_are_read(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is not mixed with what is read after it."""
    keys = keys_of(made(4))
    read = warm(lambda: Gear.objects.in_bulk(keys))
    set_all(keys, 1)
    warm(read)
    Gear.objects.filter(pk=keys[0]).update(name="not kept")
    rows = _Call._rows
    asked: list[list[int]] = []

    def write_before(self: Any, wrapper: Any, wanted: Any) -> Any:
        asked.append(list(wanted))
        if len(asked) == 1:
            with on(host):
                set_all(keys, 2)
        return rows(self, wrapper, wanted)

    monkeypatch.setattr(_Call, "_rows", write_before)
    assert weights(read) == {2}
    assert asked == [[0], [0, 1, 2, 3]]
    assert is_hot(read)
    assert weights(read) == {2}


def test_versions_that_change_just_now(
    gears: list[Gear], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    versions = connection.statements.versions  # type: ignore[attr-defined]
    table = Gear._meta.db_table
    assert versions.of_rows(table, [(keys[0].hex,)]) is not None
    versions.moves += 1
    assert versions.of_rows(table, [(keys[0].hex,)]) is None
    assert not is_hot(read)
    assert plain(read()) == usual(Gear, keys)
    versions.moves += 1
    assert is_hot(read)


@pytest.mark.parametrize("method", ["_start_again", "_go_on"])
def test_who_changes_the_versions_is_interrupted(
    host: Host, gears: list[Gear], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Half of them are believed only when all are known again."""
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    versions = connection.statements.versions  # type: ignore[attr-defined]
    change = getattr(Versions, method)

    def change_and_fail(self: Versions, *args: Any) -> None:
        change(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Versions, method, change_and_fail)
        if method == "_go_on":
            with on(host):
                Gear.objects.filter(pk=keys[0]).update(weight=70)
        else:
            versions._doubt()
        with pytest.raises(KeyboardInterrupt):
            Gear.objects.count()
        assert versions.of_rows(Gear._meta.db_table, [(keys[0].hex,)]) is None
    assert plain(read()) == usual(Gear, keys)
    assert is_hot(warm(read))


def test_no_thread_sees_half_of_a_transaction(host: Host) -> None:
    """Of several rows that are written together, all or none are seen."""
    keys = keys_of(made(6))
    set_all(keys, 0)
    warm(lambda: Gear.objects.in_bulk(keys))
    done = [0]
    rounds = 20

    def write() -> int:
        chance = random.Random(1)
        try:
            for number in range(1, rounds + 1):
                with transaction.atomic():
                    Gear.objects.filter(pk=chance.choice(keys)).update(name=str(number))
                set_all(keys, number)
                done[0] = number
        finally:
            done[0] = rounds
        return 0

    def read() -> int:
        chance, seen = random.Random(2), 0
        while (reached := done[0]) < rounds:
            some = chance.sample(keys, chance.randrange(2, 7))
            found = [one.weight for one in Gear.objects.in_bulk(some).values()]
            assert len(found) == len(some)
            assert len({*found}) == 1
            assert found[0] >= reached
            assert found[0] >= seen
            seen = found[0]
            time.sleep(0.001)  # who writes needs the interpreter, too
        return seen

    together([*each_on(host, write, 1), *each_on(host, read, 3)])
    assert {one.weight for one in Gear.objects.in_bulk(keys).values()} == {rounds}
    assert totals("testapp.gear", "list")["hit"] > 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "delete", "get", "block", "wide"]),
        st.integers(1, 6),
        st.sets(st.integers(1, 6), min_size=1),
    ),
    max_size=25,
)


@hypothesis_settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_whatever_is_done_to_the_rows(
    host: Host, steps: list[tuple[str, int, set[int]]]
) -> None:
    """After each step they are what a dictionary says that they are."""
    Coded.objects.all().delete()
    truth: dict[str, str] = {}
    for number, (step, key, some) in enumerate(steps):
        code, name = str(key), str(number)
        if step in ("create", "update"):
            Coded(code=code, name=name).save()
            truth[code] = name
        elif step == "delete":
            Coded.objects.filter(code=code).delete()
            truth.pop(code, None)
        elif step == "wide":
            Coded.objects.update(name=name)
            truth = dict.fromkeys(truth, name)
        elif step == "block":
            with transaction.atomic():
                for one in some:
                    Coded(code=str(one), name=name).save()
                    truth[str(one)] = name
        else:
            Coded.objects.filter(code=code).first()
            found = Coded.objects.in_bulk([code])
            assert {pk: one.name for pk, one in found.items()} == {
                pk: name for pk, name in truth.items() if pk == code
            }
        wanted = [str(one) for one in some]
        assert {pk: one.name for pk, one in Coded.objects.in_bulk(wanted).items()} == {
            pk: truth[pk] for pk in wanted if pk in truth
        }


# What it costs, and whom


def kept_rows() -> int:
    """How many rows are kept one by one."""
    prefix = Gear.objects._hot_path().by_key.recipe.prefix  # type: ignore[union-attr]
    return sum(
        type(key) is tuple and key[0] == prefix
        for key in caches["default"].shelf.entries  # type: ignore[attr-defined]
    )


def test_what_nobody_repeats_is_not_kept(host: Host) -> None:
    keys = keys_of(made(30))
    for index in range(0, 30, 10):
        Gear.objects.in_bulk(keys[index : index + 10])
    assert kept_rows() == 0
    Gear.objects.in_bulk(keys[5:15])
    # Those of the first call were read by Django.
    assert kept_rows() == 5


def test_calls_with_very_many_keys_are_djangos(host: Host) -> None:
    keys = keys_of(made(MOST_KEYS + 1))
    warm(lambda: Gear.objects.in_bulk(keys[:-1]))
    assert is_hot(lambda: Gear.objects.in_bulk(keys[:-1]))
    read = warm(lambda: Gear.objects.in_bulk(keys))
    assert not is_hot(read)
    assert len(read()) == MOST_KEYS + 1
    assert kept_rows() == MOST_KEYS


def test_no_call_takes_more_than_a_quarter_of_the_cache(
    host: Host, settings: Any
) -> None:
    settings.CACHES = cache_settings(MAX_ENTRIES=100)
    keys = keys_of(made(26))
    few = warm(lambda: Gear.objects.in_bulk(keys[:25]))
    assert is_hot(few)
    many = warm(lambda: Gear.objects.in_bulk(keys))
    assert not is_hot(many)
    assert len(many()) == 26
    assert kept_rows() == 25


def test_nor_of_its_memory(host: Host, settings: Any) -> None:
    settings.CACHES = cache_settings(MAX_ENTRIES=None, max_memory_bytes=40_000)
    keys = keys_of(made(20))
    many = warm(lambda: Gear.objects.in_bulk(keys))
    assert not is_hot(many)
    assert kept_rows() == 0
    assert is_hot(warm(lambda: Gear.objects.in_bulk(keys[:3])))


def test_what_cannot_be_kept_is_answered_all_the_same(
    gears: list[Gear], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError("full")

    keys = keys_of(gears)
    monkeypatch.setattr(type(caches["default"]), "keep", fail)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    assert plain(read()) == usual(Gear, keys)


def test_what_is_evicted_is_read_again(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    caches["default"].clear()
    assert not is_hot(read)
    assert plain(read()) == usual(Gear, keys)
    assert is_hot(warm(read))


def test_what_is_dropped_is_gone(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    prefix = Gear.objects._hot_path().by_key.recipe.prefix  # type: ignore[union-attr]
    drop_hot(Gear)
    assert not any(
        type(key) is tuple and key[0] == prefix
        for key in caches["default"].shelf.entries  # type: ignore[attr-defined]
    )
    assert plain(read()) == usual(Gear, keys)


# What is counted


def test_a_call_is_one_hit_or_one_miss(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = partial(Gear.objects.in_bulk, keys)
    for expected in (MISS, MISS, MISS, HIT):
        assert events(read) == expected
    before = totals("testapp.gear", "list")
    Gear.objects.filter(pk=keys[0]).update(weight=70)
    assert events(read) == MISS
    assert events(read) == HIT
    after = totals("testapp.gear", "list")
    assert (after["miss"], after["hit"]) == (before["miss"] + 1, before["hit"] + 1)


def test_who_watches_is_told(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    with watch(Watch()) as seen:
        read()
    [hit] = seen.reads
    assert (hit.label, hit.action, hit.event) == ("testapp.gear", "list", "hit")
    assert hit.why is Why.HOT
    assert hit.tables == ("testapp_gear",)
    Gear.objects.filter(pk=keys[0]).update(weight=70)
    with watch(Watch()) as seen:
        read()
    [miss] = seen.reads
    assert (miss.event, miss.why, miss.tables) == ("miss", Why.ABSENT, hit.tables)


def test_who_wants_to_know_the_query_gets_the_whole_one(
    gears: list[Gear], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    seen: list[Any] = []
    monkeypatch.setattr(statements, "computed", [lambda *told: seen.append(told)])
    assert is_hot(read)
    assert not seen
    Gear.objects.filter(pk=keys[0]).update(weight=70)
    assert read()[keys[0]].weight == 70
    [(reading, sql, params)] = seen
    assert reading.query.where.children[0].rhs == keys
    assert params == tuple(key.hex for key in keys)
    assert sql.count("?") == len(keys)
    assert "s3cache_taken" not in vars(reading.query)
    drop_hot(Gear)
    caches["default"].clear()
    read()
    assert seen[1][1:] == (sql, params)  # as if Django had made it


def test_an_execute_wrapper_may_change_it(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    Gear.objects.filter(pk=keys[0]).update(weight=70)

    def wrap(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        return execute(sql, tuple(keys[5].hex for _ in params), many, context)

    with connection.execute_wrapper(wrap):
        assert list(read()) == [keys[5]]
    assert plain(read()) == usual(Gear, keys)


def test_an_error_is_the_caller_s(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    Gear.objects.filter(pk=keys[0]).update(weight=70)

    def fail(*args: Any) -> Any:
        raise OperationalError("no")

    with connection.execute_wrapper(fail), pytest.raises(OperationalError, match="no"):
        read()
    assert plain(read()) == usual(Gear, keys)


# When something changes


COMPUTED: dict[str, Callable[[list[uuid.UUID]], dict[Any, Gear]]] = {
    "in bulk": lambda keys: Gear.objects.fresh().in_bulk(keys),
    "list": lambda keys: dict(enumerate(Gear.objects.fresh().filter(pk__in=keys))),
    "then fresh": lambda keys: dict(
        enumerate(Gear.objects.filter(pk__in=keys).fresh())
    ),
}


@pytest.mark.parametrize("computed", COMPUTED.values(), ids=COMPUTED)
def test_what_is_computed_anew_replaces_what_is_kept(
    gears: list[Gear], computed: Callable[[list[uuid.UUID]], dict[Any, Gear]]
) -> None:
    """Planted is what no commit explains: a row that has changed by itself."""
    import sqlite3
    from contextlib import closing

    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    with closing(sqlite3.connect(connection.replica.path)) as behind:  # type: ignore[attr-defined]
        behind.execute("UPDATE testapp_gear SET weight = 70")
        behind.commit()
    assert weights(read) != {70}
    assert weights(lambda: computed(keys)) == {70}
    assert weights(read) == {70}
    assert is_hot(warm(read))


def test_a_changed_schema_is_learned_anew(gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX by_weight ON testapp_gear (weight)")
    assert plain(read()) == usual(Gear, keys)
    assert is_hot(warm(read))


def test_a_replica_that_is_made_anew_or_closed(host: Host, gears: list[Gear]) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    host.connection.rebuild_replica()
    assert plain(read()) == usual(Gear, keys)
    host.restart()
    assert plain(read()) == usual(Gear, keys)
    assert is_hot(warm(read))


def test_hosts_do_not_answer_for_each_other(hosts: MakeHost) -> None:
    a, b = hosts(), hosts()
    b.catch_up()
    with a:
        keys = keys_of(made(3))
        assert len(warm(lambda: Gear.objects.in_bulk(keys))()) == 3
    with b:
        assert not warm(lambda: Gear.objects.in_bulk(keys))()
    with a:
        assert len(Gear.objects.in_bulk(keys)) == 3


@pytest.mark.parametrize(
    "options", [{"HOT_PATH": False}, {"CACHE": None}, {"EXCLUDE": ["testapp"]}]
)
def test_settings_that_turn_it_off(
    gears: list[Gear], settings: Any, options: dict[str, Any]
) -> None:
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    settings.S3CACHE = options
    assert not is_hot(warm(read))
    assert plain(read()) == usual(Gear, keys)
    settings.S3CACHE = {}
    assert is_hot(warm(read))


def test_other_caches_keep_no_single_rows(gears: list[Gear], settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    }
    keys = keys_of(gears)
    read = warm(lambda: Gear.objects.in_bulk(keys))
    assert not is_hot(read)
    assert plain(read()) == usual(Gear, keys)
    assert events(read) == HIT


def test_where_there_is_room_for_no_more_shapes(
    gears: list[Gear], monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_hot(Gear)
    keys = keys_of(gears)
    with monkeypatch.context() as patch:
        patch.setattr(Hot, "has_room", lambda self: False)
        patch.setattr(Gear.objects._hot_path().root, "_children", {})  # type: ignore[union-attr]
        read = warm(lambda: Gear.objects.in_bulk(keys))
        assert not is_hot(read)
        assert plain(read()) == usual(Gear, keys)
    drop_hot(Gear)
    assert is_hot(warm(read))


def test_what_was_never_asked_is_not_known(host: Host) -> None:
    assert in_bulk(Hot(Gear), [uuid.uuid4()]) is NOT_HOT
