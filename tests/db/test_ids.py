"""
AUTOINCREMENT ids: never given twice, by whomever.

Blocks take them from chunks that an entry of the log has reserved; outside a
block a live chunk is used up, and else SQLite decides in the commit.
"""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from uuid import uuid4

import pytest
from django.core.management.color import no_style
from django.db import IntegrityError, connection, transaction

from tests.db.hosts import each_on, outcomes
from tests.engine import Bucket, Host, MakeHost, savepoint
from tests.library.models import Author, Book, Member, Patron, Tag
from tests.testapp.models import Gear

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


@pytest.fixture
def two(hosts: MakeHost) -> tuple[Host, Host]:
    """Two hosts that ask the store before they read."""
    a, b = hosts(max_age=0), hosts(max_age=0)
    b.catch_up()
    return a, b


def author(name: str, pk: int | None = None) -> int:
    """The pk of a new author."""
    return Author.objects.create(name=name, pk=pk).pk


def authors(count: int) -> list[int]:
    """The pks of new authors, all made in one block."""
    many = [Author(name=f"{uuid4()}") for _ in range(count)]
    with transaction.atomic():  # Django 6.1 needs none for one statement
        return [one.pk for one in Author.objects.bulk_create(many)]


def sequence(host: Host, table: str = "library_author") -> int:
    """The last id of which SQLite knows."""
    ((number,),) = host.sql("SELECT seq FROM sqlite_sequence WHERE name = %s", table)
    assert isinstance(number, int)
    return number


def test_outside_a_block_ids_have_no_gaps(two: tuple[Host, Host]) -> None:
    a, b = two
    for number in range(1, 7):
        with (a, b)[number % 2]:
            assert author(f"author {number}") == number


def test_blocks_of_two_hosts_never_get_the_same_id(two: tuple[Host, Host]) -> None:
    a, b = two
    with a, transaction.atomic():
        mine = author("a1")
        with b, transaction.atomic():
            theirs = author("b1")
        mine_too = author("a2")
    assert len({mine, theirs, mine_too}) == 3
    with b:
        assert Author.objects.count() == 3


def test_a_chunk_is_reserved_once(host: Host, bucket: Bucket) -> None:
    with transaction.atomic():
        first = author("first")
    assert sequence(host) >= 100
    with bucket.requests() as seen:
        for number in range(99):
            with transaction.atomic():
                assert author(f"author {number}") == first + number + 1
    assert seen == ["PUT log"] * 99


def test_chunks_grow(host: Host) -> None:
    reserved = []
    for _ in range(4):
        with transaction.atomic():
            author("x")
            reserved.append(sequence(host))
            Author.objects.all().delete()
            host.connection.replica.ids.forget()
    sizes = [end - start for start, end in pairwise([0, *reserved])]
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 8 * sizes[0]


def test_outside_a_block_a_live_chunk_is_used(host: Host, bucket: Bucket) -> None:
    with transaction.atomic():
        first = author("in a block")
    with bucket.requests() as seen:
        assert author("outside") == first + 1
    assert seen == ["PUT log"]
    with transaction.atomic():
        assert author("in a block again") == first + 2


def test_a_bulk_create_in_a_block_takes_as_many_as_it_needs(host: Host) -> None:
    with transaction.atomic():
        made = Author.objects.bulk_create([Author(name=f"{n}") for n in range(5000)])
    pks = [one.pk for one in made]
    assert pks == sorted(set(pks))
    with transaction.atomic():
        assert author("next") > pks[-1]


def test_a_bulk_create_of_several_statements_reserves_ids_once(
    host: Host, bucket: Bucket
) -> None:
    many = [Author(name=f"{n}") for n in range(500)]
    with bucket.requests() as seen:
        Author.objects.bulk_create(many, batch_size=100)
    assert seen == ["PUT log"] * 2
    assert [one.pk for one in many] == list(range(1, 501))


def test_the_ids_of_a_bulk_create_count_as_parameters(host: Host) -> None:
    """A statement has no more of them than SQLite takes."""
    assert not Author.objects.exists()  # its connections stay open from now on
    writer, reader = host.connection.replica.writer, connection.connection.reader
    for one in (writer.connection, reader.connection):
        one.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    Author.objects.bulk_create([Author(name=f"{n}") for n in range(1000)])
    assert Author.objects.count() == 1000


def test_who_goes_on_loading_makes_one_put_for_each_batch(
    host: Host, bucket: Bucket
) -> None:
    def load() -> list[str]:
        with bucket.requests() as seen:
            pks.extend(authors(200))
        return seen

    pks: list[int] = []
    puts = [load() for _ in range(12)]
    assert puts == [["PUT log"] * 2] * 2 + [["PUT log"]] * 10
    assert pks == list(range(1, 2401))
    assert author("outside of a block") == 2401


def test_ids_that_a_block_reserves_ahead_are_its_processs_alone(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    pks = []
    for _ in range(8):
        for host in (a, b):
            with host, transaction.atomic():
                pks += authors(60)
    a.catch_up()
    with a:
        assert sorted(pks) == list(
            Author.objects.order_by("pk").values_list("pk", flat=True)
        )
    assert len(set(pks)) == 8 * 2 * 60


def test_a_block_that_fails_to_commit_reserves_nothing(host: Host) -> None:
    for _ in range(2):
        authors(100)
    before = sequence(host)
    with pytest.raises(IntegrityError), transaction.atomic():
        authors(100)
        Book.objects.create(title="of nobody", author_id=0)
    assert sequence(host) == before


def test_explicit_ids_inside_a_chunk_are_skipped(two: tuple[Host, Host]) -> None:
    a, b = two
    with a, transaction.atomic():
        first = author("first")
    with b:
        author("by hand, elsewhere", pk=first + 1)
    a.catch_up()
    with a, transaction.atomic():
        author("by hand, here", pk=first + 3)
        assert author("second") not in range(first, first + 4)
    with b:
        assert Author.objects.count() == 4


def test_an_explicit_id_that_is_taken_meanwhile_is_no_overwrite(
    two: tuple[Host, Host],
) -> None:
    a, b = two
    with a, pytest.raises(IntegrityError), transaction.atomic():
        author("here", pk=7)
        with b:
            author("there", pk=7)
    with a:
        assert Author.objects.get(pk=7).name == "there"


def test_ids_go_on_above_explicit_ones(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        author("by hand", pk=1000)
    with b:
        assert author("next") == 1001
        with transaction.atomic():
            assert author("in a block") == 1002


def test_the_id_of_a_deleted_row_is_not_given_again(two: tuple[Host, Host]) -> None:
    a, b = two
    with a:
        pk = author("gone")
        Author.objects.all().delete()
    with b:
        assert author("next") > pk
    b.connection.rebuild_replica()
    with b:
        Author.objects.all().delete()
        assert author("after a rebuild") > pk + 1


def test_ids_of_a_block_that_was_rolled_back_are_a_gap(host: Host) -> None:
    with transaction.atomic():
        lost = author("lost")
        transaction.set_rollback(True)
    assert author("kept") > lost


def test_ids_of_a_savepoint_that_was_rolled_back(host: Host) -> None:
    with transaction.atomic():
        mark = savepoint()
        lost = author("lost")
        connection.savepoint_rollback(mark)
        assert author("kept") > lost


def test_a_chunk_of_before_a_reset_is_worth_nothing(two: tuple[Host, Host]) -> None:
    a, b = two
    with a, transaction.atomic():
        for name in "abcde":  # from a chunk that has more
            author(name)
    with b:
        connection.ops.execute_sql_flush(
            connection.ops.sql_flush(
                no_style(), ["library_author"], reset_sequences=True
            )
        )
        assert author("first again") == 1
    with a:
        assert author("second") == 2
        with transaction.atomic():
            assert author("third") == 3


def test_a_host_that_starts_again_begins_above_its_chunk(hosts: MakeHost) -> None:
    with hosts() as host:
        with transaction.atomic():
            author("first")
        end = sequence(host)
        host.connection.replica.ids.forget()
        with transaction.atomic():
            assert author("second") == end + 1


def test_every_table_has_chunks_of_its_own(host: Host) -> None:
    with transaction.atomic():
        ann = Author.objects.create(name="Ann")
        book = Book.objects.create(title="x", author=ann)
        assert (ann.pk, book.pk) == (1, 1)


def test_a_child_table_takes_its_id_from_its_parent(two: tuple[Host, Host]) -> None:
    a, b = two
    with a, transaction.atomic():
        patron = Patron.objects.create(name="Ann")
    with b:
        assert Member.objects.get().pk == Patron.objects.get().pk == patron.pk


def test_keys_that_are_no_integers_need_no_chunk(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen, transaction.atomic():
        Tag.objects.create(name="a")
        Gear.objects.create(name="x")
    assert seen == ["PUT log"]


def test_threads_and_hosts_get_no_id_twice(hosts: MakeHost, host: Host) -> None:
    other = hosts()
    other.catch_up()
    counter = iter(range(10_000))

    def in_a_block() -> list[int]:
        with transaction.atomic():
            return [author(f"author {next(counter)}") for _ in range(3)]

    def alone() -> list[int]:
        return [author(f"author {next(counter)}")]

    jobs = [
        job
        for one in (host, other)
        for what in (in_a_block, alone)
        for job in each_on(one, what, 4)
    ]
    found = outcomes(jobs)
    assert [one for one in found if isinstance(one, BaseException)] == []
    pks = [pk for one in found for pk in one]  # type: ignore[union-attr]
    assert len(set(pks)) == len(pks) == 2 * (4 * 3 + 4)
    host.catch_up()
    assert Author.objects.count() == len(pks)


def test_sequences_are_the_same_everywhere(two: tuple[Host, Host]) -> None:
    a, b = two
    with a, transaction.atomic():
        author("a")
    with b:
        author("b")
        Book.objects.create(pk=50, title="x", author=Author.objects.get(name="a"))
    a.catch_up()
    assert a.dump() == b.dump()
    assert sequence(a, "library_book") == 50
