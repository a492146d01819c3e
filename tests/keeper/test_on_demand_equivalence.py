"""A host that loads on demand gives the answers of one that has everything.

Hypothesis makes up what is read and written, on which of the two hosts, and
when the keeper writes and deletes packs. Each statement is run where it is
made up; what is read is read on both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from unittest.mock import patch

import pytest
from django.db import IntegrityError, transaction
from django.db.models import Count, F, Max, Q
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.replica import cut
from tests.engine import Host, MakeHost
from tests.library.models import Author, Book, Loan, Member, Tag

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

_names = count()

pks = st.integers(1, 200)
names = st.sampled_from(["a", "b", "c", "100 xx", "é"])

Step = tuple[Callable[..., Any], tuple[Any, ...]]


def read_one(pk: int) -> Any:
    return list(Author.objects.filter(pk=pk).values_list())


def read_some(pk: int) -> Any:
    return sorted(
        (pk, one.name) for pk, one in Author.objects.in_bulk([pk, pk + 1, 199]).items()
    )


def read_tag(name: str) -> Any:
    return [tag.note for tag in Tag.objects.filter(pk=name)]


def read_all() -> Any:
    return list(Author.objects.order_by("name").values_list("pk", "name")[:5])


def read_joined() -> Any:
    return list(
        Author.objects.filter(Q(books__title="a") | Q(name="a"))
        .annotate(n=Count("books"))
        .order_by("pk")
        .values_list("pk", "n")
    )


def read_in_a_block(pk: int) -> Any:
    with transaction.atomic():
        first = read_one(pk)
        return first, Member.objects.aggregate(Max("pk")), read_tag("a")


READS = [
    st.tuples(st.just(read_one), st.tuples(pks)),
    st.tuples(st.just(read_some), st.tuples(pks)),
    st.tuples(st.just(read_tag), st.tuples(names)),
    st.tuples(st.just(read_all), st.just(())),
    st.tuples(st.just(read_joined), st.just(())),
    st.tuples(st.just(read_in_a_block), st.tuples(pks)),
]


def rename(pk: int, name: str) -> Any:
    return Author.objects.filter(pk=pk).update(name=name)


def older() -> Any:
    return Author.objects.filter(pk__gt=150).update(born=F("born") + 1)


def write_book(pk: int, title: str) -> Any:
    return Book.objects.create(author_id=pk, title=title).title


def tag(pk: int, name: str) -> Any:
    with transaction.atomic():
        one, made = Tag.objects.get_or_create(name=name, defaults={"note": str(pk)})
        book = Book.objects.filter(author_id=pk).first()
        if book is not None:
            book.tags.add(one)
        return made


def delete_one(pk: int) -> Any:
    return Author.objects.filter(pk=pk).delete()[0]


def delete_tags(name: str) -> Any:
    return Tag.objects.filter(pk__gte=name).delete()[0]


def lend(pk: int) -> Any:
    return Loan.objects.create(copy=pk, day="2026-01-01").copy


WRITES = [
    st.tuples(st.just(rename), st.tuples(pks, names)),
    st.tuples(st.just(older), st.just(())),
    st.tuples(st.just(write_book), st.tuples(pks, names)),
    st.tuples(st.just(tag), st.tuples(pks, names)),
    st.tuples(st.just(delete_one), st.tuples(pks)),
    st.tuples(st.just(delete_tags), st.tuples(names)),
    st.tuples(st.just(lend), st.tuples(pks)),
]


@pytest.fixture(autouse=True)
def _a_few_rows_first() -> Iterator[None]:
    with patch.multiple(cut, MANY_ROWS=20, FEW_ROWS=3):
        yield


KEEP = KeeperOptions(pack_after=1, target=4096, grace=0.0)


def told(step: Step) -> Any:
    function, arguments = step
    try:
        return function(*arguments)
    except IntegrityError as error:
        return str(error)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(
        st.one_of(
            st.one_of(READS),
            st.tuples(st.booleans(), st.one_of(WRITES)),
            st.just("keep"),
        ),
        max_size=10,
    )
)
def test_both_give_the_same_answers(
    host: Host, hosts: MakeHost, steps: list[Any]
) -> None:
    if Author.objects.count() < 100:
        Author.objects.bulk_create(
            [Author(name=f"{n:03} {'x' * 60}") for n in range(200)]
        )
        Tag.objects.bulk_create([Tag(name=f"{n:03} {'x' * 60}") for n in range(100)])
    keep_now(host.connection.replica, KEEP)
    cold = hosts(f"cold-{next(_names)}", load_at_once=0)
    cold.catch_up()
    for step in steps:
        if step == "keep":
            keep_now(host.connection.replica, KEEP)
        elif step[0] is True or step[0] is False:
            one, other = (cold, host) if step[0] else (host, cold)
            with one:
                told(step[1])
            other.catch_up()
        else:
            with cold:
                there = told(step)
            assert there == told(step), step
    cold.connection.replica.load()
    assert cold.dump() == host.dump()
    cold.close()
