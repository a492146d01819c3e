"""The book of a host: what all of its processes counted, on disk.

An SQLite file beside the replica, in which every process adds, some seconds
apart, what it has counted since it last did. So the totals lack nothing of a
process that ended, whoever comes next goes on from them, and of one that was
killed only its last seconds are missing. It holds numbers about the database,
not the database: where it is damaged it is made anew.

All of it is bounded: by what there is to be counted, and over time by numbers
of buckets, which a clock that jumps does not change.

A connection is open only within a method and under a lock that a fork waits
for, since SQLite would mix up parent and child.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from s3cache.metrics.tally import SEPARATOR, Groups, Tally, add_to, grouped
from s3cache.results.counters import Reads
from s3cache.results.queries import MOST_SLOW, MOST_STATEMENTS, Slow, Statement

__all__ = [
    "DAY",
    "HOUR",
    "MINUTE",
    "MODEL_WIDTHS",
    "MONTH",
    "QUARTER",
    "SIX_HOURS",
    "WIDTHS",
    "Answered",
    "Book",
    "Bucket",
    "Lately",
    "Page",
    "Paid",
    "book_at",
]

logger = logging.getLogger("s3cache.metrics")

MINUTE: Final = 60
QUARTER: Final = 15 * MINUTE
HOUR: Final = 60 * MINUTE
SIX_HOURS: Final = 6 * HOUR
DAY: Final = 24 * HOUR
MONTH: Final = 30 * DAY

#: For how long buckets are kept, by their widths, all in seconds. The same
#: numbers are in each: whoever shows a day need not add up its minutes. A day
#: may have 25 hours.
WIDTHS: Final = {MINUTE: DAY, QUARTER: DAY + HOUR, HOUR: MONTH, SIX_HOURS: MONTH}

#: The same of models, of which there may be hundreds.
MODEL_WIDTHS: Final = {HOUR: DAY, SIX_HOURS: MONTH}

#: Statements that nobody has read for so many seconds are forgotten.
_STATEMENTS_KEPT: Final = DAY

_LAYOUT: Final = 2

_CREATE: Final = f"""
    PRAGMA user_version = {_LAYOUT};
    -- Of the host and, without it, of the others of its fleet.
    CREATE TABLE totals (
        scope TEXT, kind TEXT, of TEXT, name TEXT, numbers BLOB NOT NULL,
        PRIMARY KEY (scope, kind, of, name)
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
    CREATE TABLE statements (
        database TEXT, sql TEXT, seen REAL NOT NULL, about BLOB NOT NULL,
        hit INTEGER NOT NULL, miss INTEGER NOT NULL, wait INTEGER NOT NULL,
        bypass INTEGER NOT NULL, cache_seconds REAL NOT NULL,
        db_seconds REAL NOT NULL,
        PRIMARY KEY (database, sql)
    ) WITHOUT ROWID;
    CREATE TABLE slow (id INTEGER PRIMARY KEY, read BLOB NOT NULL);
"""

#: Errors that speak against the file itself.
_UNUSABLE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

#: Seconds that a process waits for another one that writes: what it could not
#: add it adds later, so whoever is served does not wait for long. At the end
#: of a process there is no later.
_PATIENCE: Final = 0.25
LAST_PATIENCE: Final = 2.0

Bucket = dict[str, float]
"""The numbers of a minute or an hour, by name."""

#: What hours of models are of, behind the database.
_MODELS: Final = f"{SEPARATOR}models"

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(dict[str, float]).decode
_unpack_models: Final = msgspec.msgpack.Decoder(dict[str, dict[str, float]]).decode
_unpack_about: Final = msgspec.msgpack.Decoder(tuple[str, str, tuple[str, ...]]).decode
_unpack_slow: Final = msgspec.msgpack.Decoder(Slow).decode


@lru_cache(maxsize=64)
def _unpack_one(model: str) -> Callable[[bytes], Any]:
    """What decodes the numbers of one model, and passes over the others."""
    only = msgspec.defstruct(
        "Only", [("its", dict[str, float] | None, None)], rename={"its": model}
    )
    return msgspec.msgpack.Decoder(only).decode


#: What may become of a read, as the columns are called.
_ANSWERS: Final = ("hit", "miss", "wait", "bypass")


@dataclass(frozen=True, slots=True)
class Page:
    """What a process or a host said of itself, and when, by our clock."""

    name: str
    seen: float
    content: bytes


class Paid(msgspec.Struct):
    """What of a minute or an hour is a matter of money."""

    hit: float = 0
    wait: float = 0
    GET: float = 0
    PUT: float = 0
    LIST: float = 0
    DELETE: float = 0


_unpack_paid: Final = msgspec.msgpack.Decoder(Paid).decode


class Answered(msgspec.Struct):
    """What of an hour of a model is a matter of money."""

    hit: float = 0
    wait: float = 0


class Lately(Answered):
    """What of an hour of a model makes it worth a word."""

    miss: float = 0
    bypass: float = 0
    stale: float = 0
    broken: float = 0
    failed: float = 0
    changed: float = 0

    def add(self, other: Lately) -> None:
        """Add what happened in another hour."""
        self.hit += other.hit
        self.wait += other.wait
        self.miss += other.miss
        self.bypass += other.bypass
        self.stale += other.stale
        self.broken += other.broken
        self.failed += other.failed
        self.changed += other.changed

    @property
    def reads(self) -> Reads:
        """What became of its reads."""
        return Reads(
            hit=int(self.hit),
            miss=int(self.miss),
            wait=int(self.wait),
            bypass=int(self.bypass),
            stale=int(self.stale),
            broken=int(self.broken),
            failed=int(self.failed),
        )

    @property
    def number(self) -> int:
        """How many those are."""
        return int(self.hit + self.miss + self.wait + self.bypass)

    @property
    def changes(self) -> int:
        """The commits of all hosts that changed its rows."""
        return int(self.changed)


_unpack_lately: Final = msgspec.msgpack.Decoder(dict[str, Lately]).decode
_unpack_answered: Final = msgspec.msgpack.Decoder(dict[str, Answered]).decode


class Book:
    """The book at ``path``, of this process; made when it is first used.

    What cannot be decoded is damage like any other: ``sqlite3.DatabaseError``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._make_lock()

    def _make_lock(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def writing(self, now: float, patience: float | None = None) -> Iterator[Writer]:
        """Change it within the context, all or nothing.

        Raises ``sqlite3.Error``, or ``OSError``, if that cannot be done; for
        one, because another process writes for more than ``patience`` seconds.
        """
        with self._opened(patience) as connection:
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
    def _opened(self, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        with self._lock, contextlib.closing(self._connect(patience)) as connection:
            try:
                yield connection
            except sqlite3.DatabaseError as error:
                if _is_unusable(error):
                    self._start_anew(error)
                raise
            except msgspec.MsgspecError as error:
                damage = sqlite3.DatabaseError(str(error))
                self._start_anew(damage)
                raise damage from error

    def _connect(self, patience: float | None) -> sqlite3.Connection:
        if not self.path.exists():
            # SQLite would give it the permissions of the directory's files.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(
            self.path,
            timeout=_PATIENCE if patience is None else patience,
            isolation_level=None,
        )
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

    def totals(self, scope: str) -> Groups:
        """All that was counted."""
        return {
            (kind, of, name): _unpack(numbers)
            for kind, of, name, numbers in self._connection.execute(
                "SELECT kind, of, name, numbers FROM totals WHERE scope = ?", [scope]
            )
        }

    def buckets(
        self, scope: str, width: int, of: Iterable[str], since: float, until: float
    ) -> list[tuple[int, Bucket]]:
        """The numbers, with the moments at which they begin, in no order.

        Of all buckets that have a part of that time, not only whole ones.
        """
        return [
            (start, _unpack(numbers))
            for start, numbers in self._packed(scope, width, of, since, until)
        ]

    def paid(
        self, scope: str, width: int, of: Iterable[str], since: float, until: float
    ) -> list[Paid]:
        """Of the same, only what is a matter of money."""
        return [
            _unpack_paid(numbers)
            for _, numbers in self._packed(scope, width, of, since, until)
        ]

    def models(
        self, scope: str, width: int, database: str, since: float, until: float
    ) -> list[dict[str, Lately]]:
        """The numbers of all models, by model; ``width`` as below."""
        of = [f"{database}{_MODELS}"]
        return [
            _unpack_lately(numbers)
            for _, numbers in self._packed(scope, width, of, since, until)
        ]

    def answered(
        self, scope: str, width: int, database: str, since: float, until: float
    ) -> list[dict[str, Answered]]:
        """Of the same, only what is a matter of money."""
        of = [f"{database}{_MODELS}"]
        return [
            _unpack_answered(numbers)
            for _, numbers in self._packed(scope, width, of, since, until)
        ]

    def model(
        self,
        scope: str,
        width: int,
        databases: Iterable[str],
        since: float,
        until: float,
        model: str,
    ) -> list[tuple[int, Bucket]]:
        """The numbers of one model, with the moments at which they begin.

        ``width`` is one of ``MODEL_WIDTHS``.
        """
        of = [f"{one}{_MODELS}" for one in databases]
        unpack = _unpack_one(model)
        return [
            (start, found)
            for start, numbers in self._packed(scope, width, of, since, until)
            if (found := unpack(numbers).its) is not None
        ]

    def _packed(
        self, scope: str, width: int, of: Iterable[str], since: float, until: float
    ) -> list[tuple[int, bytes]]:
        return [
            row
            for one in of
            for row in self._connection.execute(
                "SELECT start, numbers FROM buckets WHERE scope = ? AND width = ? "
                "AND of = ? AND start > ? AND start <= ?",
                [scope, width, one, since - width, until],
            )
        ]

    def pages(self, kind: str, since: float = 0.0) -> list[Page]:
        """What processes, or hosts, said of themselves, from then on."""
        return [
            Page(*row)
            for row in self._connection.execute(
                "SELECT name, seen, content FROM pages WHERE kind = ? AND seen >= ? "
                "ORDER BY name",
                [kind, since],
            )
        ]

    def statements(self, limit: int, database: str | None = None) -> list[Statement]:
        """Those that were read most often lately, the first first."""
        found = []
        for of, sql, about, *numbers in self._connection.execute(
            f"SELECT database, sql, about, {', '.join(_ANSWERS)}, "  # noqa: S608
            "cache_seconds, db_seconds FROM statements "
            "WHERE ? IS NULL OR database = ? "
            f"ORDER BY {' + '.join(_ANSWERS)} DESC LIMIT ?",
            [database, database, limit],
        ):
            *answers, cache_seconds, db_seconds = numbers
            events = dict(zip(_ANSWERS, answers, strict=True))
            label, action, tables = _unpack_about(about)
            found.append(
                Statement(
                    of,
                    label,
                    action,
                    sql,
                    tables,
                    events,
                    cache_seconds,
                    db_seconds,
                )
            )
        return found

    def slow(self) -> list[Slow]:
        """The newest slow reads, the oldest first."""
        return [
            _unpack_slow(read)
            for (read,) in self._connection.execute("SELECT read FROM slow ORDER BY id")
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
        for key, numbers in grouped(tally).items():
            row = self._connection.execute(
                "SELECT numbers FROM totals "
                "WHERE scope = ? AND kind = ? AND of = ? AND name = ?",
                [scope, *key],
            ).fetchone()
            sums: dict[str, float] = _unpack(row[0]) if row else {}
            add_to(sums, numbers)
            self._connection.execute(
                "INSERT OR REPLACE INTO totals VALUES (?, ?, ?, ?, ?)",
                [scope, *key, _pack(sums)],
            )

    def add_bucket(
        self, scope: str, width: int, of: str, at: float, numbers: Mapping[str, float]
    ) -> None:
        """Add to the bucket that ``at`` is in; what is too old goes."""
        start = int(at // width) * width
        old = self._bucket(scope, width, of, start)
        sums: dict[str, float] = {} if old is None else _unpack(old)
        add_to(sums, numbers)
        self._write_bucket(scope, width, of, start, _pack(sums))
        if old is None:
            self._make_room(scope, width, of, WIDTHS[width])

    def add_models(
        self,
        scope: str,
        width: int,
        database: str,
        at: float,
        models: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Add to the bucket that ``at`` is in, by model.

        ``width`` is one of ``MODEL_WIDTHS``.
        """
        start, of = int(at // width) * width, f"{database}{_MODELS}"
        old = self._bucket(scope, width, of, start)
        sums: dict[str, dict[str, float]] = {} if old is None else _unpack_models(old)
        for model, numbers in models.items():
            add_to(sums.setdefault(model, {}), numbers)
        self._write_bucket(scope, width, of, start, _pack(sums))
        if old is None:
            self._make_room(scope, width, of, MODEL_WIDTHS[width])

    def _bucket(self, scope: str, width: int, of: str, start: int) -> bytes | None:
        row = self._connection.execute(
            "SELECT numbers FROM buckets "
            "WHERE scope = ? AND width = ? AND of = ? AND start = ?",
            [scope, width, of, start],
        ).fetchone()
        return row[0] if row else None

    def _write_bucket(
        self, scope: str, width: int, of: str, start: int, data: bytes
    ) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO buckets VALUES (?, ?, ?, ?, ?)",
            [scope, width, of, start, data],
        )

    def _make_room(self, scope: str, width: int, of: str, kept: int) -> None:
        """Forget those of some buckets that are farthest from now.

        By their number rather than their age: a clock that is wrong for a
        while costs as much history as it makes up, and no more.
        """
        which = "scope = ? AND width = ? AND of = ?"
        self._connection.execute(
            f"DELETE FROM buckets WHERE {which} AND start IN ("  # noqa: S608
            f"SELECT start FROM buckets WHERE {which} "
            "ORDER BY abs(start - ?) LIMIT -1 OFFSET ?)",
            [*(scope, width, of), *(scope, width, of), self._now, kept // width + 1],
        )

    def add_statements(self, statements: Iterable[Statement]) -> None:
        """Add to how often they were read.

        Of too many the least read half goes, and what nobody has read lately.
        """
        self._connection.executemany(
            "INSERT INTO statements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (database, sql) DO UPDATE SET "
            "seen = excluded.seen, about = excluded.about, hit = hit + excluded.hit, "
            "miss = miss + excluded.miss, wait = wait + excluded.wait, "
            "bypass = bypass + excluded.bypass, "
            "cache_seconds = cache_seconds + excluded.cache_seconds, "
            "db_seconds = db_seconds + excluded.db_seconds",
            [
                (
                    one.database,
                    one.sql,
                    self._now,
                    _pack((one.label, one.action, one.tables)),
                    *(one.events.get(answer, 0) for answer in _ANSWERS),
                    one.cache_seconds,
                    one.db_seconds,
                )
                for one in statements
            ],
        )
        self._connection.execute(
            "DELETE FROM statements WHERE abs(? - seen) > ?",
            [self._now, _STATEMENTS_KEPT],
        )
        (number,) = self._connection.execute(
            "SELECT count(*) FROM statements"
        ).fetchone()
        if number > MOST_STATEMENTS:
            self._connection.execute(
                "DELETE FROM statements WHERE (database, sql) NOT IN ("  # noqa: S608
                "SELECT database, sql FROM statements "
                f"ORDER BY {' + '.join(_ANSWERS)} DESC LIMIT ?)",
                [MOST_STATEMENTS // 2],
            )

    def add_slow(self, reads: Iterable[Slow]) -> None:
        """Note some slow reads; the newest stay."""
        self._connection.executemany(
            "INSERT INTO slow (read) VALUES (?)", [(_pack(one),) for one in reads]
        )
        self._connection.execute(
            "DELETE FROM slow WHERE id <= (SELECT max(id) FROM slow) - ?", [MOST_SLOW]
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

    def clear_totals(self, database: str | None = None) -> None:
        """Begin totals at 0: all of them, or those of a database."""
        self._connection.execute(
            "DELETE FROM totals WHERE ? IS NULL OR (of = ? AND kind <> 'cache')",
            [database, database],
        )
        self._connection.execute(
            "INSERT OR REPLACE INTO marks VALUES ('since', ?)", [self._now]
        )

    def clear_statements(self, database: str | None = None) -> None:
        """Forget how often they were read; slow reads go by themselves."""
        self._connection.execute(
            "DELETE FROM statements WHERE ? IS NULL OR database = ?",
            [database, database],
        )


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
