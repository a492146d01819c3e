"""Describing the tables of a replica."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from s3cache.replica.tables import (
    ForeignKey,
    Schema,
    Table,
    read_schema,
    read_table,
    schema_version,
)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """An empty database."""
    made = sqlite3.connect(":memory:", isolation_level=None)
    yield made
    made.close()


def describe(connection: sqlite3.Connection, *statements: str) -> Schema:
    for sql in statements:
        connection.execute(sql)
    return read_schema(connection, schema_version(connection))


def table(connection: sqlite3.Connection, definition: str) -> Table:
    found = describe(connection, f"CREATE TABLE t {definition}").get("t")
    assert found is not None
    return found


def foreign_key(connection: sqlite3.Connection, *statements: str) -> ForeignKey:
    child = describe(connection, *statements).get("child")
    assert child is not None
    (key,) = child.foreign_keys
    return key


# Keys and rowids.


@pytest.mark.parametrize("kind", ["INTEGER", "integer", "Integer"])
def test_an_integer_primary_key_is_the_rowid(
    connection: sqlite3.Connection, kind: str
) -> None:
    t = table(connection, f"(id {kind} PRIMARY KEY, name TEXT)")
    assert (t.key, t.columns, t.rowid) == (("id",), ("id", "name"), "id")
    assert t.integer_key
    assert not t.carries_rowid


@pytest.mark.parametrize(
    "definition",
    [
        "(id INT NOT NULL PRIMARY KEY)",
        "(id BIGINT NOT NULL PRIMARY KEY)",
        "(id TEXT NOT NULL PRIMARY KEY)",
        "(id INTEGER NOT NULL PRIMARY KEY DESC)",
    ],
)
def test_any_other_key_has_the_rowid_beside_it(
    connection: sqlite3.Connection, definition: str
) -> None:
    t = table(connection, definition)
    assert (t.key, t.columns, t.rowid) == (("id",), ("rowid", "id"), "rowid")
    assert not t.integer_key
    assert t.carries_rowid
    assert t.key_indexes == (1,)


def test_a_table_constraint_makes_an_integer_key_too(
    connection: sqlite3.Connection,
) -> None:
    assert table(connection, "(a TEXT, id INTEGER, PRIMARY KEY (id))").integer_key


def test_a_composite_key_is_in_the_order_of_the_key(
    connection: sqlite3.Connection,
) -> None:
    t = table(
        connection,
        "(a INTEGER NOT NULL, b TEXT, c INTEGER NOT NULL, PRIMARY KEY (c, a))",
    )
    assert t.key == ("c", "a")
    assert t.columns == ("rowid", "a", "b", "c")
    assert t.key_indexes == (3, 1)


@pytest.mark.parametrize("key", ["id", "id, a"])
def test_without_rowid_there_is_none(connection: sqlite3.Connection, key: str) -> None:
    t = table(connection, f"(id INTEGER, a TEXT, PRIMARY KEY ({key})) WITHOUT ROWID")
    assert t.key == tuple(key.split(", "))
    assert t.columns == ("id", "a")
    assert t.rowid == ""
    assert not t.carries_rowid


def test_the_rowid_is_the_key_where_there_is_no_other(
    connection: sqlite3.Connection,
) -> None:
    t = table(connection, "(a, b UNIQUE)")
    assert (t.key, t.columns) == (("rowid",), ("rowid", "a", "b"))


@pytest.mark.parametrize(
    "definition",
    [
        "(a TEXT PRIMARY KEY)",
        "(a INTEGER PRIMARY KEY DESC)",
        "(a NOT NULL, b, PRIMARY KEY (a, b))",
    ],
)
def test_a_key_that_may_be_null_identifies_no_row(
    connection: sqlite3.Connection, definition: str
) -> None:
    assert table(connection, definition).key == ("rowid",)


@pytest.mark.parametrize(
    ("columns", "rowid"),
    [("rowid", "_rowid_"), ("RowID", "_rowid_"), ("rowid, _rowid_", "oid")],
)
def test_a_column_may_be_called_like_the_rowid(
    connection: sqlite3.Connection, columns: str, rowid: str
) -> None:
    t = table(connection, f"({columns})")
    assert (t.key, t.rowid) == ((rowid,), rowid)


def test_a_key_called_rowid(connection: sqlite3.Connection) -> None:
    t = table(connection, "(rowid INTEGER PRIMARY KEY, a)")
    assert (t.key, t.columns) == (("rowid",), ("rowid", "a"))
    assert not t.carries_rowid


def test_generated_columns_are_not_carried(connection: sqlite3.Connection) -> None:
    t = table(
        connection,
        "(id INTEGER PRIMARY KEY, a, b AS (a + 1) STORED, c AS (a + 2) VIRTUAL, d)",
    )
    assert t.columns == ("id", "a", "d")


@pytest.mark.parametrize("name", ['a "quoted" name', "a'b", "ünïcode", "select", "a.b"])
def test_any_name_will_do(connection: sqlite3.Connection, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    schema = describe(
        connection,
        f"CREATE TABLE {quoted} (id INTEGER PRIMARY KEY AUTOINCREMENT, {quoted})",
    )
    (t,) = schema
    assert (t.name, t.columns, t.autoincrement) == (name, ("id", name), True)


def test_autoincrement(connection: sqlite3.Connection) -> None:
    assert not table(connection, "(id INTEGER PRIMARY KEY)").autoincrement
    schema = describe(
        connection, "CREATE TABLE u (id integer primary key autoincrement)"
    )
    assert schema.tables["u"].autoincrement


# The schema.


def test_names_are_found_in_any_case(connection: sqlite3.Connection) -> None:
    schema = describe(connection, "CREATE TABLE MixedCase (a)")
    assert schema.get("mIXEDcASE") is schema.tables["mixedcase"]
    assert schema.get("other") is None


def test_tables_of_sqlite_and_of_the_replica_are_left_out(
    connection: sqlite3.Connection,
) -> None:
    schema = describe(
        connection,
        "CREATE TABLE _s3cache_meta (a)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "CREATE VIEW v AS SELECT * FROM t",
    )
    assert [t.name for t in schema] == ["t"]


def test_the_version_changes_with_the_schema(connection: sqlite3.Connection) -> None:
    before = schema_version(connection)
    connection.execute("CREATE TABLE t (a)")
    middle = schema_version(connection)
    connection.execute("INSERT INTO t VALUES (1)")
    assert before != middle == schema_version(connection)


# Foreign keys.


def test_a_foreign_key(connection: sqlite3.Connection) -> None:
    key = foreign_key(
        connection,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (p REFERENCES parent (id))",
    )
    assert key == ForeignKey("child", ("p",), "parent", ("id",))


def test_a_composite_foreign_key(connection: sqlite3.Connection) -> None:
    key = foreign_key(
        connection,
        "CREATE TABLE parent (a, b, PRIMARY KEY (a, b))",
        "CREATE TABLE child (x, y, FOREIGN KEY (y, x) REFERENCES parent (b, a))",
    )
    assert (key.columns, key.parent_columns) == (("y", "x"), ("b", "a"))


def test_without_columns_it_refers_to_the_primary_key(
    connection: sqlite3.Connection,
) -> None:
    key = foreign_key(
        connection,
        "CREATE TABLE parent (a, b, PRIMARY KEY (b, a))",
        "CREATE TABLE child (x, y, FOREIGN KEY (x, y) REFERENCES parent)",
    )
    assert key.parent_columns == ("b", "a")


def test_the_parent_need_not_be_there_yet(connection: sqlite3.Connection) -> None:
    schema = describe(connection, "CREATE TABLE child (p REFERENCES parent)")
    assert schema.children["parent"][0].parent_columns == ("id",)


@pytest.mark.parametrize(
    ("clause", "action"),
    [
        ("", ""),
        ("ON DELETE NO ACTION", ""),
        ("ON DELETE RESTRICT", ""),
        ("ON UPDATE CASCADE", ""),
        ("ON DELETE CASCADE", "CASCADE"),
        ("on delete set null", "SET NULL"),
        ("ON DELETE SET DEFAULT DEFERRABLE INITIALLY DEFERRED", "SET DEFAULT"),
    ],
)
def test_what_becomes_of_the_children(
    connection: sqlite3.Connection, clause: str, action: str
) -> None:
    schema = describe(
        connection,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        f"CREATE TABLE child (p REFERENCES parent (id) {clause})",
    )
    assert schema.children["parent"][0].on_delete == action
    assert bool(schema.actions.get("parent")) is bool(action)


def test_a_parent_knows_its_children_in_any_case(
    connection: sqlite3.Connection,
) -> None:
    schema = describe(
        connection,
        "CREATE TABLE Parent (id INTEGER PRIMARY KEY, up REFERENCES parent)",
        "CREATE TABLE child (p REFERENCES PARENT)",
    )
    assert {key.child for key in schema.children["parent"]} == {"Parent", "child"}


def test_one_table_is_found_by_its_name_in_lower_case(
    connection: sqlite3.Connection,
) -> None:
    schema = describe(connection, 'CREATE TABLE "ÉTÉ" (id INTEGER PRIMARY KEY)')
    assert read_table(connection, "été") == schema.get("été")
    assert read_table(connection, "other") is None
