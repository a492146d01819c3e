from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.db import connection
from django.db.models import Count, QuerySet, Sum
from django.test.utils import CaptureQueriesContext

from s3cache.hints import NO_HINTS, Hints, hints_of
from s3cache.managers import S3Manager, S3QuerySet
from tests.testapp.models import (
    Category,
    Gear,
    GearQuerySet,
    Note,
    Place,
    Product,
    Shop,
)


@pytest.fixture
def product(db: None) -> Product:
    return Product.objects.create(sku="a", region="EU", kind="book")


# Hints


def test_hints_add_up_and_leave_the_original_alone() -> None:
    products = Product.objects.all()
    hinted = products.fresh().skip_cache().cached(ttl=5)

    assert hints_of(products.query) is NO_HINTS
    assert hints_of(hinted.query) == Hints(fresh=True, skip_cache=True, ttl=5)


@pytest.mark.parametrize(
    "derive",
    [
        lambda rows: rows.all(),
        lambda rows: rows.filter(region="EU").exclude(kind="x").order_by("sku")[:5],
        lambda rows: rows.values("region").annotate(Count("pk")),
        lambda rows: rows.values_list("sku", flat=True).distinct(),
        lambda rows: rows.select_related("category").prefetch_related("related"),
        lambda rows: rows.only("sku").using("default").select_for_update(),
        lambda rows: rows.union(Product.objects.all()),
        lambda rows: rows | Product.objects.filter(region="US"),
        lambda rows: rows & Product.objects.filter(region="US"),
        lambda rows: rows.none(),
        lambda rows: rows.fresh(),
        copy.deepcopy,
    ],
)
def test_hints_survive_all_that_derives_a_queryset(
    derive: Callable[[Any], QuerySet[Any]],
) -> None:
    rows = Product.objects.fresh().skip_cache().cached(ttl=5)

    assert hints_of(derive(rows).query) == Hints(fresh=True, skip_cache=True, ttl=5)


def test_hints_survive_pickling(db: None) -> None:
    rows = Product.objects.cached(ttl=5)

    assert hints_of(pickle.loads(pickle.dumps(rows.query))) == Hints(ttl=5)  # noqa: S301
    assert hints_of(pickle.loads(pickle.dumps(rows)).query) == Hints(ttl=5)  # noqa: S301


def test_a_query_around_a_hinted_one_has_its_hints(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db.models.sql.compiler import SQLAggregateCompiler

    seen = []
    as_sql = SQLAggregateCompiler.as_sql

    def spy(self: SQLAggregateCompiler, *args: Any, **kwargs: Any) -> Any:
        seen.append(hints_of(self.query))
        return as_sql(self, *args, **kwargs)

    monkeypatch.setattr(SQLAggregateCompiler, "as_sql", spy)

    Product.objects.cached(ttl=5).distinct().count()

    assert seen == [Hints(ttl=5)]


@pytest.mark.parametrize("ttl", [0, -1, True, "5", None, float("inf"), float("nan")])
def test_cached_refuses_what_is_no_time(ttl: Any) -> None:
    with pytest.raises(
        ValueError,
        match=f"^{re.escape(f'cached(ttl={ttl!r})')}: ttl must be a number of seconds "
        "above 0.$",
    ):
        Product.objects.cached(ttl=ttl)


# fresh()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked for, in order: "news" of the store, or the replica."""
    events: list[str] = []
    monkeypatch.setattr(
        connection, "catch_up", lambda: events.append("news"), raising=False
    )

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("SELECT"):
            events.append("rows")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield events


FETCHES: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "len": len,
    "bool": bool,
    "index": lambda rows: rows[0],
    "iterator": lambda rows: list(rows.iterator()),
    "get": lambda rows: rows.get(sku="a"),
    "first": lambda rows: rows.first(),
    "last": lambda rows: rows.last(),
    "earliest": lambda rows: rows.earliest("sku"),
    "latest": lambda rows: rows.latest("sku"),
    "count": lambda rows: rows.count(),
    "distinct count": lambda rows: rows.distinct().count(),
    "exists": lambda rows: rows.exists(),
    "contains": lambda rows: rows.contains(Product(pk=Product().pk)),
    "aggregate": lambda rows: rows.aggregate(Sum("stock")),
    "in_bulk": lambda rows: rows.in_bulk(),
    "values": lambda rows: list(rows.values("sku")),
    "values_list": lambda rows: list(rows.values_list("sku", flat=True)),
    "dates": lambda rows: list(rows.datetimes("changed", "day")),
    "union": lambda rows: list(rows.union(Product.objects.all())),
    "get_or_create": lambda rows: rows.get_or_create(sku="a"),
    "aget": lambda rows: async_to_sync(rows.aget)(sku="a"),
    "afirst": lambda rows: async_to_sync(rows.afirst)(),
    "acount": lambda rows: async_to_sync(rows.acount)(),
    "aexists": lambda rows: async_to_sync(rows.aexists)(),
    "aaggregate": lambda rows: async_to_sync(rows.aaggregate)(Sum("stock")),
    "ain_bulk": lambda rows: async_to_sync(rows.ain_bulk)(),
    "async for": lambda rows: async_to_sync(collect)(rows),
    "aiterator": lambda rows: async_to_sync(collect)(rows.aiterator()),
}


async def collect(rows: Any) -> list[Any]:
    return [row async for row in rows]


@pytest.mark.parametrize("fetch", FETCHES.values(), ids=FETCHES)
def test_fresh_asks_the_store_once_and_before_it_fetches(
    fetch: Callable[[Any], Any], product: Product, asked: list[str]
) -> None:
    fetch(Product.objects.fresh())

    assert asked == ["news", "rows"]


@pytest.mark.parametrize("fetch", FETCHES.values(), ids=FETCHES)
def test_without_fresh_nothing_is_asked(
    fetch: Callable[[Any], Any], product: Product, asked: list[str]
) -> None:
    fetch(Product.objects.all())

    assert asked == ["rows"]


@pytest.mark.parametrize("fetch", FETCHES.values(), ids=FETCHES)
def test_fresh_is_harmless_where_there_is_no_store(
    fetch: Callable[[Any], Any], product: Product
) -> None:
    fetch(Product.objects.fresh())


def test_fresh_asks_again_for_each_fetch(product: Product, asked: list[str]) -> None:
    rows = Product.objects.fresh()
    rows.count()
    list(rows.all())

    assert asked == ["news", "rows", "news", "rows"]


def test_fresh_does_not_ask_for_what_was_fetched(
    product: Product, asked: list[str]
) -> None:
    rows = Product.objects.fresh()
    assert (len(rows), rows.count(), rows.exists(), rows[0]) == (1, 1, True, product)

    assert asked == ["news", "rows"]


def test_fresh_does_not_ask_before_it_fetches(
    product: Product, asked: list[str]
) -> None:
    rows = Product.objects.fresh().filter(region="EU")
    str(rows.query)
    rows.iterator()
    Product.objects.filter(pk__in=rows)

    assert asked == []


def test_fresh_does_not_ask_for_what_is_empty_anyway(
    product: Product, asked: list[str]
) -> None:
    assert list(Product.objects.fresh().none()) == []
    assert asked == []


def test_iterator_checks_its_argument_at_once(product: Product) -> None:
    with pytest.raises(ValueError, match="Chunk size must be strictly positive"):
        Product.objects.fresh().iterator(0)


# partition()


def test_partition_filters_on_its_fields(product: Product) -> None:
    Product.objects.create(sku="b", region="US")

    assert list(Product.objects.partition("by_region", region="EU")) == [product]


def test_a_composite_partition_takes_its_values_in_any_order(product: Product) -> None:
    Product.objects.create(sku="b", region="EU", kind="disc")
    one = Product.objects.partition("by_region_and_kind", region="EU", kind="book")
    other = Product.objects.partition("by_region_and_kind", kind="book", region="EU")

    assert list(one) == list(other) == [product]


def test_a_value_may_be_none_or_an_instance(product: Product) -> None:
    category = Category.objects.create(name="books")
    without = Product.objects.create(sku="b", category=category)

    kindless = Product.objects.partition("by_region_and_kind", region="EU", kind=None)
    assert list(kindless) == [without]
    assert list(Product.objects.partition("by_category", category=category)) == [
        without
    ]


def test_partition_chains(product: Product) -> None:
    rows = Product.objects.filter(sku="a").partition("by_region", region="EU")

    assert list(rows.fresh().partition("by_region", region="EU")[:25]) == [product]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "by_color",
            {"color": 1},
            "testapp.Product has no partition 'by_color'. Its partitions are "
            "'by_region', 'by_region_and_kind', 'by_category'.",
        ),
        (
            "by_region_and_kind",
            {"kind": "book", "sku": "a"},
            "Partition 'by_region_and_kind' of testapp.Product takes the fields "
            "'region', 'kind'; missing are 'region', unknown 'sku'.",
        ),
        (
            "by_region",
            {"region__in": ["EU"]},
            "Partition 'by_region' of testapp.Product takes the fields 'region'; "
            "missing are 'region', unknown 'region__in'.",
        ),
    ],
)
def test_partition_refuses_what_it_does_not_know(
    name: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(FieldError, match=f"^{re.escape(message)}$"):
        Product.objects.partition(name, **values)


def test_a_model_without_partitions_says_so() -> None:
    with pytest.raises(
        FieldError,
        match=r"^testapp.Gear has no partition 'x'. Its partitions are none.$",
    ):
        Gear.objects.partition("x")


# Managers


def test_subclasses_and_from_queryset_have_all_methods(db: None) -> None:
    heavy = Gear.objects.create(name="anvil", weight=100)
    Gear.objects.create(name="feather")

    assert list(Gear.objects.heavy().fresh()) == [heavy]
    assert list(Gear.objects.fresh().heavy()) == [heavy]
    assert list(Gear.objects.named("anvil").skip_cache()) == [heavy]
    assert type(Gear.objects.fresh()) is GearQuerySet


def test_as_manager_works(db: None) -> None:
    manager = S3QuerySet.as_manager()
    manager.model = Product

    assert hints_of(manager.fresh().query).fresh


def test_related_managers_have_all_methods(product: Product) -> None:
    category = Category.objects.create(name="books")
    category.products.add(product)
    product.related.add(Product.objects.create(sku="b"))
    note = Note.objects.create(text="x")
    note.products.add(product)

    assert list(category.products.fresh()) == [product]
    assert product.related.skip_cache().count() == 1
    assert list(note.products.partition("by_region", region="EU")) == [product]


def test_children_and_proxies_inherit_the_manager() -> None:
    assert isinstance(Shop.objects, S3Manager)
    assert isinstance(Place._default_manager, S3Manager)


def test_the_manager_is_not_written_to_migrations() -> None:
    assert not Product.objects.use_in_migrations


def test_instances_of_a_related_manager_fetch_no_more_than_before(
    product: Product,
) -> None:
    with CaptureQueriesContext(connection) as queries:
        list(Product.objects.fresh().skip_cache().cached(ttl=1))

    assert len(queries) == 1
