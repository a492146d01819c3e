"""Applying entries: replica n+1 is a function of replica n and entry n+1."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from s3cache.log.entry import Change, Entry, Row, Rows, Sequences, Statement
from s3cache.replica import meta
from s3cache.replica.sql import quote, quote_column
from s3cache.replica.tables import Table


def apply_entry(
    connection: sqlite3.Connection,
    entry: Entry,
    *,
    etag: str,
    modified: float,
    lacking: frozenset[str] = frozenset(),
) -> None:
    """Apply ``entry`` in the caller's transaction, and move the position.

    The tables ``lacking`` some rows may not have those that are replaced.
    """
    touched = meta.touched_by(entry.changes)
    if not touched.schema:
        scopes = _scopes(connection, entry.changes, lacking)
        touched = replace(touched, scopes=frozenset(scopes))
    resets_ids = apply_changes(connection, entry.changes)
    meta.record(
        connection,
        entry,
        etag=etag,
        modified=modified,
        touched=touched,
        resets_ids=resets_ids,
    )


def apply_changes(connection: sqlite3.Connection, changes: Iterable[Change]) -> bool:
    """Do what an entry says; whether it took ids back that had been given."""
    resets_ids = False
    for change in changes:
        if isinstance(change, Sequences):
            resets_ids |= set_sequences(connection, change)
        else:
            _apply(connection, change)
    return resets_ids


def _scopes(
    connection: sqlite3.Connection, changes: Iterable[Change], lacking: frozenset[str]
) -> Iterator[str]:
    """The parts of tables that ``changes``, not applied yet, concern."""
    partitions = meta.read_partitions(connection)
    for change in changes if partitions else ():
        if isinstance(change, Rows):
            table = change.table.lower()
            for columns in partitions.get(table, ()):
                if table in lacking:
                    # Which part an old row was in is not known.
                    yield meta.part_scope(table, columns)
                else:
                    yield from _parts(connection, change, columns)


def _parts(
    connection: sqlite3.Connection, change: Rows, columns: Sequence[str]
) -> Iterator[str]:
    """The parts that the changed rows are in, before and after."""
    table = change.table.lower()
    keys = _keys(change)
    if len(keys) > meta.MANY_KEYS or not set(columns) <= set(change.columns):
        yield meta.part_scope(table, columns)
        return
    names = ", ".join(f"+{quote_column(column)}" for column in columns)
    where = " AND ".join(f"{quote_column(column)} IS ?" for column in change.key)
    find = f"SELECT {names} FROM main.{quote(change.table)} WHERE {where}"
    for key in keys:
        for values in connection.execute(find, key):
            yield meta.part_scope(table, columns, values)
    indexes = [change.columns.index(column) for column in columns]
    for row in change.rows:
        yield meta.part_scope(table, columns, [row[index] for index in indexes])


def _keys(change: Rows) -> list[Sequence[Any]]:
    indexes = [change.columns.index(column) for column in change.key]
    return [*meta.keys_of(change.rows, indexes), *change.deleted]


def _apply(connection: sqlite3.Connection, change: Rows | Statement) -> None:
    if isinstance(change, Rows):
        replace_rows(
            connection,
            table=change.table,
            key=change.key,
            columns=change.columns,
            rows=change.rows,
            keys=_keys(change),
        )
    else:
        connection.execute(change.sql, change.params)


def replace_rows(
    connection: sqlite3.Connection,
    *,
    table: str,
    key: Sequence[str],
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    keys: Iterable[Sequence[Any]],
) -> None:
    """Delete the rows with ``keys``, then insert ``rows``.

    All deletes come first: two rows that swapped a unique value would clash
    otherwise. ``INSERT OR REPLACE`` would silently delete a neighbour that
    holds a unique value.
    """
    delete, insert = _replacing(table, tuple(key), tuple(columns))
    connection.executemany(delete, keys)
    connection.executemany(insert, rows)


@lru_cache(maxsize=1024)
def _replacing(
    table: str, key: tuple[str, ...], columns: tuple[str, ...]
) -> tuple[str, str]:
    where = " AND ".join(f"{quote_column(column)} IS ?" for column in key)
    names = ", ".join(map(quote_column, columns))
    marks = ", ".join("?" * len(columns))
    return (
        f"DELETE FROM main.{quote(table)} WHERE {where}",
        f"INSERT INTO main.{quote(table)} ({names}) VALUES ({marks})",
    )


def set_sequences(connection: sqlite3.Connection, change: Sequences) -> bool:
    """Make AUTOINCREMENT go on where the log says; True if it goes back."""
    before = read_sequences(connection)
    for table, value in change.values.items():
        updated = connection.execute(
            "UPDATE main.sqlite_sequence SET seq = ? WHERE name = ?", [value, table]
        )
        if not updated.rowcount:
            connection.execute(
                "INSERT INTO main.sqlite_sequence (name, seq) VALUES (?, ?)",
                [table, value],
            )
    return any(value < before.get(t, 0) for t, value in change.values.items())


def read_sequences(connection: sqlite3.Connection) -> dict[str, int]:
    """The last id that AUTOINCREMENT gave, by table."""
    return dict(connection.execute("SELECT name, seq FROM main.sqlite_sequence"))


def lay_rows(
    connection: sqlite3.Connection,
    table: Table,
    rows: Sequence[Row],
    deleted: Iterable[Sequence[Any]],
) -> None:
    """Put rows that were changed elsewhere over the state that is here.

    Like ``replace_rows``, but the state need not be the one that the rows
    come from: a row that is here keeps its rowid, a new one gets a new one.
    """
    keys = meta.keys_of(rows, table.key_indexes)
    if not table.carries_rowid or table.is_keyed_by_rowid:
        replace_rows(
            connection,
            table=table.name,
            key=table.key,
            columns=table.columns,
            rows=rows,
            keys=[*keys, *deleted],
        )
        return
    where = " AND ".join(f"{quote_column(column)} IS ?" for column in table.key)
    find = f"SELECT {table.rowid} FROM main.{quote(table.name)} WHERE {where}"
    old, new = [], []
    for key, row in zip(keys, rows, strict=True):
        found = connection.execute(find, key).fetchone()
        if found:
            old.append([found[0], *row[1:]])
        else:
            new.append(row[1:])
    lay = _replacer(connection, table)
    lay(table.columns, old, [*keys, *deleted])
    # A new row must not take the rowid of one that is being replaced.
    lay(table.columns[1:], new, [])


def _replacer(
    connection: sqlite3.Connection, table: Table
) -> Callable[[Sequence[str], Iterable[Sequence[Any]], Iterable[Sequence[Any]]], None]:
    def lay(
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        keys: Iterable[Sequence[Any]],
    ) -> None:
        replace_rows(
            connection,
            table=table.name,
            key=table.key,
            columns=columns,
            rows=rows,
            keys=keys,
        )

    return lay
