"""The versions of a replica's tables, in the memory of this process."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from s3cache.replica import meta
from s3cache.replica.meta import ALL_TABLES, Key, Recent, Version
from s3cache.replica.tables import OWN_PREFIX
from s3cache.results.plans import Plans

if TYPE_CHECKING:
    from s3cache.replica.side_file import SideFile

__all__ = ["At", "PartScope", "RowScope", "Scope", "Versions"]

#: What no entry has given a version.
_NEVER: Version = (0, "")


#: What no side file says.
_NOTHING_SEEN = (b"", 0.0)

#: For so many entries the changed rows are known one by one. More than this
#: are kept by a replica.
_WINDOW = 1024

#: So many rows are known at most.
_MOST_ROWS = 200_000

#: Seconds that a reader waits for another one that looks at the replica.
_PATIENCE = 0.5


@dataclass(frozen=True, slots=True)
class RowScope:
    """One row of a table, by its key."""

    table: str
    key: Key

    def __str__(self) -> str:
        return ",".join(map(str, self.key))


@dataclass(frozen=True, slots=True)
class PartScope:
    """The rows of a table with certain values in certain columns."""

    table: str
    columns: tuple[str, ...]
    values: tuple[Any, ...]

    def __str__(self) -> str:
        parts = zip(self.columns, self.values, strict=True)
        return ",".join(f"{column}={value}" for column, value in parts)


#: What a result depends on: a table, by its lower-case name, or a part of it.
Scope = str | RowScope | PartScope


class At(NamedTuple):
    """What a result belongs to, read in the same transaction as its rows.

    ``schema`` stands for the database and its schema.
    """

    schema: bytes
    versions: tuple[Version, ...]


class Versions:
    """The versions of the tables at the position that was last looked at.

    Threads share one object per replica. ``at`` moves it on, under its lock,
    to what the caller's transaction sees; ``of`` only reads, without a lock.
    A mixture of two positions, which it may see meanwhile, is either a key
    that nobody stores under, or that of a result that was right when the
    caller came: ``at`` alone says what a result is stored under.

    A version v of a scope means that nothing in it was changed after entry
    v: the result is that at entry v. A part that was not changed since parts
    are looked at has the version that the table had then.
    """

    def __init__(self) -> None:
        self._generation = ""
        self._database = ""
        self._number = -1
        self._tables: dict[str, Version] = {}
        self._rows: dict[tuple[str, Key], Version] = {}
        #: By table the version of the rows that are not in ``_rows``; a table
        #: that is not here was not changed since this was begun.
        self._rest: dict[str, Version] = {}
        self._rows_since = 0
        #: Odd while the versions change, also if who changed them was
        #: interrupted, and another number after that: who has looked up
        #: several, and finds the same even number before and after it, has
        #: those of one position.
        self.moves = 0
        #: What the side file said when the replica was last looked at, and
        #: when the store had been asked then; one object, so that whoever
        #: reads it has both of the same moment.
        self.seen: tuple[bytes, float] = _NOTHING_SEEN
        self.schema = b""
        #: Names of views, which hide the tables that SQL reads.
        self.views: tuple[str, ...] = ()
        #: The columns of the parts that have versions.
        self._knows_partitions = False
        self.partitions: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
        #: Another object as soon as the schema is another one, so that
        #: whoever is late adds to the old one.
        self.plans = Plans()
        self._make_lock()
        _all.add(self)

    def _make_lock(self) -> None:
        self._lock = threading.Lock()
        #: Held by who follows the replica, and takes the other one within it.
        self._following = threading.Lock()

    def is_current(self, side: SideFile) -> bool:
        """Whether nobody has moved the replica, or asked the store, since."""
        return self.seen[0] == side.seen()

    def follow(self, connection: sqlite3.Connection, side: SideFile) -> bool:
        """Look at the replica again; False if it is being replaced."""
        # After a commit all readers come at once. One of them looks for all,
        # but if that one is held up by SQLite, nobody waits for its timeout.
        turn = self._following
        is_mine = turn.acquire(timeout=_PATIENCE)
        if not is_mine and self._following is turn:
            # It may have been interrupted, and never end its turn.
            self._following = threading.Lock()
        try:
            return self.is_current(side) or self._follow(connection, side)
        finally:
            if is_mine:
                turn.release()

    def _follow(self, connection: sqlite3.Connection, side: SideFile) -> bool:
        seen = side.seen()
        connection.execute("BEGIN")
        try:
            self.at(connection, ())
        finally:
            connection.execute("ROLLBACK")
        # A reader may still be on a file that another process has replaced.
        numbers = side.read(seen)
        if (
            self._number < numbers.number
            or _as_number(self._generation) != numbers.generation
        ):
            return False
        self.seen = seen, numbers.asked_at
        return True

    def at(self, connection: sqlite3.Connection, scopes: Iterable[Scope]) -> At:
        """What a result of ``scopes`` belongs to that is read hereafter.

        The caller has begun a transaction, and has read nothing in it yet. If
        it turns out to be older than what is known, it is begun again.
        """
        # Without the lock: whoever asks SQLite lets other threads run, and
        # they would all have to wait here until this one has its turn again.
        which, now = _position(connection)
        with self._lock:
            if which != (self._generation, self._database) or now[0] < self._number:
                # With the lock no snapshot is older than what is known.
                connection.execute("ROLLBACK")
                connection.execute("BEGIN")
                which, now = _position(connection)
            try:
                if which != (self._generation, self._database):
                    # Only when all is known may anybody go on from it.
                    self._generation = ""
                    self._database = which[1]
                    self.moves |= 1
                    self._start_again(connection, now)
                    self.moves += 1
                    self._generation = which[0]
                elif now[0] != self._number:
                    self.moves |= 1
                    self._go_on(connection, now)
                    self.moves += 1
            except BaseException:
                self._doubt()
                raise
            if not self._knows_partitions:
                self._tables |= meta.read_versions(connection)
                self._read_partitions(connection)
            return At(self.schema, self.of(scopes))

    def _doubt(self) -> None:
        """Start again: somebody was interrupted, and half of it is newer.

        A row of the position that is left would get the version of the next.
        """
        self._generation, self.seen = "", _NOTHING_SEEN

    def at_position(
        self, position: Sequence[Any], scopes: Iterable[Scope]
    ) -> At | None:
        """What a result of ``scopes`` belongs to that came with ``position``.

        That is how a row of ``beside_position`` begins. None: something else
        is known, so that the result has to be read again, after ``at``.
        """
        generation, database, number, _token = position
        with self._lock:
            if (
                generation != self._generation
                or database != self._database
                or number != self._number
                or not self._knows_partitions
            ):
                return None
            return At(self.schema, self.of(scopes))

    def of_rows(self, table: str, keys: Iterable[Key]) -> list[Version] | None:
        """The versions of rows at one position; None: it changes just now."""
        moves = self.moves
        found = [self.of_row(table, key) for key in keys]
        return None if moves % 2 or moves != self.moves else found

    def of(self, scopes: Iterable[Scope]) -> tuple[Version, ...]:
        """The versions of ``scopes``, as far as is known."""
        return tuple(
            [
                self.of_table(scope)
                if isinstance(scope, str)
                else self.of_row(scope.table, scope.key)
                if isinstance(scope, RowScope)
                else self.of_part(scope.table, scope.columns, scope.values)
                for scope in scopes
            ]
        )

    def of_table(self, table: str) -> Version:
        """The version of a table, by its lower-case name."""
        known = self._tables
        found = known.get(table)
        return known.get(ALL_TABLES, _NEVER) if found is None else found

    def of_row(self, table: str, key: Key) -> Version:
        """The version of one row."""
        # In this order: who moves the window on does it the other way round.
        found = self._rows.get((table, key))
        if found is None:
            found = self._rest.get(table)
        if found is None:
            found = self._tables.get(table)
        return self.of_table(table) if found is None else found

    def of_part(
        self, table: str, columns: tuple[str, ...], values: tuple[Any, ...]
    ) -> Version:
        """The version of the rows with ``values`` in ``columns``."""
        known = self._tables
        if (table, columns) not in self.partitions:
            return self.of_table(table)
        found = known.get(_part_name(table, columns, values), _NEVER)
        rest = known.get(_part_name(table, columns)) or self.of_table(ALL_TABLES)
        return max(found, rest)

    def may_read_view(self, sql: str) -> bool:
        """Whether a statement names a view, or what is called like one."""
        return any(view in sql.lower() for view in self.views)

    def look_at_partitions(self) -> None:
        """Find out which parts have versions, as soon as it matters."""
        with self._lock:
            self.seen, self._knows_partitions = _NOTHING_SEEN, False

    def _start_again(self, connection: sqlite3.Connection, now: Version) -> None:
        self.seen = _NOTHING_SEEN
        tables = meta.read_versions(connection)
        # A replica that was not made from the first entry on does not know
        # what was before. Nothing was changed after now, that is enough.
        tables.setdefault(ALL_TABLES, now)
        entries, since = _read_rows(connection, now)
        self._rows_since = since[0]
        # What the window has no row of was last changed before it.
        rest = {table: since for table, version in tables.items() if version > since}
        rows: dict[tuple[str, Key], Version] = {}
        _add(entries, tables, rest, rows)
        # Only when they are whole, and in this order; see of_row. Readers that
        # came before would take a row that is still to be added for one that
        # was not changed.
        self._rest, self._rows, self._tables = rest, rows, tables
        self.schema, self.views = _schema(connection, self._database)
        self._read_partitions(connection)
        self.plans = Plans()
        self._number = now[0]

    def _read_partitions(self, connection: sqlite3.Connection) -> None:
        self.partitions = frozenset(
            (table, tuple(columns))
            for table, some in meta.read_partitions(connection).items()
            for columns in some
        )
        self._knows_partitions = True

    def _go_on(self, connection: sqlite3.Connection, now: Version) -> None:
        number = now[0]
        recent = meta.read_recent(connection, self._number, number)
        if (
            recent is None
            or number < self._number
            or any(entry.touched.schema for entry in recent)
        ):
            self._start_again(connection, now)
            return
        _add(recent, self._tables, self._rest, self._rows)
        self._number = number
        if number - self._rows_since >= 2 * _WINDOW or len(self._rows) > _MOST_ROWS:
            self._forget_rows(recent[-1].version)

    def _forget_rows(self, now: Version) -> None:
        """Move the window on; the same way in all processes, if possible."""
        start = now[0] // _WINDOW * _WINDOW
        if len(self._rows) > _MOST_ROWS:
            start = now[0]
        kept = {}
        for row, version in self._rows.items():
            if version[0] > start:
                kept[row] = version
            elif version > self._rest[row[0]]:
                self._rest[row[0]] = version
        self._rows, self._rows_since = kept, start


def _add(
    entries: Iterable[Recent],
    tables: dict[str, Version],
    rest: dict[str, Version],
    rows: dict[tuple[str, Key], Version],
) -> None:
    """Have the versions of tables, and of rows, that ``entries`` give them.

    Others may read them meanwhile: ``rest`` before ``rows`` before ``tables``.
    """
    for entry in entries:
        version = entry.version
        for table, keys in entry.touched.keys.items():
            if keys is None:
                rest[table] = version
                for row in [row for row in rows if row[0] == table]:
                    del rows[row]
            else:
                if table not in rest:
                    rest[table] = tables.get(table, tables.get(ALL_TABLES, _NEVER))
                rows.update(((table, key), version) for key in keys)
        for scope in (*entry.touched.scopes, *entry.touched.keys):
            tables[scope] = version


#: Making them takes longer than all the rest of a hit. Values are text, whole
#: numbers and None, of which no two are equal that are not the same.
_part_name = lru_cache(maxsize=4096)(meta.part_scope)


#: Which replica of which database it is, and the newest entry in it.
_POSITION = (
    "SELECT generation, database, number, substr(token, 1, 8) FROM main._s3cache_meta"
)

#: The columns of that.
POSITION_COLUMNS = 4


def beside_position(sql: str) -> str:
    """The SELECT ``sql`` with the position of the replica, of one snapshot.

    Its rows begin with ``POSITION_COLUMNS`` for ``Versions.at_position``; then
    comes 1, and what ``sql`` selects. If that is nothing there is one row, and
    None instead of them.
    """
    beside = f"LEFT JOIN (SELECT 1, s.* FROM ({sql}) s) r"  # noqa: S608 - its own
    return f"SELECT p.*, r.* FROM ({_POSITION}) p {beside}"  # noqa: S608


def _position(
    connection: sqlite3.Connection,
) -> tuple[tuple[str, str], Version]:
    """What ``_POSITION`` says. The transaction's snapshot is taken here."""
    generation, database, number, token = connection.execute(_POSITION).fetchone()
    return (generation, database), (number, token)


def _read_rows(
    connection: sqlite3.Connection, now: Version
) -> tuple[list[Recent], Version]:
    """The entries whose changed rows are known, and what they follow."""
    start = now[0] // _WINDOW * _WINDOW
    recent = meta.read_recent(connection, start, now[0])
    token = meta.read_token(connection, start)
    if recent is None or (start and token is None):
        return [], now
    for index in range(len(recent) - 1, -1, -1):
        if recent[index].touched.schema:
            return recent[index + 1 :], recent[index].version
    return recent, (start, (token or "")[:8])


def _schema(
    connection: sqlite3.Connection, database: str
) -> tuple[bytes, tuple[str, ...]]:
    """What tells databases and schemas apart, and the names of views."""
    rows = connection.execute(
        "SELECT type, name, sql FROM main.sqlite_master "
        "WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY type, name"
    ).fetchall()
    described = [
        (kind, name, sql) for kind, name, sql in rows if not name.startswith(OWN_PREFIX)
    ]
    text = repr((database, described)).encode("utf-8", "surrogatepass")
    views = tuple(name.lower() for kind, name, _sql in described if kind == "view")
    return hashlib.blake2b(text, digest_size=16).digest(), views


def _as_number(generation: str) -> float:
    # As the side file has it.
    return float(int(generation[:12] or "0", 16))


_all: weakref.WeakSet[Versions] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for versions in list(_all):
        if versions._lock.locked():
            # A thread that is not here was in the middle of it.
            versions._doubt()
        versions._make_lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
