"""Noting which rows the statements on the writing connection change.

Each table that is written gets a TEMP table for keys, and TEMP triggers that
fill it. An authorizer refuses to prepare a statement that would write a
table without them: a write that nobody would notice cannot be run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from s3cache.log.entry import Rows
from s3cache.replica.sql import quote
from s3cache.replica.tables import OWN_PREFIX, Schema, Table

_WRITES = frozenset(
    [sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE]
)

#: ``CREATE TABLE temp.t`` is no CREATE TEMP TABLE to the authorizer.
_CREATES = frozenset(
    [
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_TEMP_INDEX,
        sqlite3.SQLITE_CREATE_TEMP_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_VIEW,
    ]
)

#: For each action on the schema, which argument of the authorizer has the
#: table that it concerns.
_SCHEMA_ACTIONS = {
    sqlite3.SQLITE_ALTER_TABLE: 1,
    sqlite3.SQLITE_CREATE_INDEX: 1,
    sqlite3.SQLITE_CREATE_TABLE: 0,
    sqlite3.SQLITE_DROP_INDEX: 1,
}

_CHANGES = f"{OWN_PREFIX}changes_"
_GONE = f"{OWN_PREFIX}gone_"
_TRIGGER = f"{OWN_PREFIX}capture_"

#: Statements whose written tables are remembered.
_REMEMBERED = 4096


class Uncaptured(sqlite3.OperationalError):
    """A statement wants to write ``tables``, which are not captured yet."""

    def __init__(self, tables: frozenset[str]) -> None:
        super().__init__(
            f"{', '.join(sorted(tables))} cannot be written: it is not a table "
            f"whose changes can be followed"
        )
        self.tables = tables


class Capture:
    """The captured tables of one connection.

    ``tables`` has them by lower-case name. ``written_by`` tells what a
    statement writes. It is up to the caller to drop all of it when the
    schema changes: triggers on a table that another connection renamed no
    longer fire, silently.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.tables: dict[str, Table] = {}
        self._written_by: dict[str, frozenset[str]] = {}
        self._seen: set[str] = set()
        self._functions: set[str] = set()
        self._refused: set[str] = set()
        self._strict = True
        #: Whether a statement was refused for a temporary table, or the like.
        self.refused_temporary = False
        connection.set_authorizer(self._authorize)

    def _authorize(
        self, action: int, table: str | None, name: Any, schema: str | None, _: Any
    ) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            self._functions.add(str(name).lower())
            return sqlite3.SQLITE_OK
        if not self._strict and not self._may_change(action, table, name, schema):
            return sqlite3.SQLITE_DENY
        if action in _WRITES and schema == "main" and table is not None:
            lower = table.lower()
            if lower.startswith(OWN_PREFIX):
                return sqlite3.SQLITE_DENY
            if not lower.startswith("sqlite_"):
                self._seen.add(lower)
                if self._strict and lower not in self.tables:
                    self._refused.add(lower)
                    return sqlite3.SQLITE_DENY
            elif lower == "sqlite_sequence":
                self._seen.add(lower)
        return sqlite3.SQLITE_OK

    def _may_change(
        self, action: int, first: str | None, second: Any, schema: str | None
    ) -> bool:
        """Whether an entry of the log may do this to the schema.

        Each replica applies the statement on a connection of its own, where
        a temporary table may exist already, or not exist any more; and what
        a replica keeps for itself is not the database's.
        """
        if action in _CREATES and schema == "temp":
            self.refused_temporary = True
            return False
        concerned = (first, second)[_SCHEMA_ACTIONS.get(action, 0)]
        return action not in _SCHEMA_ACTIONS or not (
            str(concerned).lower().startswith(OWN_PREFIX)
        )

    def written_by(self, sql: str, params: Any) -> frozenset[str]:
        """The lower-case names of the tables that ``sql`` writes.

        What SQLite cannot prepare writes nothing; running it will say why.
        """
        known = self._written_by.get(sql)
        if known is not None:
            return known
        self._seen = set()
        self._strict = False
        try:
            self._connection.execute(f"EXPLAIN {sql}", params).close()
        except (sqlite3.Error, OverflowError):
            return frozenset()
        finally:
            self._strict = True
        if len(self._written_by) >= _REMEMBERED:
            self._written_by.clear()
        known = self._written_by[sql] = frozenset(self._seen)
        return known

    def functions_of(self, sql: str, params: Any) -> frozenset[str]:
        """The lower-case names of the functions that ``sql`` calls."""
        self._functions = set()
        self._written_by.pop(sql, None)
        self.written_by(sql, params)
        return frozenset(self._functions)

    def run(self, sql: str, params: Any, *, many: bool) -> sqlite3.Cursor:
        """Execute ``sql``; raises ``Uncaptured`` rather than miss a change."""
        self._refused = set()
        try:
            if many:
                return self._connection.executemany(sql, params)
            return self._connection.execute(sql, params)
        except sqlite3.DatabaseError:
            if self._refused:
                raise Uncaptured(frozenset(self._refused)) from None
            raise

    def unguarded(self) -> _Unguarded:
        """A context in which uncaptured tables may be written."""
        return _Unguarded(self)

    def add(self, table: Table, referred: Sequence[str] = ()) -> None:
        """Capture ``table`` from now on.

        With the values in its columns ``referred`` that deleted rows had.

        Outside a transaction the capture lasts; inside one, a rollback takes
        it along, and ``after_rollback`` has to be called then.
        """
        if table.name.lower() in self.tables:
            return
        for statement in (*_definitions(table), *_gone_definitions(table, referred)):
            self._connection.execute(statement)
        self.tables[table.name.lower()] = table

    def after_rollback(self, schema: Schema) -> None:
        """Find out which captures a rollback has left, or brought back."""
        names = [
            name.removeprefix(_CHANGES)
            for kind, name in self._own_objects()
            if kind == "table"
        ]
        found = [table for name in names if (table := schema.get(name)) is not None]
        self.tables = {table.name.lower(): table for table in found}
        self._written_by.clear()

    def drop_all(self) -> bool:
        """Capture nothing any more, and forget what statements write.

        False if something is left. To SQLite a TEMP trigger whose table is
        gone is not there, so it cannot be dropped; and it is there again once
        there is another table of that name. Only with its connection it ends.
        """
        for kind, name in self._own_objects():
            self._connection.execute(f"DROP {kind} IF EXISTS temp.{quote(name)}")
        self.tables.clear()
        self._written_by.clear()
        return not self._own_objects()

    def _own_objects(self) -> list[tuple[str, str]]:
        found = self._connection.execute(
            "SELECT type, name FROM sqlite_temp_master "
            "WHERE type IN ('trigger', 'table') ORDER BY type DESC"
        ).fetchall()
        return [(kind, name) for kind, name in found if name.startswith(OWN_PREFIX)]

    def clear(self, tables: Iterable[Table]) -> None:
        """Forget the changes of ``tables`` noted so far."""
        for table in tables:
            self._connection.execute(f"DELETE FROM temp.{changes_table(table)}")

    def changed_keys(self, table: Table) -> set[tuple[Any, ...]]:
        """The keys of ``table`` noted so far."""
        return set(
            self._connection.execute(
                f"SELECT DISTINCT * FROM temp.{changes_table(table)}"
            )
        )

    def read(self, table: Table) -> Rows | None:
        """The rows of ``table`` that changed, as they are now."""
        present, gone = _changed_rows(table)
        rows = list(map(list, self._connection.execute(present)))
        deleted = list(map(list, self._connection.execute(gone)))
        if not rows and not deleted:
            return None
        return Rows(table.name, list(table.key), list(table.columns), rows, deleted)


class _Unguarded:
    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def __enter__(self) -> None:
        self._capture._strict = False
        self._capture.refused_temporary = False

    def __exit__(self, *exc_info: object) -> None:
        self._capture._strict = True


def changes_table(table: Table) -> str:
    """The TEMP table that holds the changed keys of ``table``."""
    return quote(_CHANGES + table.name)


def gone_table(table: Table) -> str:
    """The TEMP table with what children referred to in deleted rows."""
    return quote(_GONE + table.name)


def _gone_definitions(table: Table, referred: Sequence[str]) -> Iterator[str]:
    if not referred:
        return
    columns = ", ".join(map(quote, referred))
    old = ", ".join(f"OLD.{quote(column)}" for column in referred)
    yield f"CREATE TEMP TABLE {gone_table(table)} ({columns})"
    yield (
        f"CREATE TEMP TRIGGER {quote(f'{_TRIGGER}GONE_{table.name}')} "
        f"AFTER DELETE ON main.{quote(table.name)} "
        f"BEGIN INSERT INTO {gone_table(table)} VALUES ({old}); END"
    )


def _definitions(table: Table) -> Iterator[str]:
    # No unique constraint on the keys: an outer INSERT OR FAIL would override
    # an INSERT OR IGNORE in here.
    changes = changes_table(table)
    columns = ", ".join(f"k{i}" for i in range(len(table.key)))
    yield f"CREATE TEMP TABLE {changes} ({columns})"
    # Not UPDATE OF: that does not fire for an UPDATE of "rowid".
    moved = " OR ".join(
        f"NEW.{column_name(table, column)} IS NOT OLD.{column_name(table, column)} "
        f"COLLATE BINARY"
        for column in table.key
    )
    for name, event, when, row in (
        ("INSERT", "INSERT", "", "NEW"),
        ("DELETE", "DELETE", "", "OLD"),
        ("UPDATE", "UPDATE", "", "OLD"),
        ("MOVE", "UPDATE", f"WHEN {moved} ", "NEW"),
    ):
        yield (
            f"CREATE TEMP TRIGGER {quote(f'{_TRIGGER}{name}_{table.name}')} "
            f"AFTER {event} ON main.{quote(table.name)} {when}"
            f"BEGIN INSERT INTO {changes} VALUES ({_key_of(row, table)}); END"
        )


def _key_of(row: str, table: Table) -> str:
    return ", ".join(f"{row}.{column_name(table, column)}" for column in table.key)


def column_name(table: Table, column: str) -> str:
    """``column`` in SQL; a quoted rowid that is no column is a string."""
    return column if column == table.rowid and table.carries_rowid else quote(column)


@lru_cache(maxsize=1024)
def _changed_rows(table: Table) -> tuple[str, str]:
    """The statements for the changed rows that are there, and for the others.

    A unary plus hides the declared type of a column, so that no converter
    of the connection turns the raw value into something else.
    """
    keys = ", ".join(f"k{i}" for i in range(len(table.key)))
    columns = ", ".join(
        f"+t.{column_name(table, column)} AS y{i}"
        for i, column in enumerate(table.columns)
    )
    on = " AND ".join(
        f"t.{column_name(table, column)} IS c.k{i}"
        for i, column in enumerate(table.key)
    )
    if not table.integer_key:
        # 'a' became 'A': by NOCASE the row would be found for both.
        on += "".join(
            f" AND t.{column_name(table, column)} IS c.k{i} COLLATE BINARY"
            for i, column in enumerate(table.key)
        )
    # Keys are sorted rather than rows, which are wider. But where a new row
    # may get a new rowid when it is laid out, the order of rowids counts.
    order = f" ORDER BY t.{table.rowid}" if table.carries_rowid else ""
    changed = f"(SELECT DISTINCT * FROM temp.{changes_table(table)} ORDER BY {keys}) c"
    rows = f"main.{quote(table.name)} t"
    return (
        f"SELECT {columns} FROM {changed} CROSS JOIN {rows} ON {on}{order}",
        f"SELECT * FROM {changed} WHERE NOT EXISTS (SELECT 1 FROM {rows} WHERE {on})",
    )
