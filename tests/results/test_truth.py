"""Random queries over ten tables give what the tables hold, write by write.

The truth is read within ``atomic()``, where nothing is taken from the cache.
A second host, which shares the cache, has to come to the same. Each statement
depends on exactly the tables that its SQL names; see `test_dependencies`, too.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.db.models import Count, Exists, F, Model, OuterRef, Q, QuerySet, Sum, Value
from django.db.models.functions import Length

from s3cache.results.statements import Statements
from tests.engine import MakeHost
from tests.library.models import Author, Book, Loan, Member, Patron, Place, Tag
from tests.results.seen import directory, totals
from tests.testapp.models import Category, Counted, Product

pytestmark = directory

Query = Callable[[], Any]
REGIONS = ["EU", "US", "USA", "e", ""]


def conditions(chance: random.Random) -> dict[type[Model], Callable[[], Q]]:
    """For each model a way to make a condition."""
    number = chance.randrange(6)
    name = chance.choice("abcdef")
    region = chance.choice(REGIONS)

    def of(*choices: Q) -> Callable[[], Q]:
        return lambda: chance.choice(choices)

    return {
        Author: of(Q(name=name), Q(pk=number), Q(born__lt=number), Q(books__stock=2)),
        Book: of(Q(pk=number), Q(author__name=name), Q(tags=name), Q(stock=number)),
        Tag: of(Q(pk=name), Q(note=name), Q(books__author=number)),
        Place: of(Q(shelf=name), Q(number=number), Q(pk=number)),
        Member: of(Q(pk=number), Q(invited_by__name=name), Q(name=name)),
        Patron: of(Q(pk=number), Q(name=name), Q(gift=number)),
        Loan: of(Q(copy=number), Q(reader=name), Q(pk=(number, dt.date(2026, 1, 1)))),
        Category: of(Q(name=name), Q(products__region=region)),
        Product: of(
            Q(region=region),
            Q(region=region, kind=name),
            Q(region=region, kind=None),
            Q(category__name=name),
            Q(sku=name),
            Q(region=region) | Q(stock=number),
            ~Q(region=region),
            Q(stock__gt=number, region=region),
        ),
        Counted: of(Q(pk=number)),
    }


def query(chance: random.Random) -> Query:
    """A query that can be made again and again."""
    made = conditions(chance)
    model = chance.choice([*made])
    rows: QuerySet[Any] = model._default_manager.filter(made[model]()).order_by("pk")
    if chance.random() < 0.4:
        other = made[model]()
        rows = rows.filter(other) if chance.random() < 0.5 else rows.exclude(other)
    if model is Author and chance.random() < 0.3:
        rows = rows.filter(
            Exists(Book.objects.filter(made[Book](), author=OuterRef("pk")))
        )
    if model is Author and chance.random() < 0.3:
        rows = rows.annotate(n=Count("books")).filter(n__lt=2)
    if model is Product and chance.random() < 0.3:
        rows = rows.select_related("category")
    actions: list[Query] = [
        lambda: [as_tuple(one) for one in rows.all()],
        lambda: [as_tuple(one) for one in rows.all()[1:3]],
        lambda: list(rows.values_list("pk")),
        lambda: rows.count(),
        lambda: rows.exists(),
        lambda: rows.distinct().count(),
        lambda: rows.aggregate(n=Count("*")),
        lambda: numbers(rows.order_by().annotate(one=Value(1)).values_list("one")),
    ]
    return chance.choice(actions)


def numbers(rows: QuerySet[Any]) -> list[Any]:
    tags = Tag.objects.annotate(one=Length("name")).values_list("one")
    return sorted(rows.union(tags, all=True))


def as_tuple(one: Model) -> tuple[Any, ...]:
    return tuple(str(getattr(one, f.attname)) for f in one._meta.concrete_fields)


def write(chance: random.Random) -> None:
    """Change something somewhere."""
    number, name = chance.randrange(1, 6), chance.choice("abcdef")
    region = chance.choice(REGIONS)
    unique = f"{name}{chance.random()}" if chance.random() < 0.5 else name

    def sql(text: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(text)

    writes: list[Query] = [
        lambda: Author.objects.get_or_create(name=unique, defaults={"born": number}),
        lambda: Author.objects.filter(pk=number).update(born=F("born") + 1),
        lambda: Tag.objects.get_or_create(name=name),
        lambda: Tag.objects.filter(pk=name).update(note=unique),
        lambda: Member.objects.create(name=name, invited_by=Member.objects.first()),
        lambda: Patron.objects.create(name=name, gift=number),
        lambda: Member.objects.filter(pk=number).update(name=unique),
        lambda: Place.objects.get_or_create(label=name, shelf=name, number=3),
        lambda: Place.objects.filter(label=name).delete(),
        lambda: Loan.objects.update_or_create(
            copy=number, day=dt.date(2026, 1, 1), defaults={"reader": name}
        ),
        lambda: Category.objects.get_or_create(name=name),
        lambda: Counted.objects.create(),
        lambda: Counted.objects.filter(pk=number).delete(),
        lambda: Product.objects.get_or_create(
            sku=unique, defaults={"region": region, "stock": number}
        ),
        lambda: Product.objects.filter(sku=name).update(region=region),
        lambda: Product.objects.filter(region=region).update(kind=name),
        lambda: Product.objects.filter(stock=number).delete(),
        lambda: Product.objects.update(category=Category.objects.first()),
        lambda: sql("UPDATE testapp_product SET region = 'EU' WHERE stock < 3"),
        lambda: sql("UPDATE library_author SET born = born + 1"),
        lambda: Product.objects.aggregate(Sum("stock")),
    ]
    if author := Author.objects.first():
        writes += [
            lambda: Book.objects.create(title=name, author=author, stock=number),
            lambda: Book.objects.filter(pk=number).update(stock=number),
            lambda: Book.objects.filter(pk=number).delete(),
        ]
    if (book := Book.objects.first()) and Tag.objects.filter(pk=name).exists():
        tag = Tag.objects.get(pk=name)
        writes += [lambda: book.tags.add(tag), lambda: book.tags.remove(tag)]
    chance.choice(writes)()


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The tables that each statement was found to depend on."""
    found: dict[str, set[str]] = {}
    original = Statements.plan

    def plan(statements: Statements, sql: str, params: Any) -> Any:
        made = original(statements, sql, params)
        found[sql] = set(made.tables)
        return made

    monkeypatch.setattr(Statements, "plan", plan)
    return found


def named(sql: str) -> set[str]:
    """The tables that the SQL of a queryset names, which it quotes."""
    models = apps.get_models(include_auto_created=True)
    return {
        model._meta.db_table for model in models if f'"{model._meta.db_table}"' in sql
    }


@pytest.mark.parametrize("backend", ["locmem", "memory"])
@pytest.mark.parametrize("seed", range(4))
def test_a_result_is_what_the_tables_hold(
    hosts: MakeHost,
    settings: Any,
    plans: dict[str, set[str]],
    seed: int,
    backend: str,
) -> None:
    if backend == "memory":
        settings.CACHES = {
            "default": {
                "BACKEND": "s3cache.caches.MemoryCache",
                "LOCATION": f"truth-{seed}",
            }
        }
    chance = random.Random(seed)
    a, b = hosts(), hosts()
    b.catch_up()
    queries = [query(chance) for _ in range(30)]
    for step in range(40):
        writing, other = (a, b) if chance.random() < 0.7 else (b, a)
        with writing:
            writing.catch_up()
            with transaction.atomic() if chance.random() < 0.2 else on_its_own():
                write(chance)
            if step % 10 == 9:
                queries[chance.randrange(len(queries))] = query(chance)
            asked = chance.sample(queries, 12)
            with transaction.atomic():
                truth = [one() for one in asked]
            assert [one() for one in asked] == truth
            assert [one() for one in asked] == truth
        other.catch_up()
        with other:
            assert [one() for one in asked] == truth
    assert totals()["hit"] > totals()["miss"]
    querysets = [sql for sql in plans if sql.startswith("SELECT") and '"' in sql]
    assert len(querysets) > 20
    for sql in querysets:
        assert plans[sql] == named(sql), sql


class on_its_own:
    """A context without a transaction."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exc_info: object) -> None: ...
