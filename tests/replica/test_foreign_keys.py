"""Foreign keys, checked for the rows that changed."""

from __future__ import annotations

import sqlite3

import pytest

from s3cache.log.entry import Rows
from s3cache.replica.foreign_keys import check_tables, find_orphan, with_children
from tests.replica.hosts import Host, changed

PARENT = (
    "CREATE TABLE parent (id INTEGER PRIMARY KEY, code UNIQUE, a, b, UNIQUE (a, b))"
)


@pytest.fixture
def family(host: Host) -> Host:
    """A host with two parents, and a child of the first."""
    host.create(
        PARENT, "CREATE TABLE child (id INTEGER PRIMARY KEY, p REFERENCES parent (id))"
    )
    host.commit(
        "INSERT INTO parent VALUES (1, 'x', 1, 1), (2, 'y', 2, 2)",
        "INSERT INTO child VALUES (1, 1), (2, NULL)",
    )
    return host


def refused(host: Host, *statements: str) -> bool:
    with host.trying(*statements) as writer:
        try:
            writer.check_foreign_keys()
        except sqlite3.IntegrityError as error:
            assert str(error) == "FOREIGN KEY constraint failed"
            return True
    return False


# The child's side.


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO child (p) VALUES (9)",
        "INSERT INTO child (p) VALUES ('x')",
        "INSERT INTO child (p) VALUES (1), (9)",
        "UPDATE child SET p = 9 WHERE id = 2",
    ],
)
def test_a_child_needs_its_parent(family: Host, sql: str) -> None:
    assert refused(family, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO child (p) VALUES (2)",
        "INSERT INTO child (p) VALUES (NULL)",
        "UPDATE child SET p = NULL",
        "UPDATE child SET id = 7 WHERE id = 1",
        "DELETE FROM child",
    ],
)
def test_a_child_may_have_one_or_none(family: Host, sql: str) -> None:
    assert not refused(family, sql)


def test_the_order_within_a_transaction_does_not_matter(family: Host) -> None:
    assert not refused(
        family,
        "INSERT INTO child (p) VALUES (3)",
        "INSERT INTO parent (id) VALUES (3)",
    )


# The parent's side.


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM parent",
        "DELETE FROM parent WHERE id = 1",
        "UPDATE parent SET id = 9 WHERE id = 1",
    ],
)
def test_a_parent_with_children_stays(family: Host, sql: str) -> None:
    assert refused(family, sql)


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM parent WHERE id = 2"],
        ["UPDATE parent SET code = NULL"],
        ["DELETE FROM parent", "DELETE FROM child"],
        ["DELETE FROM parent WHERE id = 1", "INSERT INTO parent (id) VALUES (1)"],
        ["REPLACE INTO parent (id, code) VALUES (1, 'new')"],
    ],
)
def test_a_parent_may_go_alone_or_come_back(
    family: Host, statements: list[str]
) -> None:
    assert not refused(family, *statements)


# Other keys than the primary key.


@pytest.mark.parametrize(
    ("columns", "fine", "wrong"),
    [
        ("x REFERENCES parent (code)", "'x'", "'nobody'"),
        ("x, y, FOREIGN KEY (x, y) REFERENCES parent (a, b)", "1, 1", "1, 2"),
        ("x, y, FOREIGN KEY (x, y) REFERENCES parent (a, b)", "9, NULL", "9, 9"),
        ("x, y, FOREIGN KEY (y, x) REFERENCES PARENT (ID, CODE)", "'y', 2", "'y', 1"),
    ],
)
def test_keys_that_are_not_the_primary_key(
    host: Host, columns: str, fine: str, wrong: str
) -> None:
    host.create(PARENT, f"CREATE TABLE child ({columns})")
    host.commit("INSERT INTO parent VALUES (1, 'x', 1, 1), (2, 'y', 2, 2)")
    assert not refused(host, f"INSERT INTO child VALUES ({fine})")  # noqa: S608
    assert refused(host, f"INSERT INTO child VALUES ({wrong})")  # noqa: S608
    host.commit(f"INSERT INTO child VALUES ({fine})")  # noqa: S608
    assert refused(host, "DELETE FROM parent") is ("NULL" not in fine)


def test_a_composite_primary_key(host: Host) -> None:
    host.create(
        "CREATE TABLE parent (a, b, PRIMARY KEY (b, a)) WITHOUT ROWID",
        "CREATE TABLE child (x, y, FOREIGN KEY (x, y) REFERENCES parent)",
    )
    host.commit("INSERT INTO parent VALUES (1, 2)", "INSERT INTO child VALUES (2, 1)")
    assert refused(host, "INSERT INTO child VALUES (1, 2)")
    assert refused(host, "DELETE FROM parent")


def test_a_row_may_refer_to_itself(host: Host) -> None:
    host.create("CREATE TABLE t (id INTEGER PRIMARY KEY, up REFERENCES t)")
    host.commit("INSERT INTO t VALUES (1, 1), (2, 1)")
    assert refused(host, "DELETE FROM t WHERE id = 1")
    assert not refused(host, "DELETE FROM t")


def test_a_parent_that_does_not_exist_has_no_rows(host: Host) -> None:
    host.create("CREATE TABLE child (p REFERENCES nowhere)")
    assert refused(host, "INSERT INTO child VALUES (1)")
    assert not refused(host, "INSERT INTO child VALUES (NULL)")


# Whole tables.


def test_an_orphan_is_found(family: Host) -> None:
    schema = family.schema
    child = family.table("child")
    connection = family.file.connection
    assert find_orphan(connection, schema, child) is None
    connection.execute("INSERT INTO child VALUES (7, 99)")
    orphan = find_orphan(connection, schema, child)
    assert orphan is not None
    assert (orphan.row_key, orphan.value) == (7, 99)
    assert orphan.key.parent == "parent"


@pytest.mark.parametrize(
    ("names", "fails"), [(["child"], True), (["Parent"], True), (["other"], False)]
)
def test_tables_are_checked_with_those_that_refer_to_them(
    family: Host, names: list[str], fails: bool
) -> None:
    family.file.connection.execute("INSERT INTO child VALUES (7, 99)")
    try:
        check_tables(family.file.connection, family.schema, names)
    except sqlite3.IntegrityError:
        assert fails
    else:
        assert not fails


# ON DELETE.


def acting(host: Host, action: str, column: str = "p INTEGER") -> None:
    host.create(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY, n)",
        f"CREATE TABLE child (id INTEGER PRIMARY KEY, {column} REFERENCES parent (id) "
        f"ON DELETE {action})",
    )
    host.commit(
        "INSERT INTO parent VALUES (1, 0), (2, 0), (3, 0)",
        "INSERT INTO child VALUES (10, 1), (11, 1), (20, 2), (90, NULL)",
    )


@pytest.mark.parametrize(
    ("action", "column", "rows", "deleted"),
    [
        ("CASCADE", "p INTEGER", [], [[10], [11]]),
        ("SET NULL", "p INTEGER", [[10, None], [11, None]], []),
        ("SET DEFAULT", "p INTEGER DEFAULT 3", [[10, 3], [11, 3]], []),
        ("SET DEFAULT", "p INTEGER", [[10, None], [11, None]], []),
    ],
)
def test_what_becomes_of_the_children(
    host: Host, action: str, column: str, rows: list[object], deleted: list[object]
) -> None:
    acting(host, action, column)
    entry = host.commit("DELETE FROM parent WHERE id = 1")
    assert changed(entry.changes) == {
        "child": (rows, deleted),
        "parent": ([], [[1]]),
    }


def test_other_statements_leave_children_alone(host: Host) -> None:
    acting(host, "CASCADE")
    entry = host.commit("UPDATE parent SET n = 1", "DELETE FROM parent WHERE id = 3")
    assert "child" not in changed(entry.changes)


def test_a_default_that_does_not_exist_is_refused(host: Host) -> None:
    acting(host, "SET DEFAULT", "p INTEGER DEFAULT 99")
    assert refused(host, "DELETE FROM parent WHERE id = 1")


def test_a_row_count_is_of_the_statement_alone(host: Host) -> None:
    acting(host, "CASCADE")
    sql = "DELETE FROM parent WHERE id = 1"
    host.writer.begin([(sql, ())])
    assert host.writer.execute(sql, ()).rowcount == 1
    host.writer.rollback()


def test_actions_run_down_a_chain(host: Host) -> None:
    host.create(
        "CREATE TABLE a (id INTEGER PRIMARY KEY)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY, up REFERENCES a ON DELETE CASCADE)",
        "CREATE TABLE c (id INTEGER PRIMARY KEY, up REFERENCES b ON DELETE CASCADE)",
        "CREATE TABLE d (id INTEGER PRIMARY KEY, up REFERENCES c ON DELETE SET NULL)",
    )
    host.commit(
        "INSERT INTO a VALUES (1), (2)",
        "INSERT INTO b VALUES (1, 1), (2, 2)",
        "INSERT INTO c VALUES (1, 1), (2, 2)",
        "INSERT INTO d VALUES (1, 1), (2, 2)",
    )
    assert with_children(host.schema, ["a"]) == {"a", "b", "c", "d"}
    assert with_children(host.schema, ["c"]) == {"c", "d"}
    entry = host.commit("DELETE FROM a WHERE id = 1")
    assert changed(entry.changes) == {
        "a": ([], [[1]]),
        "b": ([], [[1]]),
        "c": ([], [[1]]),
        "d": ([[1, None]], []),
    }


def test_a_tree_goes_with_its_root(host: Host) -> None:
    host.create(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, up REFERENCES t ON DELETE CASCADE)"
    )
    host.commit("INSERT INTO t VALUES (1, NULL), (2, 1), (3, 2), (4, 3), (5, NULL)")
    assert with_children(host.schema, ["t"]) == {"t"}
    entry = host.commit("DELETE FROM t WHERE id = 1")
    assert changed(entry.changes) == {"t": ([], [[1], [2], [3], [4]])}


def test_two_tables_may_refer_to_each_other(host: Host) -> None:
    host.create(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, b REFERENCES b ON DELETE CASCADE)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a REFERENCES a ON DELETE CASCADE)",
    )
    host.commit(
        "INSERT INTO a VALUES (1, 1), (2, 2)", "INSERT INTO b VALUES (1, 2), (2, NULL)"
    )
    entry = host.commit("DELETE FROM b WHERE id = 2")
    assert changed(entry.changes) == {"a": ([], [[1], [2]]), "b": ([], [[1], [2]])}


def test_an_action_for_a_unique_column(host: Host) -> None:
    host.create(
        PARENT, "CREATE TABLE child (c REFERENCES parent (code) ON DELETE CASCADE)"
    )
    host.commit(
        "INSERT INTO parent (code) VALUES ('x'), ('y')",
        "INSERT INTO child VALUES ('x'), ('y'), (NULL)",
    )
    host.commit("DELETE FROM parent WHERE code = 'x'")
    assert host.rows("SELECT c FROM child") == [("y",), (None,)]


def test_applying_an_entry_runs_no_action_again(host: Host, other: Host) -> None:
    for statement in (
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (p REFERENCES parent ON DELETE CASCADE)",
    ):
        other.apply(host.create(statement))
    rows = [Rows("parent", ["id"], ["id"], [[1]])]
    other.apply(host.apply(host.entry([*rows])))
    other.apply(host.commit("INSERT INTO child VALUES (1)"))
    # It deletes the row first, and puts it back.
    other.apply(host.apply(host.entry([*rows])))
    assert other.rows("SELECT p FROM child") == [(1,)]


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
def test_a_parent_that_changes_its_key_was_not_deleted(host: Host, action: str) -> None:
    acting(host, action)
    assert refused(host, "UPDATE parent SET id = 9 WHERE id = 1")
