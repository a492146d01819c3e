"""Read-only connections, one for each Django connection."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from s3cache.replica.absent import is_whole
from s3cache.replica.connections import Registration
from s3cache.replica.results import Result
from s3cache.replica.sql import Kind, kind_of

#: Raises ``NotLoaded`` for a statement that needs what the replica lacks.
Check = Callable[[sqlite3.Connection, str, Any], None]


_SELECTS = (Kind.READ, Kind.EITHER)


def _needs_nothing(connection: sqlite3.Connection, sql: str, params: Any) -> None:
    """Of a replica that lacks nothing there is nothing to find out."""


class Reader:
    """A read-only connection to the replica, opened when it is used.

    ``check`` looks at each statement as long as the replica may lack packs.
    """

    def __init__(
        self,
        open_connection: Callable[[], sqlite3.Connection],
        check: Check = _needs_nothing,
    ) -> None:
        self._open = open_connection
        self._check = check
        #: Whether the file of the connection may lack packs.
        self._may_lack = True
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

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of SQLite, for who holds the lock."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._open()
            self._may_lack = True
        return connection

    def execute(self, sql: str, params: Any) -> Result:
        """Run a statement and fetch all that it returns.

        Raises ``NotLoaded`` if the replica lacks what it needs.
        """
        with self.lock:
            connection = self.connection
            if self._may_lack and not self._is_whole(connection):
                return self._execute_in_part(connection, sql, params)
            return Result(connection.execute(sql, params))

    def check(self, sql: str, params: Any) -> None:
        """Raise ``NotLoaded`` if the replica lacks what a statement needs.

        For who holds the lock, and has begun the transaction in which the
        statement will run.
        """
        if self._may_lack and not self._is_whole(self.connection):
            self._check(self.connection, sql, params)

    def _is_whole(self, connection: sqlite3.Connection) -> bool:
        # Once it is, it stays so, as long as the file is the same.
        self._may_lack = not is_whole(connection)
        return not self._may_lack

    def _execute_in_part(
        self, connection: sqlite3.Connection, sql: str, params: Any
    ) -> Result:
        """Look and run in one transaction: it may become another replica."""
        if connection.in_transaction or kind_of(sql) not in _SELECTS:
            self._check(connection, sql, params)
            return Result(connection.execute(sql, params))
        connection.execute("BEGIN")
        try:
            self._check(connection, sql, params)
            return Result(connection.execute(sql, params))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

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
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def forget(self) -> sqlite3.Connection | None:
        """Be a reader without a connection, in the child of a fork.

        Returns the parent's, which the child must not close.
        """
        self.lock = threading.Lock()
        inherited, self._connection = self._connection, None
        return inherited
