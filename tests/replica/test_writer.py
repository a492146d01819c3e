"""The writing connection: everything is tried out, nothing stays."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable

import pytest
from django.db import OperationalError

from s3cache.replica import watch
from s3cache.replica.watch import Watch
from s3cache.replica.writer import Owner
from tests.replica.hosts import Host, changed, sequences

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, n)"


class Block(Owner):
    """A block that leaves its rows laid out."""


@pytest.fixture
def table(host: Host) -> Host:
    """A host with a table ``t`` that has a row."""
    host.create(TABLE)
    host.commit("INSERT INTO t (n) VALUES (1)")
    return host


def leave_open(host: Host, owner: Owner) -> None:
    """Let ``owner`` leave a deleted table behind."""
    with host.writing(owner):
        host.writer.begin(tables=["t"])
        host.writer.execute("DELETE FROM t", ())
        host.writer.owner = owner


def is_free(host: Host) -> bool:
    """Whether SQLite's write lock is."""
    host.file.connection.execute("PRAGMA busy_timeout = 0")
    try:
        host.file.connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    host.file.connection.execute("ROLLBACK")
    return True


def test_begin_tells_the_position(table: Host) -> None:
    assert table.writer.begin() == table.file.position()
    table.writer.rollback()


def test_nothing_stays(table: Host) -> None:
    with table.trying("DELETE FROM t"):
        pass
    assert table.rows("SELECT n FROM t") == [(1,)]


def test_changes_are_by_table_and_then_the_sequences(table: Host) -> None:
    table.create("CREATE TABLE a (id INTEGER PRIMARY KEY)")
    with table.trying(
        "INSERT INTO t (n) VALUES (5)", "INSERT INTO a VALUES (1)"
    ) as writer:
        changes = writer.changes()
    assert list(changed(changes)) == ["a", "t"]
    assert sequences(changes) == {"t": 2}


@pytest.mark.parametrize(
    ("sql", "params", "many"),
    [
        ("INSERT INTO t VALUES (?, ?)", [(2, 2), (1, 1), (3, 3)], True),
        ("INSERT OR FAIL INTO t VALUES (2, 2), (1, 1), (3, 3)", (), False),
    ],
)
def test_nothing_stays_of_what_fails_halfway(
    table: Host, sql: str, params: object, many: bool
) -> None:
    with table.trying("UPDATE t SET n = 7") as writer:
        with pytest.raises(sqlite3.IntegrityError):
            writer.execute(sql, params, many=many)
        assert changed(writer.changes()) == {"t": ([[1, 7]], [])}


def test_nothing_stays_of_a_deletion_that_an_action_refuses(table: Host) -> None:
    table.create(
        "CREATE TABLE child (id INTEGER PRIMARY KEY, t NOT NULL "
        "REFERENCES t ON DELETE SET NULL)"
    )
    table.commit("INSERT INTO child VALUES (1, 1)")
    sql = "DELETE FROM t WHERE id = 1"
    with table.trying("UPDATE t SET n = 7", tables=["t", "child"]) as writer:
        with pytest.raises(sqlite3.IntegrityError):
            writer.execute(sql, ())
        assert changed(writer.changes()) == {"t": ([[1, 7]], [])}


def test_what_changed_nothing_has_no_changes(table: Host) -> None:
    with table.trying("DELETE FROM t WHERE id = 99", "SELECT * FROM t") as writer:
        assert writer.changes() == []


def test_a_row_that_came_and_went_still_used_its_id(table: Host) -> None:
    with table.trying("INSERT INTO t (n) VALUES (5)", "DELETE FROM t WHERE n = 5") as w:
        changes = w.changes()
    assert changed(changes) == {"t": ([], [[2]])}
    assert sequences(changes) == {"t": 2}


def test_outside_a_transaction_nothing_runs(table: Host) -> None:
    with pytest.raises(sqlite3.OperationalError, match="has ended the transaction"):
        table.writer.execute("DELETE FROM t", ())


def test_the_schema_is_followed(table: Host) -> None:
    assert table.writer.schema.get("later") is None
    table.create("CREATE TABLE later (a)")
    assert table.writer.schema.get("later") is not None


def test_nothing_stays_of_what_captured_a_table_that_is_gone(table: Host) -> None:
    """Its triggers would be there again with another table of its name."""
    table.create("CREATE TABLE other (id INTEGER PRIMARY KEY)")
    table.commit("UPDATE t SET n = 7")
    table.create("DROP TABLE t")
    table.commit("INSERT INTO other VALUES (1)")
    left = table.writer.connection.execute("SELECT name FROM sqlite_temp_master")
    assert not [name for (name,) in left if name.endswith("_t")]


def test_who_cannot_connect_anew_keeps_the_connection(
    table: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next who begins tries again."""
    table.commit("UPDATE t SET n = 7")
    table.create("DROP TABLE t", "CREATE TABLE other (id INTEGER PRIMARY KEY)")

    def fail() -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    with (
        monkeypatch.context() as patched,
        pytest.raises(sqlite3.OperationalError, match="unable to open"),
    ):
        patched.setattr(table.writer, "_open", fail)
        table.writer.begin()
    table.writer.rollback()
    table.commit("INSERT INTO other VALUES (1)")
    assert table.rows("SELECT id FROM other") == [(1,)]
    left = table.writer.connection.execute("SELECT name FROM sqlite_temp_master")
    assert not [name for (name,) in left if name.endswith("_t")]


# Whose it is.


def test_what_a_block_leaves_open_is_its_own(table: Host) -> None:
    block = Block()
    leave_open(table, block)
    with table.writing(block):
        assert table.writer.connection.in_transaction
    with table.writing():
        assert not table.writer.connection.in_transaction
    assert table.writer.owner is None


def test_another_thread_waits(table: Host) -> None:
    errors: list[str] = []

    def take() -> None:
        try:
            table.writer.take()
        except OperationalError as error:
            errors.append(str(error))

    table.writer._timeout = 0.05
    with table.writing():
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert errors == [
        "database is locked: another thread changes the schema (waited 0.05 s)"
    ]


def test_a_writer_that_has_ended_is_not_opened_again(table: Host) -> None:
    """One that nobody knows of would keep SQLite's write lock."""
    table.writer.close()
    with table.writing():
        assert not table.writer.is_closed
    table.writer.end()
    assert not table.writer.take()
    assert table.writer.is_closed
    assert not table.writer.lock._is_owned()


def test_an_idle_block_can_be_rolled_back(table: Host) -> None:
    leave_open(table, Block())
    assert not is_free(table)
    table.writer.roll_back_idle()
    assert is_free(table)


def test_a_block_at_work_is_left_alone(table: Host) -> None:
    block = Block()
    leave_open(table, block)
    with table.writing(block):
        thread = threading.Thread(target=table.writer.roll_back_idle)
        thread.start()
        thread.join()
        assert table.writer.connection.in_transaction
    table.writer.rollback()


def test_a_schema_change_is_left_alone(table: Host) -> None:
    leave_open(table, Block())
    table.writer.held_for_schema = True
    table.writer.roll_back_idle()
    assert table.writer.connection.in_transaction
    table.writer.held_for_schema = False
    table.writer.rollback()


# The watch.


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every few milliseconds, and end soon."""
    monkeypatch.setattr(watch, "INTERVAL", 0.005)
    monkeypatch.setattr(watch, "IDLE_LOOKS", 4)


def test_the_lock_is_taken_from_an_idle_block_when_others_come(table: Host) -> None:
    alone = threading.Event()
    alone.set()
    guard = Watch(table.writer, alone.is_set)
    leave_open(table, Block())
    guard.start()
    time.sleep(0.05)
    assert not is_free(table)
    alone.clear()
    assert eventually(lambda: is_free(table))
    guard.close()


def test_it_ends_when_there_is_nothing_to_watch(table: Host) -> None:
    guard = Watch(table.writer, lambda: True)
    guard.start()
    assert guard._thread is not None
    assert eventually(lambda: guard._thread is None)
    guard.start()
    assert guard._thread is not None
    guard.close()


def test_it_is_started_once(table: Host) -> None:
    guard = Watch(table.writer, lambda: True)
    guard.start()
    first = guard._thread
    guard.start()
    assert guard._thread is first
    guard.close()


def test_once_closed_it_does_not_start(table: Host) -> None:
    guard = Watch(table.writer, lambda: True)
    guard.close()
    guard.start()
    assert guard._thread is None
