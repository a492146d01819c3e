"""What fails halfway leaves no connection open, and no file behind.

SQLite would keep the locks of one that nobody knows of any more for as long
as it happens to live, and the file it is about could not be replaced.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from django.db import OperationalError

from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log.catch_up import rebuild
from s3cache.replica.connections import Registration, connect
from s3cache.replica.replica import Replica
from tests.db.hosts import all_closed_after
from tests.engine import Host
from tests.library.models import Author

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

BROKEN = sqlite3.OperationalError("disk I/O error")
FULL = sqlite3.OperationalError("database or disk is full")


class Refused(Registration):
    """A function that no connection takes."""

    def on(self, connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("not this function")


@contextmanager
def failing(replica: Replica, what: str, error: BaseException) -> Iterator[None]:
    """Inside ``what`` raises ``error``; all that was opened is closed then."""

    def fail(*_args: object, **_how: object) -> Any:
        raise error

    with (
        all_closed_after(replica.path),
        pytest.raises(type(error), match=f"^{error}$"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(f"s3cache.{what}", fail)
        yield


@pytest.fixture
def replica(host: Host) -> Replica:
    """One that holds a row, and that Django has no connection to."""
    Author.objects.create(name="Ada")
    replica = host.connection.replica
    host.connection.close()
    return replica


def left_beside(replica: Replica) -> list[str]:
    """What was made to take its place, or to be packed, and is still there."""
    made = replica.path.parent.glob(f"{replica.path.name}-*-????????*")
    return sorted(one.name for one in made)


def names(replica: Replica) -> list[str]:
    reader = replica.new_reader()
    try:
        rows = reader.execute("SELECT name FROM library_author", ()).rows
    finally:
        replica.give_back(reader)
    return [name for (name,) in rows]


def test_a_function_that_a_connection_does_not_take(replica: Replica) -> None:
    refused = Refused("create_function", ("refused", 0, str), {})
    with closing(replica.new_reader()) as reader:
        reader.close()
        replica._registrations[refused.name] = refused
        with (
            all_closed_after(replica.path),
            pytest.raises(sqlite3.OperationalError, match="not this"),
        ):
            reader.execute("SELECT 1", ())
        del replica._registrations[refused.name]
    assert names(replica) == ["Ada"]


def test_who_is_interrupted_while_connecting(replica: Replica) -> None:
    """By Ctrl-C, before anybody has the connection."""
    with closing(replica.new_reader()) as reader:
        reader.execute("SELECT 1", ())
        reader.close()
        with failing(replica, "replica.meta.is_complete", KeyboardInterrupt()):
            reader.execute("SELECT 1", ())
    assert names(replica) == ["Ada"]


def test_a_reader_that_cannot_see_what_there_is(replica: Replica) -> None:
    """It is not kept half made: nothing would guard what is not loaded."""
    with closing(replica.new_reader()) as reader:
        reader.close()
        with failing(replica, "replica.reader.is_whole", BROKEN):
            reader.execute("SELECT 1", ())
    assert names(replica) == ["Ada"]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("replica.file.ReplicaFile.begin_at", FULL),
        ("replica.replica.Replica.take_writer", OperationalError("database is locked")),
    ],
    ids=["it cannot be begun", "its turn does not come"],
)
def test_a_new_replica(replica: Replica, what: str, error: Exception) -> None:
    position = replica.position()
    with failing(replica, what, error):
        replica.run(rebuild(position, ()))
    assert not left_beside(replica)
    assert names(replica) == ["Ada"]


def test_a_copy_that_cannot_be_made_for_the_keeper(replica: Replica) -> None:
    assert names(replica) == ["Ada"]
    with failing(replica, "keeper.performer.read_schema", FULL):
        keep_now(replica, KeeperOptions(everything=True))
    assert not left_beside(replica)


def test_a_reader_whose_copy_fails_is_given_back(replica: Replica) -> None:
    reader = replica.new_reader()
    replica.give_back(reader)
    with (
        closing(connect(replica.path, read_only=True)) as read_only,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        replica.copy_to(read_only)
    assert replica.new_reader() is reader
    replica.give_back(reader)


def test_the_others_are_closed_when_one_cannot_be(replica: Replica) -> None:
    replica.close()
    with failing(replica, "replica.writer.Writer.rollback", BROKEN):
        replica.position()
        replica.close()
    assert names(replica) == ["Ada"]
