"""Tables that Django would not make, on a host that loads on demand."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from s3cache.keeper.compare import verify_replica
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log.effects import Absent
from tests.engine import Host, MakeHost

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

SMALL = KeeperOptions(pack_after=1, target=8 * 1024)


def keep(host: Host) -> None:
    keep_now(host.connection.replica, SMALL)


def absent(host: Host) -> int:
    return len(host.connection.replica.file.lacking(Absent(None, 10_000)).packs)


def ddl(host: Host, *statements: str) -> None:
    with host, transaction.atomic():
        for one in statements:
            host.sql(one)


NUMBERS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) "
)
WIDE = "'" + "x" * 100 + "'"


def fill(host: Host, table: str, values: str) -> None:
    host.sql(f"INSERT INTO {table} {NUMBERS} SELECT {values} FROM n")  # noqa: S608


def same(full: Host, cold: Host) -> None:
    full.catch_up()
    cold.connection.replica.load()
    assert cold.dump() == full.dump()
    assert verify_replica(cold.connection.replica) == []


def test_a_column_with_another_collation_than_its_key(
    host: Host, hosts: MakeHost
) -> None:
    ddl(
        host,
        "CREATE TABLE t (name TEXT COLLATE NOCASE NOT NULL, v, "
        "PRIMARY KEY (name COLLATE BINARY))",
    )
    fill(host, "t", f"printf('k%04d', i), {WIDE}")
    keep(host)
    cold = hosts("cold", load_at_once=0)
    sql = 'SELECT "t"."name" FROM "t" WHERE "t"."name" = %s'
    assert cold.sql(sql, "K0300") == host.sql(sql, "K0300") == [("k0300",)]


def test_a_rowid_that_is_asked_for_by_text(host: Host, hosts: MakeHost) -> None:
    ddl(host, "CREATE TABLE t (name TEXT PRIMARY KEY, v)")
    fill(host, "t", f"printf('k%04d', i), {WIDE}")
    keep(host)
    cold = hosts("cold", load_at_once=0)
    sql = 'SELECT "t"."name" FROM "t" WHERE "t"."rowid" = %s'
    assert cold.sql(sql, "300") == [("k0300",)]
    assert cold.sql(sql, 3) == [("k0003",)]


KEYS = [
    "",
    "a",
    "A",
    "\x00",
    "a\x00b",
    "\uffff",
    "\U0001f600",
    "e\u0301",
    "\u00e9",
    "\u00c9",
    "zz",
    "~",
    "\x7f",
    "\x80",
]


def test_keys_of_all_kinds_of_text(host: Host, hosts: MakeHost) -> None:
    ddl(host, "CREATE TABLE t (name TEXT NOT NULL PRIMARY KEY, v)")
    for number, key in enumerate(sorted(KEYS)):
        host.sql("INSERT INTO t VALUES (%s, %s)", key, f"{number}" + "x" * 5000)
    keep(host)
    cold = hosts("cold", load_at_once=0)
    sql = 'SELECT "t"."name" FROM "t" WHERE "t"."name" = %s'
    for key in KEYS:
        assert cold.sql(sql, key) == [(key,)], repr(key)
    same(host, cold)


@pytest.mark.parametrize("kind", ["NUMERIC", "REAL", "BLOB", "TEXT", "DATE", "INT"])
def test_keys_of_mixed_types(host: Host, hosts: MakeHost, kind: str) -> None:
    ddl(host, f"CREATE TABLE t (k {kind} NOT NULL PRIMARY KEY, v)")
    values: list[Any] = [1, -1, "2", 2.5, "3.50", "1e2", "abc", "2026-01-01", b"x"]
    values += [2**63 - 1, -(2**63), 0.1, "9" * 30]
    for value in values:
        host.sql("INSERT INTO t VALUES (%s, %s)", value, "x" * 5000)
    keep(host)
    sql = 'SELECT "t"."k" FROM "t" WHERE "t"."k" = %s'
    for number, value in enumerate([*values, 100, "100", 1.0, "1", "2.50"]):
        if number % 4 == 0:
            cold = hosts(f"cold{number}", load_at_once=0)
        assert cold.sql(sql, value) == host.sql(sql, value)
    host.sql("UPDATE t SET v = 1 WHERE typeof(k) != 'text'")
    host.sql("DELETE FROM t WHERE typeof(k) = 'text'")
    cold.catch_up()
    same(host, cold)


def test_negative_and_huge_keys(host: Host, hosts: MakeHost) -> None:
    ddl(host, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    keys: list[Any] = [-(2**63), -(2**62), -5, -1, 0, 1, 5, 2**53 + 1, 2**62, 2**63 - 1]
    for key in keys:
        host.sql("INSERT INTO t VALUES (%s, %s)", key, "x" * 5000)
    keep(host)
    cold = hosts("cold", load_at_once=0)
    sql = 'SELECT "t"."id" FROM "t" WHERE "t"."id" = %s'
    others: list[Any] = [-2, 2, 7, 2**63 - 2, 1.0, "5", True]
    for key in [*keys, *others]:
        assert cold.sql(sql, key) == host.sql(sql, key)
    same(host, cold)


def test_without_rowid_and_composite_keys(host: Host, hosts: MakeHost) -> None:
    ddl(
        host,
        "CREATE TABLE w (a TEXT COLLATE NOCASE, b INT, v, PRIMARY KEY (a, b)) "
        "WITHOUT ROWID",
        "CREATE TABLE c (a TEXT COLLATE NOCASE NOT NULL, b INT NOT NULL, v, "
        "PRIMARY KEY (a, b))",
        "CREATE TABLE n (a TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v)",
    )
    fill(host, "w", f"printf('k%03d', i / 2), i, {WIDE}")
    fill(host, "c", f"printf('k%03d', i / 2), i, {WIDE}")
    fill(host, "n", f"printf('k%03d', i), {WIDE}")
    keep(host)
    cold = hosts("cold", load_at_once=0)
    cold.catch_up()
    for table in "wcn":
        for change in (
            "UPDATE {} SET a = upper(a) WHERE a > 'k100' AND a < 'k120'",
            "DELETE FROM {} WHERE a = 'K005'",
            "UPDATE {} SET v = 'new' WHERE a = 'K007'",
        ):
            host.sql(change.format(table))
    cold.catch_up()
    assert absent(cold)
    sql = 'SELECT "n"."a" FROM "n" WHERE "n"."a" = %s'
    assert cold.sql(sql, "k110") == [("K110",)]
    same(host, cold)


@contextmanager
def plain_sqlite(host: Host, folder: Path) -> Iterator[sqlite3.Connection]:
    """A database of SQLite's own with the rows of ``host``."""
    path = folder / "plain.sqlite3"
    host.sql("VACUUM INTO %s", str(path))
    with contextlib.closing(sqlite3.connect(path)) as plain:
        plain.execute("PRAGMA foreign_keys = ON")
        yield plain


def outcome(run: Callable[[str], list[tuple[Any, ...]]], sql: str) -> object:
    """The rows that ``sql`` returns, or what its error says."""
    try:
        return run(sql)
    except (DatabaseError, sqlite3.Error) as error:
        return str(error)


WRITES = [
    "INSERT INTO t (id, u) VALUES (5000, 'k0300') "
    "ON CONFLICT (u) DO UPDATE SET v = 'up'",
    "INSERT INTO t (id, u) VALUES (300, 'z') ON CONFLICT DO NOTHING",
    "REPLACE INTO t (id, u) VALUES (5000, 'k0300')",
    "INSERT OR IGNORE INTO t (u) VALUES ('k0300')",
    "UPDATE OR REPLACE t SET u = 'k0001' WHERE id = 300",
    "UPDATE OR IGNORE t SET u = 'k0001' WHERE id = 300",
    "UPDATE t SET v = o.v FROM o WHERE o.id = t.id AND o.id = 350",
    "WITH x AS (SELECT id FROM o WHERE id > 390) DELETE FROM t "
    "WHERE id IN (SELECT id FROM x)",
    "WITH x AS (SELECT id FROM o) INSERT INTO t (u) SELECT 'w' || id FROM x",
    "DELETE FROM p WHERE id = 300",
    "INSERT INTO t (u) VALUES ('fresh') RETURNING id, (SELECT count(*) FROM o)",
    "UPDATE t SET v = (SELECT max(v) FROM o) WHERE id < 3 RETURNING v",
    "INSERT INTO a (v) VALUES ('next') RETURNING id",
    "INSERT INTO t (u, other) VALUES ('Q', 'k0200')",
    "DELETE FROM a WHERE id > 100",
    "INSERT INTO t (id, u) SELECT max(id) + 1, 'max' FROM t",
    "DELETE FROM v",
]


@pytest.mark.parametrize("in_block", [False, True])
def test_writes_come_to_what_they_come_to_in_sqlite(
    host: Host, hosts: MakeHost, tmp_path: Path, in_block: bool
) -> None:
    ddl(
        host,
        "CREATE TABLE p (id INTEGER PRIMARY KEY, v)",
        "CREATE TABLE q (id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE, v)",
        "CREATE TABLE r (id INTEGER PRIMARY KEY, q REFERENCES q ON DELETE SET NULL)",
        "CREATE TABLE o (id INTEGER PRIMARY KEY, v)",
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v, other, "
        "g GENERATED ALWAYS AS (id * 2) STORED)",
        "CREATE UNIQUE INDEX t_part ON t (v) WHERE v = 'up'",
        "CREATE UNIQUE INDEX t_other ON t (coalesce(other, u))",
        "CREATE VIEW v AS SELECT * FROM t",
    )
    for table, values in {
        "p": f"i, {WIDE}",
        "o": f"i, {WIDE}",
        "q": f"i, i, {WIDE}",
        "r": "i, i",
        "a": f"i, {WIDE}",
        "t (id, u, v)": f"i, printf('k%04d', i), {WIDE}",
    }.items():
        fill(host, table, values)
    host.sql("DELETE FROM a WHERE id > 380")
    keep(host)
    with plain_sqlite(host, tmp_path) as plain:
        for number, sql in enumerate(WRITES):
            cold = hosts(f"cold{number}", load_at_once=0)
            expected = outcome(lambda one: plain.execute(one).fetchall(), sql)
            with cold, transaction.atomic() if in_block else contextlib.nullcontext():
                assert outcome(cold.sql, sql) == expected, sql
                assert cold.sql(LAST) == plain.execute(LAST).fetchall()
        same(host, cold)
        for table in "apqrot":
            select = f"SELECT * FROM {table}"  # noqa: S608
            assert cold.sql(select) == plain.execute(select).fetchall()


LAST = "SELECT * FROM t ORDER BY id DESC LIMIT 3"


def test_a_block_whose_snapshot_is_of_an_older_schema(
    host: Host, hosts: MakeHost
) -> None:
    ddl(
        host,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v)",
        "CREATE TABLE u (id INTEGER PRIMARY KEY, v)",
    )
    fill(host, "t", f"i, {WIDE}")
    fill(host, "u", f"i, {WIDE}")
    keep(host)
    cold = hosts("cold", load_at_once=0)
    with cold, transaction.atomic():
        assert cold.sql("SELECT count(*) FROM t") == [(400,)]
        with host:
            ddl(host, "ALTER TABLE u ADD COLUMN w DEFAULT 7")
        cold.connection.replica.catch_up()
        assert cold.sql("SELECT max(v) FROM u WHERE id = 7")
        assert cold.sql("SELECT sum(w) FROM u") == [(2800,)]
