"""A queryset that is only recorded is, to whoever looks, one of Django's.

What it is asked for must not depend on whether it is built yet; and what was
kept for the calls that made it must not answer for anything else.
"""

from __future__ import annotations

import copy
import datetime as dt
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.core.exceptions import FieldError, ValidationError
from django.db import models, transaction
from django.db.models import (
    Avg,
    Count,
    Exists,
    F,
    Max,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    prefetch_related_objects,
)
from django.db.models.fields import CharField
from django.db.models.lookups import Contains
from django.db.models.signals import post_init
from django.db.models.sql import Query
from django.test.utils import isolate_apps

from s3cache.managers import S3Manager, S3QuerySet
from s3cache.results import statements
from s3cache.results.hot import Hot
from tests.db.hosts import on, together
from tests.engine import Bucket, Host, MakeHost
from tests.results.seen import directory, on_loop, totals
from tests.results.test_hot import Usual, is_hot, memory_cache, warm
from tests.testapp.models import Category, Gear, Grid, Product, Shop

__all__ = ["memory_cache"]

pytestmark = [directory, pytest.mark.usefixtures("hot_path")]

Read = Callable[[], Any]


@pytest.fixture
def gears(host: Host) -> list[Gear]:
    made = [Gear(name=name, weight=n) for n, name in enumerate("abcde", 1)]
    return Gear.objects.bulk_create(made)


@pytest.fixture(autouse=True)
def new_shapes() -> Iterator[None]:
    """Know no shape from another test."""
    for model in (Category, Gear, Grid, Product, Shop):
        model.objects._hot = None
    yield


def names(rows: Any) -> list[str]:
    return [gear.name for gear in rows]


READS: dict[str, tuple[Read, Any]] = {
    "count": (lambda: Gear.objects.filter(weight=2).count(), 1),
    "count of several": (lambda: Gear.objects.filter(weight__gt=2).count(), 3),
    "none": (lambda: Gear.objects.filter(name="z").count(), 0),
    "exists": (lambda: Gear.objects.filter(weight=2).exists(), True),
    "exists not": (lambda: Gear.objects.filter(weight=9).exists(), False),
    "exclude": (lambda: Gear.objects.exclude(weight=2).count(), 4),
    "chain": (
        lambda: Gear.objects.filter(weight__gte=2).exclude(name="e").count(),
        3,
    ),
    "list": (lambda: names(Gear.objects.order_by("-name")), list("edcba")),
    "empty list": (lambda: names(Gear.objects.filter(name="z")), []),
    "slice": (lambda: names(Gear.objects.order_by("name")[1:3]), ["b", "c"]),
    "slice of a slice": (
        lambda: names(Gear.objects.order_by("name")[1:][1:2]),
        ["c"],
    ),
    "another slice": (lambda: names(Gear.objects.order_by("name")[:1]), ["a"]),
    "all": (lambda: sorted(names(list(Gear.objects.all()))), list("abcde")),
    "len": (lambda: len(Gear.objects.all()), 5),
    "bool": (lambda: bool(Gear.objects.filter(name="a")), True),
    "first": (lambda: names([Gear.objects.order_by("-weight").first()]), ["e"]),
    "first of none": (lambda: Gear.objects.filter(name="z").first(), None),
    "text": (lambda: Gear.objects.filter(name__icontains="A").count(), 1),
    "isnull": (lambda: Gear.objects.filter(name__isnull=False).count(), 5),
    "sum": (lambda: Gear.objects.aggregate(Sum("weight")), {"weight__sum": 15}),
    "some": (
        lambda: Gear.objects.filter(weight__lt=4).aggregate(
            most=Max("weight"), least=Min("weight"), mean=Avg("weight"), all=Count("*")
        ),
        {"most": 3, "least": 1, "mean": 2.0, "all": 3},
    ),
    "sum of none": (
        lambda: Gear.objects.filter(name="z").aggregate(Sum("weight")),
        {"weight__sum": None},
    ),
}


@pytest.mark.parametrize("name", READS)
def test_what_is_hot_says_what_django_says(gears: list[Gear], name: str) -> None:
    read, expected = READS[name]
    warm(read)
    assert is_hot(read)
    assert read() == expected


@pytest.mark.parametrize("name", READS)
def test_a_write_makes_it_ask_again(gears: list[Gear], name: str) -> None:
    read, _expected = READS[name]
    warm(read)
    Gear.objects.create(name="z", weight=9)
    Gear.objects.filter(name="a").delete()
    found = [read() for _ in range(3)]
    with transaction.atomic():
        truth = read()
    assert found == [truth] * 3


def test_hits_of_querysets_are_counted_by_what_they_are(gears: list[Gear]) -> None:
    for read, action in (
        (lambda: Gear.objects.filter(weight=2).count(), "count"),
        (lambda: Gear.objects.filter(weight=2).exists(), "exists"),
        (lambda: list(Gear.objects.filter(weight=2)), "list"),
        (lambda: list(Gear.objects.order_by("name")[:2]), "page"),
        (lambda: Gear.objects.aggregate(Sum("weight")), "aggregate"),
    ):
        warm(read)
        before = totals("testapp.gear", action)["hit"]
        read()
        assert totals("testapp.gear", action)["hit"] == before + 1


def test_a_part_stays_hot_when_others_change(host: Host) -> None:
    for region in ("EU", "US"):
        Product.objects.create(sku=region, region=region)
    eu = warm(lambda: Product.objects.filter(region="EU").count())
    us = warm(lambda: Product.objects.partition("by_region", region="US").count())
    assert is_hot(eu)
    assert is_hot(us)
    Product.objects.create(sku="new", region="US")
    assert is_hot(eu)
    assert not is_hot(us)
    assert (eu(), us()) == (1, 2)
    Product.objects.filter(sku="new").update(region="EU")
    assert (eu(), us()) == (2, 1)


def test_one_row_among_conditions(gears: list[Gear]) -> None:
    key = gears[0].pk
    read = warm(lambda: Gear.objects.filter(name="a").filter(pk=key).exists())
    Gear.objects.filter(name="b").update(weight=7)
    assert is_hot(read)
    Gear.objects.filter(pk=key).update(name="x")
    assert read() is False


def test_several_fields_of_get(gears: list[Gear]) -> None:
    get = warm(lambda: Gear.objects.get(name="a", weight=1))
    assert is_hot(get)
    assert get() == gears[0]
    with pytest.raises(Gear.DoesNotExist):
        Gear.objects.get(name="a", weight=2)


# Async


def test_hits_of_querysets_are_answered_on_the_event_loop(gears: list[Gear]) -> None:
    async def ask() -> list[Any]:
        light = Gear.objects.filter(weight__lt=3)
        return [
            await light.acount(),
            await light.all().aexists(),
            await light.all().aaggregate(Sum("weight")),
            [gear.name async for gear in light.order_by("name")],
        ]

    expected = [2, True, {"weight__sum": 3}, ["a", "b"]]
    for _ in range(3):
        assert on_loop(ask) == expected

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Usual

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3cache.managers.sync_to_async", refuse)
        assert on_loop(ask) == expected


# A queryset of Django's, to whoever looks


def recorded(**lookups: Any) -> S3QuerySet[Gear]:
    """A queryset that nothing was built of."""
    Gear.objects.filter(**lookups)
    found = Gear.objects.filter(**lookups)
    assert "_query" not in vars(found)
    return found


def test_it_is_a_queryset(gears: list[Gear]) -> None:
    rows = recorded(name="a")
    assert isinstance(rows, QuerySet)
    assert type(rows) is type(Gear.objects.get_queryset())
    assert rows.model is Gear
    assert "_query" not in vars(rows)
    assert rows.db == "default"
    assert rows.ordered is False
    assert isinstance(rows.query, Query)
    assert vars(rows).keys() >= vars(Gear.objects.get_queryset()).keys()


def test_what_it_does_not_have_is_an_error_as_ever(host: Host) -> None:
    rows = recorded(name="a")
    for _ in range(2):
        with pytest.raises(
            AttributeError, match=r"^'\w+' object has no attribute 'nonsense'$"
        ):
            rows.nonsense  # noqa: B018
        with pytest.raises(AttributeError):
            rows.__nonsense__  # noqa: B018


@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        lambda rows: pickle.loads(pickle.dumps(rows)),  # noqa: S301
        lambda rows: rows.all(),
        lambda rows: rows._chain(),
        lambda rows: rows._next_is_sticky().filter(weight=1),
        lambda rows: rows | rows.none(),
        lambda rows: rows & Gear.objects.all(),
        lambda rows: rows.union(rows),
        lambda rows: rows.using("default"),
        lambda rows: rows.filter(Q(weight=1)),
        lambda rows: Gear.objects.filter(pk__in=rows),
        lambda rows: Gear.objects.filter(pk__in=rows.values("pk")),
        lambda rows: Gear.objects.filter(Exists(rows.filter(pk=OuterRef("pk")))),
        lambda rows: Gear.objects.filter(pk=Subquery(rows.values("pk")[:1])),
    ],
)
@pytest.mark.parametrize("fetched", [False, True])
def test_other_querysets_are_made_of_it(
    gears: list[Gear], again: Callable[[Any], Any], fetched: bool
) -> None:
    for _ in range(3):
        rows = recorded(name="a")
        if fetched:
            assert len(rows) == 1
        assert names(again(rows)) == ["a"]
        assert names(rows) == ["a"]


def test_what_was_fetched_stays_fetched(gears: list[Gear]) -> None:
    """As long as the queryset lives, its rows are the same objects."""
    warm(lambda: list(Gear.objects.filter(weight__gt=0)))
    rows = Gear.objects.filter(weight__gt=0)
    one = list(rows)
    Gear.objects.all().delete()
    assert list(rows) == one
    assert all(a is b for a, b in zip(rows, one, strict=True))
    assert rows.count() == len(rows) == 5
    assert rows.exists() is True
    assert rows[1] is one[1]
    assert rows[1:3] == one[1:3]
    assert rows.filter(weight=1).count() == 0


def test_an_object_alone(gears: list[Gear]) -> None:
    for _ in range(3):
        assert recorded(name="a")[0] == gears[0]
        with pytest.raises(IndexError):
            recorded(name="z")[0]
        with pytest.raises(TypeError, match="must be integers or slices"):
            recorded(name="a")["a"]
        with pytest.raises(ValueError, match="Negative indexing"):
            recorded(name="a")[:-1]
        with pytest.raises(ValueError, match="Negative indexing"):
            recorded(name="a")[-1:5]
        assert recorded(name="a")[0:2:1] == [gears[0]]


def test_a_slice_is_final(gears: list[Gear]) -> None:
    for _ in range(3):
        rows = Gear.objects.order_by("name")[:3]
        with pytest.raises(TypeError, match="Cannot filter a query once a slice"):
            rows.filter(name="a")
        with pytest.raises(TypeError, match="Cannot reorder a query once a slice"):
            Gear.objects.order_by("name")[:3].order_by("weight")


def test_its_query_may_be_changed(gears: list[Gear]) -> None:
    """And what is kept for the calls does not answer for it then."""
    warm(lambda: Gear.objects.filter(weight__gt=0).count())
    warm(lambda: names(Gear.objects.filter(weight__gt=0)))
    rows = Gear.objects.filter(weight__gt=0)
    rows.query.set_limits(high=2)
    assert rows.count() == 2
    assert len(rows) == 2
    # A query that was pickled, say.
    rows = Gear.objects.filter(weight__gt=0)
    rows.query = Gear.objects.filter(Q(weight=1)).query
    assert rows.count() == 1
    assert names(rows) == ["a"]
    rows = Gear.objects.all()
    rows.query = Gear.objects.values("name").query
    assert rows[0] in [{"name": name} for name in "abcde"]
    assert Gear.objects.filter(weight__gt=0).count() == 5


def test_its_class_may_be_changed(gears: list[Gear]) -> None:
    class Other(QuerySet[Gear]):
        pass

    rows: Any = recorded(name="a")
    assert rows.__class__ is type(rows)
    rows.__class__ = Other
    assert type(rows) is type(rows.all()) is Other
    assert names(rows.all()) == ["a"]
    assert list(rows.none()) == []


def test_methods_say_what_django_s_say(bucket: Bucket) -> None:
    for name in ("get", "count", "filter", "exists", "first", "aget"):
        expected = getattr(QuerySet, name).__doc__
        assert getattr(S3QuerySet, name).__doc__ == expected
        assert getattr(S3Manager, name).__doc__ == expected


def test_threads_may_share_one(gears: list[Gear]) -> None:
    """As the views of a class share its ``queryset``."""
    warm(lambda: Gear.objects.filter(weight__gt=0).count())
    for _ in range(20):
        rows = Gear.objects.filter(weight__gt=0)
        start = threading.Barrier(4)
        assert together([partial(look_at, rows, start)] * 4) == [True] * 4


@pytest.fixture
def stored(gears: list[Gear]) -> QuerySet[Gear]:
    """Recorded; its result is in the cache, and not hot yet."""
    list(Gear.objects.filter(weight__gt=0))
    rows = Gear.objects.filter(weight__gt=0)
    assert rows._recorded is not None
    return rows


def test_threads_that_fetch_one_at_once_learn_of_their_own_rows(
    host: Host, stored: QuerySet[Gear], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another thread reads later is of a later version."""
    hit = statements._Call._hit

    def write_and_fetch() -> int:
        with on(host):
            Gear.objects.create(name="z", weight=9)
            return len(list(stored))

    def hit_and_wait(call: Any, *args: Any) -> Any:
        found = hit(call, *args)
        monkeypatch.setattr(statements._Call, "_hit", hit)
        assert together([write_and_fetch]) == [6]
        return found

    monkeypatch.setattr(statements._Call, "_hit", hit_and_wait)
    list(stored)
    assert [len(Gear.objects.filter(weight__gt=0)) for _ in range(3)] == [6] * 3


def test_a_thread_may_change_what_another_is_about_to_learn(
    host: Host, stored: QuerySet[Gear], monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Hot.learn_objects

    def fetch_and_change() -> None:
        with on(host):
            for gear in stored:
                gear.name = "changed"

    def wait_and_learn(hot: Any, *args: Any) -> None:
        together([fetch_and_change])
        learn(hot, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Hot, "learn_objects", wait_and_learn)
        list(stored)
    for _ in range(3):
        assert sorted(names(Gear.objects.filter(weight__gt=0))) == list("abcde")


def look_at(rows: QuerySet[Gear], start: threading.Barrier) -> bool:
    start.wait()
    return (
        str(rows.query).startswith("SELECT")
        and bool(rows.all().query.where)
        and rows._result_cache is None
    )


def test_writing_through_one(gears: list[Gear]) -> None:
    for _ in range(2):
        assert recorded(name="a").update(weight=F("weight") + 1) == 1
    assert Gear.objects.get(name="a").weight == 3
    assert recorded(name="n").get_or_create(name="n", weight=1)[1] is True
    assert recorded(name="a").delete()[0] == 1
    assert not recorded(name="a").exists()


def test_prefetching_and_relations(host: Host) -> None:
    category = Category.objects.create(name="c")
    Product.objects.create(sku="1", category=category, region="EU")
    for _ in range(3):
        rows = Product.objects.filter(region="EU")
        prefetched = models.Prefetch("products", queryset=rows)
        prefetch_related_objects([category], prefetched)
        assert [one.sku for one in category.products.all()] == ["1"]
        found = Product.objects.filter(category=category.pk).first()
        assert found is not None
        assert found.category == category


def test_hints_are_those_of_who_gives_them(gears: list[Gear]) -> None:
    read = warm(lambda: Gear.objects.filter(name="a").count())
    assert is_hot(read)
    assert not is_hot(lambda: Gear.objects.filter(name="a").fresh().count())
    assert not is_hot(lambda: Gear.objects.filter(name="a").skip_cache().count())
    assert not is_hot(lambda: Gear.objects.filter(name="a").cached(ttl=1).count())
    assert not is_hot(lambda: Gear.objects.filter(name="a").select_for_update())
    assert not is_hot(lambda: list(Gear.objects.filter(name="a").iterator()))


# What may not be recorded


def outcomes(ask: Callable[[Any], Any]) -> list[tuple[object, object, object]]:
    """What the manager and what a plain queryset say to it, three times."""

    def outcome(rows: Any) -> object:
        try:
            return ask(rows)
        except Exception as error:
            return type(error), str(error)

    plain: QuerySet[Gear] = QuerySet(Gear)
    return [
        (outcome(Gear.objects), outcome(Gear.objects.all()), outcome(plain.all()))
        for _ in range(3)
    ]


@pytest.mark.parametrize(
    "lookups",
    [
        {"weight": "2"},
        {"weight": True},
        {"weight": 2.0},
        {"weight": 2.5},
        {"weight": Decimal("2.0")},
        {"weight": "x"},
        {"weight": [2]},
        {"weight__in": [2, 3]},
        {"weight__range": (2, 3)},
        {"weight": None},
        {"weight__gt": None},
        {"weight": 2**70},
        {"weight__gt": 2**70},
        {"name": 1},
        {"name": None},
        {"name": F("name")},
        {"name__regex": "["},
        {"name__contains": "%"},
        {"name__iexact": None},
        {"name__nonsense": "a"},
        {"name__isnull": 1},
        {"nonsense": 1},
        {"pk": "nonsense"},
        {"pk": uuid.UUID(int=1)},
        {"pk": None},
        {"pk__in": []},
        {},
    ],
    ids=repr,
)
def test_other_lookups_mean_what_they_mean_to_django(
    gears: list[Gear], lookups: dict[str, Any]
) -> None:
    warm(lambda: Gear.objects.filter(weight=2).count())
    for mine, recorded, plain in outcomes(lambda rows: rows.filter(**lookups).count()):
        assert mine == recorded == plain
    for mine, recorded, plain in outcomes(
        lambda rows: names(rows.exclude(**lookups).order_by("name"))
    ):
        assert mine == recorded == plain


def test_wrong_calls_are_wrong_at_once(gears: list[Gear]) -> None:
    """Not only when the rows are fetched."""
    lookups = {"nonsense": 1}
    for _ in range(3):
        with pytest.raises(FieldError):
            Gear.objects.filter(**lookups)
        with pytest.raises(FieldError):
            Gear.objects.order_by(*["nonsense"])
        with pytest.raises(ValueError, match="expected a number"):
            Gear.objects.filter(weight="x")
        with pytest.raises(ValidationError):
            Gear.objects.filter(pk="x")
        with pytest.raises(TypeError):
            Gear.objects.filter(1)


def test_values_that_can_be_changed_later(gears: list[Gear]) -> None:
    chosen = [1]
    for number in (1, 2, 3):
        chosen[0] = number
        assert names(Gear.objects.filter(weight__in=chosen)) == ["abc"[number - 1]]


def test_random_order_is_random_each_time(gears: list[Gear]) -> None:
    assert not is_hot(warm(lambda: list(Gear.objects.order_by("?"))))


@pytest.mark.parametrize(
    "rows",
    [
        lambda: Gear.objects.values("name"),
        lambda: Gear.objects.values_list("name"),
        lambda: Gear.objects.only("name"),
        lambda: Gear.objects.defer("name"),
        lambda: Gear.objects.annotate(one=F("weight") + 1),
        lambda: Gear.objects.distinct(),
        lambda: Gear.objects.reverse(),
        lambda: Gear.objects.none(),
        lambda: Gear.objects.extra(where=["weight > 1"]),
        lambda: Product.objects.datetimes("changed", "day"),
        lambda: Gear.objects.select_related(),
        lambda: Gear.objects.prefetch_related(),
    ],
)
def test_other_querysets_are_built(host: Host, rows: Callable[[], Any]) -> None:
    with pytest.raises(Usual), pytest.MonkeyPatch.context() as patch:

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise Usual

        patch.setattr(models.QuerySet, "__init__", refuse)
        rows()


def test_time_zones_have_no_say(host: Host) -> None:
    """What one has a say in is not recorded."""
    from django.utils import timezone

    moment = dt.datetime(2026, 1, 1, 23, 30, tzinfo=dt.UTC)
    product = Product.objects.create(sku="1")
    Product.objects.filter(pk=product.pk).update(changed=moment)

    def count() -> int:
        return Product.objects.filter(changed__date=dt.date(2026, 1, 1)).count()

    for _ in range(3):
        assert count() == 1
        with timezone.override("Asia/Tokyo"):
            assert count() == 0


def test_a_lookup_of_the_project_s_own(gears: list[Gear]) -> None:
    """In the place of Django's: who knows what it does."""

    class Never(Contains):
        lookup_name = "contains"

        def as_sql(self, *args: Any, **kwargs: Any) -> Any:
            return "1 = 0", ()

    CharField.register_lookup(Never)
    try:
        read = warm(lambda: Gear.objects.filter(name__contains="a").count())
        assert read() == 0
        assert not is_hot(read)
    finally:
        CharField._unregister_lookup(Never)
    assert read() == 1


@isolate_apps("tests.testapp")
def test_fields_that_say_something_else_to_everybody(bucket: Bucket) -> None:
    """A translation, for example: the row is one, what it says is not."""
    from s3cache.models import S3Model

    class Translated(models.CharField):  # type: ignore[type-arg]
        def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
            return f"in the language of who asks: {value}"

    class Page(S3Model):
        title = Translated(max_length=10)

        class Meta:
            app_label = "testapp"

    class Plain(S3Model):
        title = models.CharField(max_length=10)

        class Meta:
            app_label = "testapp"

    assert not Hot(Page).can_build()
    assert Hot(Plain).can_build()


def test_who_listens_sees_each_object_of_a_list(gears: list[Gear]) -> None:
    read = warm(lambda: list(Gear.objects.filter(weight__gt=0)))
    seen: list[Any] = []

    def receive(**kwargs: Any) -> None:
        seen.append(kwargs["instance"])

    post_init.connect(receive, sender=Gear)
    try:
        read()
        assert len(seen) == 5
        assert Gear.objects.filter(weight__gt=0).count() == 5
    finally:
        post_init.disconnect(receive, sender=Gear)
    post_init.connect(receive, sender=Category)
    try:
        assert is_hot(read)
    finally:
        post_init.disconnect(receive, sender=Category)


def test_objects_of_a_list_are_each_caller_s_own(gears: list[Gear]) -> None:
    read = warm(lambda: list(Gear.objects.filter(name="a")))
    (one,), (other,) = read(), read()
    one.name = "changed"
    one._state.fields_cache["x"] = 1
    assert other.name == "a"
    assert not other._state.fields_cache
    found = warm(lambda: Gear.objects.aggregate(Sum("weight")))()
    found["weight__sum"] = 0
    assert Gear.objects.aggregate(Sum("weight")) == {"weight__sum": 15}


@pytest.mark.parametrize(
    "ask",
    [
        lambda rows: rows.aggregate(n=Sum("weight") + 1),
        lambda rows: rows.aggregate(n=Sum(F("weight") * 2)),
        lambda rows: rows.aggregate(n=Count("name", distinct=True)),
        lambda rows: rows.aggregate(n=Sum("weight", filter=Q(name="a"))),
        lambda rows: rows.aggregate(n=Sum("weight", default=3)),
        lambda rows: rows.aggregate(n=Sum("nonsense")),
        lambda rows: rows.aggregate(Sum("weight") + 1),
        lambda rows: rows.aggregate(n=1),
        lambda rows: rows.aggregate(),
        lambda rows: rows.aggregate(n=Max("nonsense__year")),
    ],
)
def test_other_aggregates(gears: list[Gear], ask: Callable[[Any], Any]) -> None:
    for mine, recorded, plain in outcomes(ask):
        assert mine == recorded == plain


def test_a_model_of_two_tables(host: Host) -> None:
    shop = Shop.objects.create(name="shop", rooms=2)
    read = warm(lambda: [one.name for one in Shop.objects.filter(rooms=2)])
    assert read() == ["shop"]
    from tests.testapp.models import Place

    Place.objects.filter(pk=shop.pk).update(name="new")
    assert read() == ["new"]


def test_a_transaction_sees_its_own_rows(gears: list[Gear]) -> None:
    reads = [warm(read) for read, _expected in READS.values()]
    with transaction.atomic():
        Gear.objects.create(name="z", weight=9)
        inside = [read() for read in reads]
        transaction.set_rollback(True)
    outside = [read() for read in reads]
    assert outside == [expected for _read, expected in READS.values()]
    assert inside != outside


def test_shapes_are_bounded(gears: list[Gear], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3cache.results.hot.MOST_SHAPES", 3)
    for name in ("weight", "weight__gt", "weight__lt", "weight__gte"):
        assert Gear.objects.filter(**{name: 2}).count() in range(1, 5)
    hot = Gear.objects._hot_path()
    assert hot is not None
    assert len(hot.shapes) == 3
    assert not is_hot(warm(lambda: Gear.objects.filter(weight__gte=2).count()))


def test_a_queryset_class_of_the_project(gears: list[Gear]) -> None:
    """Its methods are made of Django's; its own way to filter is its own."""

    class Heavy(S3QuerySet[Gear]):
        def heavy(self) -> Heavy:
            return self.filter(weight__gt=3).order_by("name")

    class Own(S3QuerySet[Gear]):
        def order_by(self, *names: Any) -> Any:
            return super().order_by("-weight")

    def manager(kind: type[S3QuerySet[Gear]]) -> Any:
        made = S3Manager.from_queryset(kind)()
        made.model = Gear
        return made

    heavy, own = manager(Heavy), manager(Own)
    assert is_hot(warm(lambda: heavy.all().heavy().count()))
    assert names(heavy.heavy()) == ["d", "e"]
    assert own._hot_path() is None
    assert names(own.order_by("name"))[0] == "e"


def test_hosts_do_not_share_what_a_queryset_holds(hosts: MakeHost) -> None:
    a, b = hosts(), hosts()
    b.catch_up()
    with a:
        Gear.objects.create(name="a", weight=1)
        assert warm(lambda: Gear.objects.filter(weight=1).count())() == 1
    with b:
        assert warm(lambda: Gear.objects.filter(weight=1).count())() == 0


def test_the_words_of_a_shape_tell_it_from_others(host: Host) -> None:
    """They are in the keys of what is kept."""
    hot = Hot(Gear)
    found = {""}
    for shape in hot.shapes:
        if len(hot.shapes) > 60:
            break
        shape.learn_filter({"weight": 1})
        shape.learn_filter({"weight": None})
        shape.learn_filter({"weight__gt": 1})
        shape.learn_filter({"name": "a"})
        shape.learn_filter({"name": "a", "weight": 1})
        shape.learn_exclude({"name": "a"})
        shape.learn_order_by(["name", "-weight"])
        shape.learn_order_by([])
        shape.learn_slice(1, None)
        shape.learn_slice(None, 1)
        found |= {one.words for one in hot.shapes}
    assert len(found) == len(hot.shapes)
