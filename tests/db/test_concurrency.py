"""Threads of one host, and hosts of one process, that write at once."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import F

from s3cache.exceptions import TransactionConflict
from s3cache.log.effects import HoldRebuildLock, Now, Steps, Where
from s3cache.replica import replica as replica_module
from s3cache.transactions import retry_on_conflict, serializable
from tests.db.hosts import Turns, each_on, on, outcomes, together
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Book, Place, Tag


def increment(name: str = "counter") -> int:
    return Author.objects.filter(name=name).update(born=F("born") + 1)


@pytest.fixture
def counter(host: Host) -> Author:
    return Author.objects.create(name="counter", born=0)


def rebuilt(hosts: MakeHost) -> dict[str, list[object]]:
    """What a new replica, made from the log alone, holds."""
    new = hosts()
    new.catch_up()
    return new.dump()


# Autocommit


def test_fifty_threads_increment_one_row(
    host: Host, counter: Author, bucket: Bucket
) -> None:
    with bucket.requests() as seen:
        assert together(each_on(host, increment, 50)) == [1] * 50
    counter.refresh_from_db()
    assert counter.born == 50
    assert seen.count("PUT log") <= 5


def test_fifty_threads_on_two_hosts_increment_one_row(
    hosts: MakeHost, host: Host, counter: Author
) -> None:
    other = hosts()
    jobs = each_on(host, increment, 25) + each_on(other, increment, 25)
    assert together(jobs) == [1] * 50
    for one in (host, other):
        one.catch_up()
        assert one.sql("SELECT born FROM library_author") == [(50,)]
    assert host.dump() == other.dump() == rebuilt(hosts)


def test_of_inserts_of_one_unique_value_one_wins(hosts: MakeHost, host: Host) -> None:
    other = hosts()

    def insert() -> int:
        return Author.objects.create(name="the one").pk

    found = outcomes(each_on(host, insert, 8) + each_on(other, insert, 8))
    assert Counter(map(type, found)) == {int: 1, IntegrityError: 15}
    other.catch_up()
    assert other.sql("SELECT count(*) FROM library_author") == [(1,)]


def test_get_or_create_gives_the_one_row_to_all(hosts: MakeHost, host: Host) -> None:
    other = hosts()
    other.catch_up()

    def get_or_create() -> tuple[int, bool]:
        author, created = Author.objects.get_or_create(name="the one")
        return author.pk, created

    found = together(each_on(host, get_or_create, 8) + each_on(other, get_or_create, 8))
    assert len({pk for pk, _created in found}) == 1
    assert [created for _pk, created in found].count(True) == 1


def test_update_or_create_loses_no_update(hosts: MakeHost, host: Host) -> None:
    def count() -> None:
        Author.objects.update_or_create(
            name="counter",
            defaults={"born": F("born") + 1},
            create_defaults={"name": "counter", "born": 1},
        )

    together(each_on(host, count, 16))
    assert Author.objects.get(name="counter").born == 16


def test_an_error_of_one_caller_is_nobody_elses(host: Host) -> None:
    Author.objects.create(name="taken")

    def insert(name: str) -> str:
        with on(host):
            return Author.objects.create(name=name).name

    names = [f"author {n}" if n % 2 else "taken" for n in range(32)]
    found = outcomes([lambda name=name: insert(name) for name in names])  # type: ignore[misc]
    for name, outcome in zip(names, found, strict=True):
        if name == "taken":
            assert isinstance(outcome, IntegrityError)
        else:
            assert outcome == name
    assert Author.objects.count() == 17


def test_a_statement_that_ends_the_transaction_is_nobody_elses_error(
    host: Host,
) -> None:
    """INSERT OR ROLLBACK takes back more than its own savepoint."""
    Author.objects.create(name="taken")

    def rollback() -> None:
        with on(host) as wrapper, wrapper.cursor() as cursor:
            cursor.execute(
                "INSERT OR ROLLBACK INTO library_author (name, born) "
                "VALUES ('taken', 1)"
            )

    def insert() -> object:
        with on(host):
            return Tag.objects.bulk_create([Tag(name=f"{random.random()}")])[0].pk

    found = outcomes([rollback, insert] * 8)
    assert [type(error) for error in found[::2]] == [IntegrityError] * 8
    assert not [error for error in found[1::2] if isinstance(error, Exception)]
    assert Tag.objects.count() == 8


def test_what_callers_in_one_batch_see_of_each_other(host: Host) -> None:
    """Unique ids, and each of them told once."""

    def insert() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO library_author (name, born) "
                "SELECT 'author ' || count(*), 0 FROM library_author RETURNING id"
            )
            return int(cursor.fetchone()[0])

    assert len(set(together(each_on(host, insert, 30)))) == 30
    names = Author.objects.values_list("name", flat=True)
    assert sorted(names) == sorted(f"author {n}" for n in range(30))


# Blocks


def test_read_modify_write_in_blocks_loses_nothing(host: Host, counter: Author) -> None:
    def add_one() -> None:
        with transaction.atomic():
            author = Author.objects.get(pk=counter.pk)
            author.born += 1
            author.save()

    found = outcomes(each_on(host, add_one, 16))
    conflicts = [one for one in found if one is not None]
    assert {type(one) for one in conflicts} <= {TransactionConflict}
    counter.refresh_from_db()
    assert counter.born == 16 - len(conflicts) > 0


def test_select_for_update_makes_all_of_them_succeed(
    host: Host, counter: Author, hosts: MakeHost
) -> None:
    def add_one() -> None:
        with transaction.atomic():
            author = Author.objects.select_for_update().get(pk=counter.pk)
            author.born += 1
            author.save()

    together(each_on(host, add_one, 16))
    counter.refresh_from_db()
    assert counter.born == 16
    assert host.dump() == rebuilt(hosts)


def test_retry_on_conflict_makes_all_of_them_succeed_on_two_hosts(
    hosts: MakeHost, host: Host, counter: Author
) -> None:
    other = hosts(max_age=0)

    @retry_on_conflict(attempts=50, using="default")
    def add_one() -> None:
        author = Author.objects.get(pk=counter.pk)
        author.born += 1
        author.save()

    together(each_on(host, add_one, 5) + each_on(other, add_one, 5))
    host.catch_up()
    counter.refresh_from_db()
    assert counter.born == 10


def test_a_block_that_only_increments_needs_no_retry(
    hosts: MakeHost, host: Host, counter: Author
) -> None:
    """A replay decides: the statements say the same on the newer state."""
    other = hosts()

    def add_one() -> None:
        with transaction.atomic():
            assert increment() == 1
            Tag.objects.create(name=f"{random.random()}")

    together(each_on(host, add_one, 10) + each_on(other, add_one, 10))
    host.catch_up()
    counter.refresh_from_db()
    assert counter.born == Tag.objects.count() == 20


def test_a_block_may_wait_for_another_threads_write(host: Host) -> None:
    turns = Turns()

    def waits() -> int:
        with on(host), transaction.atomic():
            Tag.objects.create(name="before")
            turns.say("written")
            turns.wait("other is done")
            return Tag.objects.count()

    def writes() -> int:
        with on(host):
            turns.wait("written")
            Tag.objects.create(name="other")
            with transaction.atomic():
                Tag.objects.create(name="other block")
            found = Tag.objects.count()
            turns.say("other is done")
            return found

    assert together([waits, writes]) == [3, 2]


def test_a_block_with_a_snapshot_may_wait_for_another_threads_write(
    host: Host,
) -> None:
    turns = Turns()

    def waits() -> list[int]:
        with on(host), transaction.atomic():
            found = [Tag.objects.count()]
            turns.say("read")
            turns.wait("other is done")
            found.append(Tag.objects.count())
            Tag.objects.create(name="mine")
            found.append(Tag.objects.count())
            return found

    def writes() -> list[int]:
        with on(host):
            turns.wait("read")
            Tag.objects.create(name="other")
            found = [Tag.objects.count()]
            turns.say("other is done")
            return found

    assert outcomes([waits, writes])[1] == [1]
    names = set(Tag.objects.values_list("name", flat=True))
    # What the block has read is not the newest, but nothing of it was changed
    # by others, so it is committed.
    assert names == {"mine", "other"}


def test_a_block_that_holds_rows_waits_for_a_thread_that_does_not(
    host: Host, counter: Author
) -> None:
    turns = Turns()

    def holds() -> None:
        with on(host), transaction.atomic():
            author = Author.objects.select_for_update().get(pk=counter.pk)
            turns.say("held")
            turns.wait("other is done")
            author.born += 1
            author.save()

    def writes() -> None:
        with on(host):
            turns.wait("held")
            Tag.objects.create(name="other")
            turns.say("other is done")

    together([holds, writes])
    counter.refresh_from_db()
    assert counter.born == 1


def test_nowait_does_not_wait(host: Host, counter: Author) -> None:
    turns = Turns()

    def holds() -> None:
        with on(host), transaction.atomic():
            Author.objects.select_for_update().get(pk=counter.pk)
            turns.say("held")
            turns.wait("tried")

    def tries() -> None:
        with on(host):
            turns.wait("held")
            try:
                with transaction.atomic():
                    Author.objects.select_for_update(nowait=True).get(pk=counter.pk)
            finally:
                turns.say("tried")

    held, tried = outcomes([holds, tries])
    assert held is None
    assert isinstance(tried, OperationalError)
    assert "select_for_update" in str(tried)
    with on(host), transaction.atomic():  # the turn is free again
        Author.objects.select_for_update(nowait=True).get(pk=counter.pk)


def test_the_turn_is_given_back_however_the_block_ends(
    host: Host, counter: Author
) -> None:
    def hold() -> Author:
        return Author.objects.select_for_update(nowait=True).get(pk=counter.pk)

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        hold()
        raise ZeroDivisionError
    with transaction.atomic():
        hold()
        transaction.set_rollback(True)
    with pytest.raises(IntegrityError), transaction.atomic():
        hold()
        Author.objects.create(name="counter")
    with on(host):  # closed within the block
        atomic = transaction.atomic()
        atomic.__enter__()
        hold()
        connection.close()
        atomic.__exit__(None, None, None)
    with on(host), transaction.atomic():
        hold()


def test_no_block_sees_another_ones_rows(host: Host) -> None:
    turns = Turns()

    def writes() -> None:
        with on(host), transaction.atomic():
            Tag.objects.create(name="mine")
            Author.objects.create(name="mine")
            turns.say("written")
            turns.wait("looked")

    def looks() -> list[int]:
        with on(host):
            turns.wait("written")
            found = [Tag.objects.count()]
            with transaction.atomic():
                found.append(Tag.objects.count())
                Tag.objects.create(name="yours")
                found.append(Tag.objects.count())
                found.append(Author.objects.count())
            turns.say("looked")
            return found

    assert together([writes, looks])[1] == [0, 0, 1, 0]
    assert Tag.objects.count() == 2


def test_blocks_of_many_threads_that_write_in_turns(host: Host) -> None:
    """Each takes the writing connection from the others at each statement."""

    def block(number: int) -> list[int]:
        with on(host), transaction.atomic():
            seen = []
            for step in range(5):
                Tag.objects.create(name=f"{number} {step}", note=str(number))
                seen.append(Tag.objects.filter(note=str(number)).count())
            return seen

    jobs = [lambda n=n: block(n) for n in range(8)]
    assert together(jobs) == [[1, 2, 3, 4, 5]] * 8
    assert Tag.objects.count() == 40


def test_a_conflict_leaves_nothing_behind(host: Host, counter: Author) -> None:
    before = host.dump()

    def interfere() -> None:
        with on(host):
            increment()

    with pytest.raises(TransactionConflict), transaction.atomic():
        author = Author.objects.get(pk=counter.pk)
        Tag.objects.create(name="left behind")
        together([interfere])
        author.born += 10
        author.save()
    assert not Tag.objects.exists()
    counter.refresh_from_db()
    assert counter.born == 1
    increment()  # and the host goes on
    assert set(host.dump()) == set(before)


def test_a_block_that_met_a_conflict_cannot_be_committed_in_part(
    host: Host, counter: Author
) -> None:
    """Python that swallows the conflict must not commit the rest alone."""

    def interfere() -> None:
        with on(host):
            increment()

    with pytest.raises(TransactionConflict), transaction.atomic():
        author = Author.objects.get(pk=counter.pk)
        author.born += 10
        author.save()
        together([interfere])
        with connection.cursor() as cursor:
            for name in ("first", "second"):
                try:
                    cursor.execute("INSERT INTO library_tag VALUES (%s, '')", [name])
                except OperationalError:
                    pass
    assert not Tag.objects.exists()


def test_a_conflict_in_an_inner_block_is_not_lost(host: Host, counter: Author) -> None:
    def interfere() -> None:
        with on(host):
            increment()

    with pytest.raises(TransactionConflict), transaction.atomic():
        author = Author.objects.get(pk=counter.pk)
        author.born += 10
        author.save()
        together([interfere])
        try:
            with transaction.atomic():
                Tag.objects.create(name="inner")
        except OperationalError:
            pass
    assert not Tag.objects.exists()


def test_a_clash_that_a_replay_meets_is_not_taken_for_another_statements(
    host: Host,
) -> None:
    """A name that was free is taken when the block is done again."""

    def interfere() -> None:
        with on(host):
            Author.objects.create(name="unique", born=1)
            Author.objects.filter(name="shared").update(born=F("born") + 1)

    Author.objects.create(name="shared", born=0)
    with pytest.raises((IntegrityError, TransactionConflict)), transaction.atomic():
        Author.objects.create(name="unique", born=2)
        Author.objects.filter(name="shared").update(born=F("born") + 1)
        together([interfere])
        try:
            with transaction.atomic():
                Author.objects.create(name="another")
        except IntegrityError:
            pass  # not because of "another"
    assert set(Author.objects.values_list("name", "born")) == {
        ("unique", 1),
        ("shared", 1),
    }


def test_a_clash_in_an_inner_block_is_found_at_the_commit(
    hosts: MakeHost, host: Host
) -> None:
    """An IntegrityError out of place would be retried by nobody."""
    other = hosts()
    other.catch_up()
    Author.objects.create(name="shared", born=1)

    @retry_on_conflict(using="default")
    def block() -> bool:
        Tag.objects.create(name=f"{random.random()}")
        _author, created = Author.objects.get_or_create(name="shared")
        return created

    with on(other):
        assert block() is False
    host.catch_up()
    assert Tag.objects.count() == Author.objects.count() == 1


def test_serializable_blocks_allow_no_write_skew(host: Host) -> None:
    Author.objects.bulk_create([Author(name="a", born=1), Author(name="b", born=1)])
    turns = Turns()

    def take(mine: str, first: str, second: str) -> None:
        with on(host), serializable("default"):
            if sum(Author.objects.values_list("born", flat=True)) == 2:
                turns.say(first)
                turns.wait(second)
                Author.objects.filter(name=mine).update(born=0)

    found = outcomes([lambda: take("a", "1", "2"), lambda: take("b", "2", "1")])
    assert Counter(map(type, found)) == {type(None): 1, TransactionConflict: 1}
    assert sum(Author.objects.values_list("born", flat=True)) == 1


def test_foreign_keys_hold_against_concurrent_deletes(
    hosts: MakeHost, host: Host
) -> None:
    other = hosts()
    for n in range(6):
        Author.objects.create(name=f"author {n}")
    other.catch_up()

    def add_book(number: int) -> None:
        with on(host), transaction.atomic():
            author = Author.objects.get(name=f"author {number}")
            Book.objects.create(title="new", author=author)

    def remove(number: int) -> None:
        with on(other):
            Author.objects.get(name=f"author {number}").delete()

    jobs = [lambda n=n: add_book(n) for n in range(6)]
    jobs += [lambda n=n: remove(n) for n in range(6)]
    found = outcomes(jobs)
    errors = {type(one) for one in found if one is not None}
    assert errors <= {IntegrityError, TransactionConflict, Author.DoesNotExist}
    for one in (host, other):
        one.catch_up()
    orphans = (
        "SELECT * FROM library_book "
        "WHERE author_id NOT IN (SELECT id FROM library_author)"
    )
    assert host.sql(orphans) == []
    assert host.dump() == other.dump() == rebuilt(hosts)


# A replica that is behind


def test_a_write_that_finds_nothing_asks_first(hosts: MakeHost, host: Host) -> None:
    other = hosts()
    other.catch_up()
    Author.objects.create(name="new", born=1)
    with on(other):
        assert Author.objects.filter(name="new").update(born=2) == 1
    host.catch_up()
    assert Author.objects.get(name="new").born == 2


def test_a_delete_that_finds_nothing_asks_first(hosts: MakeHost, host: Host) -> None:
    other = hosts()
    other.catch_up()
    Place.objects.create(shelf="new", number=1)
    with on(other):
        assert Place.objects.filter(shelf="new").delete()[0] == 1


def test_a_clash_asks_first(hosts: MakeHost, host: Host) -> None:
    Author.objects.create(name="taken")
    other = hosts()
    other.catch_up()
    Author.objects.get(name="taken").delete()
    with on(other):
        Author.objects.create(name="taken")
    host.catch_up()
    assert Author.objects.filter(name="taken").count() == 1


def test_a_clash_in_a_block_asks_first(hosts: MakeHost, host: Host) -> None:
    Author.objects.create(name="taken")
    other = hosts()
    other.catch_up()
    Author.objects.get(name="taken").delete()
    with on(other), transaction.atomic():
        Author.objects.create(name="taken")
    host.catch_up()
    assert Author.objects.filter(name="taken").count() == 1


def test_a_write_in_a_block_that_finds_nothing_asks_first(
    hosts: MakeHost, host: Host
) -> None:
    other = hosts()
    other.catch_up()
    Author.objects.create(name="new", born=1)
    with on(other), transaction.atomic():
        assert Author.objects.filter(name="new").update(born=2) == 1


def test_a_save_of_a_row_that_another_host_deleted(hosts: MakeHost, host: Host) -> None:
    """Django inserts it again, as on any database."""
    author = Author.objects.create(name="gone")
    other = hosts()
    other.catch_up()
    Author.objects.filter(pk=author.pk).delete()
    with on(other):
        author.save()
        with (
            pytest.raises(transaction.TransactionManagementError),
            transaction.atomic(),
        ):
            Author.objects.filter(pk=author.pk).delete()
            with pytest.raises(Author.DoesNotExist):
                Author.objects.get(pk=author.pk)
            raise transaction.TransactionManagementError
    host.catch_up()
    assert Author.objects.filter(name="gone").count() == 1


# The replica


def test_who_rebuilds_does_not_wait_for_who_opens(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one waits for the lock of rebuilding: the replica was deleted."""
    Author.objects.create(name="Ada")
    monkeypatch.setattr(replica_module, "PATIENCE", 0.05)
    replica = host.connection.replica
    opened = replica._open
    other = Thread(target=replica.rebuild)

    def rebuild() -> Steps[None]:
        now: float = yield Now()
        with (yield HoldRebuildLock(now + 20.0)):
            other.start()
            while replica._open is opened or replica._open is None:
                time.sleep(0.001)
            yield Where()

    with pytest.raises(OperationalError, match="database is locked: .* made anew"):
        replica.run(rebuild())
    other.join()
    assert Author.objects.get().name == "Ada"


def test_a_schema_change_that_waits_while_the_replica_is_deleted(
    hosts: MakeHost, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made on what came into its place, and others find it there.

    On a connection of its own it would keep SQLite's write lock from who
    follows other hosts, who would keep the file from it.
    """
    Author.objects.create(name="Ada")
    replica = host.connection.replica
    block, new = replica.new_block(replica.new_reader()), replica.new_reader()
    names = "SELECT name FROM library_author ORDER BY name"
    acquire = replica.side.commit.acquire

    def wait(timeout: float) -> None:
        for suffix in ("", "-wal", "-shm"):
            replica.path.with_name(f"{replica.path.name}{suffix}").unlink()
        assert new.execute(names, ()).rows == [("Ada",)]
        acquire(timeout)

    with monkeypatch.context() as patch:
        patch.setattr(replica.side.commit, "acquire", wait)
        block.execute("CREATE TABLE one (n INT)", ())
    with hosts():
        Author.objects.create(name="Bea")
    monkeypatch.setattr(replica.writer, "_timeout", 0.2)
    with ThreadPoolExecutor(1) as other:
        followed = other.submit(replica.advance, replica.position().number + 1)
        with pytest.raises(OperationalError, match="another thread changes the schema"):
            followed.result()
    block.commit()
    assert new.execute(names, ()).rows == [("Ada",), ("Bea",)]
    assert new.execute("SELECT n FROM one", ()).rows == []
    replica.give_back(new)
