"""
What a file cache holds, in an SQLite file beside the larger entries.

The index answers how many entries and bytes there are, which go first and
which keys exist, without looking at a single file. Small entries are in it:
creating a file takes longer than writing a row. When it is damaged it is made
anew, from an emptied cache.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["Around", "Index", "Row", "Usage"]

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

_VERSION: Final = 3
_SCHEMA: Final = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,      -- a row stays where it is when it is replaced
    name TEXT NOT NULL UNIQUE,
    number INTEGER NOT NULL,     -- a later write has a higher one
    key BLOB NOT NULL,           -- a key need not be valid Unicode
    partition TEXT NOT NULL,
    size INTEGER NOT NULL,
    expires REAL,                -- NULL: never
    data BLOB                    -- NULL: in a file
);
CREATE INDEX by_number ON entries (number);
CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size;
END;
CREATE TRIGGER replaced AFTER UPDATE OF size ON entries WHEN NEW.size <> OLD.size BEGIN
    UPDATE totals SET bytes = bytes - OLD.size + NEW.size;
END;
CREATE TABLE usage (
    partition TEXT PRIMARY KEY, hits INTEGER NOT NULL, last REAL NOT NULL
);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version = 3;
"""
_NEWEST: Final = "(SELECT ifnull(max(number), 0) + 1 FROM entries)"
_RECORD: Final = f"""
INSERT INTO entries (name, key, partition, size, expires, data, number)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, {_NEWEST})
ON CONFLICT (name) DO UPDATE SET
    number = excluded.number, partition = excluded.partition, size = excluded.size,
    expires = excluded.expires, data = excluded.data
"""  # noqa: S608
_REPLACE: Final = f"""
UPDATE entries SET
    number = {_NEWEST}, partition = ?3, size = ?4, expires = ?5, data = ?6
WHERE name = ?1 AND data IS NOT NULL
    AND (?8 = 0 OR (SELECT bytes FROM totals) - size + ?4 <= ?8)
"""  # noqa: S608
_ADD: Final = f"""
INSERT INTO entries (name, key, partition, size, expires, data, number)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, {_NEWEST} FROM totals
WHERE (?7 IS NULL OR entries < ?7) AND (?8 = 0 OR bytes + ?4 <= ?8)
ON CONFLICT (name) DO NOTHING
"""  # noqa: S608
"""Both where there is room only, and never over a file."""


class Row(NamedTuple):
    """An entry, as the index knows it."""

    name: str
    key: str
    partition: str
    size: int


class Around(NamedTuple):
    """What is in the way of an entry that is to be written."""

    entries: int
    bytes: int
    size: int | None
    """Of the entry that will be replaced; None: there is none."""
    is_file: bool


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
        _all.add(self)
        self.suspect = False
        """The index is new, or the machine was started anew since the last
        use, perhaps after a loss of power: index and files may not tell the
        same."""
        self._identity = (0, 0)

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection; the lock is held."""
        if self.connection is None:
            self.connection = self._connect()
        return self.connection

    def open(self) -> None:
        """Open the file now, and set ``suspect``."""
        with self._lock:
            _ = self._db

    def is_there(self) -> bool:
        """Whether the file that is open is still what others will open."""
        try:
            return self._identity == _identity(self._path)
        except FileNotFoundError:
            return False

    def close(self) -> None:
        with self._lock:
            if self.connection is not None:
                self.connection.close()
                self.connection = None

    def record(
        self,
        name: str,
        key: str,
        partition: str,
        size: int,
        expires: float | None,
        data: bytes | None = None,
    ) -> None:
        """Write an entry, or note that its file is; it becomes the newest."""
        with self._lock:
            db = self._db
            db.execute(_RECORD, (name, _encoded(key), partition, size, expires, data))

    def store(
        self,
        name: str,
        key: str,
        partition: str,
        expires: float | None,
        data: bytes,
        most_entries: int | None,
        most_bytes: int,
    ) -> bool:
        """
        Write a small entry, unless others have to go first; tell whether.

        Neither is it written where there is a file so far. Replacing takes one
        statement, which is half as long as to look, to remove and to add.
        """
        row = name, _encoded(key), partition, len(data), expires, data
        limited = (*row, most_entries, most_bytes)
        with self._lock:
            execute = self._db.execute
            return any(execute(sql, limited).rowcount for sql in (_REPLACE, _ADD))

    def find(self, name: str) -> tuple[bool, bytes | None]:
        """Return whether there is an entry, and its bytes; None: in a file."""
        with self._lock:
            db = self._db
            found = db.execute(
                "SELECT data FROM entries WHERE name = ?", (name,)
            ).fetchone()
            return (False, None) if found is None else (True, found[0])

    def around(self, name: str) -> Around:
        """Return what there is of an entry, and of all of them."""
        with self._lock:
            found = self._db.execute(
                "SELECT entries, bytes, size, name IS NOT NULL AND data IS NULL "
                "FROM totals LEFT JOIN entries ON name = ?",
                (name,),
            ).fetchone()
            return Around(found[0], found[1], found[2], bool(found[3]))

    def forget(self, names: Iterable[str]) -> int:
        """Note that entries were removed; return how many there were."""
        with self._lock:
            db = self._db
            db.execute("BEGIN IMMEDIATE")
            try:
                removed = db.executemany(
                    "DELETE FROM entries WHERE name = ?", ((name,) for name in names)
                ).rowcount
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
            return removed

    def totals(self) -> tuple[int, int]:
        """Return how many entries and bytes there are."""
        with self._lock:
            db = self._db
            entries, size = db.execute("SELECT entries, bytes FROM totals").fetchone()
            return int(entries), int(size)

    def oldest(self, limit: int) -> list[Row]:
        """Return the entries that were written first."""
        return self._rows("ORDER BY number LIMIT ?", limit)

    def expired(self, moment: float) -> list[Row]:
        """Return the entries whose time has come."""
        return self._rows("WHERE expires <= ?", moment)

    def rows(self) -> list[Row]:
        """Return all entries."""
        return self._rows("ORDER BY number")

    def file_sizes(self) -> dict[str, int]:
        """Return the size of each entry that is in a file, by name."""
        with self._lock:
            db = self._db
            return dict(db.execute("SELECT name, size FROM entries WHERE data IS NULL"))

    def check(self) -> None:
        """Raise ``sqlite3.DatabaseError`` if the index is damaged."""
        with self._lock:
            db = self._db
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            db.execute(
                "UPDATE totals SET (entries, bytes) = "
                "(SELECT count(*), ifnull(sum(size), 0) FROM entries)"
            )

    def used(self, usage: dict[str, tuple[int, float]]) -> None:
        """Add hits by partition, with the time of the last."""
        with self._lock:
            db = self._db
            db.executemany(
                "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT (partition) DO UPDATE "
                "SET hits = hits + excluded.hits, last = max(last, excluded.last)",
                [(name, hits, last) for name, (hits, last) in usage.items()],
            )

    def forget_partitions(self) -> None:
        """Forget how partitions were used that hold nothing any more."""
        with self._lock:
            self._db.execute(
                "DELETE FROM usage WHERE partition NOT IN "
                "(SELECT partition FROM entries)"
            )

    def usage(self) -> dict[str, Usage]:
        """Return what each partition holds, and how it was used."""
        with self._lock:
            db = self._db
            found = db.execute(
                "SELECT partition, count(*), sum(size), ifnull(hits, 0), last "
                "FROM entries LEFT JOIN usage USING (partition) GROUP BY partition"
            )
            return {row[0]: Usage(*row[1:]) for row in found}

    def files_of(self, first: str) -> list[Row]:
        """Return the entries in files whose names begin with two digits."""
        return self._rows("WHERE name GLOB ? AND data IS NULL", f"{first}*")

    def forget_rows(self, first: str) -> None:
        """Remove the others whose names begin so."""
        with self._lock:
            self._db.execute(
                "DELETE FROM entries WHERE name GLOB ? AND data IS NOT NULL",
                (f"{first}*",),
            )

    def _rows(self, condition: str, *parameters: Any) -> list[Row]:
        with self._lock:
            db = self._db
            return [
                Row(name, key.decode(errors="surrogatepass"), partition, size)
                for name, key, partition, size in db.execute(
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
            # machine `suspect` tells.
            db.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; "
                "PRAGMA mmap_size = 67108864;"
            )
            db.execute("BEGIN IMMEDIATE")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _statements():
                    db.execute(statement)
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"version {version}, not {_VERSION}")
            boot = _boot_id()
            known = db.execute("SELECT value FROM state WHERE name = 'boot'").fetchone()
            db.execute("INSERT OR REPLACE INTO state VALUES ('boot', ?)", (boot,))
            db.execute("COMMIT")
            self._identity = _identity(self._path)
            self.suspect = version == 0 or (known is not None and known[0] != boot)
        except BaseException:
            db.close()
            raise
        return db


_all: Final[weakref.WeakSet[Index]] = weakref.WeakSet()
_held: Final[list[Index]] = []


def _before_fork() -> None:
    # SQLite has locks of its own, for the whole process. A child whose parent
    # was inside of SQLite at the fork would wait for them for ever.
    _held[:] = _all
    for index in _held:
        index._lock.acquire()


def _after_fork() -> None:
    for index in _held:
        index._lock.release()
    _held.clear()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
)


def _statements() -> Iterator[str]:
    """The statements of the schema; executescript() would commit."""
    statement = ""
    for line in _SCHEMA.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 - all that is asked each second
    return found.st_dev, found.st_ino


def _encoded(key: str) -> bytes:
    return key.encode(errors="surrogatepass")


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
