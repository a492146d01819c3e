"""
What ``atomic()`` promises: all or nothing, and no update is lost.

Two hosts in one thread stand for any two transactions that overlap: what one
does between two statements of the other is written down in order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import (
    IntegrityError,
    NotSupportedError,
    OperationalError,
    connection,
    transaction,
)
from django.db.models import F, Sum

from s3cache.exceptions import RowChanged, TransactionConflict
from s3cache.transactions import retry_on_conflict, serializable
from tests.db.hosts import on
from tests.engine import Bucket, Host, MakeHost, savepoint
from tests.library.models import Author, Book, Loan, Member, Place, Tag
from tests.testapp.models import Gear

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


@pytest.fixture
def two(hosts: MakeHost) -> tuple[Host, Host]:
    """Two hosts that both ask the store before they read."""
    a, b = hosts(max_age=0), hosts(max_age=0)
    b.catch_up()
    return a, b


def notes(host: Host) -> dict[str, str]:
    """What the host reads now."""
    with host:
        return dict(Tag.objects.values_list("name", "note"))


class Boom(Exception):
    """Not a database's error."""


# All or nothing


def test_a_block_is_seen_by_others_when_it_ends(two: tuple[Host, Host]) -> None:
    a, b = two
    with a, transaction.atomic():
        Tag.objects.create(name="a")
        Author.objects.create(name="Ann")
        assert notes(b) == {}
    assert notes(b) == {"a": ""}
    with b:
        assert Author.objects.get().name == "Ann"


def test_a_block_sees_what_it_wrote(host: Host) -> None:
    Tag.objects.create(name="old")
    with transaction.atomic():
        Tag.objects.create(name="new")
        Tag.objects.filter(name="old").update(note="x")
        assert dict(Tag.objects.values_list("name", "note")) == {"old": "x", "new": ""}
        Tag.objects.filter(name="new").delete()
        assert [tag.name for tag in Tag.objects.all()] == ["old"]
        assert Tag.objects.filter(note="x").count() == 1


def test_an_exception_leaves_nothing(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        with pytest.raises(Boom), transaction.atomic():
            Tag.objects.create(name="a")
            Author.objects.create(name="Ann")
            raise Boom
        assert not Tag.objects.exists()
        assert not Author.objects.exists()
    assert notes(b) == {}


def test_a_block_that_is_rolled_back_adds_no_entry(host: Host) -> None:
    before = host.position
    with transaction.atomic():
        Tag.objects.create(name="a")
        transaction.set_rollback(True)
    host.catch_up()
    assert host.position == before


def test_on_commit_runs_after_the_commit_in_its_own_thread(host: Host) -> None:
    said: list[tuple[int, int]] = []

    def hook() -> None:
        said.append((threading.get_ident(), Tag.objects.count()))

    with transaction.atomic():
        Tag.objects.create(name="a")
        transaction.on_commit(hook)
        assert said == []
    assert said == [(threading.get_ident(), 1)]


def test_on_commit_does_not_run_when_the_commit_fails(two: tuple[Host, Host]) -> None:
    a, b = two
    ran: list[int] = []
    with a:
        Tag.objects.create(name="a")
    with b:
        with pytest.raises(TransactionConflict), transaction.atomic():
            tag = Tag.objects.get()
            with a:
                Tag.objects.update(note="by a")
            tag.note = "by b"
            tag.save()
            transaction.on_commit(lambda: ran.append(1))
        with transaction.atomic():
            transaction.on_commit(lambda: ran.append(2))
    assert ran == [2]


# Savepoints


def test_an_inner_block_can_be_rolled_back(host: Host) -> None:
    with transaction.atomic():
        Tag.objects.create(name="a")
        with pytest.raises(Boom), transaction.atomic():
            Tag.objects.filter(name="a").update(note="inner")
            Tag.objects.create(name="b")
            raise Boom
        assert dict(Tag.objects.values_list("name", "note")) == {"a": ""}
        Tag.objects.create(name="c")
    assert notes(host) == {"a": "", "c": ""}


def test_savepoints_nest(host: Host) -> None:
    with transaction.atomic():
        for depth in "abcd":
            Tag.objects.create(name=depth)
            outer = savepoint()
            Tag.objects.update(note=depth)
            inner = savepoint()
            Tag.objects.all().delete()
            connection.savepoint_rollback(inner)
            connection.savepoint_commit(inner)
            if depth in "bd":
                connection.savepoint_rollback(outer)
            connection.savepoint_commit(outer)
    assert notes(host) == {"a": "c", "b": "c", "c": "c", "d": ""}


def test_an_integrity_error_in_an_inner_block_leaves_the_outer_usable(
    host: Host,
) -> None:
    Author.objects.create(name="Ann")
    with transaction.atomic():
        Tag.objects.create(name="before")
        with pytest.raises(IntegrityError), transaction.atomic():
            Author.objects.create(name="Ann")
        Tag.objects.create(name="after")
    assert notes(host) == {"before": "", "after": ""}


def test_a_delete_in_a_savepoint_comes_back(host: Host) -> None:
    Tag.objects.bulk_create([Tag(name=name) for name in "cab"])
    with transaction.atomic():
        mark = savepoint()
        Tag.objects.all().delete()
        Tag.objects.create(name="a", note="another")
        connection.savepoint_rollback(mark)
        Tag.objects.filter(name="b").update(note="x")
    assert list(Tag.objects.values_list("name", "note")) == [
        ("c", ""),
        ("a", ""),
        ("b", "x"),
    ]


def test_raw_transactions(host: Host) -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO library_tag VALUES ('a', '')")
        cursor.execute("SAVEPOINT one")
        cursor.execute("INSERT INTO library_tag VALUES ('b', '')")
        cursor.execute("ROLLBACK TO SAVEPOINT one")
        cursor.execute("COMMIT")
        cursor.execute("BEGIN")
        cursor.execute("DELETE FROM library_tag")
        cursor.execute("ROLLBACK")
    assert notes(host) == {"a": ""}


def test_turning_autocommit_off_and_on(host: Host) -> None:
    transaction.set_autocommit(False)
    try:
        Tag.objects.create(name="a")
        transaction.commit()
        Tag.objects.create(name="b")
        transaction.rollback()
        Tag.objects.create(name="c")
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert notes(host) == {"a": "", "c": ""}


# No update is lost


def test_a_row_that_changed_since_it_was_read_is_a_conflict(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a:
        Author.objects.create(name="Ann", born=1)
    with a, pytest.raises(TransactionConflict), transaction.atomic():
        ann = Author.objects.get()
        with b:
            Author.objects.update(born=2)
        ann.born += 10
        ann.save()
    for host in two:
        with host:
            assert Author.objects.get().born == 2


def test_a_conflict_leaves_nothing_of_the_block(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Author.objects.create(name="Ann", born=1)
    with a:
        with pytest.raises(TransactionConflict), transaction.atomic():
            Tag.objects.create(name="left?")
            ann = Author.objects.get()
            with b:
                Author.objects.update(born=2)
            ann.born += 10
            ann.save()
        assert not Tag.objects.exists()
    assert notes(b) == {}


def test_an_expression_meets_no_conflict(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Author.objects.create(name="Ann", born=1)
    with a, transaction.atomic():
        Author.objects.update(born=F("born") + 1)
        with b:
            Author.objects.update(born=F("born") + 1)
    for host in two:
        with host:
            assert Author.objects.get().born == 3


def test_blocks_on_different_rows_meet_no_conflict(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Tag.objects.bulk_create([Tag(name="a"), Tag(name="b")])
    with a, transaction.atomic():
        tag = Tag.objects.get(name="a")
        with b, transaction.atomic():
            other = Tag.objects.get(name="b")
            other.note = "by b"
            other.save()
        tag.note = "by a"
        tag.save()
    assert notes(a) == notes(b) == {"a": "by a", "b": "by b"}


def test_the_conflict_counts_from_the_first_read_not_from_the_first_write(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a:
        Author.objects.create(name="Ann", born=1)
    with a, pytest.raises(TransactionConflict), transaction.atomic():
        seen = Author.objects.get().born
        with b:
            Author.objects.update(born=100)
        Author.objects.update(born=seen + 1)
    with a:
        assert Author.objects.get().born == 100


def test_an_id_that_is_looked_at_late_is_the_one_that_was_committed(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    a.sql("CREATE TABLE child (id INTEGER PRIMARY KEY, name)")
    b.catch_up()
    with a, transaction.atomic():
        cursor = connection.cursor()
        cursor.execute("INSERT INTO child (name) VALUES ('mine')")
        b.sql("INSERT INTO child (name) VALUES ('theirs')")
    assert a.sql("SELECT id FROM child WHERE name = 'mine'") == [(cursor.lastrowid,)]


def test_an_id_that_is_looked_at_after_a_replay_in_the_block_counts(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    a.sql("CREATE TABLE child (id INTEGER PRIMARY KEY, name)")
    b.catch_up()
    with a, transaction.atomic():
        first, second = connection.cursor(), connection.cursor()
        first.execute("INSERT INTO child (name) VALUES ('mine')")
        b.sql("INSERT INTO child (name) VALUES ('theirs')")
        a.connection.replica.catch_up()
        second.execute("INSERT INTO library_tag VALUES ('a', '')")
        number = first.lastrowid
        second.execute("UPDATE library_tag SET note = %s", [number])
    found = b.sql("SELECT id FROM child WHERE name = 'mine'")
    assert b.sql("SELECT note FROM library_tag") == [(str(found[0][0]),)]


def test_an_id_that_was_looked_at_in_time_is_a_conflict_if_it_changes(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    a.sql("CREATE TABLE child (id INTEGER PRIMARY KEY, name)")
    b.catch_up()
    with a, pytest.raises(TransactionConflict), transaction.atomic():
        first, second = connection.cursor(), connection.cursor()
        first.execute("INSERT INTO child (name) VALUES ('mine')")
        b.sql("INSERT INTO child (name) VALUES ('theirs')")
        a.connection.replica.catch_up()
        second.execute("INSERT INTO library_tag VALUES ('a', '')")
        assert first.lastrowid == 2
        b.sql("DELETE FROM child WHERE name = 'theirs'")
        b.sql("INSERT INTO child (id, name) VALUES (2, 'theirs')")


def test_a_replay_may_write_what_the_block_has_not_changed(
    two: tuple[Host, Host],
) -> None:
    # The table of a statement that changed nothing is not among those whose
    # changes are noted, once the schema is another one.
    a, b = two
    with a, transaction.atomic():
        assert Tag.objects.filter(name="none").update(note="x") == 0
        Author.objects.create(name="a")
        b.sql("CREATE TABLE another (id INTEGER PRIMARY KEY)")
    assert b.sql("SELECT name FROM library_author") == [("a",)]


def test_a_row_that_was_deleted_meanwhile_is_a_conflict(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a:
        Tag.objects.create(name="a")
    with a, pytest.raises(TransactionConflict), transaction.atomic():
        tag = Tag.objects.get()
        with b:
            Tag.objects.all().delete()
        tag.note = "x"
        tag.save()
    assert notes(a) == {}


def test_the_same_name_twice_is_an_integrity_error(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        with pytest.raises(IntegrityError), transaction.atomic():
            Author.objects.create(name="Ann")
            with b:
                Author.objects.create(name="Ann")
        assert Author.objects.count() == 1


def test_get_or_create_in_blocks_returns_one_row_to_all(
    two: tuple[Host, Host],
) -> None:
    a, b = two

    @retry_on_conflict
    def ann(meanwhile: Callable[[], Any] = lambda: None) -> tuple[Author, bool]:
        assert Author.objects.count() >= 0  # the snapshot is taken here
        meanwhile()
        return Author.objects.get_or_create(name="Ann", defaults={"born": 1})

    def on_b() -> None:
        with b:
            Author.objects.get_or_create(name="Ann", defaults={"born": 2})

    with a:
        mine, created = ann(on_b)
        assert (mine.born, created) == (2, False)
    with b:
        assert Author.objects.get() == mine


def test_a_block_that_only_read_never_conflicts(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Tag.objects.create(name="a")
    with a, transaction.atomic():
        assert Tag.objects.get().note == ""
        with b:
            Tag.objects.update(note="by b")
        assert Tag.objects.get().note == ""  # one snapshot
    assert notes(a) == {"a": "by b"}


def test_reads_before_the_first_write_are_of_one_snapshot(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a, transaction.atomic():
        assert Tag.objects.count() == 0
        with b:
            Tag.objects.create(name="b")
            Author.objects.create(name="Bob")
        a.catch_up()
        assert Author.objects.count() == 0


def test_other_tables_are_read_committed_after_the_first_write(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a, transaction.atomic():
        Tag.objects.create(name="a")
        assert Place.objects.count() == 0
        with b:
            Place.objects.create(shelf="x", number=1, label="x")
        b.catch_up()
        a.connection.replica.catch_up()
        assert Place.objects.count() == 1


def test_two_transactions_of_one_host_do_not_lose_an_update(host: Host) -> None:
    Author.objects.create(name="Ann", born=0)
    with pytest.raises(TransactionConflict), transaction.atomic():
        ann = Author.objects.get()
        with on(host), transaction.atomic():
            Author.objects.update(born=100)
        ann.born += 1
        ann.save()
    assert Author.objects.get().born == 100


# retry_on_conflict


def test_retry_on_conflict_runs_the_block_again(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Author.objects.create(name="Ann", born=1)
    attempts: list[int] = []

    @retry_on_conflict
    def add_ten() -> None:
        ann = Author.objects.get()
        attempts.append(ann.born)
        if len(attempts) == 1:
            with b:
                Author.objects.update(born=2)
        ann.born += 10
        ann.save()

    with a:
        add_ten()
        assert Author.objects.get().born == 12
    assert attempts == [1, 2]


def test_retry_on_conflict_refuses_to_sit_inside_a_block(host: Host) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError):
        retry_on_conflict(lambda: None)()


# serializable


def on_call(host: Host) -> int:
    """How many tags are left: the rule is that one always is."""
    with host:
        return Tag.objects.filter(note="on call").count()


def leave(name: str, meanwhile: Callable[[], Any] = lambda: None) -> None:
    """Go off call if somebody else stays: two of these are a write skew."""
    others = Tag.objects.filter(note="on call").exclude(name=name).count()
    meanwhile()
    if others:
        Tag.objects.filter(name=name).update(note="off")


def test_write_skew_is_possible_in_an_ordinary_block(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Tag.objects.bulk_create([Tag(name=n, note="on call") for n in ("ann", "bob")])

    def bob_leaves() -> None:
        with b, transaction.atomic():
            leave("bob")

    with a, transaction.atomic():
        leave("ann", bob_leaves)
    assert on_call(a) == 0


def test_serializable_prevents_write_skew(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Tag.objects.bulk_create([Tag(name=n, note="on call") for n in ("ann", "bob")])

    def bob_leaves() -> None:
        with b, serializable():
            leave("bob")

    with a, pytest.raises(TransactionConflict), serializable():
        leave("ann", bob_leaves)
    assert on_call(a) == on_call(b) == 1


def test_serializable_prevents_phantoms(two: tuple[Host, Host]) -> None:
    a, b = two
    with a, pytest.raises(TransactionConflict), serializable():
        total = Place.objects.aggregate(n=Sum("number"))["n"] or 0
        with b:
            Place.objects.create(shelf="x", number=5, label="x")
        Tag.objects.create(name=f"total {total}")
    assert notes(b) == {}


def test_serializable_goes_through_when_nothing_that_it_read_changed(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a, serializable():
        assert Place.objects.filter(shelf="x").count() == 0
        with b:
            Place.objects.create(shelf="y", number=5, label="y")
        Tag.objects.create(name="a")
    assert notes(b) == {"a": ""}


def test_serializable_with_retries_comes_to_the_right_result(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a:
        Tag.objects.bulk_create([Tag(name=n, note="on call") for n in ("ann", "bob")])
    did: list[str] = []

    def bob_leaves_once() -> None:
        if not did:
            did.append("left")
            with b, serializable():
                leave("bob")

    with a:
        retry_on_conflict(serializable=True)(leave)("ann", bob_leaves_once)
    assert on_call(a) == 1


# select_for_update


def test_select_for_update_reads_the_newest_row_of_the_host(host: Host) -> None:
    Author.objects.create(name="Ann", born=1)
    with transaction.atomic():
        assert not Tag.objects.exists()  # the snapshot is taken here
        with on(host):
            Author.objects.update(born=2)
        ann = Author.objects.select_for_update().get()
        assert ann.born == 2
        ann.born += 1
        ann.save()
    assert Author.objects.get().born == 3


def test_select_for_update_is_checked_at_commit_across_hosts(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a:
        Author.objects.create(name="Ann", born=1)
    with a, pytest.raises(TransactionConflict), transaction.atomic():
        ann = Author.objects.select_for_update().get()
        with b:
            Author.objects.update(born=2)
        ann.born += 1
        ann.save()


def test_nowait_raises_at_once(host: Host) -> None:
    Author.objects.create(name="Ann")
    with transaction.atomic():
        Author.objects.select_for_update().get()
        with on(host), pytest.raises(OperationalError), transaction.atomic():
            Author.objects.select_for_update(nowait=True).get()
    with on(host), transaction.atomic():
        Author.objects.select_for_update(nowait=True).get()


def test_skip_locked_is_refused(host: Host) -> None:
    with transaction.atomic(), pytest.raises(NotSupportedError, match="skip_locked"):
        Author.objects.select_for_update(skip_locked=True).first()


def test_select_for_update_outside_a_block_is_an_ordinary_read(host: Host) -> None:
    Author.objects.create(name="Ann")
    assert Author.objects.select_for_update().get().name == "Ann"
    with on(host), transaction.atomic():
        Author.objects.select_for_update(nowait=True).get()


# save(if_unchanged=True)


def test_if_unchanged_refuses_to_overwrite_another_hosts_change(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a:
        gear = Gear.objects.create(name="x", weight=1)
    with b:
        other = Gear.objects.get()
        other.weight = 2
        other.save(if_unchanged=True)
    with a:
        gear.name = "y"
        with pytest.raises(RowChanged, match="weight"):
            gear.save(if_unchanged=True)
        assert Gear.objects.values_list("name", "weight").get() == ("x", 2)
        gear.refresh_from_db()
        gear.name = "y"
        gear.save(if_unchanged=True)
    with b:
        assert Gear.objects.values_list("name", "weight").get() == ("y", 2)


def test_if_unchanged_on_a_replica_that_is_behind(hosts: MakeHost) -> None:
    a, b = hosts(), hosts()
    with a:
        Gear.objects.create(name="x", weight=1)
    b.catch_up()
    with b:
        stale = Gear.objects.get()
    with a:
        Gear.objects.update(weight=2)
    with b:
        stale.name = "y"
        with pytest.raises(RowChanged):
            stale.save(if_unchanged=True)
    with a:
        assert Gear.objects.get().name == "x"


def test_if_unchanged_of_a_row_that_is_gone(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        gear = Gear.objects.create(name="x")
    with b:
        Gear.objects.all().delete()
    with a:
        with pytest.raises(RowChanged, match="deleted"):
            gear.save(if_unchanged=True)
        assert not Gear.objects.exists()


# Constraints


def test_foreign_keys_are_checked_at_commit_not_before(host: Host) -> None:
    with transaction.atomic():
        book = Book.objects.create(title="x", author_id=77)
        Author.objects.create(pk=77, name="Ann")
    assert Book.objects.get().author.name == "Ann"
    assert book.pk


def test_a_foreign_key_to_nothing_is_an_error_that_leaves_nothing(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a:
        with pytest.raises(IntegrityError), transaction.atomic():
            Tag.objects.create(name="left?")
            Book.objects.create(title="x", author_id=77)
        with pytest.raises(IntegrityError):
            Book.objects.create(title="x", author_id=77)
        assert not Tag.objects.exists()
        assert not Book.objects.exists()
    assert notes(b) == {}


def test_a_parent_with_children_cannot_be_deleted_behind_djangos_back(
    host: Host,
) -> None:
    Book.objects.create(title="x", author=Author.objects.create(name="Ann"))
    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute("DELETE FROM library_author")
    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute("UPDATE library_author SET id = id + 1")
    assert Book.objects.get().author.name == "Ann"


def test_a_child_cannot_be_saved_while_another_host_deletes_its_parent(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a:
        ann = Author.objects.create(name="Ann")
    with a, pytest.raises(IntegrityError), transaction.atomic():
        Book.objects.create(title="x", author=ann)
        with b:
            Author.objects.all().delete()
    with a:
        assert not Book.objects.exists()


def test_rows_that_refer_to_one_another(host: Host) -> None:
    with transaction.atomic():
        Member.objects.create(pk=1, name="a", invited_by_id=2)
        Member.objects.create(pk=2, name="b", invited_by_id=1)
    with transaction.atomic():
        Member.objects.update(invited_by=None)
        Member.objects.all().delete()
    assert not Member.objects.exists()


def test_constraint_checks_disabled(host: Host) -> None:
    with connection.constraint_checks_disabled():
        Book.objects.create(title="x", author_id=77)
    with pytest.raises(IntegrityError, match="library_author.id"):
        connection.check_constraints()
    with pytest.raises(IntegrityError):
        Book.objects.create(title="y", author_id=78)
    with connection.constraint_checks_disabled():
        Author.objects.create(pk=77, name="Ann")
    connection.check_constraints()


@pytest.mark.parametrize("in_a_block", [False, True])
def test_without_constraint_checks_a_delete_takes_nothing_along(
    two: tuple[Host, Host], in_a_block: bool
) -> None:
    # To load a table anew: with foreign keys off SQLite cascades nothing.
    a, b = two
    a.sql("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    a.sql(
        "CREATE TABLE child (id INTEGER PRIMARY KEY, "
        "parent REFERENCES parent (id) ON DELETE CASCADE)"
    )
    a.sql("INSERT INTO parent VALUES (1)")
    a.sql("INSERT INTO child VALUES (5, 1)")
    block = transaction.atomic() if in_a_block else nullcontext()
    with a, connection.constraint_checks_disabled(), block:
        a.sql("DELETE FROM parent")
        a.sql("INSERT INTO parent VALUES (1)")
    assert b.sql("SELECT * FROM child") == [(5, 1)]
    a.sql("DELETE FROM parent")
    assert b.sql("SELECT * FROM child") == []


def test_check_constraints(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        ann = Author.objects.create(name="Ann")
        Book.objects.create(title="x", author=ann, stock=1)
        with pytest.raises(IntegrityError, match="stock_not_negative"):
            Book.objects.update(stock=F("stock") - 2)
    with a, pytest.raises(IntegrityError), transaction.atomic():
        Book.objects.update(stock=F("stock") - 1)
        with b:
            Book.objects.update(stock=F("stock") - 1)
    with a:
        assert Book.objects.get().stock == 0


def test_unique_values_can_be_swapped_in_a_block(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Place.objects.bulk_create(
            [Place(shelf="s", number=n, label=label) for n, label in enumerate("abc")]
        )
    with a, transaction.atomic():
        one, other = Place.objects.filter(label__in="ab").order_by("label")
        one.label, one.number = "tmp", 99
        one.save()
        other.label, other.number = "a", 0
        other.save()
        one.label, one.number = "b", 1
        one.save()
    with b:
        assert list(Place.objects.order_by("pk").values_list("label", "number")) == [
            ("b", 1),
            ("a", 0),
            ("c", 2),
        ]


def test_unique_values_go_round_in_one_commit(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Place.objects.bulk_create(
            [Place(shelf="s", number=n, label=str(n)) for n in range(10)]
        )
    with a, transaction.atomic():
        Place.objects.update(number=F("number") + 100)
        Place.objects.update(number=(F("number") - 99) % 10)
    with b:
        assert list(Place.objects.order_by("pk").values_list("number", flat=True)) == [
            *range(1, 10),
            0,
        ]


def test_a_unique_value_moves_from_a_deleted_row_to_a_new_one(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a:
        Place.objects.create(shelf="s", number=1, label="x")
    with a, transaction.atomic():
        Place.objects.all().delete()
        Place.objects.create(shelf="s", number=1, label="x")
    with b:
        assert Place.objects.get().label == "x"


def test_a_key_that_changes_takes_the_row_along(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        Tag.objects.create(name="old", note="kept")
        Tag.objects.filter(name="old").update(name="new")
        Loan.objects.create(copy=1, day="2026-01-01", reader="r")
        Loan.objects.update(copy=2)
    assert notes(b) == {"new": "kept"}
    with b:
        assert Loan.objects.get().copy == 2


# A block and the others of its host


def test_a_block_does_not_keep_others_from_writing(host: Host) -> None:
    """Neither while it has changed rows, nor while it is slow."""
    with transaction.atomic():
        Tag.objects.create(name="mine")

        with on(host):
            Tag.objects.create(name="other")
            assert Tag.objects.get().name == "other"
    assert notes(host) == {"mine": "", "other": ""}


def test_a_block_in_the_middle_of_another_hosts_blocks(
    two: tuple[Host, Host], bucket: Bucket
) -> None:
    a, b = two
    with a, transaction.atomic():
        Tag.objects.create(name="a1")
        with b, transaction.atomic():
            Tag.objects.create(name="b1")
            with a:
                Tag.objects.create(name="a2")
            Tag.objects.create(name="b2")
        Tag.objects.create(name="a3")
    assert notes(a) == notes(b) == dict.fromkeys(["a1", "a2", "a3", "b1", "b2"], "")
    assert a.dump() == b.dump()
