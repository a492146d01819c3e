"""
The same writes on two hosts and on plain SQLite come to the same database.

Hypothesis makes up the writes, and every caller has to be told the same. In
the end both hosts and a replica rebuilt from the log are equal in all rows,
their natural order, rowids and ``sqlite_sequence``; SQLite has the same rows,
and where no AUTOINCREMENT id decides it, the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite
from django.db.models import F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine import Host, MakeHost
from tests.library.models import Author, Book, Loan, Place, Tag

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

names = st.sampled_from(["a", "b", "c", "../d", "É"])
numbers = st.integers(0, 5)
pks = st.integers(-5, -1)  # never what AUTOINCREMENT gives

Write = Callable[[], Any]


def write(function: Callable[..., Any], *arguments: Any) -> st.SearchStrategy[Write]:
    """A strategy of calls, which show what they do when a test fails."""
    return st.builds(Call, st.just(function), st.tuples(*arguments))


class Call:
    """A call that shows what it does."""

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self) -> Any:
        return self.function(*self.arguments)

    def __repr__(self) -> str:
        return f"{self.function.__name__}{self.arguments}"


def add_author(name: str, born: int) -> None:
    Author.objects.create(name=name, born=born)


def add_author_by_hand(pk: int, name: str) -> None:
    Author.objects.create(pk=pk, name=name)


def save_author(pk: int, name: str) -> None:
    Author(pk=pk, name=name).save()


def merge_author(name: str, born: int) -> None:
    Author.objects.update_or_create(name=name, defaults={"born": born})


def upsert_authors(some: list[str], born: int) -> None:
    Author.objects.bulk_create(
        [Author(name=name, born=born) for name in some],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["born"],
    )


def ignore_tags(some: list[str]) -> None:
    Tag.objects.bulk_create([Tag(name=name) for name in some], ignore_conflicts=True)


def age_authors(than: int) -> None:
    Author.objects.filter(born__lt=than).update(born=F("born") + 1)


def delete_authors(name: str) -> None:
    Author.objects.filter(name=name).delete()


def add_book(pk: int, title: str, stock: int) -> None:
    Book.objects.create(title=title, author_id=pk, stock=stock)


def sell_books(count: int) -> None:
    Book.objects.update(stock=F("stock") - count)


def tag_books(title: str, some: list[str]) -> None:
    for book in Book.objects.filter(title=title):
        book.tags.set(Tag.objects.filter(name__in=some))


def add_tag(name: str, note: str) -> None:
    Tag.objects.create(name=name, note=note)


def rename_tag(old: str, new: str) -> None:
    Tag.objects.filter(name=old).update(name=new)


def delete_tags(some: list[str]) -> None:
    Tag.objects.filter(name__in=some).delete()


def add_place(number: int, label: str) -> None:
    Place.objects.create(shelf="s", number=number, label=label)


def shift_places(by: int) -> None:
    Place.objects.update(number=F("number") + 100 * by)


def replace_place(number: int, label: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "REPLACE INTO library_place (shelf, number, label) VALUES ('s', %s, %s)",
            [number, label],
        )


def swap_labels(one: str, other: str) -> None:
    with transaction.atomic():
        first = Place.objects.filter(label=one).first()
        second = Place.objects.filter(label=other).first()
        if first and second and first != second:
            first.label = "tmp"
            first.save()
            second.label = one
            second.save()
            first.label = other
            first.save()


def add_loan(copy: int, day: int) -> None:
    Loan.objects.create(copy=copy, day=f"2026-01-0{day + 1}")


def move_loans(copy: int, to: int) -> None:
    Loan.objects.filter(copy=copy).update(copy=to)


def raw_delete(note: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM library_tag WHERE note > %s", [note])


some = st.lists(names, max_size=4)
single = st.one_of(
    write(add_author, names, numbers),
    write(add_author_by_hand, pks, names),
    write(save_author, pks, names),
    write(merge_author, names, numbers),
    write(upsert_authors, st.lists(names, max_size=4, unique=True), numbers),
    write(ignore_tags, some),
    write(age_authors, numbers),
    write(delete_authors, names),
    write(add_book, pks, names, numbers),
    write(sell_books, numbers),
    write(tag_books, names, some),
    write(add_tag, names, names),
    write(rename_tag, names, names),
    write(delete_tags, some),
    write(add_place, numbers, names),
    write(shift_places, st.integers(1, 2)),
    write(replace_place, numbers, names),
    write(swap_labels, names, names),
    write(add_loan, numbers, numbers),
    write(move_loans, numbers, numbers),
    write(raw_delete, names),
)


def block(writes: list[Write], failing: bool) -> None:
    """A transaction; each write in it is a savepoint, and may fail."""
    with transaction.atomic():
        for one in writes:
            try:
                with transaction.atomic():
                    one()
            except DatabaseError:
                pass
        transaction.set_rollback(failing)


steps = st.lists(
    st.tuples(
        st.booleans(),
        single | write(block, st.lists(single, max_size=5), st.booleans()),
    ),
    min_size=1,
    max_size=25,
)


@pytest.fixture
def two(hosts: MakeHost) -> tuple[Host, Host]:
    """Two hosts that ask the store before they read."""
    return hosts(max_age=0), hosts(max_age=0)


@pytest.fixture
def sqlite(tmp_path: Path, hosts: MakeHost) -> Iterator[SQLite]:
    """Django's own backend, with tables."""
    made = SQLite(
        connections.configure_settings(
            {
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": str(tmp_path / "plain.sqlite3"),
                }
            }
        )["default"],
        "default",
    )
    with made.schema_editor() as editor:
        for model in (Author, Tag, Book, Place, Loan):
            editor.create_model(model)
    yield made
    made.close()


@contextmanager
def used(database: Host | SQLite) -> Iterator[None]:
    """Use a host, or SQLite, as the database."""
    if isinstance(database, Host):
        with database:
            yield
        return
    before = connections["default"]
    connections["default"] = database
    try:
        yield
    finally:
        connections["default"] = before


def outcome(database: Host | SQLite, step: Write) -> str:
    """What the caller is told: nothing, or which error."""
    with used(database):
        try:
            step()
        except DatabaseError as error:
            return f"{type(error).__name__}: {error}"
    return ""


def content(database: Host | SQLite) -> list[list[Any]]:
    """All rows; in their natural order where ids do not decide it."""
    with used(database):
        authors = Author.objects.values_list("name", "born", "pk")
        books = Book.objects.values_list("title", "author__name", "stock", "tags")
        return [
            sorted((name, born, min(pk, 0)) for name, born, pk in authors),
            sorted(books, key=repr),
            list(Tag.objects.values_list("name", "note")),
            sorted(Place.objects.values_list("number", "label")),
            list(Loan.objects.values_list("copy", "day", "reader")),
        ]


def clear() -> None:
    """Delete all rows."""
    for model in (Book, Author, Tag, Place, Loan):
        model._default_manager.all().delete()


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
def test_two_hosts_and_sqlite_come_to_the_same(
    two: tuple[Host, Host], sqlite: SQLite, steps: list[tuple[bool, Write]]
) -> None:
    a, b = two
    for database in (a, sqlite):
        with used(database):
            clear()
    for on_b, step in steps:
        assert outcome(b if on_b else a, step) == outcome(sqlite, step)
    assert content(a) == content(b) == content(sqlite)
    before = a.dump()
    assert b.dump() == before
    b.connection.rebuild_replica()
    assert b.dump() == before
