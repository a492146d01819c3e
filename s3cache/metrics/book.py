"""The book of a host: what all of its processes counted, on disk.

An SQLite file beside the replica, in which every process adds, some seconds
apart, what it has counted since it last did. So the totals lack nothing of a
process that ended, whoever comes next goes on from them, and of one that was
killed only its last seconds are missing. It holds numbers about the database,
not the database: where it is damaged it is made anew.

A connection is open only within a method and under a lock that a fork waits
for, since SQLite would mix up parent and child.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from s3cache.metrics.tally import Key, Tally

__all__ = [
    "DAY",
    "HOUR",
    "MINUTE",
    "MONTH",
    "Book",
    "Bucket",
    "Page",
    "add_to",
    "book_at",
]

logger = logging.getLogger("s3cache.metrics")

MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 24 * HOUR
MONTH: Final = 30 * DAY

#: For how long buckets of each width, in seconds, are kept.
_KEPT: Final = {MINUTE: DAY, HOUR: MONTH}

_LAYOUT: Final = 1

_CREATE: Final = f"""
    PRAGMA user_version = {_LAYOUT};
    -- Of the host and, without it, of the others of its fleet.
    CREATE TABLE totals (
        scope TEXT, key TEXT, number REAL NOT NULL, PRIMARY KEY (scope, key)
    ) WITHOUT ROWID;
    -- What happened in the `width` seconds from `start` on, as MessagePack.
    CREATE TABLE buckets (
        scope TEXT, width INTEGER, of TEXT, start INTEGER, numbers BLOB NOT NULL,
        PRIMARY KEY (scope, width, of, start)
    ) WITHOUT ROWID;
    CREATE TABLE pages (
        kind TEXT, name TEXT, seen REAL NOT NULL, content BLOB NOT NULL,
        PRIMARY KEY (kind, name)
    ) WITHOUT ROWID;
    CREATE TABLE marks (name TEXT PRIMARY KEY, number REAL NOT NULL) WITHOUT ROWID;
"""

#: Errors that speak against the file itself.
_UNUSABLE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

#: Seconds that a process waits for another one that writes.
_PATIENCE: Final = 2.0

#: Between the parts of a key.
_SEPARATOR: Final = "\x1f"

Bucket = dict[str, float]
"""The numbers of a minute or an hour, by name."""

#: What hours of models are of, behind the database.
_MODELS: Final = f"{_SEPARATOR}models"

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(dict[str, float]).decode
_unpack_models: Final = msgspec.msgpack.Decoder(dict[str, dict[str, float]]).decode
#: Of one model: those of the others are passed over.
_unpack_raw: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Page:
    """What a process or a host said of itself, and when, by our clock."""

    name: str
    seen: float
    content: bytes


class Book:
    """The book at ``path``, of this process; made when it is first used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._make_lock()

    def _make_lock(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def writing(self, now: float) -> Iterator[Writer]:
        """Change it within the context, all or nothing.

        Raises ``sqlite3.Error``, or ``OSError``, if that cannot be done.
        """
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Writer(connection, now)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """Read it within the context, as it is at one moment."""
        with self._opened() as connection:
            connection.execute("BEGIN")
            try:
                yield Reader(connection)
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with self._lock, contextlib.closing(self._connect()) as connection:
            try:
                yield connection
            except sqlite3.DatabaseError as error:
                if _is_unusable(error):
                    self._start_anew(error)
                raise

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            # SQLite would give it the permissions of the directory's files.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        try:
            # A crash of the machine may cost the book; nothing else does.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            (layout,) = connection.execute("PRAGMA user_version").fetchone()
            if layout != _LAYOUT:
                self._create(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.DatabaseError) and _is_unusable(error):
                self._start_anew(error)
            raise
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been first.
        (layout,) = connection.execute("PRAGMA user_version").fetchone()
        if layout != _LAYOUT:
            for kind, name in connection.execute(
                "SELECT type, name FROM sqlite_master WHERE type = 'table'"
            ).fetchall():
                connection.execute(f'DROP {kind} "{name}"')
            for statement in _CREATE.split(";"):
                connection.execute(statement)
        connection.execute("COMMIT")

    def _start_anew(self, error: sqlite3.DatabaseError) -> None:
        logger.error("%s is damaged, and begun anew: %s", self.path, error)
        for suffix in ("", "-journal"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


class Reader:
    """Reads a book within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def totals(self, scope: str) -> Tally:
        """All that was counted, by key."""
        return {
            tuple(key.split(_SEPARATOR)): number
            for key, number in self._connection.execute(
                "SELECT key, number FROM totals WHERE scope = ?", [scope]
            )
        }

    def buckets(
        self, scope: str, width: int, of: Iterable[str], since: float
    ) -> list[tuple[int, Bucket]]:
        """The numbers, with the moments at which they begin, in no order."""
        found: list[tuple[int, Bucket]] = []
        for one in of:
            rows = self._connection.execute(
                "SELECT start, numbers FROM buckets "
                "WHERE scope = ? AND width = ? AND of = ? AND start > ?",
                [scope, width, one, since - width],
            )
            found.extend((start, _unpack(numbers)) for start, numbers in rows)
        return found

    def models(
        self, scope: str, databases: Iterable[str], since: float
    ) -> list[Mapping[str, Bucket]]:
        """The numbers of all models of each hour, by model."""
        return [
            _unpack_models(numbers)
            for _, numbers in self._hours_of_models(scope, databases, since)
        ]

    def model(
        self, scope: str, databases: Iterable[str], since: float, model: str
    ) -> list[tuple[int, Bucket]]:
        """The numbers of one model, with the moments at which hours begin."""
        return [
            (start, _unpack(raw))
            for start, numbers in self._hours_of_models(scope, databases, since)
            if (raw := _unpack_raw(numbers).get(model)) is not None
        ]

    def _hours_of_models(
        self, scope: str, databases: Iterable[str], since: float
    ) -> Iterator[tuple[int, bytes]]:
        for database in databases:
            yield from self._connection.execute(
                "SELECT start, numbers FROM buckets "
                "WHERE scope = ? AND width = ? AND of = ? AND start > ?",
                [scope, HOUR, database + _MODELS, since - HOUR],
            )

    def pages(self, kind: str) -> list[Page]:
        """What processes, or hosts, said of themselves."""
        return [
            Page(*row)
            for row in self._connection.execute(
                "SELECT name, seen, content FROM pages WHERE kind = ? ORDER BY name",
                [kind],
            )
        ]

    def marks(self) -> dict[str, float]:
        """The highest numbers that were marked, by name."""
        return dict(
            self._connection.execute("SELECT name, number FROM marks").fetchall()
        )


class Writer(Reader):
    """Changes a book within one transaction, at the moment ``now``."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        super().__init__(connection)
        self._now = now

    def add(self, scope: str, tally: Tally) -> None:
        """Add to the totals."""
        self._connection.executemany(
            "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (scope, key) "
            "DO UPDATE SET number = number + excluded.number",
            [(scope, _SEPARATOR.join(key), number) for key, number in tally.items()],
        )

    def add_bucket(
        self, scope: str, width: int, of: str, at: float, numbers: Mapping[str, float]
    ) -> None:
        """Add to the bucket that ``at`` is in; what is too old goes."""
        start = int(at // width) * width
        old = self._bucket(scope, width, of, start)
        sums: dict[str, float] = {} if old is None else dict(_unpack(old))
        add_to(sums, numbers)
        self._write_bucket(scope, width, of, start, _pack(sums), is_new=old is None)

    def add_models(
        self,
        scope: str,
        database: str,
        at: float,
        models: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Add to the hour that ``at`` is in, by model."""
        start, of = int(at // HOUR) * HOUR, database + _MODELS
        old = self._bucket(scope, HOUR, of, start)
        sums: dict[str, dict[str, float]] = {}
        if old is not None:
            sums |= _unpack_models(old)
        for model, numbers in models.items():
            add_to(sums.setdefault(model, {}), numbers)
        self._write_bucket(scope, HOUR, of, start, _pack(sums), is_new=old is None)

    def _bucket(self, scope: str, width: int, of: str, start: int) -> bytes | None:
        row = self._connection.execute(
            "SELECT numbers FROM buckets "
            "WHERE scope = ? AND width = ? AND of = ? AND start = ?",
            [scope, width, of, start],
        ).fetchone()
        return row[0] if row else None

    def _write_bucket(
        self, scope: str, width: int, of: str, start: int, data: bytes, *, is_new: bool
    ) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO buckets VALUES (?, ?, ?, ?, ?)",
            [scope, width, of, start, data],
        )
        if is_new:
            self._connection.execute(
                "DELETE FROM buckets WHERE scope = ? AND width = ? AND of = ? "
                "AND start <= ?",
                [scope, width, of, self._now - _KEPT[width] - width],
            )

    def write_page(self, kind: str, name: str, content: bytes) -> None:
        """Say something of a process or a host."""
        self._connection.execute(
            "INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?)",
            [kind, name, self._now, content],
        )

    def delete_pages(self, kind: str, names: Iterable[str]) -> None:
        """Forget some of them."""
        self._connection.executemany(
            "DELETE FROM pages WHERE kind = ? AND name = ?",
            [(kind, name) for name in names],
        )

    def mark(self, name: str, number: float) -> None:
        """Note that something has reached ``number``; it never falls."""
        self._connection.execute(
            "INSERT INTO marks VALUES (?, ?) ON CONFLICT (name) "
            "DO UPDATE SET number = max(number, excluded.number)",
            [name, number],
        )

    def clear_totals(self, begins_with: Iterable[Key] = ((),)) -> None:
        """Begin totals at 0: of all keys, or of those that begin so."""
        begins = [_SEPARATOR.join(key) for key in begins_with]
        for scope in ("host", "others"):
            for key in self.totals(scope):
                text = _SEPARATOR.join(key)
                if any(not b or f"{text}\x1f".startswith(f"{b}\x1f") for b in begins):
                    self._connection.execute(
                        "DELETE FROM totals WHERE scope = ? AND key = ?", [scope, text]
                    )
        self._connection.execute(
            "INSERT OR REPLACE INTO marks VALUES ('since', ?)", [self._now]
        )


def add_to(sums: dict[str, float], numbers: Mapping[str, float]) -> None:
    """Add numbers by their names."""
    for name, number in numbers.items():
        sums[name] = sums.get(name, 0) + number


def _is_unusable(error: sqlite3.DatabaseError) -> bool:
    code: Any = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _UNUSABLE


_books: Final[dict[Path, Book]] = {}


def book_at(path: Path) -> Book:
    """The one object of this process for the book at ``path``."""
    return _books.setdefault(path, Book(path))


_held: Final[list[Book]] = []


def _before_fork() -> None:
    _held[:] = _books.values()
    for book in _held:
        book._lock.acquire()


def _after_fork_in_parent() -> None:
    for book in _held:
        book._lock.release()


def _after_fork_in_child() -> None:
    for book in list(_books.values()):
        book._make_lock()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
