"""What fails halfway leaves no connection open, and no file behind.

SQLite would keep the locks of one that nobody knows of any more for as long
as it happens to live, and the file it is about could not be replaced.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from django.db import OperationalError

from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log.catch_up import rebuild
from s3cache.replica.connections import Registration, connect
from s3cache.replica.file import ReplicaFile
from s3cache.replica.replica import Replica
from s3cache.replica.writer import Writer
from tests.db.hosts import all_closed_after
from tests.engine import Host
from tests.library.models import Author

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


class Refused(Registration):
    """A function that no connection takes."""

    def on(self, connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("not this function")


def fails(error: BaseException) -> Callable[..., Any]:
    """What raises ``error``, whatever it is called with."""

    def fail(*_args: object, **_how: object) -> Any:
        raise error

    return fail


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


def test_who_is_interrupted_while_connecting(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C, before anybody has the connection."""
    assert names(replica) == ["Ada"]
    with (
        monkeypatch.context() as patched,
        closing(replica.new_reader()) as reader,
        all_closed_after(replica.path),
        pytest.raises(KeyboardInterrupt),
    ):
        reader.close()
        patched.setattr("s3cache.replica.meta.is_complete", fails(KeyboardInterrupt()))
        reader.execute("SELECT 1", ())
    assert names(replica) == ["Ada"]


def test_a_reader_that_cannot_see_what_there_is(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not kept half made: nothing would guard what is not loaded."""
    with closing(replica.new_reader()) as reader:
        reader.close()
        with (
            monkeypatch.context() as patched,
            all_closed_after(replica.path),
            pytest.raises(sqlite3.OperationalError, match="disk"),
        ):
            error = sqlite3.OperationalError("disk I/O error")
            patched.setattr("s3cache.replica.reader.is_whole", fails(error))
            reader.execute("SELECT 1", ())
    assert names(replica) == ["Ada"]


def test_a_new_replica_that_cannot_be_begun(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    position = replica.position()
    with (
        monkeypatch.context() as patched,
        all_closed_after(replica.path),
        pytest.raises(sqlite3.OperationalError, match="full"),
    ):
        error = sqlite3.OperationalError("database or disk is full")
        patched.setattr(ReplicaFile, "begin_at", fails(error))
        replica.run(rebuild(position, ()))
    assert not left_beside(replica)
    assert names(replica) == ["Ada"]


def test_a_new_replica_whose_turn_does_not_come(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread is changing the schema all the time."""
    position = replica.position()
    with (
        monkeypatch.context() as patched,
        all_closed_after(replica.path),
        pytest.raises(OperationalError, match="locked"),
    ):
        error = OperationalError("database is locked")
        patched.setattr(Replica, "take_writer", fails(error))
        replica.run(rebuild(position, ()))
    assert not left_beside(replica)
    assert names(replica) == ["Ada"]


def test_a_copy_that_cannot_be_made_for_the_keeper(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(replica) == ["Ada"]
    with (
        monkeypatch.context() as patched,
        all_closed_after(replica.path),
        pytest.raises(sqlite3.OperationalError, match="full"),
    ):
        error = sqlite3.OperationalError("database or disk is full")
        patched.setattr("s3cache.keeper.performer.read_schema", fails(error))
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


def test_the_others_are_closed_when_one_cannot_be(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.close()
    with (
        monkeypatch.context() as patched,
        all_closed_after(replica.path),
        pytest.raises(sqlite3.OperationalError, match="disk"),
    ):
        replica.position()
        patched.setattr(
            Writer, "rollback", fails(sqlite3.OperationalError("disk I/O error"))
        )
        replica.close()
    assert names(replica) == ["Ada"]
