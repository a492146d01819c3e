"""What the tables of a replica look like."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from s3cache.replica.sql import quote

#: The replica's own tables start with this; Django never sees them.
OWN_PREFIX = "_s3cache_"

#: Parts of declared types, the first of which decides.
_AFFINITIES = (
    ("int", "INTEGER"),
    ("char", "TEXT"),
    ("clob", "TEXT"),
    ("text", "TEXT"),
    ("blob", "BLOB"),
    ("real", "REAL"),
    ("floa", "REAL"),
    ("doub", "REAL"),
)

#: Perhaps a name; but there is no collation without it.
_COLLATE = re.compile(r"\bcollate\b", re.IGNORECASE)

_ACTIONS = frozenset(["CASCADE", "SET NULL", "SET DEFAULT"])


@dataclass(frozen=True)
class ForeignKey:
    """The columns of a child table that refer to columns of a parent.

    ``on_delete`` is what is to be done with children whose parent is
    deleted: "CASCADE", "SET NULL", "SET DEFAULT", or "" for an error.
    """

    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str = ""


@dataclass(frozen=True)
class Table:
    """A table as the log sees it.

    ``columns`` are those that an entry carries, generated ones left out. The
    rowid is among them when nothing else fixes it, so that the natural order
    and new rowids are the same on every host. ``key`` are the columns that
    identify a row: the primary key, or the rowid if there is none, or if the
    primary key may be NULL, which SQLite lets several rows have.

    ``affinities`` are those of the columns, in capitals; none where values
    may be compared in another way than byte by byte.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    rowid: str
    integer_key: bool
    autoincrement: bool
    foreign_keys: tuple[ForeignKey, ...]
    affinities: Mapping[str, str] = field(default_factory=dict, hash=False)

    @cached_property
    def key_indexes(self) -> tuple[int, ...]:
        """The positions of the key's columns in a row of ``columns``."""
        return tuple(self.columns.index(column) for column in self.key)

    @property
    def carries_rowid(self) -> bool:
        """Whether rows need their rowid beside their other columns."""
        return bool(self.rowid) and not self.integer_key

    @property
    def is_keyed_by_rowid(self) -> bool:
        """Whether the rowid alone identifies a row."""
        return self.key == (self.rowid,)


@dataclass(frozen=True)
class Schema:
    """The tables at one version of the schema, by lower-case name.

    ``children`` has the foreign keys that refer to a table, ``actions``
    those of them that say what becomes of the children of a deleted row.
    """

    version: int
    tables: Mapping[str, Table]
    children: Mapping[str, tuple[ForeignKey, ...]] = field(default_factory=dict)
    actions: Mapping[str, tuple[ForeignKey, ...]] = field(default_factory=dict)

    def get(self, name: str) -> Table | None:
        """The table ``name``, in whatever case, or None."""
        return self.tables.get(name.lower())

    def __iter__(self) -> Iterator[Table]:
        return iter(self.tables.values())


def schema_version(connection: sqlite3.Connection) -> int:
    """The number that SQLite changes whenever the schema does."""
    version: int = connection.execute("PRAGMA main.schema_version").fetchone()[0]
    return version


def read_schema(connection: sqlite3.Connection, version: int) -> Schema:
    """Describe all tables of ``main`` as ``connection`` sees them."""
    tables: dict[str, Table] = {}
    for name, sql in connection.execute(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'table'"
    ).fetchall():
        if not name.lower().startswith(("sqlite_", OWN_PREFIX)):
            tables[name.lower()] = _read_table(connection, name, sql)
    children: dict[str, tuple[ForeignKey, ...]] = {}
    for table in tables.values():
        for key in table.foreign_keys:
            parent = key.parent.lower()
            children[parent] = (*children.get(parent, ()), key)
    actions = {
        parent: acting
        for parent, keys in children.items()
        if (acting := tuple(key for key in keys if key.on_delete))
    }
    return Schema(version, tables, children, actions)


def read_table(connection: sqlite3.Connection, name: str) -> Table | None:
    """Describe the table ``name``, in lower case; None if there is none."""
    for known, sql in connection.execute(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'table'"
    ).fetchall():
        # SQLite's lower() knows no letters but those of ASCII.
        if known.lower() == name:
            return _read_table(connection, known, sql)
    return None


def _read_table(connection: sqlite3.Connection, name: str, sql: str) -> Table:
    stored, key_parts, types = [], [], {}
    identifies = True
    for _cid, column, kind, not_null, _default, pk, hidden in connection.execute(
        f"PRAGMA main.table_xinfo({quote(name)})"
    ):
        types[column] = kind.lower()
        if pk:
            key_parts.append((pk, column))
            identifies &= bool(not_null)
        if hidden == 0:
            stored.append(column)
    key = tuple(column for _order, column in sorted(key_parts))
    index = _key_index(connection, name)
    # The primary key of a table without rowid is the table itself: its index
    # has no entry in sqlite_master.
    without_rowid = bool(index) and not _is_stored(connection, index)
    # An INTEGER PRIMARY KEY DESC has an index: it is not the rowid.
    integer_key = len(key) == 1 and types[key[0]] == "integer" and not index
    rowid = "" if without_rowid else _rowid_name(types)
    columns = tuple(stored)
    if integer_key:
        rowid = key[0]
    elif rowid:
        columns = (rowid, *columns)
        key = key if key and identifies else (rowid,)
    return Table(
        name=name,
        columns=columns,
        key=key,
        rowid=rowid,
        integer_key=integer_key,
        autoincrement=_has_autoincrement(connection, sql),
        foreign_keys=_read_foreign_keys(connection, name),
        affinities=(
            {}
            if _COLLATE.search(sql)
            else {column: _affinity(kind) for column, kind in types.items()}
        ),
    )


def _affinity(kind: str) -> str:
    """What SQLite makes of values of a column of that declared type.

    See https://www.sqlite.org/datatype3.html#determination_of_column_affinity
    """
    return next(
        (affinity for part, affinity in _AFFINITIES if part in kind),
        "NUMERIC" if kind else "BLOB",
    )


def _key_index(connection: sqlite3.Connection, name: str) -> str:
    """The index of the primary key, or "" if the rowid is the key."""
    indexes = connection.execute(f"PRAGMA main.index_list({quote(name)})").fetchall()
    return next((index for _n, index, _u, origin, _p in indexes if origin == "pk"), "")


def key_collation(connection: sqlite3.Connection, name: str) -> str:
    """How the primary key's first column is compared, or "".

    It is "" where the rowid is the key, and where the column may be compared
    in another way than its index: SQLite tells the index's alone.
    """
    index = _key_index(connection, name)
    row = (
        connection.execute(f"PRAGMA main.index_xinfo({quote(index)})").fetchone()
        if index
        else None
    )
    if row is None:
        return ""
    collation: str = row[4].upper()
    (sql,) = connection.execute(
        "SELECT upper(sql) FROM main.sqlite_master WHERE type = 'table' AND name = ?",
        [name],
    ).fetchone()
    # An index has its column's, unless its key names another one.
    return "" if "COLLATE" in sql and collation in sql else collation


def _is_stored(connection: sqlite3.Connection, index: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM main.sqlite_master WHERE type = 'index' AND name = ?", [index]
    )
    return found.fetchone() is not None


def _rowid_name(columns: Iterable[str]) -> str:
    # A generated column hides the rowid as any other does.
    taken = {column.lower() for column in columns}
    for name in ("rowid", "_rowid_", "oid"):
        if name not in taken:
            return name
    return ""


def _has_autoincrement(connection: sqlite3.Connection, sql: str) -> bool:
    # SQLite has no pragma for this. The word inside a string or a name would
    # be a false positive, which only costs a look at sqlite_sequence.
    return "AUTOINCREMENT" in sql.upper()


def _read_foreign_keys(
    connection: sqlite3.Connection, name: str
) -> tuple[ForeignKey, ...]:
    found: dict[int, list[tuple[str, str, str | None]]] = {}
    actions: dict[int, str] = {}
    for (
        number,
        _seq,
        parent,
        column,
        parent_column,
        _update,
        delete,
        _match,
    ) in connection.execute(f"PRAGMA main.foreign_key_list({quote(name)})").fetchall():
        found.setdefault(number, []).append((parent, column, parent_column))
        actions[number] = delete if delete in _ACTIONS else ""
    keys = []
    for number, parts in found.items():
        parent = parts[0][0]
        parent_columns = tuple(to for _p, _c, to in parts if to is not None)
        if not parent_columns:
            parent_columns = _primary_key(connection, parent) or ("id",)
        keys.append(
            ForeignKey(
                name,
                tuple(column for _parent, column, _to in parts),
                parent,
                parent_columns,
                actions[number],
            )
        )
    return tuple(keys)


def _primary_key(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    columns = connection.execute(f"PRAGMA main.table_info({quote(table)})").fetchall()
    return tuple(name for _o, name in sorted((c[5], c[1]) for c in columns if c[5]))
