"""A host that loads what it needs of a large database, and when it does."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management.color import no_style
from django.db import IntegrityError, OperationalError, connection, models, transaction
from django.db.models import Count, F

from s3cache.exceptions import (
    EntryFormatError,
    LogDiverged,
    StoreUnavailable,
    TransactionConflict,
)
from s3cache.keeper.compare import verify_replica
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log.effects import Absent
from s3cache.transactions import serializable
from tests.db.hosts import FaultyStore, faulty, lost_before
from tests.engine import Bucket, Host, MakeHost
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

__all__ = ["faulty"]

on_directory = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

#: Packs of a few thousand bytes, and leaves what was there before.
SMALL = KeeperOptions(pack_after=1, target=8 * 1024)

#: The same, and deletes at once what nobody should need any more.
AT_ONCE = KeeperOptions(pack_after=1, target=8 * 1024, retain=0.0, grace=0.0)


def keep(host: Host, options: KeeperOptions = SMALL) -> None:
    keep_now(host.connection.replica, options)


@pytest.fixture
def full(host: Host) -> Host:
    """A host with rows in many packs."""
    ann, bob = Author.objects.create(name="Ann"), Author.objects.create(name="Bob")
    Author.objects.bulk_create(Author(name=f"{n:03} {'x' * 150}") for n in range(150))
    Member.objects.bulk_create(Member(name="x" * 40) for _ in range(600))
    Everything.objects.bulk_create(
        Everything(text="x" * 200, whole=n) for n in range(120)
    )
    Tag.objects.bulk_create(Tag(name=f"{n:03} {'x' * 150}") for n in range(120))
    book = Book.objects.create(title="One", author=ann, translator=bob)
    book.tags.add(*Tag.objects.order_by("name")[:3])
    Place.objects.create(shelf="a", number=1, label="here")
    keep(host)
    return host


@pytest.fixture
def cold(full: Host, hosts: MakeHost) -> Host:
    """A host that loads nothing before it is needed."""
    return hosts("cold", load_at_once=0)


def absent(host: Host) -> int:
    """How many packs a host lacks."""
    lacking = host.connection.replica.file.lacking(Absent(None, 10_000))
    return len(lacking.packs)


def requests_of(bucket: Bucket, host: Host, read: Callable[[], Any]) -> Counter[str]:
    with bucket.requests() as seen, host:
        read()
    return Counter(seen)


BEGIN = Counter({"GET head": 1, "GET catalog": 1, "LIST log": 1})


# Reading


def test_the_first_get_is_answered_by_four_requests(
    bucket: Bucket, full: Host, cold: Host
) -> None:
    pk = Member.objects.earliest("pk").pk + 300
    seen = requests_of(bucket, cold, lambda: Member.objects.get(pk=pk))
    assert seen == BEGIN + Counter({"GET packs": 1})
    assert requests_of(bucket, cold, lambda: Member.objects.get(pk=pk + 1)) == {}


def test_rows_of_one_pack_are_asked_for_once(
    bucket: Bucket, full: Host, cold: Host
) -> None:
    cold.catch_up()
    first = Member.objects.earliest("pk").pk
    seen = requests_of(
        bucket, cold, lambda: Member.objects.in_bulk([first, first + 1, first + 2])
    )
    assert seen == {"GET packs": 1}
    assert (
        requests_of(bucket, cold, lambda: Member.objects.filter(pk=first).exists())
        == {}
    )


def test_a_row_that_is_not_there_costs_its_pack(
    bucket: Bucket, full: Host, cold: Host
) -> None:
    cold.catch_up()
    read = Member.objects.filter(pk=10**9).first
    assert requests_of(bucket, cold, read)["GET packs"] >= 1
    with cold, pytest.raises(Member.DoesNotExist):
        Member.objects.get(pk=10**9)


def test_keys_of_text_are_in_one_pack_if_they_are_in_order(
    bucket: Bucket, full: Host, cold: Host
) -> None:
    cold.catch_up()
    name = Tag.objects.order_by("name")[60].name
    seen = requests_of(bucket, cold, lambda: Tag.objects.get(name=name))
    assert seen == {"GET packs": 1}


def test_random_keys_may_be_in_any_pack(full: Host, cold: Host) -> None:
    pk = Everything.objects.order_by("pk")[0].pk
    with cold:
        assert Everything.objects.get(pk=pk).pk == pk
    assert absent(cold)


@pytest.mark.parametrize("order", ["pk", "-pk"])
def test_a_page_in_the_order_of_the_key_loads_the_packs_that_it_is_in(
    bucket: Bucket, full: Host, cold: Host, order: str
) -> None:
    cold.catch_up()
    pages = Member.objects.order_by(order)
    expected = [member.pk for member in pages.all()]
    assert requests_of(bucket, cold, lambda: list(pages[:20])) == {"GET packs": 1}
    assert requests_of(bucket, cold, lambda: list(pages[5:20])) == {}
    with cold:
        assert pages.first() == pages[0]
        assert [member.pk for member in pages[5:25]] == expected[5:25]
        before = absent(cold)
        assert [member.pk for member in pages[300:320]] == expected[300:320]
        assert absent(cold) < before
        assert [member.pk for member in pages[590:700]] == expected[590:]
        assert [member.pk for member in pages.reverse()[:3]] == expected[:-4:-1]


@pytest.mark.parametrize("order", ["pk", "-pk"])
def test_so_does_one_by_a_key_of_text(
    bucket: Bucket, full: Host, cold: Host, order: str
) -> None:
    cold.catch_up()
    tags = Tag.objects.order_by(order)
    expected = [tag.name for tag in tags.all()]
    seen = requests_of(bucket, cold, lambda: list(tags[:10]))
    assert seen == {"GET packs": 1}
    before = absent(cold)
    with cold:
        assert [tag.name for tag in tags[:110]] == expected[:110]
        assert absent(cold) < before
        assert [tag.name for tag in tags[105:115]] == expected[105:115]


@on_directory
def test_packs_of_random_keys_are_asked_for_together(full: Host, cold: Host) -> None:
    cold.catch_up()
    left: list[int] = []
    cold.connection.replica.on_load = left.append
    expected = sorted(Everything.objects.values_list("pk", flat=True))[:3]
    with cold:
        found = [one.pk for one in Everything.objects.order_by("pk")[:3]]
    assert found == expected
    assert len(left) > 1
    assert left == list(range(len(left)))[::-1]  # not again and again one


@on_directory
def test_rows_that_have_changed_are_where_they_belong_in_a_page(
    full: Host, cold: Host
) -> None:
    first, last = Member.objects.earliest("pk").pk, Member.objects.latest("pk").pk
    with cold:
        assert Member.objects.order_by("pk")[0].pk == first
    with full:
        Member.objects.filter(pk__gte=first + 2, pk__lt=first + 350).delete()
        Member.objects.filter(pk=last).update(name="changed")
        Member.objects.create(name="added")
    cold.catch_up()
    for pages in (Member.objects.order_by("pk"), Member.objects.order_by("-pk")):
        with full:
            expected = list(pages.values_list("pk", "name"))
        with cold:
            assert list(pages.values_list("pk", "name")[:5]) == expected[:5]


@on_directory
@pytest.mark.parametrize("order", [["name"], ["-name"], ["pk", "name"]])
def test_a_page_in_another_order_loads_the_whole_table(
    full: Host, cold: Host, order: list[str]
) -> None:
    cold.catch_up()
    expected = list(Author.objects.order_by(*order))
    with cold:
        assert list(Author.objects.order_by(*order)[:3]) == expected[:3]
        before = absent(cold)
        assert len(Author.objects.all()) == 152
        assert absent(cold) == before


@on_directory
def test_all_else_loads_the_tables_that_it_reads(
    bucket: Bucket, full: Host, cold: Host
) -> None:
    cold.catch_up()
    before = absent(cold)
    with cold:
        assert Author.objects.count() == 152
        loaded = before - absent(cold)
        assert 1 < loaded < before
        assert Author.objects.filter(name__startswith="A").get().name == "Ann"
    assert before - absent(cold) == loaded


def test_what_is_loaded_is_not_loaded_again(
    bucket: Bucket, full: Host, cold: Host
) -> None:
    packs = len(bucket.store.list("_packs/").keys)
    cold.catch_up()
    with cold:
        Member.objects.get(pk=Member.objects.earliest("pk").pk)
    left = absent(cold)
    assert left < packs
    seen = requests_of(bucket, cold, cold.connection.replica.load)
    assert seen == {"GET packs": left}
    assert requests_of(bucket, cold, lambda: list(Member.objects.all())) == {}
    assert cold.dump() == full.dump()


@on_directory
def test_a_small_database_is_loaded_at_once(full: Host, hosts: MakeHost) -> None:
    host = hosts("small")
    host.catch_up()
    assert absent(host) == 0


@on_directory
def test_any_database_is_if_it_shall_be(full: Host, hosts: MakeHost) -> None:
    host = hosts("whole", load_at_once=None)
    host.catch_up()
    assert absent(host) == 0


STATEMENTS = [
    "SELECT count(*) FROM library_member",
    "SELECT * FROM library_author a JOIN library_book b ON b.author_id = a.id",
    "SELECT 1 FROM library_tag JOIN library_book_tags ON tag_id = name LIMIT 1",
    "SELECT count(*) FROM library_author JOIN library_member USING (id)",
    "WITH m AS (SELECT * FROM library_member) SELECT count(*) FROM m",
    "SELECT (SELECT count(*) FROM library_author) FROM library_place",
    "SELECT * FROM library_place WHERE EXISTS (SELECT 1 FROM library_tag)",
    "SELECT max(name) FROM library_tag UNION SELECT title FROM library_book",
    "SELECT * FROM names LIMIT 2",
    "SELECT count(*) FROM (SELECT 1 FROM library_everything)",
    "SELECT json_each.value FROM library_author, json_each('[1]') LIMIT 1",
    'SELECT "library_author"."id" FROM "library_author" WHERE '
    '"library_author"."id" = 1 OR 1',
    'SELECT "library_tag"."note" FROM "library_tag" ORDER BY "library_tag"."name" '
    "DESC LIMIT 3 OFFSET 110",
    'SELECT "library_member"."id" FROM "library_member" '
    'ORDER BY "library_member"."id" ASC LIMIT 0',
    'SELECT "library_member"."id" FROM "library_member" '
    'ORDER BY "library_member"."name" ASC LIMIT 3',
    "PRAGMA foreign_key_check",
    "PRAGMA main.foreign_key_check(library_book)",
    "SELECT count(*) FROM pragma_foreign_key_check",
    "PRAGMA table_info(library_member)",
    "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1",
    "SELECT count(*) FROM sqlite_sequence",
    "PRAGMA integrity_check",
    "EXPLAIN QUERY PLAN SELECT 1",
    "VALUES ((SELECT count(*) FROM library_tag))",
]


@on_directory
@pytest.mark.parametrize("sql", STATEMENTS)
def test_no_statement_sees_what_is_not_loaded(
    full: Host, hosts: MakeHost, sql: str
) -> None:
    full.sql("CREATE VIEW names AS SELECT name FROM library_member")
    keep(full)
    cold = hosts("cold", load_at_once=0)
    assert cold.sql(sql) == full.sql(sql)
    assert cold.sql(sql) == full.sql(sql)


@on_directory
def test_a_statement_that_makes_no_sense_stays_an_error(cold: Host) -> None:
    with cold, pytest.raises(OperationalError, match="no such table"):
        cold.sql("SELECT * FROM nowhere")


@on_directory
def test_a_cursor_of_sqlites_sees_everything(full: Host, cold: Host) -> None:
    with cold:
        cold.connection.ensure_connection()
        inner: Any = cold.connection.connection
        cursor = inner.cursor()
        assert cursor.execute("SELECT count(*) FROM library_author").fetchone() == (
            152,
        )


@on_directory
def test_who_forgets_to_ask_is_refused(full: Host, cold: Host) -> None:
    full.sql("CREATE VIEW names AS SELECT name FROM library_member")
    keep(full)
    reader = cold.connection.replica.new_reader()
    with reader.held() as raw:
        with pytest.raises(sqlite3.DatabaseError, match="prohibited"):
            raw.execute("SELECT count(*) FROM names").fetchone()
        cold.connection.replica.load()
        reader.check_tables([])
        assert raw.execute("SELECT count(*) FROM names").fetchone() == (600,)
    cold.connection.replica.give_back(reader)


@on_directory
def test_iterators_and_relations_load_what_they_read(full: Host, cold: Host) -> None:
    with cold:
        assert sum(1 for _ in Member.objects.iterator()) == 600
        book = Book.objects.select_related("author").prefetch_related("tags").get()
        assert (book.author.name, len(book.tags.all())) == ("Ann", 3)
        found = Author.objects.annotate(n=Count("books")).filter(n__gt=0)
        assert [author.name for author in found] == ["Ann"]


# Entries


@on_directory
def test_entries_after_the_catalog_count(full: Host, hosts: MakeHost) -> None:
    pk = Member.objects.earliest("pk").pk
    Member.objects.filter(pk=pk).update(name="new")
    Member.objects.filter(pk=pk + 1).delete()
    added = Member.objects.create(name="added").pk
    cold = hosts("cold", load_at_once=0)
    with cold:
        assert Member.objects.get(pk=pk).name == "new"
        assert not Member.objects.filter(pk=pk + 1).exists()
        assert Member.objects.get(pk=added).name == "added"
        assert Member.objects.count() == 600
    cold.connection.replica.load()
    assert cold.dump() == full.dump()


@on_directory
def test_news_come_to_tables_that_are_there_in_part(full: Host, cold: Host) -> None:
    first = Member.objects.earliest("pk").pk
    with cold:
        Member.objects.get(pk=first)
    with full:
        Member.objects.filter(pk__lt=first + 400).update(name="!")
        Tag.objects.update(note="n")
        Everything.objects.filter(whole__lt=80).delete()
    cold.catch_up()
    with cold:
        assert Member.objects.get(pk=first).name.endswith("!")
        assert Everything.objects.count() == 40
        assert Tag.objects.filter(note="n").count() == 120
    cold.connection.replica.load()
    assert cold.dump() == full.dump()


@on_directory
def test_a_change_of_the_schema_loads_everything(full: Host, cold: Host) -> None:
    cold.catch_up()
    full.sql("ALTER TABLE library_tag ADD COLUMN more DEFAULT 'x'")
    cold.catch_up()
    assert absent(cold) == 0
    assert cold.dump() == full.dump()


@on_directory
def test_one_in_the_tail_is_a_reason_to_begin_whole(
    full: Host, hosts: MakeHost
) -> None:
    full.sql("ALTER TABLE library_tag ADD COLUMN more DEFAULT 'x'")
    cold = hosts("cold", load_at_once=0)
    cold.catch_up()
    assert absent(cold) == 0
    assert cold.dump() == full.dump()


@on_directory
def test_so_are_more_keys_than_are_kept(
    full: Host, cold: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3cache.replica.absent.MOST_TOUCHED", 100)
    cold.catch_up()
    before = absent(cold)
    Member.objects.update(name="y")
    cold.catch_up()
    assert 0 < absent(cold) < before
    with cold:
        assert Member.objects.filter(name="y").count() == 600


# Writing


@on_directory
def test_a_write_loads_what_its_constraints_touch(full: Host, cold: Host) -> None:
    cold.catch_up()
    before = absent(cold)
    with cold:
        with pytest.raises(IntegrityError, match="UNIQUE"):
            Author.objects.create(name="Ann")
        assert 0 < absent(cold) < before
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            Book.objects.create(title="No", author_id=10**6)
        book = Book.objects.create(title="Two", author=Author.objects.get(name="Bob"))
        assert Member.objects.create(name="m").pk > 600
    full.catch_up()
    with full:
        assert Book.objects.get(pk=book.pk).author.name == "Bob"
    cold.connection.replica.load()
    assert cold.dump() == full.dump()


def delete_an_author() -> None:
    Author.objects.get(name="Ann").delete()


def update_everything() -> None:
    Everything.objects.update(whole=F("whole") + 1)


def insert_from_another_table() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO library_tag SELECT '+' || name, '' FROM library_author"
        )


def delete_by_subquery() -> None:
    Author.objects.exclude(pk__in=Book.objects.values("author")).exclude(
        pk__in=Book.objects.values("translator")
    ).delete()


def in_a_block() -> None:
    with transaction.atomic():
        first = Member.objects.earliest("pk")
        first.name = "first"
        first.save()
        assert Member.objects.filter(name="first").count() == 1
        Tag.objects.filter(name__startswith="00").delete()
        author, made = Author.objects.get_or_create(name="Bob")
        assert not made
        Book.objects.create(title="Three", author=author)


def in_a_serializable_block() -> None:
    with serializable(), transaction.atomic():
        Author.objects.create(name=f"{Author.objects.count()}")


def clash_in_a_block() -> None:
    with transaction.atomic():
        Place.objects.create(shelf="b", number=1, label="there")
        with pytest.raises(IntegrityError), transaction.atomic():
            Author.objects.create(name="Ann")


def delete_a_parent_of_rows() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        connection.cursor().execute("DELETE FROM library_author WHERE name = 'Ann'")
    Author.objects.create(name="after")


def many_ids() -> None:
    with transaction.atomic():
        Member.objects.bulk_create(Member(name="b") for _ in range(20))
    Patron.objects.create(name="p", gift=1)
    Loan.objects.create(copy=1, day="2026-01-01")


def remake_a_table() -> None:
    with connection.schema_editor() as editor:
        old = Member._meta.get_field("name")
        new = models.CharField(max_length=40, default="d", db_index=True)
        new.set_attributes_from_name("name")
        new.model = Member
        editor.alter_field(Member, old, new, strict=True)


def flush() -> None:
    tables = ["library_everything", "library_place"]
    connection.ops.execute_sql_flush(
        connection.ops.sql_flush(no_style(), tables, reset_sequences=True)
    )


WRITES = [
    delete_an_author,
    update_everything,
    insert_from_another_table,
    delete_by_subquery,
    in_a_block,
    in_a_serializable_block,
    clash_in_a_block,
    delete_a_parent_of_rows,
    many_ids,
    remake_a_table,
    flush,
]


@on_directory
@pytest.mark.parametrize("write", WRITES)
def test_writes_come_to_what_they_come_to_elsewhere(
    full: Host, hosts: MakeHost, bucket: Bucket, write: Callable[[], None]
) -> None:
    cold = hosts("cold", load_at_once=0)
    with cold:
        write()
    cold.connection.replica.load()
    full.catch_up()
    assert cold.dump() == full.dump()
    assert verify_replica(cold.connection.replica) == []


# Blocks


@on_directory
def test_a_block_sees_one_state_though_rows_are_loaded(full: Host, cold: Host) -> None:
    with cold, transaction.atomic():
        assert Author.objects.filter(name="Ann").exists()
        assert Member.objects.count() == 600
        assert Tag.objects.count() == 120


@on_directory
def test_what_it_has_seen_has_to_be_true_with_what_it_loads(
    full: Host, cold: Host
) -> None:
    with cold, pytest.raises(TransactionConflict), transaction.atomic():
        assert Author.objects.count() == 152
        with full:
            Author.objects.create(name="new")
        cold.connection.replica.catch_up()
        Member.objects.count()
    with cold, transaction.atomic():
        assert Place.objects.count() == 1
        with full:
            Author.objects.create(name="newer")
        cold.connection.replica.catch_up()
        assert Everything.objects.count() == 120
        assert Author.objects.count() == 154


@on_directory
def test_a_block_that_has_read_takes_ids_of_a_table_it_has_not(
    full: Host, cold: Host
) -> None:
    with cold, transaction.atomic():
        assert Author.objects.filter(name="Ann").exists()
        made = Place.objects.bulk_create(
            Place(shelf="b", number=n, label=f"b{n}") for n in range(3)
        )
    assert len({place.pk for place in made} - {None}) == 3
    with (
        cold,
        pytest.raises(TransactionConflict),
        serializable(),
        transaction.atomic(),
    ):
        number = Author.objects.count()
        with full:
            Author.objects.create(name="other")
        Everything.objects.count()
        Member.objects.create(name=str(number))


@on_directory
def test_past_django_a_block_is_told_that_rows_are_not_loaded(
    full: Host, cold: Host
) -> None:
    with cold, transaction.atomic():
        assert Author.objects.filter(name="Ann").exists()
        inner: Any = cold.connection.connection
        with pytest.raises(OperationalError, match="not loaded"):
            inner.execute("SELECT count(*) FROM library_member")
        assert Member.objects.count() == 600
        found = inner.execute("SELECT count(*) FROM library_member").fetchone()
        assert found == (600,)


@on_directory
def test_constraints_are_checked_with_all_rows(full: Host, cold: Host) -> None:
    with cold:
        connection.check_constraints()
        assert absent(cold) == 0


# Packs that go


def test_packs_that_are_gone_are_in_a_newer_catalog(full: Host, cold: Host) -> None:
    first = Member.objects.earliest("pk").pk
    with cold:
        Member.objects.get(pk=first)
    with full:
        Member.objects.filter(pk__gt=first + 100).update(name="y")
        Member.objects.filter(pk=first + 50).delete()
        Tag.objects.filter(name__startswith="0").delete()
    cold.catch_up()
    with full:
        keep_now(
            full.connection.replica,
            KeeperOptions(
                pack_after=1, target=12 * 1024, retain=0, grace=0, everything=True
            ),
        )
    with cold:
        assert Member.objects.get(pk=first + 550).name == "y"
        assert absent(cold)
        assert Member.objects.count() == 599
        assert Tag.objects.count() == 20
    cold.connection.replica.load()
    assert cold.dump() == full.dump()


@on_directory
def test_packs_that_are_newer_than_the_replica_wait_until_it_has_caught_up(
    full: Host, cold: Host
) -> None:
    cold.catch_up()
    with full:
        Member.objects.update(name="y")
        Author.objects.create(name="z")
        keep_now(
            full.connection.replica,
            KeeperOptions(pack_after=1, target=9999, grace=0, everything=True),
        )
    with cold:
        assert Member.objects.filter(name="y").count() == 600
    assert cold.position == full.position


@on_directory
def test_a_host_whose_entries_are_gone_as_well_begins_anew(
    full: Host, cold: Host
) -> None:
    cold.catch_up()
    with full:
        Member.objects.update(name="y")
        keep_now(
            full.connection.replica,
            KeeperOptions(
                pack_after=1, target=9999, grace=0, retain=0, everything=True
            ),
        )
    cold.connection.replica.side.remember("checked_at", 0.0)
    with cold:
        assert Member.objects.filter(name="y").count() == 600
    assert cold.position == full.position


@on_directory
def test_a_host_that_lacks_packs_lacks_others_when_it_begins_anew(
    full: Host, cold: Host
) -> None:
    with cold:
        Member.objects.count()
    with full:
        Author.objects.create(name="new")
        keep(full, AT_ONCE)
    cold.connection.replica.side.remember("checked_at", 0.0)
    cold.catch_up()
    assert absent(cold)
    with cold:
        assert Member.objects.count() == 600
        assert Author.objects.count() == 153


@on_directory
def test_one_that_lacked_nothing_lacks_nothing_then(full: Host, cold: Host) -> None:
    cold.connection.replica.load()
    with full:
        Author.objects.create(name="new")
        keep(full, AT_ONCE)
    cold.connection.replica.side.remember("checked_at", 0.0)
    cold.catch_up()
    assert absent(cold) == 0
    assert cold.dump() == full.dump()


@on_directory
def test_a_pack_that_is_lost_is_named(full: Host, cold: Host, bucket: Bucket) -> None:
    cold.catch_up()
    for one in bucket.store.list("_packs/").keys:
        bucket.store.delete(one.key)
    with cold, pytest.raises(LogDiverged, match="_packs/.* is missing"):
        Member.objects.count()


@on_directory
def test_a_pack_that_is_damaged_is_named(
    full: Host, cold: Host, bucket: Bucket
) -> None:
    cold.catch_up()
    for one in bucket.store.list("_packs/").keys:
        bucket.store.put(one.key, b"x" * one.size)
    with cold, pytest.raises(EntryFormatError, match="SHA-256 is another"):
        Member.objects.count()


@on_directory
def test_while_the_store_is_down_what_is_there_is_read(
    full: Host, hosts: MakeHost, faulty: FaultyStore
) -> None:
    cold = hosts("cold", load_at_once=0, storage="faulty")
    first = Member.objects.earliest("pk").pk
    with cold:
        Member.objects.get(pk=first)
        faulty.on("", "", lost_before)
        assert Member.objects.get(pk=first + 1).pk == first + 1
        with pytest.raises(StoreUnavailable):
            Member.objects.count()
        faulty.heal()
        assert Member.objects.count() == 600


# The keeper


@on_directory
def test_a_keeper_loads_what_it_packs(full: Host, cold: Host, hosts: MakeHost) -> None:
    with cold:
        Author.objects.create(name="new")
        keep(cold, AT_ONCE)
    assert absent(cold) == 0
    assert hosts("after").dump() == cold.dump()


@on_directory
def test_nothing_is_loaded_to_find_that_there_is_nothing_to_pack(
    full: Host, cold: Host
) -> None:
    cold.catch_up()
    before = absent(cold)
    keep(cold)
    assert absent(cold) == before


@on_directory
def test_verifying_a_replica_loads_it(cold: Host) -> None:
    assert verify_replica(cold.connection.replica) == []
