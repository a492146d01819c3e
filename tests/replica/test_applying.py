"""Applying entries, and laying rows over another state."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from s3cache.log.entry import Rows, Sequences, Statement
from s3cache.replica.applying import (
    lay_rows,
    read_sequences,
    replace_rows,
    set_sequences,
)
from s3cache.replica.file import transaction
from tests.replica.hosts import Host

UNIQUE = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE)"


def ids_reset_at(host: Host) -> Any:
    return host.rows("SELECT ids_reset_at FROM _s3cache_meta")[0][0]


def replace(host: Host, rows: list[list[Any]], keys: list[list[Any]]) -> None:
    with transaction(host.file.connection):
        replace_rows(
            host.file.connection,
            table="t",
            key=["id"],
            columns=["id", "name"],
            rows=rows,
            keys=keys,
        )


def lay(host: Host, rows: list[list[Any]], deleted: list[list[Any]]) -> None:
    with transaction(host.file.connection):
        lay_rows(host.file.connection, host.table("t"), rows, deleted)


# Replacing rows.


def test_rows_may_swap_a_unique_value(host: Host) -> None:
    host.create(UNIQUE)
    host.commit("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    replace(host, [[1, "b"], [2, "a"]], [[1], [2]])
    assert host.rows("SELECT * FROM t") == [(1, "b"), (2, "a"), (3, "c")]


def test_a_neighbour_is_never_replaced(host: Host) -> None:
    host.create(UNIQUE)
    host.commit("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        replace(host, [[1, "b"]], [[1]])
    assert host.rows("SELECT * FROM t") == [(1, "a"), (2, "b")]


def test_a_key_may_be_null(host: Host) -> None:
    host.create("CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT)")
    host.commit("INSERT INTO t VALUES (NULL, 'a'), ('x', 'b')")
    replace(host, [], [[None]])
    assert host.rows("SELECT name FROM t") == [("b",)]


# Entries.


def test_changes_apply_in_their_order(host: Host) -> None:
    host.apply(
        host.entry(
            [
                Statement(UNIQUE),
                Rows("t", ["id"], ["id", "name"], [[1, "a"]]),
                Statement("ALTER TABLE t RENAME TO u"),
                Rows("u", ["id"], ["id", "name"], [[2, "b"]], [[1]]),
            ]
        )
    )
    assert host.rows("SELECT * FROM u") == [(2, "b")]


def test_columns_that_an_entry_does_not_have_get_their_default(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b DEFAULT 'new')")
    host.apply(host.entry([Rows("t", ["id"], ["id", "a"], [[1, "x"]])]))
    assert host.rows("SELECT * FROM t") == [(1, "x", "new")]


def test_a_statement_has_parameters(host: Host) -> None:
    host.create(UNIQUE)
    host.apply(host.entry([Statement("INSERT INTO t VALUES (?, ?)", [1, "a"])]))
    assert host.rows("SELECT * FROM t") == [(1, "a")]


def test_a_schema_change_resets_ids(host: Host) -> None:
    assert ids_reset_at(host) == 0
    host.create(UNIQUE)
    assert ids_reset_at(host) == 1
    host.commit("INSERT INTO t VALUES (1, 'a')")
    assert ids_reset_at(host) == 1


# Sequences.


def test_sequences_go_on_where_the_log_says(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)")
    assert not set_sequences(host.file.connection, Sequences({"t": 7}))
    assert not set_sequences(host.file.connection, Sequences({"t": 9, "u": 1}))
    assert read_sequences(host.file.connection) == {"t": 9, "u": 1}


def test_a_sequence_that_goes_back_resets_ids(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)")
    host.apply(host.entry([Sequences({"t": 100})]))
    assert ids_reset_at(host) == 1
    host.apply(host.entry([Sequences({"t": 50})]))
    assert ids_reset_at(host) == 3


# Laying rows over a state that is not the one that they come from.


def test_a_row_that_is_there_keeps_its_rowid(host: Host) -> None:
    host.create("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, n)")
    host.commit("INSERT INTO t (rowid, id, n) VALUES (1, 'a', 0), (5, 'b', 0)")
    lay(host, [[9, "a", 1]], [])
    assert host.rows("SELECT rowid, * FROM t") == [(1, "a", 1), (5, "b", 0)]


def test_a_new_row_gets_a_rowid_that_is_free(host: Host) -> None:
    host.create("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, n)")
    host.commit("INSERT INTO t (rowid, id, n) VALUES (1, 'theirs', 0)")
    lay(host, [[1, "ours", 0]], [])
    found = host.rows("SELECT rowid, id FROM t ORDER BY rowid")
    assert found == [(1, "theirs"), (2, "ours")]


def test_a_new_row_does_not_get_the_rowid_of_one_that_is_replaced(host: Host) -> None:
    host.create("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, n UNIQUE)")
    host.commit("INSERT INTO t (rowid, id, n) VALUES (1, 'a', 1), (9, 'z', 2)")
    lay(host, [[2, "new", 1], [9, "z", 3]], [["a"]])
    assert host.rows("SELECT rowid, * FROM t") == [(9, "z", 3), (10, "new", 1)]


def test_laid_rows_may_swap_a_unique_value(host: Host) -> None:
    host.create("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, n UNIQUE)")
    host.commit("INSERT INTO t VALUES ('a', 1), ('b', 2)")
    lay(host, [[1, "a", 2], [2, "b", 1]], [])
    assert host.rows("SELECT * FROM t") == [("a", 2), ("b", 1)]


def test_where_the_rowid_is_the_key_rows_go_where_they_were(host: Host) -> None:
    host.create("CREATE TABLE t (a)")
    host.commit("INSERT INTO t VALUES ('a'), ('b')")
    lay(host, [[2, "B"], [7, "g"]], [[1]])
    assert host.rows("SELECT rowid, a FROM t") == [(2, "B"), (7, "g")]


def test_laying_without_rowid(host: Host) -> None:
    host.create("CREATE TABLE t (a, b, c, PRIMARY KEY (b, a)) WITHOUT ROWID")
    host.commit("INSERT INTO t VALUES (1, 1, 'x'), (1, 2, 'y')")
    lay(host, [[1, 2, "Y"]], [[1, 1]])
    assert host.rows("SELECT * FROM t") == [(1, 2, "Y")]
