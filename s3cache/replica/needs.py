"""Which packs a statement needs that the replica lacks.

Nobody asks this of a replica that lacks nothing. Of another one each
statement is looked at before it runs, in its own transaction: it may not see
a table that is only there in part. There are two exceptions: rows that are
asked for by their primary key, and a page in the order of that, both in the
way in which Django does it. All else is told by SQLite; what it does not tell
needs everything.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from s3cache.replica.absent import NotLoaded, packs_of
from s3cache.replica.analysis import Analyser
from s3cache.replica.cut import ByKey, Page, Wanted
from s3cache.replica.foreign_keys import with_children
from s3cache.replica.sql import Kind, kind_of, words
from s3cache.replica.tables import Schema, Table, key_collation, schema_version

#: PRAGMAs that say nothing of rows.
_HARMLESS = frozenset(
    [
        "COLLATION_LIST",
        "COMPILE_OPTIONS",
        "DATABASE_LIST",
        "ENCODING",
        "FOREIGN_KEYS",
        "FOREIGN_KEY_LIST",
        "FUNCTION_LIST",
        "INDEX_INFO",
        "INDEX_LIST",
        "INDEX_XINFO",
        "JOURNAL_MODE",
        "SCHEMA_VERSION",
        "TABLE_INFO",
        "TABLE_LIST",
        "TABLE_XINFO",
        "USER_VERSION",
    ]
)

_NAME = '"(?:[^"]|"")+"'

#: How Django asks for rows by primary key: for columns of one table, or only
#: whether there are some.
_COLUMN = rf"{_NAME}\.{_NAME}(?: AS {_NAME})?"
_COLUMNS = rf"{_COLUMN}(?:, {_COLUMN})*"
_BY_KEY = re.compile(
    rf"SELECT (?:{_COLUMNS}|(?P<one>\?) AS \"a\") "
    rf"FROM (?P<table>{_NAME}) "
    rf"WHERE (?P=table)\.(?P<column>{_NAME}) (?:= \?|IN \(\?(?:, \?)*\))"
    rf"(?: LIMIT \d+)?"
)

#: How it asks for a page of a table, for its first row, and for its last.
_PAGE = re.compile(
    rf"SELECT {_COLUMNS} FROM (?P<table>{_NAME}) "
    rf"ORDER BY (?P=table)\.(?P<column>{_NAME}) (?P<order>ASC|DESC) "
    rf"LIMIT (?P<limit>\d+)(?: OFFSET (?P<offset>\d+))?"
)


class Needs:
    """Looks at the statements of one replica."""

    def __init__(
        self,
        analyser: Callable[[], Analyser],
        describe: Callable[[sqlite3.Connection], Schema],
    ) -> None:
        self._analyser = analyser
        self._describe = describe

    def check(self, connection: sqlite3.Connection, sql: str, params: Any) -> None:
        """Raise ``NotLoaded`` unless all is there that ``sql`` needs.

        ``connection`` is in the transaction in which it will run.
        """
        kind = kind_of(sql)
        if kind is Kind.TRANSACTION or words(sql, 1) == ["EXPLAIN"]:
            return
        if kind is Kind.PRAGMA:
            if _pragma_name(sql) in _HARMLESS:
                return
            raise NotLoaded(None)
        version = schema_version(connection)
        analysed, access = self._analyser().access_at(sql, params)
        if analysed != version:
            raise NotLoaded(frozenset())  # nothing to load: look again
        if not access.known or access.virtual or kind in (Kind.SCHEMA, Kind.REFUSED):
            raise NotLoaded(None)
        schema = self._describe(connection)
        if not access.writes:
            wanted = _by_key(connection, schema, sql, params) or _page(
                connection, schema, sql
            )
            if wanted is not None and access.reads == {wanted.table.name.lower()}:
                self._raise_for(wanted.packs(connection), wanted)
                return
        self.check_tables(connection, access.reads, access.writes)

    def check_tables(
        self,
        connection: sqlite3.Connection,
        reads: Iterable[str],
        writes: Iterable[str],
    ) -> None:
        """Raise ``NotLoaded`` unless these tables are there, in lower case.

        With all that the constraints of those that are written look at.
        """
        schema = self._describe(connection)
        written = with_children(schema, writes)
        needed = {*reads, *written}
        for name in written:
            table = schema.get(name)
            if table is not None:
                needed.update(key.parent.lower() for key in table.foreign_keys)
            needed.update(key.child.lower() for key in schema.children.get(name, ()))
        self._raise_for(packs_of(connection, needed))

    def _raise_for(self, packs: frozenset[str], first: Wanted | None = None) -> None:
        if packs:
            raise NotLoaded(packs, first)


def _pragma_name(sql: str) -> str:
    """The name of a PRAGMA, in upper case, without that of its database."""
    found = re.match(
        r"\s*PRAGMA\s+(?:\w+\s*\.\s*)?(\w+)\s*(?:[=(;]|\Z)", sql, re.IGNORECASE
    )
    return found[1].upper() if found else ""


def _by_key(
    connection: sqlite3.Connection, schema: Schema, sql: str, params: Any
) -> ByKey | None:
    """What ``sql`` asks for, if those are rows by primary key."""
    match = _BY_KEY.fullmatch(sql)
    if match is None or not isinstance(params, tuple | list):
        return None
    table = _keyed_by(connection, schema, match)
    if table is None:
        return None
    keys: Sequence[Any] = params[1:] if match["one"] else params
    kind: type = int if table.is_keyed_by_rowid else str
    if any(type(key) is not kind for key in keys):
        return None
    return ByKey(table, keys)


def _page(connection: sqlite3.Connection, schema: Schema, sql: str) -> Page | None:
    """What ``sql`` asks for, if it is a page in the order of primary keys."""
    match = _PAGE.fullmatch(sql)
    if match is None:
        return None
    table = _keyed_by(connection, schema, match)
    if table is None:
        return None
    count = int(match["limit"]) + int(match["offset"] or 0)
    return Page(table, count, match["order"] == "DESC")


def _keyed_by(
    connection: sqlite3.Connection, schema: Schema, match: re.Match[str]
) -> Table | None:
    """The table of a statement, if its column is the primary key.

    And if that is a rowid, or text that is compared byte by byte.
    """
    table = schema.get(_unquoted(match["table"]))
    if table is None or table.key != (_unquoted(match["column"]),):
        return None
    if table.is_keyed_by_rowid:
        return table
    return table if key_collation(connection, table.name) == "BINARY" else None


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"')
