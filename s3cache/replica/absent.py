"""What a replica lacks: packs that it has not loaded yet.

A table of which packs are absent holds a part of its rows, and these are as
they should be: the rows of the packs that are there, and all that entries
have changed since the catalog. The keys of the latter are noted, as long as
their packs are absent; when one comes, it has nothing to say of them.

So it does not matter from which catalog a pack is, if only it is not newer
than the replica, and not older than the notes.
"""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from s3cache.log.catalog import Catalog, Pack, Segment
from s3cache.log.effects import Lacking
from s3cache.log.entry import Change, Rows, Statement
from s3cache.replica.sql import quote
from s3cache.replica.tables import Schema, Table

if TYPE_CHECKING:
    from s3cache.replica.cut import Wanted

#: The most keys that are noted of one table. With more it is loaded.
MOST_TOUCHED = 50_000


_pack = msgspec.json.Decoder(Pack)


class NotLoaded(Exception):
    """``keys`` are packs that somebody needs first; None: all of them.

    ``first`` are the rows that they are needed for, if these are known.
    """

    def __init__(
        self, keys: frozenset[str] | None, first: Wanted | None = None
    ) -> None:
        super().__init__("the replica has not loaded these packs yet")
        self.keys = keys
        self.first = first


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a table that an absent pack holds."""

    table: str
    after: int | None
    upto: int | None
    low: str | None
    high: str | None
    by_rowid: bool
    pack: str


def is_whole(connection: sqlite3.Connection) -> bool:
    """Whether a replica lacks nothing, and never will again.

    One that has just been made may still be filled with what lacks packs.
    """
    row = connection.execute(
        "SELECT database <> '' AND NOT EXISTS (SELECT 1 FROM main._s3cache_absent) "
        "FROM main._s3cache_meta"
    ).fetchone()
    return row is not None and bool(row[0])


# Noting


def note(connection: sqlite3.Connection, catalog: Catalog, schema: Schema) -> None:
    """Note that all packs of ``catalog`` are absent."""
    parts = [
        _part(pack, segment, table)
        for pack in catalog.packs
        for segment in pack.segments
        if (table := schema.get(segment.table)) is not None
    ]
    _note(connection, catalog, parts)


def _part(pack: Pack, segment: Segment, table: Table) -> Part:
    low, high = pack.bounds.get(segment.table, (None, None))
    return Part(
        table.name.lower(),
        segment.after,
        segment.upto,
        low,
        high,
        table.is_keyed_by_rowid,
        pack.key,
    )


def _note(
    connection: sqlite3.Connection, catalog: Catalog, parts: Sequence[Part]
) -> None:
    needed = {part.pack for part in parts}
    connection.executemany(
        "INSERT INTO main._s3cache_packs VALUES (?, ?, ?)",
        [
            (pack.key, catalog.number, msgspec.json.encode(pack))
            for pack in catalog.packs
            if pack.key in needed
        ],
    )
    _insert(connection, parts)


def _insert(connection: sqlite3.Connection, parts: Iterable[Part]) -> None:
    connection.executemany(
        "INSERT INTO main._s3cache_absent VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(p.table, p.after, p.upto, p.low, p.high, p.by_rowid, p.pack) for p in parts],
    )


def repack(connection: sqlite3.Connection, catalog: Catalog, number: int) -> bool:
    """Take what is absent from ``catalog``, as a replica at ``number``.

    False, and nothing has changed, if it is not from between the catalog
    that is known and ``number``. In the caller's transaction.
    """
    known = connection.execute("SELECT max(number) FROM main._s3cache_packs")
    since = known.fetchone()[0]
    if since is None:
        return True
    if not since <= catalog.number <= number:
        return False
    old = list(_parts(connection))
    connection.execute("DELETE FROM main._s3cache_absent")
    connection.execute("DELETE FROM main._s3cache_packs")
    _note(connection, catalog, list(_cut(old, catalog)))
    return True


def _cut(old: Iterable[Part], catalog: Catalog) -> Iterator[Part]:
    """The rows of ``old``, in the packs that ``catalog`` has them in."""
    packs = [
        (segment.table.lower(), segment, pack)
        for pack in catalog.packs
        for segment in pack.segments
    ]
    for part in old:
        for name, segment, pack in packs:
            if name != part.table:
                continue
            after = max(_known(part.after, segment.after), default=None)
            upto = min(_known(part.upto, segment.upto), default=None)
            if after is None or upto is None or after < upto:
                low, high = pack.bounds.get(segment.table, (None, None))
                yield Part(name, after, upto, low, high, part.by_rowid, pack.key)


def _known(*values: int | None) -> list[int]:
    return [value for value in values if value is not None]


def leave(connection: sqlite3.Connection, key: str, parts: Sequence[Part]) -> None:
    """Note that only ``parts`` of the pack ``key`` are absent from now on.

    In the caller's transaction.
    """
    connection.execute("DELETE FROM main._s3cache_absent WHERE pack = ?", [key])
    _insert(connection, parts)
    if not parts:
        connection.execute("DELETE FROM main._s3cache_packs WHERE key = ?", [key])
    connection.execute(
        "DELETE FROM main._s3cache_touched WHERE table_name NOT IN "
        "(SELECT table_name FROM main._s3cache_absent)"
    )


# Applying entries


def needed_for(connection: sqlite3.Connection, changes: Iterable[Change]) -> list[Pack]:
    """The packs without which ``changes`` cannot be applied.

    A change of the schema needs all rows. So does a table of which too many
    keys would have to be noted.
    """
    counts: dict[str, int] = {}
    for change in changes:
        if isinstance(change, Statement):
            return absent_packs(connection)
        if isinstance(change, Rows):
            name = change.table.lower()
            more = len(change.rows) + len(change.deleted)
            counts[name] = counts.get(name, 0) + more
    crowded = [
        name
        for name, more in counts.items()
        if _has_absent(connection, name)
        and more + _count_touched(connection, name) > MOST_TOUCHED
    ]
    return absent_packs(connection, packs_of(connection, crowded)) if crowded else []


def _count_touched(connection: sqlite3.Connection, name: str) -> int:
    found: int = connection.execute(
        "SELECT count(*) FROM main._s3cache_touched WHERE table_name = ?", [name]
    ).fetchone()[0]
    return found


def _has_absent(connection: sqlite3.Connection, name: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM main._s3cache_absent WHERE table_name = ? LIMIT 1", [name]
    )
    return found.fetchone() is not None


def note_touched(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    """Note the keys that ``changes`` change, where packs are absent."""
    for change in changes:
        if not isinstance(change, Rows):
            continue
        name = change.table.lower()
        parts = list(_parts(connection, name))
        if not parts:
            continue
        indexes = [change.columns.index(column) for column in change.key]
        keys = [[row[index] for index in indexes] for row in change.rows]
        noted: Iterable[Any]
        if parts[0].by_rowid:
            noted = (
                rowid
                for (rowid,) in (*keys, *change.deleted)
                if any(Segment("", p.after, p.upto).has(rowid) for p in parts)
            )
        else:
            noted = (msgspec.msgpack.encode(key) for key in (*keys, *change.deleted))
        connection.executemany(
            "INSERT OR IGNORE INTO main._s3cache_touched VALUES (?, ?)",
            ((name, key) for key in noted),
        )


def touched(connection: sqlite3.Connection, name: str) -> list[Any]:
    """The keys of the table ``name``, in lower case, that are noted."""
    return [
        msgspec.msgpack.decode(key) if isinstance(key, bytes) else [key]
        for (key,) in connection.execute(
            "SELECT key FROM main._s3cache_touched WHERE table_name = ?", [name]
        )
    ]


# Asking


def _parts(
    connection: sqlite3.Connection, table: str | None = None, pack: str | None = None
) -> Iterator[Part]:
    found = connection.execute(
        "SELECT table_name, after, upto, low, high, by_rowid, pack "
        "FROM main._s3cache_absent "
        "WHERE (?1 IS NULL OR table_name = ?1) AND (?2 IS NULL OR pack = ?2) "
        "ORDER BY table_name, after",
        [table, pack],
    ).fetchall()
    for name, after, upto, low, high, by_rowid, key in found:
        yield Part(name, after, upto, low, high, bool(by_rowid), key)


def parts_in(connection: sqlite3.Connection, pack: str) -> list[Part]:
    """The rows that are absent of the pack with this key."""
    return list(_parts(connection, pack=pack))


def absent_tables(connection: sqlite3.Connection) -> frozenset[str]:
    """The tables, in lower case, of which packs are absent."""
    return frozenset(
        name
        for (name,) in connection.execute(
            "SELECT DISTINCT table_name FROM main._s3cache_absent"
        )
    )


def packs_of(connection: sqlite3.Connection, tables: Iterable[str]) -> frozenset[str]:
    """The absent packs with rows of ``tables``, which are in lower case."""
    return frozenset(
        key
        for table in tables
        for (key,) in connection.execute(
            "SELECT pack FROM main._s3cache_absent WHERE table_name = ?", [table]
        )
    )


def packs_with(
    connection: sqlite3.Connection, table: Table, keys: Iterable[Any]
) -> frozenset[str]:
    """The absent packs that may have the rows of ``table`` with ``keys``.

    Those are values of its primary key, which is one column.
    """
    by_rowid = table.is_keyed_by_rowid
    found = set()
    for part in _parts(connection, table.name.lower()):
        for key in keys:
            if by_rowid:
                may_have = Segment("", part.after, part.upto).has(key)
            else:
                low, high = part.low, part.high
                may_have = low is None or high is None or low <= key <= high
            if may_have:
                found.add(part.pack)
                break
    return frozenset(found)


def packs_of_page(
    connection: sqlite3.Connection, table: Table, count: int, from_end: bool
) -> frozenset[str]:
    """The absent packs that the first ``count`` rows of ``table`` need.

    First by its primary key, a rowid or text that is compared byte by byte;
    ``from_end`` says that the last ones are wanted. Once those packs are
    there, more may be needed: who loads them has to look again.
    """
    by_rowid = table.is_keyed_by_rowid
    sign, reaches = (">=", operator.ge) if from_end else ("<=", operator.le)

    def ends(part: Part) -> tuple[Any, Any]:
        """Between which keys its rows are, from that end; None: not known."""
        low, high = (part.after, part.upto) if by_rowid else (part.low, part.high)
        return (high, low) if from_end else (low, high)

    parts = [(*ends(p), p.pack) for p in _parts(connection, table.name.lower())]
    ordered = [part for part in parts if part[0] is None]
    ordered += sorted((p for p in parts if p[0] is not None), reverse=from_end)
    if count > 0 and ordered and ordered[0][0] is not None:
        # Up to the first of them all rows are there, whatever their pack.
        count -= connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM main.{quote(table.name)} "
            f"WHERE {quote(table.key[0])} {sign} ? LIMIT ?)",
            [ordered[0][0], count],
        ).fetchone()[0]
    found: set[str] = set()
    for (_near, far, pack), (following, *_) in pairwise([*ordered, (None, None, "")]):
        if count <= 0:
            break
        # One in which the next one begins has to be loaded with that.
        is_apart = None not in (far, following) and reaches(far, following)
        if is_apart and pack not in found:
            count -= _read(connection, [pack])[0].rows
        found.add(pack)
    return frozenset(found)


def absent_packs(
    connection: sqlite3.Connection, keys: Iterable[str] | None = None
) -> list[Pack]:
    """The absent packs among ``keys``; None: all of them.

    In the order of their rows: what is added at the end of a table and of its
    indexes costs SQLite least.
    """
    return _read(connection, _in_order(connection, keys))


def lacking(
    connection: sqlite3.Connection, keys: Iterable[str] | None, limit: int
) -> Lacking:
    """The first absent packs among ``keys``, at most ``limit``."""
    found = _in_order(connection, keys)
    some = _read(connection, found[:limit])
    return Lacking(some, len(found) - len(some))


def _in_order(
    connection: sqlite3.Connection, keys: Iterable[str] | None
) -> Sequence[str]:
    absent = dict.fromkeys(
        pack
        for (pack,) in connection.execute(
            "SELECT pack FROM main._s3cache_absent ORDER BY table_name, after"
        )
    )
    if keys is None:
        return list(absent)
    wanted = frozenset(keys)
    return [key for key in absent if key in wanted]


def _read(connection: sqlite3.Connection, keys: Iterable[str]) -> list[Pack]:
    return [
        _pack.decode(one)
        for key in keys
        for (one,) in connection.execute(
            "SELECT pack FROM main._s3cache_packs WHERE key = ?", [key]
        )
    ]
