"""How old an answer may be, and what happens when the store is silent."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from s3cache.exceptions import (
    LogDiverged,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from s3cache.replica import connections
from s3cache.stores import DirectoryStore
from s3cache.stores.base import Answer
from tests.db.hosts import (
    HANGS_AFTER,
    FaultyStore,
    Turns,
    each_on,
    first,
    on,
    outcomes,
    then,
    together,
)
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Tag
from tests.testapp.models import Gear

directory = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


@contextmanager
def store_down(status: int = 503) -> Iterator[list[str]]:
    """Have every directory store answer with an error; the keys asked for."""
    asked: list[str] = []

    def down(self: DirectoryStore, key: str, *args: object) -> Answer:
        asked.append(key)
        return Answer(status, message="down")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_get", "_put", "_list", "_delete"):
            patch.setattr(DirectoryStore, name, down)
        yield asked


def names(host: Host) -> list[str]:
    """The tags that the host reads."""
    with host:
        return [tag.name for tag in Tag.objects.order_by("name")]


def write(host: Host, name: str) -> None:
    """Add a tag."""
    with host:
        Tag.objects.create(name=name)


# max_age


def test_what_another_host_wrote_is_seen_after_max_age(hosts: MakeHost) -> None:
    a, b = hosts(), hosts(max_age=60)
    assert names(b) == []
    write(a, "a")
    assert names(b) == []
    b.pass_time(50)
    assert names(b) == []
    b.pass_time(11)
    assert names(b) == ["a"]


def test_max_age_0_sees_every_commit_that_has_returned(hosts: MakeHost) -> None:
    a, b = hosts(max_age=0), hosts(max_age=0)
    for number in range(5):
        write((a, b)[number % 2], str(number))
        assert names(a) == names(b) == [str(n) for n in range(number + 1)]


@directory
def test_reads_that_wait_with_max_age_0_share_the_next_answer(
    hosts: MakeHost, faulty: FaultyStore
) -> None:
    """Instead of asking in turn, which takes as many times as long."""
    slow = hosts(max_age=0, storage="faulty")
    assert names(slow) == []
    asked: list[float] = []

    def answer_late() -> None:
        asked.append(time.monotonic())
        time.sleep(0.2)

    faulty.on("GET", "_log/", then(answer_late))
    assert together(each_on(slow, Tag.objects.count, 20)) == [0] * 20
    assert len(asked) < 10


@directory
def test_no_read_shares_an_answer_from_before_it_came(
    hosts: MakeHost, faulty: FaultyStore
) -> None:
    a, b = hosts(), hosts(max_age=0, storage="faulty")
    assert names(b) == []
    turns = Turns()

    def answered() -> None:
        turns.say("the log is empty")
        turns.wait("somebody else reads")

    faulty.on("GET", "_log/", then(answered), times=1)

    def early() -> int:
        with on(b):
            return Tag.objects.count()

    def late() -> int:
        turns.wait("the log is empty")
        with on(a):
            Tag.objects.create(name="a")
        with on(b):
            turns.say("somebody else reads")
            return Tag.objects.count()

    assert together([early, late])[1] == 1


def test_own_writes_are_seen_at_once(host: Host) -> None:
    write(host, "a")
    assert names(host) == ["a"]


@directory
def test_the_store_is_asked_in_the_background_before_max_age_is_over(
    hosts: MakeHost, faulty: FaultyStore
) -> None:
    a, b = hosts(), hosts(max_age=60, storage="faulty")
    assert names(b) == []
    write(a, "a")
    b.pass_time(55)
    turns = Turns()
    faulty.on("GET", "_log/", first(lambda: turns.wait("the read is done")))
    assert names(b) == []  # did not wait
    turns.say("the read is done")
    deadline = time.monotonic() + 10
    while names(b) == [] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert names(b) == ["a"]


@directory
def test_all_connections_of_a_host_share_what_it_knows(
    hosts: MakeHost, bucket: Bucket
) -> None:
    host = hosts(max_age=60)
    assert names(host) == []
    with bucket.requests() as seen, on(host):
        assert not Tag.objects.exists()
    assert seen == []


# fresh() and catch_up()


def test_fresh_sees_every_commit_whatever_max_age(hosts: MakeHost) -> None:
    a, b = hosts(), hosts()
    b.catch_up()
    with a:
        Gear.objects.create(name="x")
    with b:
        assert Gear.objects.count() == 0
        assert Gear.objects.fresh().count() == 1
        assert Gear.objects.count() == 1


def test_fresh_costs_one_request(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen:
        list(Gear.objects.fresh())
        Gear.objects.fresh().filter(name="x").exists()
    assert seen == ["GET log", "GET log"]


@directory
def test_fresh_does_nothing_in_a_block(hosts: MakeHost, bucket: Bucket) -> None:
    a, b = hosts(), hosts()
    b.catch_up()
    with b, transaction.atomic():
        assert Gear.objects.count() == 0
        with a:
            Gear.objects.create(name="x")
        with bucket.requests() as seen:
            assert Gear.objects.fresh().count() == 0
        assert seen == []


@directory
def test_catch_up_does_nothing_in_a_block(hosts: MakeHost) -> None:
    a, b = hosts(), hosts()
    b.catch_up()
    with b, transaction.atomic():
        assert names(b) == []
        write(a, "a")
        b.catch_up()
        assert names(b) == []
    b.catch_up()
    assert names(b) == ["a"]


@directory
def test_position_tells_how_far_the_replica_is(hosts: MakeHost) -> None:
    a, b = hosts(), hosts()
    b.catch_up()
    before = b.position
    write(a, "a")
    assert a.position == before + 1
    assert b.position == before
    b.catch_up()
    assert b.position == a.position


# Catching up


@pytest.mark.parametrize("behind", [1, 3, 4, 40])
def test_catching_up_from_far_behind(hosts: MakeHost, behind: int) -> None:
    a, b = hosts(), hosts()
    b.catch_up()
    for number in range(behind):
        write(a, f"{number:03}")
    b.catch_up()
    assert names(b) == [f"{number:03}" for number in range(behind)]
    assert a.dump() == b.dump()


def test_a_process_that_ends_follows_without_threads(
    hosts: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does to send what it has written behind."""
    a, b = hosts(), hosts()
    b.catch_up()
    for number in range(6):
        write(a, f"{number}")
    monkeypatch.setattr("concurrent.futures.thread._shutdown", True)
    b.catch_up()
    assert a.dump() == b.dump()


def test_a_replica_that_was_deleted_is_made_anew(hosts: MakeHost) -> None:
    a, b = hosts(), hosts()
    write(a, "a")
    assert names(b) == ["a"]
    b.connection.rebuild_replica()
    assert names(b) == ["a"]
    assert a.dump() == b.dump()


def remove_file(host: Host) -> None:
    """As somebody does who wants the replica to be made anew."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{host.connection.replica.path}{suffix}").unlink(missing_ok=True)


@directory
def test_a_file_that_is_removed_before_the_first_statement(hosts: MakeHost) -> None:
    """What statements need was connected to the file while it was there."""
    other, host = hosts(), hosts()
    write(other, "a")
    host.catch_up()
    remove_file(host)
    access = host.connection.replica.analyser.access("SELECT * FROM library_tag", ())
    assert access.reads == {"library_tag"}
    assert names(host) == ["a"]


@directory
@pytest.mark.parametrize("how_it_is_opened", [{"read_only": True}, {"create": False}])
def test_a_file_that_is_removed_while_somebody_connects(
    hosts: MakeHost, monkeypatch: pytest.MonkeyPatch, how_it_is_opened: dict[str, bool]
) -> None:
    """A reader, or who opens all that a process has."""
    other, host = hosts(), hosts()
    write(other, "a")
    host.catch_up()
    if "create" in how_it_is_opened:
        host.restart()
    removed: list[bool] = []

    def connect(path: Path, **how: Any) -> sqlite3.Connection:
        if how.items() >= how_it_is_opened.items() and not removed:
            removed.append(True)
            remove_file(host)
        return connections.connect(path, **how)

    monkeypatch.setattr("s3cache.replica.replica.connect", connect)
    opened = []

    def connect_file(path: Path, **how: Any) -> sqlite3.Connection:
        opened.append(connections.connect(path, **how))
        return opened[-1]

    monkeypatch.setattr("s3cache.replica.file.connect", connect_file)
    assert names(host) == ["a"]
    assert removed
    assert [is_closed(connection) for connection in opened].count(False) == 1


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


@directory
def test_nobody_reads_a_file_that_another_process_is_only_making(
    hosts: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has taken the place of the one that was there, and is empty yet."""
    host = hosts()
    write(host, "a")
    begun: list[bool] = []

    def connect(path: Path, **how: Any) -> sqlite3.Connection:
        if how.get("read_only") and not begun:
            begun.append(True)
            remove_file(host)
            path.touch()
        return connections.connect(path, **how)

    monkeypatch.setattr("s3cache.replica.replica.connect", connect)
    assert names(host) == ["a"]
    assert begun


@directory
def test_a_file_that_is_removed_in_the_middle_of_a_block(hosts: MakeHost) -> None:
    """And another thread has made it anew: the block moves there, too."""
    host = hosts()
    write(host, "a")

    def count() -> int:
        with on(host):
            return Tag.objects.count()

    with host, transaction.atomic():
        Tag.objects.create(name="b")
        remove_file(host)
        assert together([count]) == [1]
        Tag.objects.create(name="c")
    assert names(host) == ["a", "b", "c"]


@directory
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_file_that_is_removed_while_its_connections_are_closed(
    hosts: MakeHost, *, is_begun: bool
) -> None:
    """As they are around a fork: who comes first is told, the next one not.

    Also where another process has begun to make it anew.
    """
    host = hosts()
    write(host, "a")
    assert names(host) == ["a"]
    replica = host.connection.replica
    replica.before_fork()
    replica.after_fork_in_parent()
    remove_file(host)
    if is_begun:
        replica.path.touch()
    with pytest.raises(OperationalError, match="^unable to open database file$"):
        write(host, "b")
    write(host, "b")
    assert names(host) == ["a", "b"]


@directory
def test_a_replica_of_another_store_follows_the_new_one(
    hosts: MakeHost, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    """A wiped location with another database in it: the old rows are kept."""
    host = hosts("kept")
    write(host, "old")
    bucket.store.delete_many(bucket.keys())
    other = hosts("other")
    with other, other.connection.cursor() as cursor:
        cursor.execute("CREATE TABLE library_tag (name TEXT PRIMARY KEY, note TEXT)")
    write(other, "new")
    host.connection.replica.side.remember("checked_at", 0.0)
    host.catch_up()
    assert names(host) == ["new"]
    assert "The store no longer has what" in caplog.text
    kept = list(host.connection.replica.path.parent.glob("kept.sqlite3-diverged-*"))
    assert len(kept) == 1


@directory
def test_a_log_whose_head_is_gone_is_refused(hosts: MakeHost, bucket: Bucket) -> None:
    bucket.store.delete("_head")
    with hosts(), pytest.raises(LogDiverged, match="_head"):
        Tag.objects.exists()


# The store is down


@directory
def test_reads_go_on_while_the_store_is_down(
    hosts: MakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    host = hosts(max_age=60, stale_if_error=600)
    write(host, "a")
    host.pass_time(61)
    with store_down() as asked, caplog.at_level(logging.ERROR, "s3cache"):
        assert names(host) == ["a"]
        count = len(asked)
        assert names(host) == ["a"]  # not asked again within a second
        assert len(asked) == count
    assert "answers from what it knew" in caplog.text
    assert host.connection.replica.events.read()["stale_reads", ""] == 2


@directory
def test_reads_end_after_stale_if_error(hosts: MakeHost) -> None:
    host = hosts(max_age=60, stale_if_error=600)
    write(host, "a")
    host.pass_time(661)
    with store_down(), pytest.raises(StoreUnavailable):
        names(host)
    assert names(host) == ["a"]


@directory
def test_stale_if_error_0_raises_at_once(hosts: MakeHost) -> None:
    host = hosts(max_age=60, stale_if_error=0)
    write(host, "a")
    host.pass_time(61)
    with store_down(), pytest.raises(StoreError):
        names(host)


class Queue:
    """A lock, and whether so many have come for it."""

    def __init__(self, many: int) -> None:
        self._lock = threading.Lock()
        self._left = many
        self.all_came = threading.Event()

    def __enter__(self) -> None:
        self._left -= 1
        if not self._left:
            self.all_came.set()
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


@directory
def test_readers_that_wait_for_a_store_that_is_down_share_its_failure(
    hosts: MakeHost, faulty: FaultyStore
) -> None:
    """Or the last of many would wait for as many timeouts, one by one."""
    host = hosts(storage="faulty", max_age=60, stale_if_error=0)
    write(host, "a")
    host.pass_time(61)
    queue: Any = Queue(20)
    host.connection.replica.asking.lock = queue
    asked: list[bool] = []

    def refuse(send: object) -> Answer:
        asked.append(queue.all_came.wait(HANGS_AFTER))
        return Answer(403, message="down")

    faulty.on("GET", "", refuse)
    errors = outcomes(each_on(host, Tag.objects.exists, 20))
    assert asked == [True, True]  # the rest came after the first had begun
    assert {type(error) for error in errors} == {StoreRefused}
    assert len(set(map(id, errors))) == 20
    faulty.heal()
    assert names(host) == ["a"]


@directory
def test_fresh_raises_while_the_store_is_down(host: Host) -> None:
    with store_down(), pytest.raises(OperationalError):
        Gear.objects.fresh().count()
    assert Gear.objects.count() == 0


@directory
def test_writes_raise_while_the_store_is_down(hosts: MakeHost) -> None:
    host = hosts(commit_timeout=0.2)
    write(host, "a")
    with store_down(403), pytest.raises(StoreError):
        write(host, "b")
    assert names(host) == ["a"]
    write(host, "c")
    assert names(host) == ["a", "c"]


@directory
def test_a_host_that_starts_while_the_store_is_down_says_so(hosts: MakeHost) -> None:
    with store_down(), hosts() as host, pytest.raises(StoreUnavailable):
        Tag.objects.exists()
    assert names(host) == []


@directory
def test_a_403_is_never_taken_for_a_404(hosts: MakeHost) -> None:
    host = hosts(max_age=0, stale_if_error=0)
    write(host, "a")
    with store_down(403), pytest.raises(StoreError, match="ListBucket"):
        names(host)


# What stays of SQLite


@directory
def test_a_read_cannot_write(host: Host) -> None:
    """Readers are opened read-only: what escaped the capture fails loudly."""
    reader = connection.connection.reader
    with pytest.raises(Exception, match="readonly database"):
        reader.execute("INSERT INTO library_tag VALUES ('a', '')", ())


@directory
def test_functions_and_collations_of_a_project(host: Host) -> None:
    connection.ensure_connection()
    connection.connection.create_function("double", 1, lambda n: 2 * n)
    connection.connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    Author.objects.create(name="Ann", born=4)
    Author.objects.create(name="Bob", born=5)
    assert host.sql("SELECT double(born) FROM library_author ORDER BY born") == [
        (8,),
        (10,),
    ]
    host.sql("UPDATE library_author SET born = double(born)")
    with transaction.atomic():
        host.sql("UPDATE library_author SET born = double(born)")
        assert host.sql(
            "SELECT born FROM library_author ORDER BY name COLLATE backwards"
        ) == [(20,), (16,)]
