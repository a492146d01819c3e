"""A replica that is deleted, replaced or closed while somebody is at it.

Whatever was in use before is left for good: it opens nothing again, says
nothing of the file that came into its place, and keeps nobody waiting.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from s3cache.db import behind as behind_module
from s3cache.log.catch_up import rebuild
from s3cache.log.effects import Steps, Where
from s3cache.replica import clock
from s3cache.replica.connections import Registration
from s3cache.replica.file import FileLeft
from s3cache.replica.performer import Performer
from s3cache.replica.replica import Replica, forget_replica
from s3cache.transactions import write_behind
from tests.db.hosts import HANGS_AFTER, MakeProcess, all_closed_after, on, outcomes
from tests.engine import Host, MakeHost
from tests.library.models import Author, Tag

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

#: Seconds for which one thread lets another one come between.
A_MOMENT = 0.2


def names() -> list[str]:
    return list(Author.objects.order_by("name").values_list("name", flat=True))


def delete(replica: Replica) -> None:
    for suffix in ("", "-wal", "-shm"):
        replica.path.with_name(f"{replica.path.name}{suffix}").unlink(missing_ok=True)


def in_thread(job: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    return thread


def read_in_thread(host: Host) -> threading.Thread:
    """Read, which opens anew what another process has made anew."""

    def read() -> None:
        with on(host):
            names()

    return in_thread(read)


def end_of(thread: threading.Thread) -> None:
    thread.join(HANGS_AFTER)
    assert not thread.is_alive(), "it waits for ever"


@contextmanager
def before(what: object, name: str, act: Callable[[], object]) -> Iterator[None]:
    """Have ``act`` called once, before ``what`` does ``name``."""
    done = getattr(what, name)

    def late(*args: Any, **kwargs: Any) -> Any:
        patch.undo()
        act()
        return done(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(what, name, late)
        yield


# What another process has made anew


def test_a_commit_whose_file_was_left_is_seen(
    host: Host, processes: MakeProcess
) -> None:
    """What is in its place lacks it, and does not pass for one that has it."""
    Author.objects.create(name="Ada")
    replica = host.connection.replica
    other = processes(replica.path.stem)

    def make_anew() -> None:
        delete(replica)
        assert other.call(names) == ["Ada"]

    def read() -> None:
        read_in_thread(host).join(A_MOMENT)

    with (
        before(replica.store, "put", make_anew),
        before(Performer, "_count_changes", read),
    ):
        Author.objects.create(name="Bea")
    assert names() == ["Ada", "Bea"]
    assert other.call(names) == ["Ada", "Bea"]
    assert replica.side.number == replica.position().number


def test_what_was_learned_of_a_file_that_was_left_is_learned_anew(
    hosts: MakeHost, host: Host, processes: MakeProcess
) -> None:
    Author.objects.create(name="Ada")
    elsewhere = hosts()
    for one in (host, elsewhere):
        one.catch_up()  # which compares the log with the replica, once in a while
    replica = host.connection.replica
    other = processes(replica.path.stem)

    def make_anew() -> None:
        delete(replica)
        assert other.call(names) == ["Ada"]
        with elsewhere:
            Author.objects.create(name="Bea")

    with (
        before(replica.store, "get", make_anew),
        before(Performer, "_proved", lambda: end_of(read_in_thread(host))),
    ):
        host.catch_up()
    assert names() == ["Ada", "Bea"]


def test_a_rebuild_of_a_file_that_was_left(host: Host, processes: MakeProcess) -> None:
    """Its content is not taken for that of the file in its place."""
    Author.objects.create(name="Ada")
    replica = host.connection.replica
    other = processes(replica.path.stem)
    delete(replica)
    assert other.call(names) == ["Ada"]
    with pytest.raises(OperationalError, match="was deleted or closed"):
        replica.run(rebuild(replica.position(), ()))
    Author.objects.create(name="Bea")
    assert names() == ["Ada", "Bea"]
    assert other.call(names) == ["Ada", "Bea"]


# What is left


def test_what_was_left_leaves_nothing_open(host: Host) -> None:
    Author.objects.create(name="Ada")
    replica = host.connection.replica
    file, analyser = replica.file, replica.analyser

    def protocol() -> Steps[tuple[int, int]]:
        first = yield Where()
        delete(replica)
        replica.side.reset(0.0)
        end_of(read_in_thread(host))
        second = yield Where()
        return first.number, second.number

    with all_closed_after(replica.path):
        first, second = replica.run(protocol())
        with pytest.raises(FileLeft):
            file.position()
        assert analyser.access("DELETE FROM library_author", ()).writes
        host.restart()
    assert first == second


def test_who_waits_for_a_file_gets_the_one_in_its_place(host: Host) -> None:
    replica = host.connection.replica
    position = replica.position()

    def leave() -> None:
        delete(replica)
        replica.side.reset(0.0)
        end_of(read_in_thread(host))

    with before(replica.file, "position", leave):
        assert replica.position().number == position.number


def test_constraints_of_a_block_that_has_to_be_done_again(
    hosts: MakeHost, host: Host
) -> None:
    """It is done on the file that is there now, and its writer is held."""
    ada = Author.objects.create(name="Ada")
    replica = host.connection.replica
    with transaction.atomic():
        Author.objects.filter(pk=ada.pk).update(born=1)
        Tag.objects.create(name="new")
        with hosts():
            Author.objects.filter(pk=ada.pk).update(name="Eve")
        assert replica.close_if_idle()  # as for a fork in another thread
        replica.catch_up()
        delete(replica)
        connection.check_constraints()
    assert Author.objects.get().name == "Eve"
    assert Author.objects.get().born == 1


# Who waits for whom


def test_a_replica_that_is_closed_while_it_is_opened(host: Host) -> None:
    replica = host.connection.replica
    replica.close()
    closing_it: list[threading.Thread] = []

    def close() -> None:
        closing_it.append(in_thread(replica.close))
        closing_it[0].join(A_MOMENT)

    with before(replica, "_make_current", close):
        end_of(in_thread(replica.position))
    end_of(closing_it[0])


def test_a_replica_that_is_opened_while_it_is_closed_for_good(host: Host) -> None:
    Author.objects.create(name="Ada")
    replica = host.connection.replica
    host.connection.close()
    with before(Replica, "retire", lambda: outcomes([replica.position])):
        forget_replica(replica.path)
    assert not replica.is_open


def test_a_rebuild_does_not_wait_for_ever_for_a_writer(host: Host) -> None:
    """Who changes the schema in another process may wait for the rebuild."""
    replica = host.connection.replica
    replica.file.execute("PRAGMA busy_timeout = 10", ())
    with (
        closing(sqlite3.connect(replica.path, isolation_level=None)) as other,
        all_closed_after(replica.path),
    ):
        other.execute("BEGIN IMMEDIATE")
        (outcome,) = outcomes([lambda: replica.run(rebuild(replica.position(), ()))])
    assert isinstance(outcome, sqlite3.OperationalError)
    assert "locked" in str(outcome)
    assert not list(replica.path.parent.glob("*-new-*"))


def test_a_rebuild_does_not_wait_for_a_process_that_opens(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with all closed, so that nobody here could read."""
    replica = host.connection.replica
    monkeypatch.setattr(replica.side, "is_sole_user", lambda: False)
    with replica.side.opening.held(0.0):
        assert outcomes([replica._delete]) == [False]


def test_a_schema_change_in_whose_thread_a_deleted_replica_is_read(
    host: Host,
) -> None:
    """Its writer is not closed under it."""
    Author.objects.create(name="Ada")
    replica = host.connection.replica
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE one (n INT)")
        delete(replica)
        with (
            closing(replica.new_reader()) as reader,
            pytest.raises(OperationalError, match="was deleted or closed"),
        ):
            reader.execute("SELECT 1", ())
        cursor.execute("INSERT INTO one VALUES (1)")
    assert names() == ["Ada"]
    assert host.sql("SELECT n FROM one") == [(1,)]


def test_reads_do_not_wait_again_for_as_long_as_they_have_waited(
    hosts: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For who changes the schema in another process, or for the store."""
    with hosts(max_age=0.0) as host:
        Author.objects.create(name="Ada")
        now, asked = clock.now, []
        passed = [0.0]
        monkeypatch.setattr(clock, "now", lambda: now() + passed[0])

        def wait_in_vain() -> None:
            asked.append(passed[0])
            passed[0] += 20.0
            raise OperationalError("database is locked")

        monkeypatch.setattr(host.connection.replica, "catch_up", wait_in_vain)
        for _ in range(24):
            assert names() == ["Ada"]
            passed[0] += 1.0
    assert len(asked) == 2


# Who comes at the same time


def test_threads_that_come_first_share_one_outbox(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = host.connection.replica
    behind_module.forget_behind(replica.path)
    both = threading.Barrier(2)

    class Late(behind_module.Behind):
        def __init__(self, replica: Replica) -> None:
            with suppress(threading.BrokenBarrierError):
                both.wait(A_MOMENT)
            super().__init__(replica)

    monkeypatch.setattr(behind_module, "Behind", Late)
    one, two = outcomes([partial(behind_module.behind_of, replica)] * 2)
    assert one is two


def test_a_function_that_is_registered_while_a_connection_is_opened(
    host: Host,
) -> None:
    replica = host.connection.replica

    def function(name: str) -> Registration:
        return Registration("create_function", (name, 0, lambda: name), {})

    class Late(Registration):
        def on(self, connection: sqlite3.Connection) -> None:
            replica.register(function("two"))
            super().on(connection)

    replica.close()
    replica.register(Late(*vars(function("one")).values()))
    reader = replica.new_reader()
    assert reader.execute("SELECT one()", ()).rows == [("one",)]
    replica.give_back(reader)


# Who comes later


def test_an_outbox_is_sent_though_the_idle_replica_was_deleted(host: Host) -> None:
    """By a process that does nothing else, when it tries again."""
    behind, replica = host.connection.behind, host.connection.replica
    with write_behind():
        Tag.objects.create(name="waits")
    host.connection.close()
    with replica.side.flushing.held(HANGS_AFTER):
        assert replica.close_if_idle()
        delete(replica)
    with suppress(OperationalError, sqlite3.OperationalError):
        behind.send()
    behind.send()
    assert not behind.outbox.newest()
    assert Tag.objects.get().name == "waits"
