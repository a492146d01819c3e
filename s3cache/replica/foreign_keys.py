"""Foreign keys, checked for the rows that changed.

SQLite checks deferred foreign keys when a transaction commits. Ours are
rolled back, and committed elsewhere, so the check is generated SQL: for each
changed row its parents, for each changed key of a parent its children.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from s3cache.replica.capture import changes_table, column_name
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
            _refuse(connection, _children_that_changed(schema, table, key))
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


def _children_that_changed(schema: Schema, table: Table, key: ForeignKey) -> str:
    on = " AND ".join(
        f"t.{column_name(table, column)} IS c.k{i}"
        for i, column in enumerate(table.key)
    )
    return (
        f"SELECT 1 FROM temp.{changes_table(table)} c "
        f"JOIN main.{quote(table.name)} t ON {on} "
        f"WHERE {orphaned(schema, key)} LIMIT 1"
    )


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
    if schema.get(key.parent) is None:
        return " AND ".join(f"t.{quote(column)} IS NOT NULL" for column in key.columns)
    return _refers_to_nothing(key)


def _refers_to_nothing(key: ForeignKey) -> str:
    filled = " AND ".join(f"t.{quote(column)} IS NOT NULL" for column in key.columns)
    match = " AND ".join(
        f"p.{quote(to)} = t.{quote(column)}"
        for column, to in zip(key.columns, key.parent_columns, strict=True)
    )
    return (
        f"{filled} AND NOT EXISTS "
        f"(SELECT 1 FROM main.{quote(key.parent)} p WHERE {match})"
    )
