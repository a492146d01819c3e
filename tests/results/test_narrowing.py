"""A write leaves the results valid that do not depend on its rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from django.db import connection
from django.db.models import CharField, Count, Exists, F, OuterRef, Q, Sum
from django.db.models.expressions import RawSQL
from django.db.models.lookups import Exact
from django.test.utils import register_lookup

from s3cache.replica import meta
from s3cache.results import versions
from tests.engine import Host, MakeHost
from tests.library.models import Author, Book, Patron, Tag
from tests.results.seen import HIT, MISS, before_each, directory, events, nothing
from tests.testapp.models import Category, Product

pytestmark = directory

Query = Callable[[], Any]


def product(sku: str, region: str = "EU", **values: Any) -> Product:
    return Product.objects.create(sku=sku, region=region, **values)


EU: dict[str, Query] = {
    "list": lambda: list(Product.objects.filter(region="EU")),
    "partition": lambda: list(Product.objects.partition("by_region", region="EU")),
    "count": lambda: Product.objects.filter(region="EU").count(),
    "exists": lambda: Product.objects.filter(region="EU").exists(),
    "page": lambda: list(Product.objects.filter(region="EU").order_by("sku")[:5]),
    "values": lambda: list(Product.objects.filter(region="EU").values("sku")),
    "aggregate": lambda: Product.objects.filter(region="EU").aggregate(Sum("stock")),
    "more": lambda: list(Product.objects.filter(region="EU", stock__gt=0)),
    "or within": lambda: list(
        Product.objects.filter(Q(stock=1) | Q(stock=2), region="EU")
    ),
    "distinct": lambda: Product.objects.filter(region="EU").distinct()[:3].count(),
    "grouped": lambda: list(
        Product.objects.filter(region="EU").values("kind").annotate(n=Count("pk"))
    ),
    "joined": lambda: list(
        Product.objects.filter(region="EU").select_related("category")
    ),
}

ALL: dict[str, Query] = {
    "or": lambda: list(Product.objects.filter(Q(region="EU") | Q(stock=5))),
    "not": lambda: list(Product.objects.exclude(region="EU")),
    "other lookup": lambda: list(Product.objects.filter(region__startswith="EU")),
    "any case": lambda: list(Product.objects.filter(region__iexact="EU")),
    "own column": lambda: list(Product.objects.filter(region=F("sku"))),
    "union": lambda: list(
        Product.objects.filter(region="EU").union(Product.objects.filter(stock=5))
    ),
    "subquery": lambda: list(
        Product.objects.filter(
            Exists(Product.objects.filter(stock=OuterRef("stock"), region="US")),
            region="EU",
        )
    ),
    "raw": lambda: list(
        Product.objects.filter(region="EU").annotate(
            n=RawSQL("SELECT count(*) FROM TestApp_Product", ())
        )
    ),
    "joined with itself": lambda: list(
        Product.objects.filter(region="EU", related__region="US")
    ),
    "sql": lambda: list(
        Product.objects.raw("SELECT * FROM testapp_product WHERE region = 'EU'")
    ),
}


@pytest.mark.parametrize("name", EU)
def test_a_write_to_another_part_leaves_a_result_valid(host: Host, name: str) -> None:
    product("eu")
    us = product("us", "US")
    query = EU[name]
    query()
    for write in (
        lambda: product("new", "US"),
        lambda: product("longer", "EUR"),
        lambda: Product.objects.filter(pk=us.pk).update(stock=F("stock") + 1),
        lambda: Product.objects.filter(region="US").delete(),
    ):
        write()
        assert events(query) == HIT


@pytest.mark.parametrize("name", EU)
def test_a_write_to_its_part_is_seen(host: Host, name: str) -> None:
    eu = product("eu", kind="a", stock=1)
    us = product("us", "US", kind="b", stock=2)
    query = EU[name]
    query()
    for write in (
        lambda: product("new", "EU"),
        lambda: Product.objects.filter(pk=eu.pk).update(stock=F("stock") + 1),
        # In, out, and by a statement that does not name the field.
        lambda: Product.objects.filter(pk=us.pk).update(region="EU"),
        lambda: Product.objects.filter(pk=eu.pk).update(region="US"),
        lambda: Product.objects.update(stock=7),
        lambda: Product.objects.filter(pk=us.pk).delete(),
    ):
        write()
        assert events(query) == MISS
        assert events(query) == HIT


@pytest.mark.parametrize("name", ALL)
def test_what_depends_on_all_rows_sees_any_write(host: Host, name: str) -> None:
    product("eu", stock=5).related.add(product("us", "US", stock=5))
    query = ALL[name]
    query()
    assert events(query) == HIT
    Product.objects.filter(region="US").update(stock=F("stock") + 1)
    assert events(query) == MISS


def test_what_is_joined_counts_as_a_whole(host: Host) -> None:
    category = Category.objects.create(name="a")
    product("eu", category=category)
    query = EU["joined"]
    query()
    Category.objects.create(name="b")
    assert events(query) == MISS


def test_a_partition_of_two_fields_in_any_order(host: Host) -> None:
    product("eu")
    queries: list[Query] = [
        lambda: list(Product.objects.filter(region="EU", kind="x")),
        lambda: list(Product.objects.filter(kind="x").filter(region="EU")),
        lambda: list(
            Product.objects.partition("by_region_and_kind", kind="x", region="EU")
        ),
        lambda: list(Product.objects.filter(region="EU", kind=None)),
    ]
    for query in queries:
        query()
    product("other", "EU", kind="y")
    assert [events(query) for query in queries] == [HIT] * 4
    product("it", "EU", kind="x")
    assert events(queries[3]) == HIT
    assert [len(query()) for query in queries] == [1, 1, 1, 1]
    product("none", "EU")
    assert [events(query) for query in queries] == [HIT, HIT, HIT, MISS]


def test_a_partition_by_a_foreign_key(host: Host) -> None:
    a, b = (Category.objects.create(name=name) for name in "ab")
    query: Query = lambda: list(Product.objects.filter(category=a))  # noqa: E731
    query()
    product("b", category=b)
    assert events(query) == HIT
    product("a", category=a)
    assert events(query) == MISS


def test_values_that_look_alike_are_others(host: Host) -> None:
    assert not list(Product.objects.filter(region="1"))
    assert not list(Product.objects.filter(region="null"))
    with connection.cursor() as cursor:
        product("x", "2")
        cursor.execute("UPDATE testapp_product SET region = 1")
    assert len(Product.objects.filter(region="1")) == 1


def test_a_model_that_is_not_aware_of_partitions(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3cache.results import narrowing

    narrowing._partition.cache_clear()
    object.__setattr__(Product._s3meta, "partition_aware", False)
    try:
        query = EU["list"]
        query()
        product("us", "US")
        assert events(query) == MISS
    finally:
        object.__setattr__(Product._s3meta, "partition_aware", True)
        narrowing._partition.cache_clear()


# Rows


def test_one_row_is_independent_of_the_others(host: Host) -> None:
    ann, bob = (Author.objects.create(name=name) for name in ("Ann", "Bob"))
    tag = Tag.objects.create(name="t")
    one, other = product("one"), product("other")
    queries: list[Query] = [
        lambda: Author.objects.get(pk=ann.pk),
        lambda: Author.objects.filter(id=ann.pk, born=1).exists(),
        lambda: Tag.objects.get(name="t"),
        lambda: Product.objects.get(pk=one.pk),
    ]
    for query in queries:
        query()
    Author.objects.filter(pk=bob.pk).update(born=1)
    Author.objects.create(name="Cid")
    Tag.objects.create(name="T")
    Product.objects.filter(pk=other.pk).delete()
    assert [events(query) for query in queries] == [HIT] * 4
    Author.objects.filter(pk=ann.pk).update(born=1)
    Tag.objects.filter(pk=tag.pk).update(note="x")
    Product.objects.filter(pk=one.pk).update(stock=1)
    assert [events(query) for query in queries] == [MISS] * 4


def test_a_row_that_is_not_there_and_comes(host: Host) -> None:
    query: Query = lambda: list(Author.objects.filter(pk=7))  # noqa: E731
    assert query() == []
    Author.objects.create(pk=8, name="8")
    assert events(query) == HIT
    Author.objects.create(pk=7, name="7")
    assert len(query()) == 1


@pytest.mark.parametrize(
    ("kind", "one", "same"),
    [
        ("text COLLATE NOCASE", "a", "A"),
        ("text COLLATE/**/rtrim", "a", "a  "),
        ("integer", "7", "07"),
        ("blob", "7", "7"),
    ],
)
def test_a_table_that_is_not_what_its_model_says(
    host: Host, kind: str, one: str, same: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE library_tag")
        cursor.execute(
            f"CREATE TABLE library_tag (name {kind} NOT NULL PRIMARY KEY, note text)"
        )
        cursor.execute("INSERT INTO library_tag VALUES (%s, 'old')", [one])
    for name in (one, same):
        assert Tag.objects.get(name=name).note == "old"
    with connection.cursor() as cursor:
        cursor.execute("UPDATE library_tag SET note = 'new' WHERE name = %s", [same])
    for name in (one, same):
        assert Tag.objects.get(name=name).note == "new"


class AnyCase(Exact):
    """A lookup of the project's, in the place of Django's."""

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        lhs, params = self.process_lhs(compiler, connection)
        return f"lower({lhs}) = lower(%s)", [*params, self.rhs]


def test_a_lookup_of_the_project_may_mean_other_rows_too(host: Host) -> None:
    other = product("other", region="US")
    query: Query = lambda: Product.objects.filter(region="EU").count()  # noqa: E731
    with register_lookup(CharField, AnyCase, lookup_name="exact"):
        assert query() == 0
        Product.objects.filter(pk=other.pk).update(region="eu")
        assert query() == 1


class Region(str, Enum):  # noqa: UP042 (whose str() is its name)
    EU = "EU"


def test_a_value_is_the_text_that_it_is_whatever_it_is_called(host: Host) -> None:
    product("1", region="EU")
    query: Query = lambda: list(Product.objects.filter(region=Region.EU))  # noqa: E731
    query()
    assert events(query) == HIT
    product("2", region="US")
    assert events(query) == HIT
    product("3", region="EU")
    assert len(query()) == 2


def test_parameters_that_a_wrapper_has_changed_are_of_another_row(host: Host) -> None:
    one, other = Author.objects.create(name="one"), Author.objects.create(name="other")
    query: Query = lambda: Author.objects.get(pk=one.pk).name  # noqa: E731

    def look_at_the_other(
        execute: Callable[..., Any], sql: str, params: Any, *rest: Any
    ) -> Any:
        return execute(sql, [other.pk, *params[1:]] if params else params, *rest)

    with connection.execute_wrapper(look_at_the_other):
        assert [query(), query()] == ["other"] * 2
    assert query() == "one"
    Author.objects.filter(pk=other.pk).update(name="new")
    with connection.execute_wrapper(look_at_the_other):
        assert query() == "new"


def test_a_child_depends_on_its_parent_table(host: Host) -> None:
    patron = Patron.objects.create(name="P")
    query: Query = lambda: Patron.objects.get(pk=patron.pk).name  # noqa: E731
    assert query() == "P"
    Patron.objects.filter(pk=patron.pk).update(name="Q")
    assert query() == "Q"


def test_changes_of_many_rows_are_changes_of_all(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta, "MANY_KEYS", 2)
    ann = Author.objects.create(name="Ann")
    product("eu")
    queries: list[Query] = [lambda: Author.objects.get(pk=ann.pk), EU["list"]]
    for query in queries:
        query()
    Author.objects.bulk_create([Author(name=str(n)) for n in range(3)])
    Product.objects.bulk_create([Product(sku=str(n), region="US") for n in range(3)])
    assert [events(query) for query in queries] == [MISS, MISS]
    Author.objects.create(name="one")
    product("one", "US")
    assert [events(query) for query in queries] == [HIT, HIT]


def test_rows_stay_right_when_the_window_moves_on(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_WINDOW", 4)
    ann, bob = (Author.objects.create(name=name) for name in ("Ann", "Bob"))
    for born in range(30):
        Author.objects.filter(pk=bob.pk).update(born=born)
        if born % 7 == 0:
            Author.objects.filter(pk=ann.pk).update(born=born)
        assert Author.objects.get(pk=ann.pk).born == born // 7 * 7
        assert Author.objects.get(pk=bob.pk).born == born
    assert len(host.connection._connected.statements.versions._rows) < 10


# Replicas


def test_parts_are_known_to_all_processes_and_hosts(hosts: MakeHost) -> None:
    a, b = hosts(), hosts()
    with a:
        product("eu")
    with b:
        b.catch_up()
        assert len(EU["list"]()) == 1
    with a:
        product("us", "US")
    b.catch_up()
    with b:
        assert events(EU["list"]) == HIT
    with a:
        Product.objects.filter(sku="us").update(region="EU")
    b.catch_up()
    with b:
        assert len(EU["list"]()) == 2
        b.connection.rebuild_replica()
        assert len(EU["list"]()) == 2
    with a:
        Product.objects.filter(sku="us").update(region="US")
    b.catch_up()
    with b:
        assert len(EU["list"]()) == 1


def test_parts_survive_changes_of_the_schema(host: Host) -> None:
    product("eu")
    query = EU["values"]
    assert len(query()) == 1
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE testapp_product RENAME COLUMN region TO r")
        product_sql = "UPDATE testapp_product SET r = 'US'"
        cursor.execute(product_sql)
        cursor.execute("ALTER TABLE testapp_product RENAME COLUMN r TO region")
    assert len(query()) == 0
    Product.objects.update(region="EU")
    assert len(query()) == 1


def test_views_hide_tables(host: Host) -> None:
    """A query of a narrowed table that also reads it through a view."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIEW total AS SELECT count(*) n FROM library_author")
    ann = Author.objects.create(name="Ann")
    query = Author.objects.filter(pk=ann.pk).annotate(
        n=RawSQL("SELECT n FROM total", ())
    )
    assert query.all().get().n == 1
    Author.objects.create(name="Bob")
    assert query.all().get().n == 2


def test_the_key_names_the_part(host: Host) -> None:
    with before_each("set", nothing) as stored:
        list(Product.objects.filter(region="EU", kind="x"))
        Author.objects.filter(pk=7).exists()
        list(Book.objects.all())
    parts = [key.split(":")[1:-2] for key in stored]
    assert parts == [
        ["testapp.product", "list", "kind=x,region=EU"],
        ["library.author", "exists", "7"],
        ["library.book", "list"],
    ]


def test_parts_of_a_table_that_is_read_before_it_is_changed(host: Host) -> None:
    """The first change of a table leaves all other parts as they are."""
    ann, bob = (Author.objects.create(name=name) for name in ("Ann", "Bob"))
    query: Query = lambda: Author.objects.get(pk=ann.pk)  # noqa: E731
    host.connection.rebuild_replica()
    query()
    Author.objects.filter(pk=bob.pk).update(born=1)
    assert events(query) == HIT
    host.connection.rebuild_replica()
    assert query().born == 1900


def test_a_file_that_somebody_holds_keeps_nobody_from_reading(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the result depends on the whole table."""

    def locked(*args: Any) -> None:
        raise sqlite3.OperationalError("database is locked")

    query = EU["list"]
    product("eu")
    with monkeypatch.context() as patch:
        patch.setattr(meta, "add_partition", locked)
        assert len(query()) == 1
        product("us", "US")
        assert events(query) == MISS
    query()
    product("other", "US")
    assert events(query) == HIT
