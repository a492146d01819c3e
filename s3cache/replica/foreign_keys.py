"""Foreign keys, checked for the rows that changed.

SQLite checks deferred foreign keys when a transaction commits. Ours are
rolled back, and committed elsewhere, so the check is generated SQL: for each
changed row its parents, for each changed key of a parent its children.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from s3cache.replica.capture import Capture, changes_table, column_name, gone_table
from s3cache.replica.sql import quote
from s3cache.replica.tables import ForeignKey, Schema, Table


def check_changed(
    connection: sqlite3.Connection, schema: Schema, tables: Iterable[Table]
) -> None:
    """Check what the capture of ``tables`` noted on this connection.

    Raises ``sqlite3.IntegrityError`` for the first row that refers to
    nothing.
    """
    for table in tables:
        for key in table.foreign_keys:
            has_parent = schema.get(key.parent) is not None
            _refuse(connection, _children_that_changed(table, key, has_parent))
        for key in schema.children.get(table.name.lower(), ()):
            child = schema.get(key.child)
            if child is not None:
                _refuse(connection, _parents_that_changed(table, key))


@dataclass(frozen=True, slots=True)
class Orphan:
    """A row that refers to nothing; ``row_key`` and ``value`` are raw."""

    key: ForeignKey
    row_key: object
    value: object


def find_orphan(
    connection: sqlite3.Connection, schema: Schema, table: Table
) -> Orphan | None:
    """The first row of ``table`` that refers to nothing, or None."""
    for key in table.foreign_keys:
        found = connection.execute(
            f"SELECT +t.{column_name(table, table.key[0])} AS a, "
            f"+t.{quote(key.columns[0])} AS b FROM main.{quote(table.name)} t "
            f"WHERE {orphaned(schema, key)} LIMIT 1"
        ).fetchone()
        if found:
            return Orphan(key, *found)
    return None


def check_tables(
    connection: sqlite3.Connection, schema: Schema, names: Iterable[str]
) -> None:
    """Check all rows of the tables ``names``, and all that refer to them.

    Raises ``sqlite3.IntegrityError``.
    """
    lower = {name.lower() for name in names}
    for table in schema:
        parents = {key.parent.lower() for key in table.foreign_keys}
        concerned = table.name.lower() in lower or not parents.isdisjoint(lower)
        if concerned and find_orphan(connection, schema, table) is not None:
            raise sqlite3.IntegrityError("FOREIGN KEY constraint failed")


def _refuse(connection: sqlite3.Connection, sql: str) -> None:
    if connection.execute(sql).fetchone():
        raise sqlite3.IntegrityError("FOREIGN KEY constraint failed")


def do_actions(
    connection: sqlite3.Connection, capture: Capture, schema: Schema, touched: set[str]
) -> None:
    """Do what ON DELETE asks for, for the rows of ``touched`` that are gone.

    Those are the rows that were deleted since ``forget_gone``.

    SQLite would do it only with ``PRAGMA foreign_keys``; but then it would
    also do it when rows are laid out, which deletes them first. The children
    that change are added to ``touched``.
    """
    waiting = [name for name in touched if name in schema.actions]
    while waiting:
        table = capture.tables.get(waiting.pop())
        if table is None:
            continue
        for key in schema.actions[table.name.lower()]:
            done = capture.run(_action(connection, table, key), (), many=False)
            child = key.child.lower()
            if done.rowcount > 0:
                touched.add(child)
                if child in schema.actions:
                    waiting.append(child)


def forget_gone(
    connection: sqlite3.Connection, capture: Capture, schema: Schema, names: set[str]
) -> None:
    """Begin a statement that writes ``names``: no row is gone yet."""
    for name in with_children(schema, names):
        if name in schema.actions and (table := capture.tables.get(name)) is not None:
            connection.execute(f"DELETE FROM temp.{gone_table(table)}")


def referred_columns(schema: Schema, name: str) -> tuple[str, ...]:
    """The columns of ``name`` that children with actions refer to."""
    found = {
        column.lower(): column
        for key in schema.actions.get(name.lower(), ())
        for column in key.parent_columns
    }
    return tuple(found.values())


def with_children(schema: Schema, names: Iterable[str]) -> set[str]:
    """``names``, and the tables that actions of theirs may change."""
    found = set(names)
    waiting = list(found)
    while waiting:
        for key in schema.actions.get(waiting.pop(), ()):
            child = key.child.lower()
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _action(connection: sqlite3.Connection, parent: Table, key: ForeignKey) -> str:
    child = f"main.{quote(key.child)}"
    gone = f"temp.{gone_table(parent)}"
    if len(key.columns) == 1:
        column, to = quote(key.columns[0]), quote(key.parent_columns[0])
        was = f"{child}.{column} IN (SELECT {to} FROM {gone})"
    else:
        match = " AND ".join(
            f"g.{quote(there)} = {child}.{quote(here)}"
            for here, there in zip(key.columns, key.parent_columns, strict=True)
        )
        was = f"EXISTS (SELECT 1 FROM {gone} g WHERE {match})"
    # Another row may hold the value by now.
    where = f"{was} AND {_refers_to_nothing(key, child=child)}"
    if key.on_delete == "CASCADE":
        return f"DELETE FROM {child} WHERE {where}"
    values = ", ".join(
        f"{quote(column)} = {_value(connection, key, column)}" for column in key.columns
    )
    return f"UPDATE {child} SET {values} WHERE {where}"


def _value(connection: sqlite3.Connection, key: ForeignKey, column: str) -> str:
    if key.on_delete == "SET NULL":
        return "NULL"
    default = connection.execute(
        "SELECT dflt_value FROM pragma_table_info(?) WHERE name = ?",
        [key.child, column],
    ).fetchone()
    return default[0] or "NULL" if default else "NULL"


@lru_cache(maxsize=1024)
def _children_that_changed(table: Table, key: ForeignKey, has_parent: bool) -> str:
    on = " AND ".join(
        f"t.{column_name(table, column)} IS c.k{i}"
        for i, column in enumerate(table.key)
    )
    return (
        f"SELECT 1 FROM temp.{changes_table(table)} c "
        f"JOIN main.{quote(table.name)} t ON {on} "
        f"WHERE {_orphaned(key, has_parent)} LIMIT 1"
    )


@lru_cache(maxsize=1024)
def _parents_that_changed(table: Table, key: ForeignKey) -> str:
    if key.parent_columns == table.key:
        pairs = list(zip(key.columns, range(len(table.key)), strict=True))
        gone = " AND ".join(f"p.{quote(c)} = c.k{i}" for i, c in enumerate(table.key))
        used = " AND ".join(f"x.{quote(column)} = c.k{i}" for column, i in pairs)
        return (
            f"SELECT 1 FROM temp.{changes_table(table)} c WHERE NOT EXISTS "
            f"(SELECT 1 FROM main.{quote(table.name)} p WHERE {gone}) AND EXISTS "
            f"(SELECT 1 FROM main.{quote(key.child)} x WHERE {used}) LIMIT 1"
        )
    # The old value of a key that is not the primary key was not noted.
    return (
        f"SELECT 1 FROM main.{quote(key.child)} t WHERE {_refers_to_nothing(key)} "
        f"LIMIT 1"
    )


def orphaned(schema: Schema, key: ForeignKey) -> str:
    """A condition on a row ``t`` of the child: its parent is not there."""
    return _orphaned(key, schema.get(key.parent) is not None)


def _orphaned(key: ForeignKey, has_parent: bool) -> str:
    if not has_parent:
        return " AND ".join(f"t.{quote(column)} IS NOT NULL" for column in key.columns)
    return _refers_to_nothing(key)


def _refers_to_nothing(key: ForeignKey, child: str = "t") -> str:
    filled = " AND ".join(
        f"{child}.{quote(column)} IS NOT NULL" for column in key.columns
    )
    match = " AND ".join(
        f"p.{quote(to)} = {child}.{quote(column)}"
        for column, to in zip(key.columns, key.parent_columns, strict=True)
    )
    return (
        f"{filled} AND NOT EXISTS "
        f"(SELECT 1 FROM main.{quote(key.parent)} p WHERE {match})"
    )
