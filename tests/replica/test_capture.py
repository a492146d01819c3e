"""Every change of a row is noted, and none can be made unnoticed."""

from __future__ import annotations

import sqlite3

import pytest

from s3cache.log.entry import Rows
from s3cache.replica.capture import Uncaptured
from s3cache.replica.connections import connect
from tests.replica.hosts import Host, changed

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, n)"


@pytest.fixture
def table(host: Host) -> Host:
    """A host with three rows in a table ``t``."""
    host.create(TABLE)
    host.commit("INSERT INTO t VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0)")
    return host


def changes_of(host: Host, *statements: str) -> tuple[list[object], list[object]]:
    with host.trying(*statements) as writer:
        return changed(writer.changes()).get("t", ([], []))


# What is noted.


@pytest.mark.parametrize(
    ("sql", "rows", "deleted"),
    [
        ("INSERT INTO t VALUES (4, 'd', 0)", [[4, "d", 0]], []),
        ("INSERT INTO t (name) VALUES ('d')", [[4, "d", None]], []),
        ("INSERT INTO t SELECT id + 10, NULL, 1 FROM t WHERE n = 0 AND id < 3",
         [[11, None, 1], [12, None, 1]], []),
        ("UPDATE t SET n = 1 WHERE id > 1", [[2, "b", 1], [3, "c", 1]], []),
        ("UPDATE t SET id = 9 WHERE id = 1", [[9, "a", 0]], [[1]]),
        ("DELETE FROM t WHERE id = 2", [], [[2]]),
        ("DELETE FROM t", [], [[1], [2], [3]]),
        ("REPLACE INTO t VALUES (1, 'z', 5)", [[1, "z", 5]], []),
        ("REPLACE INTO t VALUES (4, 'a', 5)", [[4, "a", 5]], [[1]]),
        ("REPLACE INTO t VALUES (2, 'a', 5)", [[2, "a", 5]], [[1]]),
        ("UPDATE OR REPLACE t SET name = 'b' WHERE id = 1", [[1, "b", 0]], [[2]]),
        ("INSERT OR IGNORE INTO t VALUES (9, 'a', 1), (4, 'd', 1)",
         [[4, "d", 1]], []),
        ("INSERT INTO t VALUES (9, 'a', 7) ON CONFLICT (name) DO UPDATE SET n = 7",
         [[1, "a", 7]], []),
        ("INSERT INTO t VALUES (9, 'a', 7) ON CONFLICT DO NOTHING", [], []),
        ("WITH x AS (SELECT 2 AS id) DELETE FROM t WHERE id IN (SELECT id FROM x)",
         [], [[2]]),
        ("UPDATE t SET n = x.n FROM (SELECT 3 AS id, 8 AS n) x WHERE t.id = x.id",
         [[3, "c", 8]], []),
        ("DELETE FROM t WHERE id > 100", [], []),
    ],
)  # fmt: skip
def test_what_a_statement_changes(
    table: Host, sql: str, rows: list[object], deleted: list[object]
) -> None:
    assert changes_of(table, sql) == (rows, deleted)


def test_a_row_is_read_as_the_last_statement_left_it(table: Host) -> None:
    statements = (
        "UPDATE t SET n = 1 WHERE id = 1",
        "UPDATE t SET n = 2 WHERE id = 1",
        "INSERT INTO t VALUES (4, 'd', 0)",
        "DELETE FROM t WHERE id IN (2, 4)",
        "INSERT INTO t VALUES (2, 'new', 0)",
    )
    assert changes_of(table, *statements) == ([[1, "a", 2], [2, "new", 0]], [[4]])


def test_executemany_is_captured(table: Host) -> None:
    sql = "UPDATE t SET n = ? WHERE id = ?"
    table.writer.begin([(sql, (0, 0))])
    table.writer.execute(sql, [(5, 1), (6, 3)], many=True)
    assert changed(table.writer.changes()) == {"t": ([[1, "a", 5], [3, "c", 6]], [])}
    table.writer.rollback()


def test_what_was_cleared_is_forgotten(table: Host) -> None:
    with table.trying("DELETE FROM t WHERE id = 1") as writer:
        writer.capture.clear([table.table("t")])
        assert writer.capture.read(table.table("t")) is None


def test_a_rolled_back_savepoint_takes_its_notes_along(table: Host) -> None:
    with table.trying("DELETE FROM t WHERE id = 1", tables=["t"]) as writer:
        writer.connection.execute("SAVEPOINT a")
        writer.execute("DELETE FROM t", ())
        writer.connection.execute("ROLLBACK TO a")
        assert changed(writer.changes()) == {"t": ([], [[1]])}


# Odd keys and values.


def test_null_in_a_key(host: Host) -> None:
    host.create("CREATE TABLE t (a TEXT, b TEXT, c, PRIMARY KEY (a, b))")
    host.commit("INSERT INTO t VALUES (NULL, 'x', 1)")
    rows, deleted = changes_of(host, "UPDATE t SET c = 2")
    assert (rows, deleted) == ([[1, None, "x", 2]], [])
    assert changes_of(host, "DELETE FROM t") == ([], [[1]])


@pytest.mark.parametrize("tail", ["", "WITHOUT ROWID"])
def test_a_key_that_differs_by_case_alone_is_another(host: Host, tail: str) -> None:
    host.create(f"CREATE TABLE t (id TEXT COLLATE NOCASE NOT NULL PRIMARY KEY) {tail}")
    host.commit("INSERT INTO t VALUES ('a')")
    host.commit("UPDATE t SET id = 'A'")
    assert host.rows("SELECT id FROM t") == [("A",)]


def test_raw_values_are_read(host: Host) -> None:
    host.create('CREATE TABLE t (id INTEGER PRIMARY KEY, d "date", b "bool", x)')
    rows, _ = changes_of(host, "INSERT INTO t VALUES (1, '2024-02-03', 1, x'00ff')")
    assert rows == [[1, "2024-02-03", 1, b"\x00\xff"]]


def test_a_blob_may_be_the_key(host: Host) -> None:
    host.create("CREATE TABLE t (id BLOB PRIMARY KEY) WITHOUT ROWID")
    host.commit("INSERT INTO t VALUES (x'00'), (x'0001')")
    assert changes_of(host, "DELETE FROM t WHERE id = x'00'") == ([], [[b"\x00"]])


def test_the_rowid_may_be_the_key(host: Host) -> None:
    host.create("CREATE TABLE t (rowid TEXT, a)")
    host.commit("INSERT INTO t VALUES ('x', 1), ('y', 1)")
    assert changes_of(host, "UPDATE t SET a = 2 WHERE rowid = 'y'") == (
        [[2, "y", 2]],
        [],
    )


def test_generated_columns_are_left_out(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b AS (a * 2) STORED)")
    with host.trying("INSERT INTO t (a) VALUES (3)") as writer:
        (rows,) = writer.changes()
    assert rows == Rows("t", ["id"], ["id", "a"], [[1, 3]])


@pytest.mark.parametrize("name", ['a "b" c', "it's", "Ünï", "select"])
def test_any_name_will_do(host: Host, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    host.create(f"CREATE TABLE {quoted} ({quoted} TEXT PRIMARY KEY)")
    with host.trying(f"INSERT INTO {quoted} VALUES ('x')") as writer:  # noqa: S608
        assert changed(writer.changes()) == {name: ([[1, "x"]], [])}


# What cannot be run.


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO T VALUES (4, 'd', 0)",
        "UPDATE main.t SET n = 1",
        "DELETE FROM t",
        "REPLACE INTO t VALUES (1, 'a', 0)",
        "WITH x AS (SELECT 1) UPDATE t SET n = 1",
    ],
)
def test_an_uncaptured_write_is_not_even_prepared(table: Host, sql: str) -> None:
    writer = table.writer
    writer.capture.drop_all()
    with pytest.raises(Uncaptured, match="t cannot be written") as caught:
        writer.capture.run(sql, (), many=False)
    assert caught.value.tables == {"t"}


def test_nobody_writes_the_replicas_own_tables(table: Host) -> None:
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        table.writer.capture.run("UPDATE _s3cache_meta SET number = 9", (), many=False)


def test_other_errors_stay_what_they_are(table: Host) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
        table.writer.capture.run("DELETE FROM nowhere", (), many=False)


def test_a_read_needs_no_capture(table: Host) -> None:
    found = table.writer.capture.run("SELECT count(*) FROM t", (), many=False)
    assert found.fetchall() == [(3,)]


def test_unguarded_everything_can_be_written(table: Host) -> None:
    writer = table.writer
    writer.capture.drop_all()
    with writer.capture.unguarded():
        writer.connection.execute("EXPLAIN DELETE FROM t WHERE id = 1")
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        writer.connection.execute("EXPLAIN DELETE FROM t WHERE id = 2")


# What a statement writes.


def test_written_by_knows_without_running(table: Host) -> None:
    capture = table.writer.capture
    assert capture.written_by("DELETE FROM T", ()) == {"t"}
    assert capture.written_by("SELECT * FROM t", ()) == set()
    assert capture.written_by("DELETE FROM nowhere", ()) == set()
    assert table.rows("SELECT count(*) FROM t") == [(3,)]


def test_who_writes_the_sequences_says_so(table: Host) -> None:
    written = table.writer.capture.written_by("DELETE FROM sqlite_sequence", ())
    assert written == {"sqlite_sequence"}


def test_functions_of(table: Host) -> None:
    capture = table.writer.capture
    sql = "UPDATE t SET n = random(), name = UPPER(name)"
    assert capture.functions_of(sql, ()) == {"random", "upper"}


# When the schema changes.


def test_the_capture_follows_the_schema(table: Host) -> None:
    table.commit("DELETE FROM t WHERE id = 1")
    table.create("ALTER TABLE t ADD COLUMN extra TEXT DEFAULT 'x'")
    assert changes_of(table, "UPDATE t SET n = 1 WHERE id = 2") == (
        [[2, "b", 1, "x"]],
        [],
    )


def test_a_table_that_was_renamed_elsewhere_is_captured(table: Host) -> None:
    table.commit("DELETE FROM t WHERE id = 1")
    table.create("ALTER TABLE t RENAME TO u", TABLE)
    with table.trying("DELETE FROM u WHERE id = 2") as writer:
        assert changed(writer.changes()) == {"u": ([], [[2]])}


def test_captures_of_a_transaction_go_with_it(table: Host) -> None:
    writer = table.writer
    writer.capture.drop_all()
    writer.begin()
    writer.capture.add(table.table("t"))
    writer.rollback()
    writer.capture.after_rollback(writer.schema)
    assert writer.capture.tables == {}
    with pytest.raises(Uncaptured):
        writer.capture.run("DELETE FROM t", (), many=False)


def test_a_rollback_to_a_savepoint_leaves_older_captures(table: Host) -> None:
    table.create("CREATE TABLE u (a)")
    writer = table.writer
    writer.begin(tables=["t"])
    writer.connection.execute("SAVEPOINT a")
    writer.capture.add(table.table("u"))
    writer.connection.execute("ROLLBACK TO a")
    writer.capture.after_rollback(writer.schema)
    assert set(writer.capture.tables) == {"t"}
    writer.execute("DELETE FROM t WHERE id = 1", ())
    assert changed(writer.changes()) == {"t": ([], [[1]])}
    writer.rollback()


def test_nothing_of_it_is_seen_by_other_connections(table: Host) -> None:
    with table.trying("DELETE FROM t"):
        reader = connect(table.file.path, read_only=True)
        names = [name for (name,) in reader.execute("SELECT name FROM sqlite_master")]
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (3,)
        reader.close()
    assert not [name for name in names if "capture" in name or "changes" in name]
