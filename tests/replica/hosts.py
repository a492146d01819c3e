"""Replica files without a store: entries go from hand to hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from s3cache.log.effects import Apply
from s3cache.log.entry import Change, Entry, Rows, Sequences, Statement
from s3cache.log.head import Head
from s3cache.replica.connections import connect
from s3cache.replica.file import ReplicaFile
from s3cache.replica.results import Result
from s3cache.replica.tables import Schema, Table
from s3cache.replica.writer import Owner, Writer

DATABASE = "d" * 16

_numbers = count()


class Host:
    """A replica with its writer; ``commit`` makes entries for other hosts."""

    def __init__(self, path: Path) -> None:
        self.file = ReplicaFile.open(path, store="nowhere", registrations=())
        self.file.begin_at(Head(database=DATABASE))
        self.writer = Writer(lambda: connect(path), timeout=1.0)
        for connection in (self.file.connection, self.writer.connection):
            connection.execute("PRAGMA synchronous = OFF")  # it is a test

    def close(self) -> None:
        self.writer.close()
        self.file.close()

    def create(self, *statements: str) -> Entry:
        """Commit DDL."""
        return self.apply(self.entry([Statement(sql) for sql in statements]))

    def commit(self, *statements: str) -> Entry:
        """Commit what the statements change."""
        with self.trying(*statements):
            self.writer.check_foreign_keys()
            changes = self.writer.changes()
        return self.apply(self.entry(changes))

    @contextmanager
    def trying(self, *statements: str, tables: Sequence[str] = ()) -> Iterator[Writer]:
        """The writer after the statements; all of it is rolled back."""
        self.writer.begin([(sql, ()) for sql in statements], tables)
        try:
            for sql in statements:
                self.writer.execute(sql, ())
            yield self.writer
        finally:
            self.writer.rollback()

    @contextmanager
    def writing(self, owner: Owner | None = None) -> Iterator[None]:
        """Hold the writer."""
        assert self.writer.take(owner)
        try:
            yield
        finally:
            self.writer.let_go()

    def entry(self, changes: list[Change], **fields: Any) -> Entry:
        """The entry after the last one, with ``fields`` of its own."""
        position = self.file.position()
        return Entry(
            **{
                "database": position.database,
                "number": position.number + 1,
                "token": f"token-{next(_numbers)}",
                "previous": position.token,
                "host": "here",
                "changes": changes,
                **fields,
            }
        )

    def apply(self, entry: Entry) -> Entry:
        """Apply ``entry``, which has to be the next one."""
        assert self.file.apply(Apply(entry, etag="etag", modified=1.0))
        return entry

    def rows(self, sql: str) -> list[Any]:
        return self.file.execute(sql, ()).rows

    @property
    def schema(self) -> Schema:
        return self.writer.schema

    def table(self, name: str) -> Table:
        table = self.schema.get(name)
        assert table is not None
        return table


def changed(changes: Sequence[Change]) -> dict[str, tuple[list[Any], list[Any]]]:
    """The new rows and the deleted keys, by table."""
    return {
        change.table: (change.rows, change.deleted)
        for change in changes
        if isinstance(change, Rows)
    }


def sequences(changes: Sequence[Change]) -> dict[str, int]:
    """Where AUTOINCREMENT goes on, as ``changes`` say."""
    found = [change.values for change in changes if isinstance(change, Sequences)]
    return found[0] if found else {}


def result_of(sql: str, params: Sequence[Any] = ()) -> Result:
    """The result of a statement on an empty database with a table ``t``."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        return Result(connection.execute(sql, params))
    finally:
        connection.close()
