"""Which tables a statement reads, and whether it writes: SQLite is asked.

The authorizer of a connection is called for every table and column that a
statement refers to, through views, subqueries and CTEs, while SQLite
compiles it. Nothing here parses SQL.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from s3cache.replica.connections import Registration
from s3cache.replica.tables import schema_version

_REMEMBERED = 4096

_WRITES = frozenset(
    [sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE]
)


#: The operations of SQLite's programs that open a table, or an index of it.
_OPENS = frozenset(["OpenRead", "ReopenIdx"])

#: What names a function in a program, like ``upper(1)``.
_CALL = re.compile(r"(.+)\(-?\d+\)", re.DOTALL)

#: What names a collation: of a comparison, like ``NOCASE-8``, and of a key,
#: like ``k(2,NOCASE,-B)``; a minus is for DESC, and ``N.`` for NULLS LAST.
_COMPARES = re.compile(r"(.+)-(?:8|16le|16be)", re.DOTALL)
_OF_KEY = re.compile(r"k\(\d+,(.*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Access:
    """The lower-case names of the tables that a statement reads, writes.

    ``functions`` are those that it calls, operators like LIKE among them, and
    ``collations`` those that it compares by. ``virtual`` says that it reads a
    virtual table, such as ``json_each``. If it is not ``known``, SQLite could
    not compile it.
    """

    reads: frozenset[str]
    writes: frozenset[str]
    functions: frozenset[str] = frozenset()
    collations: frozenset[str] = frozenset()
    virtual: bool = False
    known: bool = True


class Analyser:
    """Asks SQLite about statements, and remembers what it said.

    Its connection is used for nothing else and keeps no compiled statements:
    a kept one would not be compiled again, and say nothing. It is opened
    when it is needed; once it has ended, for one statement at a time.
    """

    def __init__(self, open_connection: Callable[[], sqlite3.Connection]) -> None:
        self._open = open_connection
        self._connection: sqlite3.Connection | None = None
        #: Held by whoever uses the connection.
        self.lock = threading.Lock()
        self._has_ended = False
        self._version = -1
        self._known: dict[str, Access] = {}
        self._table_at: dict[int, str] = {}
        self._reads: set[str] = set()
        self._writes: set[str] = set()
        self._functions: set[str] = set()

    def _authorize(
        self,
        action: int,
        table: str | None,
        name: str | None,
        schema: str | None,
        _: Any,
    ) -> int:
        if action == sqlite3.SQLITE_FUNCTION and name is not None:
            self._functions.add(name.lower())
        elif table is not None and schema != "temp":
            if action == sqlite3.SQLITE_READ:
                self._reads.add(table.lower())
            elif action in _WRITES:
                self._writes.add(table.lower())
        return sqlite3.SQLITE_OK

    def access(self, sql: str, params: Any) -> Access:
        """What ``sql`` would read and write; nothing if it is not valid."""
        return self.access_at(sql, params)[1]

    def access_at(self, sql: str, params: Any) -> tuple[int, Access]:
        """``access``, and the version of the schema that it holds for."""
        with self.lock:
            try:
                return self._look(self._connected(), sql, params)
            finally:
                if self._has_ended:
                    self.close()  # nobody else would

    def _look(
        self, connection: sqlite3.Connection, sql: str, params: Any
    ) -> tuple[int, Access]:
        version = schema_version(connection)
        if version != self._version or len(self._known) >= _REMEMBERED:
            self._known.clear()
            self._version = version
            self._table_at = _tables_by_root_page(connection)
        known = self._known.get(sql)
        if known is None:
            self._reads, self._writes, self._functions = set(), set(), set()
            try:
                program = connection.execute(f"EXPLAIN {sql}", params).fetchall()
            except (sqlite3.Error, OverflowError):
                return version, Access(frozenset(), frozenset(), known=False)
            # The authorizer is not told of a table that is joined by
            # USING alone, but the program opens it.
            self._reads.update(
                self._table_at[root_page]
                for _n, opcode, _p1, root_page, database, *_ in program
                if opcode in _OPENS and not database and root_page in self._table_at
            )
            # Nor of what generated columns call.
            details = {str(row[5]).lower() for row in program if row[5]}
            self._functions.update(_named(_CALL, details))
            known = Access(
                frozenset(self._reads),
                frozenset(self._writes),
                frozenset(self._functions),
                _collations(details),
                any(row[1] == "VOpen" for row in program),
            )
            self._known[sql] = known
        return version, known

    def connect(self) -> None:
        """Open the connection, if it is closed."""
        with self.lock:
            self._connected()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open()
            self._connection.set_authorizer(self._authorize)
        return self._connection

    def register(self, registration: Registration) -> None:
        """Have a function or collation, if the connection is open."""
        with self.lock:
            if self._connection is not None:
                registration.on(self._connection)

    def close(self) -> None:
        """Close the connection, in whose use nobody is."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def end(self) -> None:
        """Close it for good: there is another one for the next statement."""
        self._has_ended = True
        self.close()


def _named(form: re.Pattern[str], details: Iterable[str]) -> Iterator[str]:
    return (found[1] for one in details if (found := form.fullmatch(one)))


def _collations(details: Collection[str]) -> frozenset[str]:
    """The collations that a program names; also what only looks like one."""
    keys = ",".join(_named(_OF_KEY, details)).split(",")
    return frozenset(
        [
            *_named(_COMPARES, details),
            *(one.removeprefix("-").removeprefix("n.") for one in keys),
        ]
    )


def _tables_by_root_page(connection: sqlite3.Connection) -> dict[int, str]:
    # SQLite's lower() knows no letters but those of ASCII.
    return {
        page: name.lower()
        for page, name in connection.execute(
            "SELECT rootpage, tbl_name FROM main.sqlite_master WHERE rootpage"
        )
    }
