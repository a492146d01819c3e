"""The replica file."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from s3cache.exceptions import LogDiverged
from s3cache.log.effects import Apply, Proved
from s3cache.log.entry import Entry, Rows, Statement
from s3cache.replica import connections, meta
from s3cache.replica.connections import Registration, connect
from s3cache.replica.file import ReplicaFile, delete_file, transaction
from tests.replica.hosts import DATABASE, Host

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY)"


def open_file(path: Path, *registrations: Registration) -> ReplicaFile:
    return ReplicaFile.open(path, store="nowhere", registrations=registrations)


def apply(file: ReplicaFile, entry: Entry) -> bool:
    return file.apply(Apply(entry, etag="", modified=0.0)) is True


# Making it.


def test_a_new_file_is_empty_and_private(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "replica.sqlite3"
    file = open_file(path)
    position = file.position()
    assert (position.database, position.number, position.token) == ("", 0, "")
    assert file.store_name() == "nowhere"
    for one in path.parent.iterdir():
        assert stat.S_IMODE(one.stat().st_mode) == 0o600, one
    file.close()


def test_a_replica_is_opened_as_it_is(host: Host) -> None:
    host.create(TABLE)
    again = open_file(host.file.path)
    assert again.position() == host.file.position()
    assert again.generation() == host.file.generation()
    again.close()


@pytest.mark.parametrize(
    "content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_what_is_no_replica_is_made_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "replica.sqlite3"
    path.write_bytes(content)
    file = open_file(path)
    assert file.position().number == 0
    file.close()


@pytest.mark.parametrize(
    "sql", ["UPDATE _s3cache_meta SET layout = 99", "DELETE FROM _s3cache_meta"]
)
def test_another_layout_is_made_anew(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "replica.sqlite3"
    file = open_file(path)
    generation = file.generation()
    file.execute(sql, ())
    file.close()
    file = open_file(path)
    assert file.generation() != generation
    assert meta.is_usable(file.connection)
    file.close()


def test_a_replica_that_cannot_be_read_now_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It says nothing of the file, which others may be using.
    monkeypatch.setattr(connections, "BUSY_TIMEOUT", 0.0)
    path = tmp_path / "replica.sqlite3"
    file = open_file(path)
    generation = file.generation()
    file.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_file(path)
    other.close()
    again = open_file(path)
    assert again.generation() == generation
    again.close()


def test_functions_are_on_the_connection(tmp_path: Path) -> None:
    registration = Registration("create_function", ("twice", 1, lambda n: 2 * n), {})
    file = open_file(tmp_path / "replica.sqlite3", registration)
    assert file.execute("SELECT twice(?)", [4]).rows == [(8,)]
    file.close()


def test_deleting_takes_what_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "replica.sqlite3"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_bytes(b"")
    delete_file(path)
    delete_file(path)
    assert list(tmp_path.iterdir()) == []


# Applying.


@pytest.mark.parametrize(
    "fields",
    [
        {"number": 1},
        {"number": 3},
        {"previous": "another"},
        {"database": "another"},
    ],
)
def test_only_what_follows_is_applied(host: Host, fields: dict[str, Any]) -> None:
    first = host.create(TABLE)
    entry = host.entry([Statement("DROP TABLE t")], token=first.token)
    fields = {"previous": first.token, **fields}
    other = Entry(
        **{
            "database": DATABASE,
            "number": 2,
            "token": first.token,
            "host": entry.host,
            "changes": entry.changes,
            **fields,
        }
    )
    assert not apply(host.file, other)
    assert host.file.position().number == 1
    assert host.rows("SELECT * FROM t") == []


def test_applying_twice_changes_nothing(host: Host) -> None:
    entry = host.create(TABLE)
    assert not apply(host.file, entry)


def test_a_log_that_was_rewritten_is_noticed(host: Host) -> None:
    host.create(TABLE)
    forged = Entry(
        database=DATABASE, number=1, token="f", previous="", host="h", changes=[]
    )
    with pytest.raises(LogDiverged, match="Entry 1 of the log has the token f"):
        apply(host.file, forged)


def test_an_entry_is_applied_as_a_whole_or_not_at_all(host: Host) -> None:
    host.create(TABLE)
    clash = Rows("t", ["id"], ["id"], [[1], [1]])
    with pytest.raises(sqlite3.IntegrityError):
        apply(host.file, host.entry([Statement("CREATE TABLE u (id)"), clash]))
    assert host.file.position().number == 1
    assert host.schema.get("u") is None


def test_the_position_was_the_newest_at_a_date(host: Host) -> None:
    host.create(TABLE)
    host.file.proved(Proved(1, asked_at=0.0, date=77.0))
    host.file.proved(Proved(9, asked_at=0.0, date=99.0))
    assert host.file.position().proved_at == 77.0


def test_no_thread_sees_the_transaction_of_another_half_done(host: Host) -> None:
    host.create(TABLE)
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(
                (
                    host.file.position().number,
                    host.file.execute("SELECT count(*) FROM t", ()).rows[0][0],
                )
            )

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for n in range(30):
            host.apply(host.entry([Rows("t", ["id"], ["id"], [[n]])]))
    finally:
        done.set()
        thread.join()
    # The row count is asked for after the position, never before its entry.
    assert all(count >= number - 1 for number, count in seen)
    assert seen == sorted(seen)


def test_an_interrupted_transaction_is_rolled_back(host: Host) -> None:
    connection = host.file.connection
    with pytest.raises(KeyboardInterrupt), transaction(connection):
        connection.execute("CREATE TABLE u (id)")
        raise KeyboardInterrupt
    assert not connection.in_transaction
    assert host.schema.get("u") is None


# Replacing.


def test_a_new_file_takes_the_place_of_another(host: Host, other: Host) -> None:
    reader = connect(host.file.path, read_only=True)
    host.create("CREATE TABLE old (id)")
    other.create(TABLE)
    other.commit("INSERT INTO t VALUES (7)")
    other.file.copy_over(host.file)
    assert host.file.position() == other.file.position()
    assert host.file.generation() == other.file.generation()
    assert reader.execute("SELECT id FROM t").fetchall() == [(7,)]
    reader.close()


def test_a_copy_of_a_diverged_replica_is_kept(host: Host) -> None:
    entry = host.create(TABLE)
    path = host.file.keep_copy()
    assert path.name == f"host.sqlite3-diverged-1-{entry.token[:8]}"
    assert host.file.keep_copy() == path
    copy = sqlite3.connect(path)
    assert copy.execute("SELECT count(*) FROM t").fetchone() == (0,)
    copy.close()


def test_a_copy_is_as_private_as_the_file(host: Host) -> None:
    host.create(TABLE)
    assert stat.S_IMODE(host.file.keep_copy().stat().st_mode) == 0o600


def test_a_discarded_file_is_gone(tmp_path: Path) -> None:
    file = open_file(tmp_path / "replica.sqlite3")
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_the_store_may_be_called_otherwise(host: Host) -> None:
    host.file.set_store_name("s3://elsewhere")
    assert host.file.store_name() == "s3://elsewhere"
