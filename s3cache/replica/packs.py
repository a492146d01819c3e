"""Packs: tables, or ranges of their rows, as small SQLite files.

A pack has each of its tables under its own name, with the columns that the
log carries and without types: values are what they are. The rowid, where a
table has one, is its primary key, so that rows keep their natural order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import zstandard

from s3cache.exceptions import EntryFormatError
from s3cache.log.catalog import Catalog, Pack, Segment
from s3cache.log.entry import Sequences
from s3cache.replica import absent, meta
from s3cache.replica.absent import Part
from s3cache.replica.applying import read_sequences, set_sequences
from s3cache.replica.cut import Wanted, cut
from s3cache.replica.sql import in_range, quote, quote_column
from s3cache.replica.tables import (
    OWN_PREFIX,
    Schema,
    Table,
    key_collation,
    read_schema,
    read_table,
    schema_version,
)

#: What SQLite says of rows that do not fit, or of a file that is none. All
#: else is about the replica or its disk.
_DAMAGE = frozenset(
    [
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
    ]
)

#: Bytes of pages that are kept while a pack is loaded. With SQLite's 2 MB an
#: index whose order is not that of the rows is written again and again.
CACHE = 16 * 1024 * 1024

#: Rows that are copied at once, at first and at most.
_FIRST_ROWS = 64
_MOST_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Packed:
    """A pack as an SQLite file in memory; ``rest`` did not fit.

    For ``bounds`` see ``Pack``.
    """

    raw: bytes
    rows: int
    segments: Sequence[Segment]
    rest: Sequence[Segment]
    bounds: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def read_statements(connection: sqlite3.Connection) -> list[str]:
    """The statements that make the schema of the database, in order."""
    return [
        sql
        for name, table, sql in connection.execute(
            "SELECT name, tbl_name, sql FROM main.sqlite_master "
            "WHERE sql IS NOT NULL ORDER BY rowid"
        )
        if not name.lower().startswith(("sqlite_", OWN_PREFIX))
        and not table.lower().startswith(OWN_PREFIX)
    ]


def make_pack(
    connection: sqlite3.Connection,
    schema: Schema,
    segments: Sequence[Segment],
    limit: int,
) -> Packed:
    """Copy the rows of ``segments`` from ``main`` until there are enough.

    ``limit`` is in bytes; what follows then is left. The same rows always
    make the same bytes, with the same release of SQLite. The connection has
    no transaction open.
    """
    done: list[Segment] = []
    waiting = list(segments)
    rows = 0
    with _attached(connection):
        while waiting and (not done or _size(connection) < limit):
            segment = waiting.pop(0)
            table = schema.get(segment.table)
            if table is None:
                raise sqlite3.OperationalError(f"no such table: {segment.table}")
            copied, reached = _copy(connection, table, segment, limit)
            rows += copied
            if reached is None:
                done.append(segment)
            else:
                done.append(Segment(segment.table, segment.after, reached))
                waiting.insert(0, Segment(segment.table, reached, segment.upto))
        bounds = _bounds(connection, schema, done)
        raw = connection.serialize(name="pack")
    return Packed(raw, rows, done, waiting, bounds)


def _bounds(
    connection: sqlite3.Connection, schema: Schema, segments: Sequence[Segment]
) -> dict[str, tuple[str, str]]:
    """Between which keys the rows are, of tables that are keyed by text."""
    found = {}
    for name in dict.fromkeys(segment.table for segment in segments):
        table = schema.get(name)
        if (
            table is None
            or not table.carries_rowid
            or table.is_keyed_by_rowid
            or len(table.key) != 1
            or key_collation(connection, table.name) != "BINARY"
        ):
            continue
        key = quote(table.key[0])
        low, high = connection.execute(
            f"SELECT min({key}), max({key}) FROM pack.{quote(table.name)}"
        ).fetchone()
        # Numbers come before texts, and other bytes after them.
        if isinstance(low, str) and isinstance(high, str):
            found[name] = (low, high)
    return found


def _copy(
    connection: sqlite3.Connection, table: Table, segment: Segment, limit: int
) -> tuple[int, int | None]:
    """Copy rows of a segment: how many, and the last one if more are left."""
    name = quote(table.name)
    columns = ", ".join(map(quote_column, table.columns))
    _create(connection, table)
    insert = f"INSERT INTO pack.{name} SELECT {columns} FROM main.{name}"
    if not table.rowid:
        order = ", ".join(map(quote_column, table.key))
        return connection.execute(f"{insert} ORDER BY {order}").rowcount, None
    rowid = quote_column(table.rowid)
    last = f"SELECT max({quote(table.rowid)}) FROM pack.{name}"
    after, copied, count = segment.after, 0, _FIRST_ROWS
    while True:
        where, params = in_range(rowid, after, segment.upto)
        found = connection.execute(
            f"{insert} WHERE {where} ORDER BY {rowid} LIMIT ?", [*params, count]
        ).rowcount
        copied += found
        if found < count:
            return copied, None
        after = connection.execute(last).fetchone()[0]
        size = _size(connection)
        if size >= limit:
            return copied, after
        fitting = (limit - size) * copied // size
        count = min(max(fitting, _FIRST_ROWS), 2 * count, _MOST_ROWS)


def _create(connection: sqlite3.Connection, table: Table) -> None:
    columns = [
        f"{quote(column)} INTEGER PRIMARY KEY"
        if column == table.rowid
        else quote(column)
        for column in table.columns
    ]
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS pack.{quote(table.name)} ({', '.join(columns)})"
    )


def _size(connection: sqlite3.Connection) -> int:
    pages: int = connection.execute("PRAGMA pack.page_count").fetchone()[0]
    size: int = connection.execute("PRAGMA pack.page_size").fetchone()[0]
    return pages * size


@contextmanager
def _attached(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("ATTACH ':memory:' AS pack")
    try:
        yield
    finally:
        connection.execute("DETACH pack")


@contextmanager
def _roomy(connection: sqlite3.Connection) -> Iterator[None]:
    """Have SQLite keep more pages, while rows go all over the indexes."""
    (before,) = connection.execute("PRAGMA main.cache_size").fetchone()
    connection.execute(f"PRAGMA main.cache_size = {-CACHE // 1024}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA main.cache_size = {before}")
        connection.execute("PRAGMA shrink_memory")


def compress(raw: bytes) -> bytes:
    """The object that a pack becomes."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(raw)


def decompress(pack: Pack, body: bytes) -> bytes:
    """What ``compress`` was given; ``body`` is what the catalog says."""
    try:
        return zstandard.ZstdDecompressor().decompress(
            body, max_output_size=pack.raw_size
        )
    except zstandard.ZstdError as error:
        raise EntryFormatError(f"{pack.key} is damaged: {error}") from error


# A new replica, and what it lacks.


def begin(connection: sqlite3.Connection, catalog: Catalog) -> None:
    """Make the tables of ``catalog``; it lacks all packs until they come.

    In the caller's transaction. What else the schema has comes at the end.
    """
    for statement in catalog.schema:
        if _is_table(statement):
            connection.execute(statement)
    schema = read_schema(connection, schema_version(connection))
    absent.note(connection, catalog, schema)


def load(
    connection: sqlite3.Connection,
    pack: Pack,
    body: bytes,
    first: Wanted | None = None,
) -> bool:
    """Put those rows of a pack into their tables that the replica lacks.

    Of a large one it may be only a few rows, those ``first`` among them: then
    the result is True, and the replica lacks the others as before. Raises
    ``EntryFormatError`` for what is no pack, and then has changed nothing. The
    connection has no transaction open.
    """
    raw = decompress(pack, body)
    try:
        with _attached(connection), _roomy(connection):
            connection.deserialize(raw, name="pack")
            connection.execute("BEGIN IMMEDIATE")
            try:
                is_cut = _load(connection, pack, first)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _DAMAGE:
            raise
        raise EntryFormatError(f"{pack.key} is damaged: {error}") from error
    return is_cut


def _load(connection: sqlite3.Connection, pack: Pack, first: Wanted | None) -> bool:
    parts: Sequence[Part] = absent.parts_in(connection, pack.key)
    if not parts:
        return False  # another process was faster
    if first is not None and (some := cut(connection, pack, parts, first)) is not None:
        _load_parts(connection, some.first)
        absent.leave(connection, pack.key, some.rest)
        if pack.key not in first.packs(connection):
            return True
        parts = some.rest  # they were not enough
    _load_parts(connection, parts)
    absent.leave(connection, pack.key, ())
    return False


def _load_parts(connection: sqlite3.Connection, parts: Sequence[Part]) -> None:
    sequences = read_sequences(connection)
    tables = {name: read_table(connection, name) for name in {p.table for p in parts}}
    for part in parts:
        table = tables[part.table]
        if table is None:
            raise sqlite3.IntegrityError(f"no such table: {part.table}")
        _load_part(connection, part, table)
        if table.autoincrement:
            _set_back(connection, table.name, sequences)


def _set_back(
    connection: sqlite3.Connection, table: str, sequences: Mapping[str, int]
) -> None:
    """Undo what rows that are loaded, which are not new, did to the ids."""
    connection.execute("DELETE FROM main.sqlite_sequence WHERE name = ?", [table])
    if table in sequences:
        set_sequences(connection, Sequences({table: sequences[table]}))


def _load_part(connection: sqlite3.Connection, part: Part, table: Table) -> None:
    name = quote(table.name)
    columns = [
        column
        for _cid, column, *_rest in connection.execute(
            f"PRAGMA pack.table_info({name})"
        )
    ]
    where, params = in_range(quote(table.rowid), part.after, part.upto)
    touched = absent.touched(connection, part.table)
    if touched:
        where += f" AND {_but(connection, table, touched)}"
    connection.execute(
        f"INSERT INTO main.{name} ({', '.join(map(quote_column, columns))}) "
        f"SELECT {', '.join(map(quote, columns))} FROM pack.{name} p WHERE {where}",
        params,
    )
    connection.execute("DROP TABLE IF EXISTS temp._s3cache_keys")


def _but(
    connection: sqlite3.Connection, table: Table, keys: Sequence[Sequence[object]]
) -> str:
    """The condition on a row ``p`` of a pack that it has none of ``keys``."""
    columns = [f"k{i}" for i in range(len(table.key))]
    connection.execute(f"CREATE TEMP TABLE _s3cache_keys ({', '.join(columns)})")
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO temp._s3cache_keys VALUES ({marks})", keys)
    connection.execute(
        f"CREATE INDEX temp._s3cache_keys_all ON _s3cache_keys ({', '.join(columns)})"
    )
    same = " AND ".join(
        f"k.{mine} IS p.{quote(theirs)}"
        for mine, theirs in zip(columns, table.key, strict=True)
    )
    return f"NOT EXISTS (SELECT 1 FROM temp._s3cache_keys k WHERE {same})"


def complete(connection: sqlite3.Connection, catalog: Catalog) -> None:
    """Make what is not a table, and be where ``catalog`` is.

    In the caller's transaction. Indexes that are made after their rows are
    faster, and smaller.
    """
    for statement in catalog.schema:
        if not _is_table(statement):
            connection.execute(statement)
    if read_sequences(connection):
        connection.execute("DELETE FROM main.sqlite_sequence")
    set_sequences(connection, Sequences(catalog.sequences))
    meta.begin_at(connection, catalog.position, catalog.versions)


def _is_table(statement: str) -> bool:
    # sqlite_master has all statements begin like this.
    return statement.startswith("CREATE TABLE")
