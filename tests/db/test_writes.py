"""
Every way to write, and that it reaches another host.

``hosts`` are two replicas: what the first one wrote, the second one reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management.color import no_style
from django.db import DatabaseError, IntegrityError, connection, models, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat, Random, Upper

from tests.engine import Host, MakeHost
from tests.library.models import (
    Author,
    Book,
    Everything,
    Loan,
    Member,
    Patron,
    Place,
    Tag,
)

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


@pytest.fixture
def other(hosts: MakeHost) -> Host:
    """A second host, which asks the store before each read."""
    made = hosts(max_age=0)
    made.catch_up()
    return made


@pytest.fixture(autouse=True)
def same_everywhere(host: Host, other: Host) -> Iterator[None]:
    """After each test both replicas, and a new one, hold the same."""
    yield
    other.catch_up()
    assert host.dump() == other.dump()
    other.connection.rebuild_replica()
    assert host.dump() == other.dump()


def seen(other: Host, model: type[models.Model], *fields: str) -> list[Any]:
    """What the other host reads."""
    with other:
        return list(model._default_manager.values_list(*fields).order_by(*fields))


def tags(*names: str) -> list[Tag]:
    """Tags that are there."""
    return Tag.objects.bulk_create([Tag(name=name) for name in names])


# One row


def test_create_save_and_delete(host: Host, other: Host) -> None:
    ann = Author.objects.create(name="Ann")
    assert seen(other, Author, "pk", "name") == [(ann.pk, "Ann")]
    ann.name = "Anna"
    ann.save()
    assert seen(other, Author, "pk", "name") == [(ann.pk, "Anna")]
    ann.delete()
    assert seen(other, Author, "pk") == []


def test_save_with_update_fields(host: Host, other: Host) -> None:
    ann = Author.objects.create(name="Ann", born=1)
    with other:
        Author.objects.update(name="by other")
    host.catch_up()
    ann.born = 2
    ann.name = "not saved"
    ann.save(update_fields=["born"])
    assert seen(other, Author, "name", "born") == [("by other", 2)]


def test_force_insert_and_force_update(host: Host, other: Host) -> None:
    tag = Tag(name="a")
    with pytest.raises(DatabaseError):
        tag.save(force_update=True)
    tag.save(force_insert=True)
    with pytest.raises(IntegrityError):
        Tag(name="a").save(force_insert=True)
    assert seen(other, Tag, "name") == [("a",)]


def test_a_row_that_was_looked_up_before_it_existed_is_found_after_its_insert(
    host: Host, other: Host
) -> None:
    for one in (host, other):
        with one, pytest.raises(Tag.DoesNotExist):
            Tag.objects.get(name="a")
    tags("a")
    for one in (host, other):
        with one:
            assert Tag.objects.get(name="a").name == "a"


def test_an_f_expression_in_save(host: Host, other: Host) -> None:
    ann = Author.objects.create(name="Ann", born=1)
    with other:
        Author.objects.update(born=10)
    ann.born = F("born") + 1
    ann.save()
    assert seen(other, Author, "born") == [(11,)]


def test_a_row_in_two_tables(host: Host, other: Host) -> None:
    patron = Patron.objects.create(name="Ann", gift=5)
    assert seen(other, Patron, "name", "gift") == [("Ann", 5)]
    assert seen(other, Member, "name") == [("Ann",)]
    Patron.objects.update(name="Anna", gift=6)
    assert seen(other, Patron, "name", "gift") == [("Anna", 6)]
    patron.delete()
    assert seen(other, Member, "name") == []


# Many rows


def test_bulk_create(host: Host, other: Host) -> None:
    made = Author.objects.bulk_create(
        [Author(name=f"author {n}") for n in range(1200)], batch_size=500
    )
    assert seen(other, Author, "pk") == sorted((author.pk,) for author in made)


def test_bulk_create_ignoring_conflicts(host: Host, other: Host) -> None:
    with other:
        tags("b")
    host.catch_up()
    Tag.objects.bulk_create(
        [Tag(name=n, note="new") for n in "abc"], ignore_conflicts=True
    )
    assert seen(other, Tag, "name", "note") == [("a", "new"), ("b", ""), ("c", "new")]


def test_bulk_create_ignoring_conflicts_on_a_replica_that_is_behind(
    host: Host, other: Host
) -> None:
    with other:
        tags("b")
    Tag.objects.bulk_create(
        [Tag(name=n, note="new") for n in "abc"], ignore_conflicts=True
    )
    assert seen(other, Tag, "name", "note") == [("a", "new"), ("b", ""), ("c", "new")]


def test_bulk_create_updating_conflicts(host: Host, other: Host) -> None:
    with other:
        tags("b")
    Tag.objects.bulk_create(
        [Tag(name=n, note="new") for n in "abc"],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["note"],
    )
    assert seen(other, Tag, "name", "note") == [(n, "new") for n in "abc"]


def test_bulk_create_updating_conflicts_of_a_unique_field_keeps_the_pk(
    host: Host, other: Host
) -> None:
    ann = Author.objects.create(name="Ann", born=1)
    Author.objects.bulk_create(
        [Author(name="Ann", born=2), Author(name="Bob", born=3)],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["born"],
    )
    assert seen(other, Author, "name", "born") == [("Ann", 2), ("Bob", 3)]
    with other:
        assert Author.objects.get(name="Ann").pk == ann.pk


def test_bulk_update(host: Host, other: Host) -> None:
    made = tags(*"abc")
    for tag in made:
        tag.note = tag.name * 2
    assert Tag.objects.bulk_update(made, ["note"]) == 3
    assert seen(other, Tag, "note") == [("aa",), ("bb",), ("cc",)]


def test_update_by_expressions(host: Host, other: Host) -> None:
    tags("a", "b")
    Tag.objects.filter(name="a").update(note=Concat(Upper("name"), Value("!")))
    assert seen(other, Tag, "name", "note") == [("a", "A!"), ("b", "")]


def test_update_by_a_subquery_and_a_join(host: Host, other: Host) -> None:
    ann = Author.objects.create(name="Ann", born=7)
    Book.objects.create(title="x", author=ann)
    Book.objects.filter(author__name="Ann").update(
        stock=Author.objects.filter(name="Ann").values("born")
    )
    assert seen(other, Book, "stock") == [(7,)]


def test_what_is_random_is_the_same_everywhere(host: Host, other: Host) -> None:
    Everything.objects.bulk_create([Everything() for _ in range(5)])
    Everything.objects.update(real=Random())
    with connection.cursor() as cursor:
        cursor.execute("UPDATE library_everything SET text = datetime('now')")
    values = list(Everything.objects.values_list("real").order_by("real"))
    assert len(set(values)) == 5
    assert seen(other, Everything, "real") == values


def test_queryset_delete_cascades(host: Host, other: Host) -> None:
    ann, bob = Author.objects.create(name="Ann"), Author.objects.create(name="Bob")
    book = Book.objects.create(title="by Bob", author=bob, translator=ann)
    (tag,) = tags("a")
    for one in (book, Book.objects.create(title="by Ann", author=ann)):
        one.tags.add(tag)
    deleted, by_model = Author.objects.filter(name="Ann").delete()
    assert (deleted, by_model["library.Book"]) == (3, 1)
    with other:
        assert Book.objects.get().translator is None
        assert [tag.name for tag in Book.objects.get().tags.all()] == ["a"]


def test_protect(host: Host, other: Host) -> None:
    ann = Member.objects.create(name="Ann")
    Member.objects.create(name="Bob", invited_by=ann)
    with pytest.raises(models.ProtectedError):
        ann.delete()
    assert seen(other, Member, "name") == [("Ann",), ("Bob",)]


def test_deleting_everything_and_beginning_again(host: Host, other: Host) -> None:
    tags(*"abc")
    Tag.objects.all().delete()
    tags(*"cba")
    with other:
        assert [tag.name for tag in Tag.objects.all()] == ["c", "b", "a"]


# One or the other


def test_get_or_create(host: Host, other: Host) -> None:
    for one, created in ((host, True), (other, False)):
        with one:
            author, made = Author.objects.get_or_create(name="Ann")
            assert (author.name, made) == ("Ann", created)


def test_get_or_create_on_a_replica_that_is_behind(host: Host, other: Host) -> None:
    with other:
        ann = Author.objects.create(name="Ann")
    assert Author.objects.get_or_create(name="Ann") == (ann, False)


def test_update_or_create(host: Host, other: Host) -> None:
    for one, born in ((host, 1), (other, 2), (host, 3)):
        with one:
            author, created = Author.objects.update_or_create(
                name="Ann", defaults={"born": born}
            )
            assert (author.born, created) == (born, born == 1)
        for reader in (host, other):
            reader.catch_up()
            assert seen(reader, Author, "name", "born") == [("Ann", born)]


# Relations


def test_many_to_many(host: Host, other: Host) -> None:
    book = Book.objects.create(title="x", author=Author.objects.create(name="Ann"))

    def there() -> list[str]:
        with other:
            return [tag.name for tag in Book.objects.get().tags.order_by("name")]

    made = tags(*"abc")
    book.tags.add(*made[:2])
    assert there() == ["a", "b"]
    book.tags.add(*made)
    assert there() == ["a", "b", "c"]
    book.tags.remove(made[0])
    assert there() == ["b", "c"]
    book.tags.set(made[:2])
    assert there() == ["a", "b"]
    made[2].books.add(book)
    assert there() == ["a", "b", "c"]
    book.tags.create(name="d")
    assert there() == ["a", "b", "c", "d"]
    book.tags.clear()
    assert there() == []


def test_adding_what_another_host_has_added(host: Host, other: Host) -> None:
    book = Book.objects.create(title="x", author=Author.objects.create(name="Ann"))
    (tag,) = tags("a")
    with other:
        Book.objects.get().tags.add(tag)
    book.tags.add(tag)
    assert seen(other, Book.tags.through, "tag_id") == [("a",)]


def test_reverse_foreign_keys(host: Host, other: Host) -> None:
    ann, bob = Author.objects.create(name="Ann"), Author.objects.create(name="Bob")
    book = Book.objects.create(title="x", author=ann)
    bob.books.add(book)
    bob.books.create(title="y")
    assert seen(other, Book, "title", "author__name") == [("x", "Bob"), ("y", "Bob")]


# SQL


def raw(sql: str, *params: Any) -> int:
    """Run a statement; the number of rows that it changed."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return int(cursor.rowcount)


def test_raw_statements(host: Host, other: Host) -> None:
    assert raw("INSERT INTO library_tag VALUES (%s, %s), (%s, %s)", *"abcd") == 2
    assert raw("UPDATE library_tag SET note = upper(note)") == 2
    assert raw("DELETE FROM library_tag WHERE name = %s", "a") == 1
    assert seen(other, Tag, "name", "note") == [("c", "D")]


def test_executemany(host: Host, other: Host) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO library_tag VALUES (%s, %s)",
            iter([["a", "b"], ["c", "d"]]),  # type: ignore[arg-type]
        )
        assert cursor.rowcount == 2
    assert seen(other, Tag, "name", "note") == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT OR IGNORE INTO library_tag VALUES ('a', 'new')", [("a", "")]),
        ("INSERT OR REPLACE INTO library_tag VALUES ('a', 'new')", [("a", "new")]),
        ("REPLACE INTO library_tag VALUES ('a', 'new')", [("a", "new")]),
        (
            "INSERT INTO library_tag VALUES ('a', 'n') ON CONFLICT DO NOTHING",
            [("a", "")],
        ),
        (
            "INSERT INTO library_tag VALUES ('a', 'n') ON CONFLICT (name) "
            "DO UPDATE SET note = excluded.note || '!'",
            [("a", "n!")],
        ),
        (
            "WITH x(n) AS (VALUES ('b')) INSERT INTO library_tag SELECT n, n FROM x",
            [("a", ""), ("b", "b")],
        ),
        (
            "-- a comment\n/* and one */ INSERT INTO library_tag VALUES ('b', '')",
            [("a", ""), ("b", "")],
        ),
        (
            "INSERT INTO library_tag SELECT name || name, '' FROM library_tag",
            [("a", ""), ("aa", "")],
        ),
        ("UPDATE OR REPLACE library_tag SET name = 'z'", [("z", "")]),
        ("DELETE FROM library_tag", []),
    ],
)
def test_statements_of_sqlite(
    host: Host, other: Host, sql: str, expected: list[tuple[str, str]]
) -> None:
    tags("a")
    raw(sql)
    assert seen(other, Tag, "name", "note") == expected


def test_replace_deletes_the_neighbour_that_held_a_unique_value(
    host: Host, other: Host
) -> None:
    Place.objects.create(pk=1, shelf="s", number=1, label="a")
    Place.objects.create(pk=2, shelf="s", number=2, label="b")
    raw("REPLACE INTO library_place VALUES (3, 's', 1, 'b')")
    assert seen(other, Place, "pk", "number", "label") == [(3, 1, "b")]


def test_returning(host: Host, other: Host) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO library_author (name, born) VALUES ('Ann', 1) "
            "RETURNING id, name"
        )
        ((pk, name),) = cursor.fetchall()
    assert seen(other, Author, "pk", "name") == [(pk, name)]


def test_lastrowid(host: Host, other: Host) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO library_author (name, born) VALUES ('Ann', 1)")
        assert seen(other, Author, "pk") == [(cursor.lastrowid,)]


def test_a_statement_that_fails_half_way_leaves_nothing(
    host: Host, other: Host
) -> None:
    with pytest.raises(IntegrityError):
        raw("INSERT INTO library_tag VALUES ('a', ''), ('b', ''), ('a', '')")
    assert seen(other, Tag, "name") == []


# The natural order


def shuffle(keys: list[str]) -> None:
    """Insert, delete and change rows in an order that no index has."""
    for key in keys:
        Tag.objects.create(name=key)
    Tag.objects.filter(name__in=keys[::3]).delete()
    for key in reversed(keys[::3]):
        Tag.objects.create(name=key)
    Tag.objects.filter(name=keys[1]).update(name="moved")


@pytest.mark.parametrize("in_block", [False, True])
def test_rows_without_an_integer_key_have_one_order_everywhere(
    host: Host, other: Host, in_block: bool
) -> None:
    keys = [chr(ord("a") + n * 7 % 26) for n in range(20)]
    if in_block:
        with transaction.atomic():
            shuffle(keys)
    else:
        shuffle(keys)
    here = [tag.name for tag in Tag.objects.all()]
    with other:
        assert [tag.name for tag in Tag.objects.all()] == here


def test_blocks_of_two_hosts_that_insert_at_once_come_to_one_order(
    host: Host, other: Host
) -> None:
    with transaction.atomic():
        tags("c", "a")
        with other, transaction.atomic():
            tags("d", "b")
    with other:
        assert [tag.name for tag in Tag.objects.all()] == ["d", "b", "c", "a"]


def test_a_generated_column_that_is_called_rowid(host: Host, other: Host) -> None:
    host.sql("CREATE TABLE plain (x, rowid AS (x % 2))".replace("%", "%%"))
    for number in range(4):
        host.sql("INSERT INTO plain (x) VALUES (%s)", number)
    host.sql("DELETE FROM plain WHERE x = 1")
    assert other.sql("SELECT x, rowid FROM plain") == [(0, 0), (2, 0), (3, 1)]


@pytest.mark.parametrize("replay", [False, True])
def test_a_child_that_is_there_before_its_parent_stays(
    host: Host, other: Host, replay: bool
) -> None:
    # Deferred keys are checked at the end. ON DELETE is about rows that were
    # deleted, and not about those that refer to nothing for a while.
    host.sql("CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT UNIQUE, n)")
    host.sql(
        "CREATE TABLE child (id INTEGER PRIMARY KEY, parent TEXT REFERENCES "
        "parent (code) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED)"
    )
    host.sql("INSERT INTO parent VALUES (1, 'a', 0), (2, 'b', 0)")
    host.sql("INSERT INTO child VALUES (1, 'a'), (2, 'b')")
    with host, transaction.atomic():
        host.sql("DELETE FROM parent WHERE id = 1")
        host.sql("INSERT INTO child VALUES (4, 'd')")
        host.sql("INSERT INTO child VALUES (5, 'a')")
        host.sql("INSERT INTO parent VALUES (3, 'c', 0)")
        host.sql("DELETE FROM parent WHERE id = 77")
        host.sql("INSERT INTO parent VALUES (4, 'd', 0), (5, 'a', 0)")
        host.sql("UPDATE parent SET n = n + 1 WHERE id = 2")
        if replay:
            other.sql("UPDATE parent SET n = n + 1 WHERE id = 2")
    assert other.sql("SELECT * FROM child ORDER BY id") == [
        (2, "b"),
        (4, "d"),
        (5, "a"),
    ]


def test_composite_keys(host: Host, other: Host) -> None:
    with transaction.atomic():
        Loan.objects.create(copy=2, day="2026-01-02")
        Loan.objects.create(copy=1, day="2026-01-01")
    Loan.objects.filter(copy=2).update(reader="x")
    Loan.objects.filter(pk=(1, "2026-01-01")).delete()
    assert seen(other, Loan, "copy", "reader") == [(2, "x")]


# Flush


@pytest.mark.parametrize("restart", [False, True])
def test_flush(host: Host, other: Host, restart: bool) -> None:
    Author.objects.create(name="Ann")
    tags("a")
    sql = connection.ops.sql_flush(
        no_style(),
        [Author._meta.db_table, Tag._meta.db_table, Place._meta.db_table],
        reset_sequences=restart,
    )
    before = host.position
    connection.ops.execute_sql_flush(sql)
    assert host.position == before + 1  # one commit
    assert seen(other, Author, "pk") == seen(other, Tag, "pk") == []
    assert Author.objects.create(name="Bob").pk == (1 if restart else 2)


@pytest.mark.parametrize(
    "write",
    [
        lambda: Tag.objects.filter(name="a").update(note="y"),
        lambda: Tag.objects.filter(name="a").delete(),
        lambda: Tag.objects.create(name="b"),
        lambda: raw("UPDATE library_tag SET note = 'z'"),
        lambda: Tag.objects.bulk_update([Tag(name="a", note="q")], ["note"]),
    ],
    ids=["update", "delete", "create", "raw", "bulk_update"],
)
def test_own_writes_are_read_at_once_whatever_max_age(
    host: Host, other: Host, write: Callable[[], object]
) -> None:
    tags("a")
    before = host.sql("SELECT * FROM library_tag")
    write()
    assert host.sql("SELECT * FROM library_tag") != before
