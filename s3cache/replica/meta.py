"""The replica's own tables: where it is, and what it applied lately."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec

from s3cache.log.effects import Position
from s3cache.log.entry import Change, Entry, Row, Rows, Statement

#: The layout of the replica file. A file of another layout is made anew.
LAYOUT = 5

#: For how many entries the changed keys are kept.
RECENT = 2000

#: Above so many keys of one table an entry counts as changing all its rows.
MANY_KEYS = 1000

_CREATE = (
    """
    CREATE TABLE _s3cache_meta (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        layout INTEGER NOT NULL,
        generation TEXT NOT NULL,
        store TEXT NOT NULL,
        database TEXT NOT NULL,
        number INTEGER NOT NULL,
        token TEXT NOT NULL,
        etag TEXT NOT NULL,
        proved_at REAL NOT NULL,
        ids_reset_at INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE _s3cache_recent (
        number INTEGER PRIMARY KEY,
        token TEXT NOT NULL,
        etag TEXT NOT NULL,
        host TEXT NOT NULL,
        changes BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE _s3cache_pending (
        token TEXT PRIMARY KEY,
        number INTEGER NOT NULL,
        outcome TEXT NOT NULL
    )
    """,
    # What the table (or all tables, under "") was last changed by.
    """
    CREATE TABLE _s3cache_versions (
        scope TEXT PRIMARY KEY,
        number INTEGER NOT NULL,
        token TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    # The columns, as JSON, by whose values versions are kept as well.
    """
    CREATE TABLE _s3cache_partitions (
        table_name TEXT NOT NULL,
        columns TEXT NOT NULL,
        PRIMARY KEY (table_name, columns)
    ) WITHOUT ROWID
    """,
    # The packs that are not loaded yet, as the catalog has them (JSON), and
    # the catalog's number.
    """
    CREATE TABLE _s3cache_packs (
        key TEXT PRIMARY KEY,
        number INTEGER NOT NULL,
        pack BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    # The rows that are in those: after < rowid <= upto, unless it is NULL. In
    # tables whose rows are not found by_rowid, low <= key <= high.
    """
    CREATE TABLE _s3cache_absent (
        table_name TEXT NOT NULL,
        after INTEGER,
        upto INTEGER,
        low TEXT,
        high TEXT,
        by_rowid INTEGER NOT NULL,
        pack TEXT NOT NULL
    )
    """,
    "CREATE INDEX _s3cache_absent_rows ON _s3cache_absent (table_name, after)",
    # The keys of rows that would come with those packs, and were changed
    # since: a rowid, or else all parts of the key (MessagePack).
    """
    CREATE TABLE _s3cache_touched (
        table_name TEXT NOT NULL,
        key NOT NULL,
        PRIMARY KEY (table_name, key)
    ) WITHOUT ROWID
    """,
    # sqlite_sequence exists from the first AUTOINCREMENT table on.
    "CREATE TABLE _s3cache_ids (id INTEGER PRIMARY KEY AUTOINCREMENT)",
    "DROP TABLE _s3cache_ids",
)

#: Errors that speak against the file itself: there is no such table, its
#: pages make no sense, or it is no database at all.
_UNUSABLE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

Key = tuple[Any, ...]

#: The number of an entry, and the first characters of its token: a log that
#: went on from an older state has other tokens.
Version = tuple[int, str]

#: How many characters of a token a version has.
_TOKEN = 8

#: The scope of all tables: a change of the schema concerns each of them.
ALL_TABLES = ""


@dataclass(frozen=True, slots=True)
class Touched:
    """What an entry changed.

    ``keys`` has the keys of the changed rows by lower-case table name, None
    for a table with too many. ``schema`` is true if it was more than rows.
    ``scopes`` are the parts of tables; see ``part_scope``.
    """

    keys: Mapping[str, frozenset[Key] | None]
    schema: bool = False
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Recent:
    """An entry that this replica has applied lately."""

    number: int
    host: str
    touched: Touched
    token: str

    @property
    def version(self) -> Version:
        """The version that it gave to what it changed."""
        return self.number, self.token[:_TOKEN]


def create(connection: sqlite3.Connection, *, generation: str, store: str) -> None:
    """Make the tables of an empty replica."""
    for statement in _CREATE:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO _s3cache_meta VALUES (1, ?, ?, ?, '', 0, '', '', 0.0, 0)",
        [LAYOUT, generation, store],
    )


def is_usable(connection: sqlite3.Connection) -> bool:
    """Whether the file is a replica of this layout, complete or not.

    Raises what SQLite raises if it cannot tell: that the file is locked, that
    the disk is full, or that there are no descriptors left.
    """
    try:
        row = connection.execute("SELECT layout FROM _s3cache_meta").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _UNUSABLE:
            return False
        raise
    return row is not None and row[0] == LAYOUT


def is_complete(connection: sqlite3.Connection) -> bool:
    """Whether the file is a replica of some database, and not only begun."""
    return is_usable(connection) and bool(read_position(connection).database)


def begin_at(
    connection: sqlite3.Connection, position: Position, versions: Mapping[str, Version]
) -> None:
    """Put a new replica, whose tables are made, at ``position``."""
    connection.execute(
        "UPDATE main._s3cache_meta SET database = ?, number = ?, token = ?, "
        "etag = ?, proved_at = ?, ids_reset_at = ?",
        [
            position.database,
            position.number,
            position.token,
            position.etag,
            position.proved_at,
            position.number,
        ],
    )
    known = dict(versions) or {ALL_TABLES: (position.number, position.token[:_TOKEN])}
    connection.executemany(
        "INSERT OR REPLACE INTO main._s3cache_versions VALUES (?, ?, ?)",
        [(scope, *version) for scope, version in known.items()],
    )


def read_ids_reset_at(connection: sqlite3.Connection) -> int:
    """The number of the last entry that took back ids; 0: none did."""
    found: int = connection.execute(
        "SELECT ids_reset_at FROM main._s3cache_meta"
    ).fetchone()[0]
    return found


def read_position(connection: sqlite3.Connection) -> Position:
    """The position that ``connection`` sees."""
    row = connection.execute(
        "SELECT database, number, token, etag, proved_at FROM main._s3cache_meta"
    ).fetchone()
    return Position(*row)


def read_generation(connection: sqlite3.Connection) -> tuple[str, int]:
    """The replica's generation and its position's number."""
    row: tuple[str, int] = connection.execute(
        "SELECT generation, number FROM main._s3cache_meta"
    ).fetchone()
    return row


def keys_of(rows: Iterable[Row], indexes: Sequence[int]) -> list[Key]:
    """The keys of ``rows``, whose parts are at ``indexes``."""
    if len(indexes) == 1:
        index = indexes[0]
        return [(row[index],) for row in rows]
    return list(map(itemgetter(*indexes), rows))


def touched_by(changes: Iterable[Change]) -> Touched:
    """The keys that ``changes`` change, old and new ones."""
    keys: dict[str, set[Key] | None] = {}
    schema = False
    for change in changes:
        if isinstance(change, Statement):
            schema = True
        elif isinstance(change, Rows):
            name = change.table.lower()
            some = keys.setdefault(name, set())
            if some is None or len(change.rows) + len(change.deleted) > MANY_KEYS:
                keys[name] = None
                continue
            indexes = [change.columns.index(column) for column in change.key]
            some.update(keys_of(change.rows, indexes))
            some.update(map(tuple, change.deleted))
            if len(some) > MANY_KEYS:
                keys[name] = None
    return Touched(
        {name: frozenset(k) if k is not None else None for name, k in keys.items()},
        schema,
    )


def record(
    connection: sqlite3.Connection,
    entry: Entry,
    *,
    etag: str,
    modified: float,
    touched: Touched,
    resets_ids: bool,
) -> None:
    """Move the position to ``entry``, in the caller's transaction."""
    connection.execute(
        "UPDATE main._s3cache_meta SET number = ?, token = ?, etag = ?, "
        "proved_at = ?, ids_reset_at = CASE WHEN ? THEN number + 1 "
        "ELSE ids_reset_at END",
        [entry.number, entry.token, etag, modified, touched.schema or resets_ids],
    )
    connection.execute(
        "INSERT OR REPLACE INTO main._s3cache_recent VALUES (?, ?, ?, ?, ?)",
        [entry.number, entry.token, etag, entry.host, _encode(touched)],
    )
    connection.execute(
        "DELETE FROM main._s3cache_recent WHERE number <= ?", [entry.number - RECENT]
    )
    _move_versions(connection, (entry.number, entry.token[:_TOKEN]), touched)
    connection.execute(
        "UPDATE main._s3cache_pending SET outcome = "
        "CASE WHEN token = ? THEN 'committed' ELSE 'lost' END "
        "WHERE number = ? AND outcome = ''",
        [entry.token, entry.number],
    )


def _move_versions(
    connection: sqlite3.Connection, version: Version, touched: Touched
) -> None:
    scopes: Iterable[str] = [*touched.keys, *touched.scopes]
    if touched.schema:
        connection.execute("DELETE FROM main._s3cache_versions")
        # Columns may be gone, or be others. Who reads says again what counts.
        connection.execute("DELETE FROM main._s3cache_partitions")
        scopes = [ALL_TABLES]
    connection.executemany(
        "INSERT OR REPLACE INTO main._s3cache_versions VALUES (?, ?, ?)",
        [(scope, *version) for scope in scopes],
    )


def read_token(connection: sqlite3.Connection, number: int) -> str | None:
    """The token of an entry that was applied lately, or None."""
    row = connection.execute(
        "SELECT token FROM main._s3cache_recent WHERE number = ?", [number]
    ).fetchone()
    return row[0] if row else None


def read_etags(connection: sqlite3.Connection) -> dict[int, str]:
    """The ETags, by number, of the entries that were applied lately."""
    return dict(
        connection.execute("SELECT number, etag FROM main._s3cache_recent").fetchall()
    )


def read_recent(
    connection: sqlite3.Connection, after: int, up_to: int
) -> list[Recent] | None:
    """The entries ``after`` < n <= ``up_to``; None if one is not kept."""
    rows = connection.execute(
        "SELECT number, host, changes, token FROM main._s3cache_recent "
        "WHERE number > ? AND number <= ? ORDER BY number",
        [after, up_to],
    ).fetchall()
    if len(rows) != max(up_to - after, 0):
        return None
    return [
        Recent(number, host, _decode(changes), token)
        for number, host, changes, token in rows
    ]


def read_newest(connection: sqlite3.Connection, count: int) -> list[Recent]:
    """The ``count`` entries that were applied last, the newest first."""
    rows = connection.execute(
        "SELECT number, host, changes, token FROM main._s3cache_recent "
        "ORDER BY number DESC LIMIT ?",
        [count],
    ).fetchall()
    return [
        Recent(number, host, _decode(changes), token)
        for number, host, changes, token in rows
    ]


def read_versions(connection: sqlite3.Connection) -> dict[str, Version]:
    """The versions of the tables that were changed, by lower-case name.

    Of all others it is that of ``ALL_TABLES``.
    """
    return {
        scope: (number, token)
        for scope, number, token in connection.execute(
            "SELECT scope, number, token FROM main._s3cache_versions"
        )
    }


def read_partitions(connection: sqlite3.Connection) -> dict[str, list[list[str]]]:
    """The columns whose values have versions, by lower-case table name."""
    found: dict[str, list[list[str]]] = {}
    for table, columns in connection.execute(
        "SELECT table_name, columns FROM main._s3cache_partitions"
    ):
        found.setdefault(table, []).append(msgspec.json.decode(columns))
    return found


def add_partition(
    connection: sqlite3.Connection, table: str, columns: Sequence[str]
) -> None:
    """Keep versions by the values of ``columns`` from here on.

    In the caller's transaction. ``table`` is in lower case. None of its rows
    has changed after the version that it has now.
    """
    added = connection.execute(
        "INSERT OR IGNORE INTO main._s3cache_partitions VALUES (?, ?)",
        [table, msgspec.json.encode(columns).decode()],
    )
    if added.rowcount:
        connection.execute(
            "INSERT OR REPLACE INTO main._s3cache_versions "
            "SELECT ?, number, token FROM main._s3cache_versions "
            "WHERE scope IN (?, ?) ORDER BY number DESC LIMIT 1",
            [part_scope(table, columns), table, ALL_TABLES],
        )


def part_scope(
    table: str, columns: Sequence[str], values: Sequence[Any] | None = None
) -> str:
    """What a version is kept under: the rows with ``values`` in ``columns``.

    Without values it is what holds for all that have no version of their
    own, or an older one.
    """
    parts = [table, columns] if values is None else [table, columns, values]
    return msgspec.json.encode(parts).decode()


def _encode(touched: Touched) -> bytes:
    return msgspec.msgpack.encode(
        [
            touched.schema,
            {n: None if k is None else list(k) for n, k in touched.keys.items()},
            list(touched.scopes),
        ]
    )


def _decode(blob: bytes) -> Touched:
    schema, keys, scopes = msgspec.msgpack.decode(blob)
    return Touched(
        {
            name: None if some is None else frozenset(map(tuple, some))
            for name, some in keys.items()
        },
        schema,
        frozenset(scopes),
    )
