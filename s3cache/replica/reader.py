"""Read-only connections, one for each Django connection."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from s3cache.replica.absent import absent_tables, is_whole
from s3cache.replica.connections import Registration, closed_on_error
from s3cache.replica.needs import Needs
from s3cache.replica.results import Result
from s3cache.replica.sql import Kind, kind_of

_SELECTS = (Kind.READ, Kind.EITHER)


class Reader:
    """A read-only connection to the replica, opened when it is used.

    As long as the replica may lack packs, ``needs`` looks at each statement.
    Without it the replica lacks nothing.
    """

    def __init__(
        self,
        open_connection: Callable[[], sqlite3.Connection],
        needs: Needs | None = None,
        after_read: Callable[[], None] = lambda: None,
    ) -> None:
        self._open = open_connection
        #: Called after each use of the connection, by whoever has read.
        self.after_read = after_read
        self._needs = needs
        self._may_lack = False
        #: Tables that may be there in part: nothing reads them unlooked at.
        self._denied: frozenset[str] = frozenset()
        #: What the connection was opened for; see ``keep_to``.
        self._opened_for: object = None
        self._connection: sqlite3.Connection | None = None
        #: The thread whose transaction is open.
        self._thread = 0
        #: Held by whoever uses the connection: another thread, which is about
        #: to ``fork``, does not close it in the middle of a statement.
        self.lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[sqlite3.Connection]:
        """Use the connection of SQLite, which nobody closes meanwhile."""
        with self.lock:
            yield self.connection
        self.after_read()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of SQLite, for who holds the lock."""
        connection = self._connection
        if connection is None:
            connection = self._open()
            with closed_on_error(connection):
                self._may_lack = self._needs is not None
                if self._may_lack and not self._is_whole(connection):
                    connection.set_authorizer(self._authorize)
            self._connection = connection
        return connection

    def execute(self, sql: str, params: Any) -> Result:
        """Run a statement and fetch all that it returns.

        Raises ``NotLoaded`` if the replica lacks what it needs.
        """
        with self.lock:
            result = self._execute(self.connection, sql, params)
        self.after_read()
        return result

    def fetch(self, sql: str, params: Any) -> list[Any] | None:
        """All rows of a SELECT; None: the replica may lack what it needs.

        The fewest calls of SQLite that there can be: at each of them other
        threads take their turn.
        """
        with self.lock:
            connection = self.connection
            if self._may_lack:
                return None
            rows = connection.execute(sql, params).fetchall()
        self.after_read()
        return rows

    def _execute(self, connection: sqlite3.Connection, sql: str, params: Any) -> Result:
        if not self._may_lack:
            return Result(connection.execute(sql, params))
        if connection.in_transaction or kind_of(sql) not in _SELECTS:
            return self.run(sql, params)
        # What is there, and what is read, have to be of one replica.
        connection.execute("BEGIN")
        try:
            return self.run(sql, params)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def run(self, sql: str, params: Any) -> Result:
        """``execute`` for who holds the lock, and has begun a transaction."""
        connection = self.connection
        if self._needs is None or not self._may_lack or self._is_whole(connection):
            return Result(connection.execute(sql, params))
        denied, self._denied = self._denied, frozenset()
        try:
            self._needs.check(connection, sql, params)
            return Result(connection.execute(sql, params))
        finally:
            self._denied = denied

    def check_tables(self, tables: Iterable[str]) -> None:
        """Raise ``NotLoaded`` unless ``tables``, in lower case, are there.

        For who holds the lock, and reads them in the transaction that is
        begun.
        """
        connection = self.connection
        if self._needs and self._may_lack and not self._is_whole(connection):
            self._needs.check_tables(connection, tables, ())

    def _is_whole(self, connection: sqlite3.Connection) -> bool:
        # Once it is, it stays so, as long as the file is the same.
        if is_whole(connection):
            self._may_lack, self._denied = False, frozenset()
            connection.set_authorizer(None)
            return True
        self._denied = absent_tables(connection)
        return False

    def _authorize(self, action: int, table: str | None, *_rest: object) -> int:
        if (
            action == sqlite3.SQLITE_READ
            and table is not None
            and table.lower() in self._denied
        ):
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    def register(self, registration: Registration) -> None:
        """Have a function or collation; ``open_connection`` adds it later.

        Raises what SQLite raises for one that it does not want.
        """
        with self.lock:
            if self._connection is not None:
                registration.on(self._connection)
                return
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            registration.on(connection)

    def begin(self) -> None:
        """Begin a transaction; its first statement takes the snapshot."""
        with self.lock:
            self.connection.execute("BEGIN")
            self._thread = threading.get_ident()

    def rollback(self) -> None:
        """End the transaction, if there is one."""
        with self.lock:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection; using the reader again opens a new one."""
        with self.lock:
            self.suspend()

    def keep_to(self, current: object) -> None:
        """Open the connection anew if it belongs to another file.

        ``current`` stands for the file in use. A transaction goes on.
        """
        if self._opened_for is not current and self.close_if_idle():
            self._opened_for = current

    def close_if_idle(self) -> bool:
        """Close it unless a transaction is open; True if it is closed."""
        with self.lock:
            if self.is_in_transaction():
                return False
            self.suspend()
        return True

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection is not None and self._connection.in_transaction

    def is_in_own_transaction(self) -> bool:
        """Whether the thread that calls this has a transaction open."""
        return self._thread == threading.get_ident() and self.is_in_transaction()

    def suspend(self) -> None:
        """Close the connection; the caller holds the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def forget(self) -> sqlite3.Connection | None:
        """Be a reader without a connection, in the child of a fork.

        Returns the parent's, which the child must not close.
        """
        self.lock = threading.Lock()
        inherited, self._connection = self._connection, None
        return inherited
