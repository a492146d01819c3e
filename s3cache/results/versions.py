"""The versions of a replica's tables, in the memory of this process."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3cache.replica import meta
from s3cache.replica.meta import ALL_TABLES, Version
from s3cache.replica.tables import OWN_PREFIX

if TYPE_CHECKING:
    from s3cache.replica.side_file import SideFile
    from s3cache.results.plans import Plan

__all__ = ["At", "Versions"]

#: What no entry has given a version.
_NEVER: Version = (0, "")


@dataclass(frozen=True, slots=True)
class At:
    """What a result belongs to, read in the same transaction as its rows.

    ``schema`` stands for the database and its schema.
    """

    schema: bytes
    versions: tuple[Version, ...]


class Versions:
    """The versions of the tables at the position that was last looked at.

    Threads share one object per replica. ``at`` moves it on, under its lock,
    to what the caller's transaction sees; ``of`` only reads, without a lock.
    A mixture of two positions, which it may see meanwhile, is a key that
    nobody stores under: ``at`` alone says what a result is stored under.
    """

    def __init__(self) -> None:
        self._generation = ""
        self._database = ""
        self._number = -1
        self._tables: dict[str, Version] = {}
        self._seen: tuple[float, float, float] | None = None
        self.schema = b""
        #: Remembered plans by SQL; another dict as soon as the schema is
        #: another one, so that whoever is late adds to the old one.
        self.plans: dict[str, Plan] = {}
        self._make_lock()
        _all.add(self)

    def _make_lock(self) -> None:
        self._lock = threading.Lock()

    def is_current(self, side: SideFile) -> bool:
        """Whether nobody has moved the replica, or asked the store, since.

        That somebody asked is a reason to look again: of a commit whose
        process was killed before it could say so, nothing else would tell.
        """
        return self._seen == (side.number, side.generation, side.asked_at)

    def follow(self, connection: sqlite3.Connection, side: SideFile) -> bool:
        """Look at the replica again; False if it is being replaced."""
        seen = (side.number, side.generation, side.asked_at)
        connection.execute("BEGIN")
        try:
            self.at(connection, ())
        finally:
            connection.execute("ROLLBACK")
        # A reader may still be on a file that another process has replaced.
        if self._number < seen[0] or _as_number(self._generation) != seen[1]:
            return False
        self._seen = seen
        return True

    def at(self, connection: sqlite3.Connection, tables: Iterable[str]) -> At:
        """What a result of ``tables`` belongs to that is read hereafter.

        The caller has begun a transaction, and has read nothing in it yet.
        """
        with self._lock:
            # Its snapshot is taken here, so none is older than what is known.
            generation, database, number = connection.execute(
                "SELECT generation, database, number FROM main._s3cache_meta"
            ).fetchone()
            if (generation, database) != (self._generation, self._database):
                self._start_again(connection, generation, database, number)
            elif number != self._number:
                self._go_on(connection, number)
            return At(self.schema, self.of(tables))

    def of(self, tables: Iterable[str]) -> tuple[Version, ...]:
        """The versions of ``tables``, as far as is known."""
        known = self._tables
        rest = known.get(ALL_TABLES, _NEVER)
        return tuple([known.get(table, rest) for table in tables])

    def _start_again(
        self, connection: sqlite3.Connection, generation: str, database: str, n: int
    ) -> None:
        self._seen = None
        self._generation, self._database, self._number = generation, database, n
        self._tables = meta.read_versions(connection)
        self.schema = _schema(connection, database)
        self.plans = {}

    def _go_on(self, connection: sqlite3.Connection, number: int) -> None:
        recent = meta.read_recent(connection, self._number, number)
        if (
            recent is None
            or number < self._number
            or any(entry.touched.schema for entry in recent)
        ):
            self._start_again(connection, self._generation, self._database, number)
            return
        for entry in recent:
            for table in entry.touched.keys:
                self._tables[table] = entry.version
        self._number = number


def _schema(connection: sqlite3.Connection, database: str) -> bytes:
    """What tells databases and schemas apart."""
    rows = connection.execute(
        "SELECT type, name, sql FROM main.sqlite_master "
        "WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY type, name"
    ).fetchall()
    described = [
        (kind, name, sql) for kind, name, sql in rows if not name.startswith(OWN_PREFIX)
    ]
    text = repr((database, described)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _as_number(generation: str) -> float:
    # As the side file has it.
    return float(int(generation[:12] or "0", 16))


_all: weakref.WeakSet[Versions] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for versions in list(_all):
        versions._make_lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
