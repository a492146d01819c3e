"""
What a file cache holds, in a small SQLite file beside the entries.

The index answers how many entries and bytes there are, which go first and
which keys exist, without looking at a single entry. Reading an entry does not
need it. When it is damaged it is made anew, from an emptied cache.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["Index", "Row", "Usage"]

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

_SCHEMA: Final = """
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- a later write has a higher one
    name TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,
    partition TEXT NOT NULL,
    size INTEGER NOT NULL,
    expires REAL                               -- NULL: never
);
CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size;
END;
CREATE TABLE usage (
    partition TEXT PRIMARY KEY, hits INTEGER NOT NULL, last REAL NOT NULL
);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version = 1;
"""


class Row(NamedTuple):
    """An entry, as the index knows it."""

    name: str
    key: str
    partition: str
    size: int


class Usage(NamedTuple):
    """What a partition holds, and how it is used."""

    entries: int
    bytes: int
    hits: int
    last_access: float | None


class Index:
    """
    The index of one directory; one per process, for all of its threads.

    Methods raise ``sqlite3.Error``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        self.rebooted = False
        """The machine was started anew since the last use, perhaps after a
        loss of power: the index and the files may not tell the same."""

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self.connection is None:
                self.connection = self._connect()
            yield self.connection

    def open(self) -> None:
        """Open the file now, and set ``rebooted``."""
        with self._open():
            pass

    def close(self) -> None:
        with self._lock:
            if self.connection is not None:
                self.connection.close()
                self.connection = None

    def record(
        self, name: str, key: str, partition: str, size: int, expires: float | None
    ) -> None:
        """Note that an entry was written; it becomes the newest."""
        with self._open() as db:
            db.execute(
                "INSERT OR REPLACE INTO entries (name, key, partition, size, expires) "
                "VALUES (?, ?, ?, ?, ?)",
                (name, key, partition, size, expires),
            )

    def forget(self, names: Iterable[str]) -> None:
        """Note that entries were removed."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany(
                    "DELETE FROM entries WHERE name = ?", ((name,) for name in names)
                )
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def totals(self) -> tuple[int, int]:
        """Return how many entries and bytes there are."""
        with self._open() as db:
            entries, size = db.execute("SELECT entries, bytes FROM totals").fetchone()
            return int(entries), int(size)

    def size_of(self, name: str) -> int | None:
        """Return the size of an entry, if there is one."""
        with self._open() as db:
            found = db.execute(
                "SELECT size FROM entries WHERE name = ?", (name,)
            ).fetchone()
            return None if found is None else int(found[0])

    def oldest(self, limit: int) -> list[Row]:
        """Return the entries that were written first."""
        return self._rows("ORDER BY number LIMIT ?", limit)

    def expired(self, moment: float) -> list[Row]:
        """Return the entries whose time has come."""
        return self._rows("WHERE expires <= ?", moment)

    def rows(self) -> list[Row]:
        """Return all entries."""
        return self._rows("ORDER BY number")

    def sizes(self) -> dict[str, int]:
        """Return the size of each entry by name."""
        with self._open() as db:
            return dict(db.execute("SELECT name, size FROM entries"))

    def used(self, usage: dict[str, tuple[int, float]]) -> None:
        """Add hits by partition, with the time of the last."""
        with self._open() as db:
            db.executemany(
                "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT (partition) DO UPDATE "
                "SET hits = hits + excluded.hits, last = max(last, excluded.last)",
                [(name, hits, last) for name, (hits, last) in usage.items()],
            )

    def usage(self) -> dict[str, Usage]:
        """Return what each partition holds, and how it was used."""
        with self._open() as db:
            found = db.execute(
                "SELECT partition, count(*), sum(size), ifnull(hits, 0), last "
                "FROM entries LEFT JOIN usage USING (partition) GROUP BY partition"
            )
            return {row[0]: Usage(*row[1:]) for row in found}

    def clear(self) -> None:
        with self._open() as db:
            db.executescript("BEGIN; DELETE FROM entries; DELETE FROM usage; COMMIT;")

    def _rows(self, condition: str, *parameters: Any) -> list[Row]:
        with self._open() as db:
            return [
                Row(*row)
                for row in db.execute(
                    f"SELECT name, key, partition, size FROM entries {condition}",  # noqa: S608
                    parameters,
                )
            ]

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path, timeout=10, isolation_level=None, check_same_thread=False
        )
        try:
            # A crash of a process loses nothing of this; of a crash of the
            # machine `rebooted` tells.
            db.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; "
                "PRAGMA recursive_triggers = ON;"
            )
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _statements():
                    db.execute(statement)
            boot = _boot_id()
            known = db.execute("SELECT value FROM state WHERE name = 'boot'").fetchone()
            db.execute("INSERT OR REPLACE INTO state VALUES ('boot', ?)", (boot,))
            db.execute("COMMIT")
            self.rebooted = known is not None and known[0] != boot
        except BaseException:
            db.close()
            raise
        return db


def _statements() -> Iterator[str]:
    """The statements of the schema; executescript() would commit."""
    statement = ""
    for line in _SCHEMA.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _boot_id() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:  # not Linux; SQLite and the files are compared on request
        return "unknown"


def remove(path: Path) -> None:
    """Remove a damaged index."""
    for suffix in ("", "-wal", "-shm"):
        try:
            os.unlink(f"{path}{suffix}")  # noqa: PTH108 - a name, not a path
        except FileNotFoundError:
            pass
