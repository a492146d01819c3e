"""Is a replica what the log says, to the last rowid?"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

#: Tables of the replica's own bookkeeping, which may differ between hosts.
PRIVATE = "_s3cache"


def second_host_sees(
    connection: BaseDatabaseWrapper, folder: Path, *, from_nothing: bool
) -> list[str]:
    """How a replica in ``folder`` differs from that of ``connection``.

    It follows the same store, as another host's would. With ``from_nothing``
    an older replica in ``folder`` is deleted first. ``connection`` must not
    be inside ``atomic()``; nobody may write meanwhile.
    """
    path = folder / "replica.sqlite3"
    if from_nothing:
        for old in folder.glob("replica.sqlite3*"):
            old.unlink()
    connection.ensure_connection()
    other = connection.copy()
    other.settings_dict["NAME"] = str(path)
    try:
        other.ensure_connection()
        other.catch_up()  # type: ignore[attr-defined]
        found = []
        mine, theirs = connection.position, other.position  # type: ignore[attr-defined]
        if mine != theirs:
            found.append(f"is at position {mine}, the other at {theirs}")
        return found + differences(Path(connection.settings_dict["NAME"]), path)
    finally:
        other.close()


def differences(one: Path, other: Path) -> list[str]:
    """How two replica files differ: schema, sequences, rows, their order."""
    with _opened(one) as a, _opened(other) as b:
        found = _named("schema of", _schema(a), _schema(b))
        found += _named("sequence of", _sequences(a), _sequences(b))
        for table in sorted(_tables(a) & _tables(b)):
            rows, others = _rows(a, table), _rows(b, table)
            if rows != others:
                found.append(f"rows of {table}: {_first(rows, others)}")
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def _quoted(name: str) -> str:
    return '"%s"' % name.replace('"', '""')


def _schema(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master")
    return {
        f"{kind} {name}": sql
        for kind, name, sql in rows
        if not name.startswith(("sqlite_", PRIVATE))
    }


def _sequences(connection: sqlite3.Connection) -> dict[str, int]:
    if "table sqlite_sequence" not in {
        f"{kind} {name}"
        for kind, name in connection.execute("SELECT type, name FROM sqlite_master")
    }:
        return {}
    return dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))


def _tables(connection: sqlite3.Connection) -> set[str]:
    found = (entry.split(" ", 1) for entry in _schema(connection))
    return {name for kind, name in found if kind == "table"}


def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    """Each row with its storage classes, in natural order.

    ``typeof``, since 1 and 1.0 are equal in Python and not in SQLite; rowids,
    since the natural order and the next rowid depend on them.
    """
    columns = [
        _quoted(name)
        for _, name, _, _, _, _, hidden in connection.execute(
            f"PRAGMA table_xinfo({_quoted(table)})"
        )
        if hidden != 1
    ]
    wanted = ", ".join(f"{column}, typeof({column})" for column in columns)
    source = _quoted(table)
    try:
        return connection.execute(
            f"SELECT rowid, {wanted} FROM {source} ORDER BY rowid"  # noqa: S608
        ).fetchall()
    except sqlite3.OperationalError:  # WITHOUT ROWID
        return connection.execute(f"SELECT {wanted} FROM {source}").fetchall()  # noqa: S608


def _named(
    what: str, one: Mapping[str, object], other: Mapping[str, object]
) -> list[str]:
    found = []
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            found.append(f"{what} {name}: {one.get(name)!r}, not {other.get(name)!r}")
    return found


def _first(one: Iterable[object], other: Iterable[object]) -> str:
    a, b = list(one), list(other)
    for mine, theirs in zip(a, b, strict=False):
        if mine != theirs:
            return f"{mine!r}, not {theirs!r}"
    return f"{len(a)} of them, not {len(b)}"
