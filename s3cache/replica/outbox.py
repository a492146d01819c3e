"""Commits that wait on this host, safe on its disk, until they are sent.

A file of its own beside the replica: SQLite again, but with an fsync for each
commit. What is in there are statements. They are run on the newest state when
they are sent, in order, so that ``n = n + 1`` of many hosts adds up.

How they are sent, each of them once, is in ``s3cache.log.outbox``; here is
where they are kept, and what is run. The mark that says how far an outbox has
been sent is a row of the database itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from django.db import NotSupportedError

from s3cache.log.outbox import Mark, OldCopy, Outset, judge
from s3cache.replica.absent import NotLoaded
from s3cache.replica.connections import identity_of
from s3cache.replica.host_errors import is_of_the_host
from s3cache.replica.requests import Request, Stage
from s3cache.replica.side_file import SideFile
from s3cache.replica.writer import Uncaptured

#: The table, in the database itself, that says how far outboxes are sent.
MARKS: Final = "s3cache_outbox"
CREATE_MARKS: Final = (
    f'CREATE TABLE IF NOT EXISTS "{MARKS}" '
    f'("outbox" text NOT NULL PRIMARY KEY, "last" integer NOT NULL, '
    f'"token" text NOT NULL, "parked" text NOT NULL)'
)
_READ_MARK: Final = f"SELECT last, token, parked FROM main.{MARKS} WHERE outbox = ?"
_SET_MARK: Final = (
    f"INSERT INTO {MARKS} (outbox, last, token, parked) VALUES (?, ?, ?, ?) "
    f"ON CONFLICT (outbox) DO UPDATE SET last = excluded.last, "
    f"token = excluded.token, parked = excluded.parked"
)

_READ_COMMITS: Final = "SELECT id, database, created, tables, body, error FROM commits"

#: What is sent in one entry at most.
MOST_COMMITS: Final = 1000
MOST_BYTES: Final = 2**20

#: Connections that nobody uses, and that must not be closed.
_kept_open: list[sqlite3.Connection] = []

#: Bits of a double that hold tables.
_BITS: Final = 52
ALL_TABLES: Final = (1 << _BITS) - 1

#: A statement, its parameters, and whether they are those of many runs.
Command = tuple[str, Any, bool]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS outbox (
    identity TEXT NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0,
    token TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS commits (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    database TEXT NOT NULL,
    created REAL NOT NULL,
    tables TEXT NOT NULL,
    body BLOB NOT NULL,
    error TEXT
);
"""


def bits_of(tables: Iterable[str]) -> int:
    """A number in which each table sets a bit, which others may set, too."""
    found = 0
    for table in tables:
        found |= 1 << zlib.crc32(table.lower().encode()) % _BITS
    return found


@dataclass(frozen=True, slots=True)
class Waiting:
    """A commit in the outbox."""

    id: int
    database: str
    created: float
    tables: Sequence[str]
    commands: Sequence[Command]
    token: str
    """Tells it from another one of that number, in another copy."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """How an outbox is doing; ``lag`` is the age of its oldest commit."""

    waiting: int
    parked: int
    lag: float


class Outbox:
    """The outbox at ``path``, for all threads of this process."""

    def __init__(self, path: Path, side: Callable[[], SideFile]) -> None:
        self.path = path
        self._get_side = side
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._file = (0, 0)

    @property
    def _side(self) -> SideFile:
        return self._get_side()

    def outset(self) -> Outset:
        """What the mark in the database is compared with."""
        with self._opened() as connection:
            row = connection.execute(
                "SELECT identity, settled, token FROM outbox"
            ).fetchone()
        return Outset(*row)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            self.after_fork_in_child()
        with self._lock:
            if self._connection is not None and identity_of(self.path) != self._file:
                # It was deleted. SQLite would delete the WAL with it, by its
                # name: that of the file which is there now.
                _kept_open.append(self._connection)
                self._connection = None
            if self._connection is None:
                self._connection = self._open()
                self._file = identity_of(self.path)
            yield self._connection

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Within this no other process changes the outbox."""
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=20.0
        )
        try:
            self._begin(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        # What is acknowledged survives a power failure.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS has another one
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("SELECT 1 FROM outbox").fetchone():
            connection.execute(
                "INSERT INTO outbox (identity) VALUES (?)", [secrets.token_hex(16)]
            )
        connection.execute("COMMIT")

    def is_empty_file(self) -> bool:
        """Whether nothing was ever taken: there is no file, or nothing in it.

        SQLite writes there first. On a full disk it may not come to that.
        """
        try:
            return not self.path.stat().st_size
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def before_fork(self) -> None:
        """Have nothing open that SQLite would mix up."""
        self._lock.acquire()
        self.close()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Hold nothing of the parent's."""
        self._lock = threading.RLock()
        self._pid = os.getpid()
        if self._connection is not None:  # a server has gone past Python's hooks
            _kept_open.append(self._connection)
        self._connection = None

    # Commits

    def append(
        self, database: str, tables: Iterable[str], commands: Sequence[Command]
    ) -> int:
        """Take a commit; it is on the disk when this returns.

        Raises ``sqlite3.Error`` if it cannot be, and then it is not there.
        """
        body = msgspec.msgpack.encode([_plain(one) for one in commands])
        named = sorted({table.lower() for table in tables})
        with self._changing() as connection:
            added = connection.execute(
                "INSERT INTO commits (database, created, tables, body) "
                "VALUES (?, ?, ?, ?)",
                [database, time.time(), json.dumps(named), body],
            )
            # Before it is there: who reads now sends an outbox too many.
            pending = int(self._side.pending) | bits_of(named)
            self._side.remember("pending", pending)
            return int(added.lastrowid or 0)

    def waiting(self) -> list[Waiting]:
        """The next commits to send, in order; those of one entry."""
        found: list[Waiting] = []
        size = 0
        with self._opened() as connection:
            for row in connection.execute(
                f"{_READ_COMMITS} WHERE error IS NULL ORDER BY id LIMIT ?",
                [MOST_COMMITS],
            ):
                size += len(row[4])
                if found and size > MOST_BYTES:
                    break
                found.append(_waiting(row))
        return found

    def newest(self) -> int:
        """The number of the last commit that waits; 0: there is none."""
        return self._one_that_waits("max(id)")

    def oldest(self) -> int:
        """The number of the next commit to send; 0: there is none."""
        return self._one_that_waits("min(id)")

    def _one_that_waits(self, which: str) -> int:
        with self._opened() as connection:
            found: int | None = connection.execute(
                f"SELECT {which} FROM commits WHERE error IS NULL"
            ).fetchone()[0]
        return found or 0

    def parked(self) -> list[Waiting]:
        """The commits that could not be committed, and why."""
        with self._opened() as connection:
            rows = connection.execute(
                f"{_READ_COMMITS} WHERE error IS NOT NULL ORDER BY id"
            ).fetchall()
        return [_waiting(row) for row in rows]

    def settle(self, mark: Mark) -> None:
        """Delete what ``mark`` says is sent, and park what is parked."""
        with self._changing() as connection:
            for number, error in mark.parked:
                connection.execute(
                    "UPDATE commits SET error = ? WHERE id = ?", [error, number]
                )
            self._note_settled(connection, mark.last)
            connection.execute(
                "DELETE FROM commits WHERE id <= ? AND error IS NULL", [mark.last]
            )
            self._count(connection)

    def _note_settled(self, connection: sqlite3.Connection, last: int) -> None:
        row = connection.execute(f"{_READ_COMMITS} WHERE id = ?", [last]).fetchone()
        if row is not None:
            connection.execute(
                "UPDATE outbox SET settled = ?, token = ?", [last, _waiting(row).token]
            )

    def part(self, error: str) -> list[int]:
        """Park all that waits, and have another identity from now on.

        Returns the numbers of those that are parked.
        """
        with self._changing() as connection:
            rows = connection.execute(
                "SELECT id FROM commits WHERE error IS NULL"
            ).fetchall()
            connection.execute(
                "UPDATE commits SET error = ? WHERE error IS NULL", [error]
            )
            connection.execute(
                "UPDATE outbox SET identity = ?, settled = 0, token = ''",
                [secrets.token_hex(16)],
            )
            self._count(connection)
        return [number for (number,) in rows]

    def park(self, number: int, error: str) -> None:
        """Keep a commit, and do not send it."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE commits SET error = ? WHERE id = ?", [error, number]
            )
            self._count(connection)

    def retry(self) -> int:
        """Have parked commits sent again, after all others; how many."""
        with self._changing() as connection:
            rows = connection.execute(
                "SELECT id FROM commits WHERE error IS NOT NULL ORDER BY id"
            ).fetchall()
            for (number,) in rows:
                # A new number: the mark says that the old one is done.
                connection.execute(
                    "INSERT INTO commits (database, created, tables, body) "
                    "SELECT database, created, tables, body FROM commits WHERE id = ?",
                    [number],
                )
                connection.execute("DELETE FROM commits WHERE id = ?", [number])
            self._count(connection)
            return len(rows)

    def recount(self) -> bool:
        """Tell this host's processes what waits; whether anything does."""
        with self._changing() as connection:
            return self._count(connection)

    def _count(self, connection: sqlite3.Connection) -> bool:
        rows = connection.execute(
            "SELECT DISTINCT tables FROM commits WHERE error IS NULL"
        ).fetchall()
        tables = {table for (named,) in rows for table in json.loads(named)}
        self._side.remember("pending", bits_of(tables))
        return bool(rows)

    def statistics(self) -> OutboxStatistics:
        """Numbers for people."""
        with self._opened() as connection:
            waiting, oldest = connection.execute(
                "SELECT count(*), min(created) FROM commits WHERE error IS NULL"
            ).fetchone()
            (parked,) = connection.execute(
                "SELECT count(*) FROM commits WHERE error IS NOT NULL"
            ).fetchone()
        lag = max(0.0, time.time() - oldest) if oldest is not None else 0.0
        return OutboxStatistics(waiting, parked, lag)


class OutboxRequest(Request):
    """Commits of an outbox, as a member of a batch.

    The outcome is that of ``Submit``: None if the state that they are to be
    committed on is of another database than they are.
    """

    def __init__(self, outset: Outset, commits: Sequence[Waiting]) -> None:
        self._outset = outset
        self._commits = commits

    def statements(self) -> Sequence[tuple[str, Any]]:
        mark = _SET_MARK, (self._outset.identity, 0, "", "")
        return [
            mark,
            *(
                (_replacing(sql), (params[0] if params else ()) if many else params)
                for commit in self._commits
                for sql, params, many in commit.commands
            ),
        ]

    def run(self, stage: Stage) -> Mark | OldCopy | None:
        if any(one.database != stage.position.database for one in self._commits):
            return None
        connection, identity = stage.writer.connection, self._outset.identity
        row = connection.execute(_READ_MARK, [identity]).fetchone()
        before = Mark(row[0], row[1], json.loads(row[2])) if row else Mark()
        after = judge(
            before, self._outset, self._commits, lambda one: self._run_one(stage, one)
        )
        if isinstance(after, Mark) and after.last != before.last:
            said = identity, after.last, after.token, json.dumps(after.parked)
            stage.writer.execute(_SET_MARK, said)
        return after

    def _run_one(self, stage: Stage, commit: Waiting) -> str:
        """Run one whole commit, or nothing of it; return what was wrong."""
        writer = stage.writer
        before = set(writer.touched)
        writer.connection.execute("SAVEPOINT s3cache_commit")
        try:
            for sql, params, many in commit.commands:
                writer.execute(_replacing(sql), params, many=many)
            writer.check_foreign_keys()
        except (Uncaptured, NotLoaded):
            raise
        except sqlite3.Error as error:
            if is_of_the_host(error) or not writer.connection.in_transaction:
                raise
            writer.connection.execute("ROLLBACK TO s3cache_commit")
            writer.touched = before
            writer.connection.execute("RELEASE s3cache_commit")
            return f"{type(error).__name__}: {error}"
        writer.connection.execute("RELEASE s3cache_commit")
        return ""


def _replacing(sql: str) -> str:
    """An INSERT that wins over a row with the same primary key.

    Which state it meets is not known when it is written: of two that write a
    row the last one wins, here as everywhere in an outbox.
    """
    if sql.startswith("INSERT INTO") and "ON CONFLICT" not in sql:
        return f"INSERT OR REPLACE INTO{sql.removeprefix('INSERT INTO')}"
    return sql


def _waiting(row: Sequence[Any]) -> Waiting:
    number, database, created, tables, body, error = row
    commands = [
        (sql, params, many) for sql, params, many in msgspec.msgpack.decode(body)
    ]
    token = hashlib.blake2b(repr(created).encode() + body, digest_size=8).hexdigest()
    return Waiting(
        number, database, created, json.loads(tables), commands, token, error
    )


def _plain(command: Command) -> tuple[str, Any, bool]:
    sql, params, many = command
    if many:
        return sql, [_values(one) for one in params], True
    return sql, _values(params), False


def _values(params: Any) -> Any:
    if isinstance(params, dict):
        return {name: _value(value) for name, value in params.items()}
    return [_value(value) for value in params or ()]


def _value(value: Any) -> Any:
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    raise NotSupportedError(
        f"A parameter of a statement that is written behind is a "
        f"{type(value).__qualname__}: pass it as SQLite keeps it."
    )
