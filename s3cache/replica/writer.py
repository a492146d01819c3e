"""The writing connection, where statements are tried out and rolled back.

Nothing is ever committed on it. What it changed is read, becomes an entry of
the log, and is applied on another connection once the entry exists.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from django.db import OperationalError

from s3cache.log.effects import Position
from s3cache.log.entry import Change, Sequences
from s3cache.replica import meta
from s3cache.replica.absent import is_whole
from s3cache.replica.applying import read_sequences
from s3cache.replica.capture import Capture, Uncaptured
from s3cache.replica.foreign_keys import (
    check_changed,
    do_actions,
    forget_gone,
    referred_columns,
    with_children,
)
from s3cache.replica.needs import Needs
from s3cache.replica.results import Result
from s3cache.replica.sql import Kind, kind_of
from s3cache.replica.tables import Schema, Table, read_schema, schema_version


class Owner(Protocol):
    """A block that may leave its rows laid out between its statements."""


class Writer:
    """The writing connection of a replica in this process.

    Whoever uses it holds it (``take``). A block may leave its transaction
    open when it lets go; the next user rolls it back. A connection that was
    closed is opened again for the next user, by ``open_connection``, until
    the replica has another writer in its place (``end``).

    As long as the replica may lack packs, ``needs`` looks at what is to be
    run. Without it the replica lacks nothing.
    """

    def __init__(
        self,
        open_connection: Callable[[], sqlite3.Connection],
        timeout: float,
        needs: Needs | None = None,
    ) -> None:
        self._open = open_connection
        self._needs = needs
        #: Held by whoever uses the connection.
        self.lock = threading.RLock()
        self.owner: Owner | None = None
        self.held_for_schema = False
        self.touched: set[str] = set()
        self._has_ended = False
        self._timeout = timeout
        self._sequences: dict[str, int] = {}
        self._connect()

    def _connect(self) -> None:
        self.connection = self._open()
        self.capture = Capture(self.connection)
        self._schema: Schema | None = None
        self._captured_version = -1
        self._may_lack = self._needs is not None
        self.is_closed = False

    def take(self, owner: Owner | None = None) -> bool:
        """Hold the connection until ``let_go``.

        What another block left open is rolled back. False, and it is not
        held: another writer has come into its place meanwhile.
        """
        self._acquire()
        try:
            if self._has_ended:
                # Opened again, it would be one that nobody rolls back.
                self.lock.release()
                return False
            if self.is_closed:
                self._connect()
            # A block that changes the schema holds the lock all the time:
            # whoever gets here meanwhile belongs to it.
            if self.owner is not owner and not self.held_for_schema:
                self.rollback()
        except BaseException:
            self.lock.release()
            raise
        return True

    def _acquire(self) -> None:
        if not self.lock.acquire(timeout=self._timeout):
            raise OperationalError(
                f"database is locked: another thread changes the schema "
                f"(waited {self._timeout:g} s)"
            )

    @contextmanager
    def unused(self) -> Iterator[None]:
        """Let nobody use the connection; if it is closed, it stays so."""
        self._acquire()
        try:
            yield
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Let other threads use the connection."""
        self.lock.release()

    def is_held_here_for_schema(self) -> bool:
        """Whether the thread that calls this is changing the schema."""
        if not self.held_for_schema or not self.lock.acquire(blocking=False):
            return False
        self.lock.release()
        return True

    @property
    def schema(self) -> Schema:
        """The tables, as this connection sees them now."""
        version = schema_version(self.connection)
        if self._schema is None or self._schema.version != version:
            self._schema = read_schema(self.connection, version)
        return self._schema

    def begin(
        self,
        statements: Iterable[tuple[str, Any]] = (),
        tables: Iterable[str] = (),
    ) -> Position:
        """Open a transaction in which the given writes are captured.

        Triggers are made before it begins, for a rollback would take them
        along, and made anew when the schema is another one. Raises
        ``NotLoaded`` if the replica lacks rows of ``tables``, or what their
        constraints look at.
        """
        known = list(statements)
        while True:
            schema = self.schema
            if schema.version != self._captured_version:
                self.capture_nothing()
                self._captured_version = schema.version
            names = set(tables)
            for sql, params in known:
                names |= self.capture.written_by(sql, params)
            if schema.actions:
                names = with_children(schema, names)
            for name in names:
                if (table := schema.get(name)) is not None:
                    self.capture.add(table, referred_columns(schema, name))
            self.connection.execute("BEGIN IMMEDIATE")
            if schema_version(self.connection) == schema.version:
                break
            self.connection.execute("ROLLBACK")
        self.touched = set()
        if self._may_lack:
            self._may_lack = not is_whole(self.connection)
            try:
                self.check_loaded(tables)
            except BaseException:
                self.rollback()
                raise
        self._sequences = read_sequences(self.connection)
        return meta.read_position(self.connection)

    def capture_nothing(self) -> None:
        """Drop all triggers; no transaction is open.

        Those that cannot be dropped end with their connection.
        """
        if not self.capture.drop_all():
            # Where no other can be had it stays, for the next who begins.
            left, self._captured_version = self.connection, -1
            self._connect()
            left.close()

    def check_loaded(self, tables: Iterable[str]) -> None:
        """Raise ``NotLoaded`` unless ``tables`` can be written."""
        if self._may_lack and self._needs is not None:
            written = [name.lower() for name in tables]
            self._needs.check_tables(self.connection, (), written)

    def rollback(self) -> None:
        """Take back all that the open transaction did, if there is one."""
        self.owner = None
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def roll_back_idle(self) -> None:
        """Roll back what a block has left open, unless it is in use."""
        if self.lock.acquire(blocking=False):
            try:
                if self.owner is not None and not self.held_for_schema:
                    self.rollback()
            finally:
                self.lock.release()

    def execute(
        self, sql: str, params: Any, *, many: bool = False, run_actions: bool = True
    ) -> Result:
        """Run a statement in the open transaction, and note what it writes.

        Without ``run_actions`` nothing is done to the children of rows that
        it deletes, as in SQLite while foreign keys are off. Raises
        ``NotLoaded`` if the replica lacks what the statement needs.
        """
        if not self.connection.in_transaction:
            # In autocommit mode it would change the replica, and no other.
            raise sqlite3.OperationalError("SQLite has ended the transaction")
        first = next(iter(params), ()) if many else params
        if self._may_lack and self._needs is not None:
            self._needs.check(self.connection, sql, first)
        if kind_of(sql) is Kind.READ:
            return Result(self.capture.run(sql, params, many=many))
        written = set(self.capture.written_by(sql, first))
        schema = self.schema
        acts = run_actions and bool(schema.actions)
        if not (many or acts or "FAIL" in sql.upper()):
            result = Result(self.capture.run(sql, params, many=False))
        else:
            with self._whole():
                if acts:
                    forget_gone(self.connection, self.capture, schema, written)
                result = Result(self.capture.run(sql, params, many=many))
                if acts:
                    do_actions(self.connection, self.capture, schema, written)
        self.touched |= written
        return result

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Let nothing stay of what fails halfway.

        SQLite would keep the first rows of an ``executemany`` and of an
        ``OR FAIL``, and a deletion whose ON DELETE actions are refused.
        """
        self.connection.execute("SAVEPOINT s3cache_statement")
        try:
            yield
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK TO s3cache_statement")
            raise
        finally:
            if self.connection.in_transaction:
                self.connection.execute("RELEASE s3cache_statement")

    def touched_tables(self) -> list[Table]:
        """The captured tables that were written, by name."""
        return [
            table
            for name in sorted(self.touched)
            if (table := self.capture.tables.get(name)) is not None
        ]

    def check_foreign_keys(self) -> None:
        """Check the rows that changed; raises ``sqlite3.IntegrityError``."""
        check_changed(self.connection, self.schema, self.touched_tables())

    def changes(self) -> list[Change]:
        """What the open transaction has changed."""
        found: list[Change] = []
        for table in self.touched_tables():
            rows = self.capture.read(table)
            if rows is not None:
                found.append(rows)
        sequences = self.changed_sequences()
        if sequences is not None:
            found.append(sequences)
        return found

    def changed_sequences(self) -> Sequences | None:
        """The AUTOINCREMENT positions that the open transaction moved."""
        moved = {
            table: value
            for table, value in read_sequences(self.connection).items()
            if self._sequences.get(table) != value
        }
        return Sequences(moved) if moved else None

    def close(self) -> None:
        """Close the connection, in whose use nobody is."""
        if not self.is_closed:
            try:
                self.rollback()
            finally:
                self.connection.close()
                self.is_closed = True

    def end(self) -> None:
        """Close it for good: another writer comes into its place."""
        self._has_ended = True
        self.close()


__all__ = ["Owner", "Uncaptured", "Writer"]
