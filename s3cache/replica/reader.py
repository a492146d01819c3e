"""Read-only connections, one for each Django connection."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from s3cache.replica.results import Result


class Reader:
    """A read-only connection to the replica, opened when it is used.

    Its lock keeps another thread, which is about to ``fork``, from closing
    it in the middle of a statement.
    """

    def __init__(self, open_connection: Callable[[], sqlite3.Connection]) -> None:
        self._open = open_connection
        #: What the connection was opened for; see ``keep_to``.
        self._opened_for: object = None
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of SQLite."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._open()
        return connection

    def execute(self, sql: str, params: Any) -> Result:
        """Run a statement and fetch all that it returns."""
        with self._lock:
            return Result(self.connection.execute(sql, params))

    def begin(self) -> None:
        """Begin a transaction; its first statement takes the snapshot."""
        with self._lock:
            self.connection.execute("BEGIN")

    def rollback(self) -> None:
        """End the transaction, if there is one."""
        with self._lock:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection; using the reader again opens a new one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def keep_to(self, current: object) -> None:
        """Open the connection anew if it belongs to another file.

        ``current`` stands for the file in use. A transaction goes on.
        """
        if self._opened_for is not current and self.close_if_idle():
            self._opened_for = current

    def close_if_idle(self, *, wait: bool = True) -> bool:
        """Close it unless a transaction is open; True if it is closed.

        Without ``wait`` a reader that is in use stays open.
        """
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            if self._connection is not None:
                if self._connection.in_transaction:
                    return False
                self._connection.close()
                self._connection = None
            return True
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Be a reader without a connection, in the child of a fork."""
        self._lock = threading.Lock()
        self._connection = None
