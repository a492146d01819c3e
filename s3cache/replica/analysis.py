"""Which tables a statement reads, and whether it writes: SQLite is asked.

The authorizer of a connection is called for every table and column that a
statement refers to, through views, subqueries and CTEs, while SQLite
compiles it. Nothing here parses SQL.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from typing import Any

from s3cache.replica.tables import schema_version

_REMEMBERED = 4096

_WRITES = frozenset(
    [sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE]
)


@dataclass(frozen=True, slots=True)
class Access:
    """The lower-case names of the tables that a statement reads, writes."""

    reads: frozenset[str]
    writes: frozenset[str]


class Analyser:
    """Asks SQLite about statements, and remembers what it said.

    Its connection is used for nothing else and keeps no compiled statements:
    a kept one would not be compiled again, and say nothing.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._lock = threading.Lock()
        self._version = -1
        self._known: dict[str, Access] = {}
        self._reads: set[str] = set()
        self._writes: set[str] = set()
        connection.set_authorizer(self._authorize)

    def _authorize(
        self, action: int, table: str | None, _: Any, schema: str | None, __: Any
    ) -> int:
        if table is not None and schema != "temp":
            if action == sqlite3.SQLITE_READ:
                self._reads.add(table.lower())
            elif action in _WRITES:
                self._writes.add(table.lower())
        return sqlite3.SQLITE_OK

    def access(self, sql: str, params: Any) -> Access:
        """What ``sql`` would read and write; nothing if it is not valid."""
        with self._lock:
            version = schema_version(self.connection)
            if version != self._version or len(self._known) >= _REMEMBERED:
                self._known.clear()
                self._version = version
            known = self._known.get(sql)
            if known is None:
                self._reads, self._writes = set(), set()
                try:
                    self.connection.execute(f"EXPLAIN {sql}", params).close()
                except (sqlite3.Error, OverflowError):
                    return Access(frozenset(), frozenset())
                known = Access(frozenset(self._reads), frozenset(self._writes))
                self._known[sql] = known
            return known

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
