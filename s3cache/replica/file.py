"""The replica file: opening it, applying entries to it, replacing it."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from s3cache.exceptions import LogDiverged
from s3cache.log import effects
from s3cache.log.catalog import Catalog
from s3cache.log.effects import Position
from s3cache.log.entry import Change, Entry
from s3cache.log.head import Head
from s3cache.replica import absent, meta, packs
from s3cache.replica.applying import apply_changes, apply_entry
from s3cache.replica.connections import Registration, connect, make_durable
from s3cache.replica.results import Result

#: SQLite keeps these beside a database.
_SUFFIXES = ("", "-wal", "-shm", "-journal")


class FileLeft(sqlite3.OperationalError):
    """The file was left: another one has come into its place."""


class ReplicaFile:
    """A replica file with the connection that applies entries to it.

    The caller sees to it that no other transaction of this process writes
    at the same time. A connection that was closed is opened again when it is
    used, until the file is left (``end``).
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        registrations: Iterable[Registration],
    ) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = connection
        self._may_lack = True
        self._has_ended = False
        #: How to open it again; a replica puts its own way here.
        self.reconnect: Callable[[], sqlite3.Connection] = partial(
            connect, path, create=False, registrations=registrations
        )
        #: Called in the transaction of each entry that is applied, with its
        #: number, before others can see it.
        self.before_move: Callable[[int], None] = lambda number: None
        #: Held by whoever uses the connection: no thread sees the transaction
        #: of another half done.
        self.lock = threading.RLock()

    @classmethod
    def open(
        cls, path: Path, *, store: str, registrations: Iterable[Registration]
    ) -> ReplicaFile:
        """Open the file at ``path``, which is made if need be.

        A file that is no replica, of another layout, or damaged is made
        anew: what it held is in the store.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        create_private(path)
        connection = connect(path, registrations=registrations)
        try:
            if not meta.is_usable(connection):
                connection.close()
                delete_file(path)
                create_private(path)
                connection = connect(path, registrations=registrations)
                make_durable(connection)
                with transaction(connection):
                    meta.create(
                        connection, generation=secrets.token_hex(8), store=store
                    )
            make_durable(connection)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, registrations)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection; whoever uses it holds the lock.

        Raises ``FileLeft`` if another file has come into its place.
        """
        if self._connection is None:
            if self._has_ended:
                # It would be one to the other file, which nobody closes.
                raise FileLeft(f"database is locked: {self.path} was deleted")
            self._connection = self.reconnect()
        return self._connection

    def may_lack(self) -> bool:
        """Whether there are packs that are not loaded, or may be soon."""
        if self._may_lack:
            with self.lock:
                self._may_lack = not absent.is_whole(self.connection)
        return self._may_lack

    def lacking(self, effect: effects.Absent) -> effects.Lacking:
        """Packs that are not loaded."""
        if not self.may_lack():
            return effects.Lacking(())
        with self.lock:
            return absent.lacking(self.connection, effect.keys, effect.limit)

    def lacking_packs(self) -> int:
        """How many packs are not loaded."""
        if not self.may_lack():
            return 0
        with self.lock:
            found: int = self.connection.execute(
                "SELECT count(*) FROM main._s3cache_packs"
            ).fetchone()[0]
        return found

    def position(self) -> Position:
        """Where the replica is."""
        with self.lock:
            return meta.read_position(self.connection)

    def generation(self) -> str:
        """What tells this file from the one that it may be replaced by."""
        with self.lock:
            return meta.read_generation(self.connection)[0]

    def execute(self, sql: str, params: Any) -> Result:
        """Run a statement that concerns the file, not the database."""
        with self.lock:
            return Result(self.connection.execute(sql, params))

    def apply(self, effect: effects.Apply) -> bool | effects.Lacking:
        """Apply the entry if it is the next one; True if it was applied.

        If packs have to be loaded for that, those are the result, and nothing
        is changed.
        """
        entry = effect.entry
        with self.lock, transaction(self.connection):
            position = self.position()
            if not entry.follows(position.database, position.number, position.token):
                self._check_same(entry, position)
                return False
            lacking: frozenset[str] = frozenset()
            if self.may_lack():
                lacking = absent.absent_tables(self.connection)
                needed = absent.needed_for(self.connection, entry.changes)
                if needed:
                    return effects.Lacking(needed)
                absent.note_touched(self.connection, entry.changes)
            apply_entry(
                self.connection,
                entry,
                etag=effect.etag,
                modified=effect.modified,
                lacking=lacking,
            )
            self.before_move(entry.number)
        return True

    def rehearse(self, position: Position, changes: Iterable[Change]) -> None:
        """See whether ``changes`` can be applied to the state at ``position``.

        Raises what SQLite says if not. Nothing is changed. Somewhere else
        there is nothing to see: whoever wants to commit there has lost.
        """
        with self.lock:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                if self.position().is_at(position):
                    apply_changes(self.connection, changes)
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def _check_same(self, entry: Entry, position: Position) -> None:
        if entry.database != position.database or entry.number > position.number:
            return
        token = meta.read_token(self.connection, entry.number)
        if token not in (entry.token, None):
            raise LogDiverged(
                f"Entry {entry.number} of the log has the token {entry.token}, but "
                f"this replica has applied one with {token}. The bucket was changed "
                f"by something else than s3cache."
            )

    def proved(self, effect: effects.Proved) -> None:
        """Note in the file itself that the position was the newest."""
        self.execute(
            "UPDATE main._s3cache_meta SET proved_at = ? WHERE number = ?",
            [effect.date, effect.number],
        )

    def keep_pending(self, number: int, token: str) -> None:
        """Note a commit whose outcome is not known."""
        self.execute(
            "INSERT OR REPLACE INTO main._s3cache_pending VALUES (?, ?, '')",
            [token, number],
        )

    def outcome_of(self, token: str) -> str:
        """What became of a pending commit: "committed", "lost", or ""."""
        rows = self.execute(
            "SELECT outcome FROM main._s3cache_pending WHERE token = ?", [token]
        ).rows
        return rows[0][0] if rows else ""

    def store_name(self) -> str:
        """The store that the file was made from."""
        name: str = self.execute("SELECT store FROM main._s3cache_meta", ()).rows[0][0]
        return name

    def set_store_name(self, name: str) -> None:
        """Note that the database is reached as ``name`` now."""
        self.execute("UPDATE main._s3cache_meta SET store = ?", [name])

    def begin_at(self, head: Head, catalog: Catalog | None = None) -> None:
        """Make this new, empty file a replica of the database of ``head``.

        With the tables of ``catalog``, which are empty until ``load``.
        """
        self.execute("UPDATE main._s3cache_meta SET database = ?", [head.database])
        self._may_lack = True
        if catalog is not None:
            with self.lock:
                # Who crashes before it is complete makes it anew. And it is
                # copied then: neither a WAL nor a sync is worth its time.
                self.connection.execute("PRAGMA journal_mode = MEMORY")
                self.connection.execute("PRAGMA synchronous = OFF")
                with transaction(self.connection):
                    packs.begin(self.connection, catalog)

    def load(self, effect: effects.Load) -> bool:
        """Put rows of a pack into their tables; True: others are to follow."""
        with self.lock:
            return packs.load(self.connection, effect.pack, effect.body, effect.first)

    def repack(self, catalog: Catalog) -> bool:
        """Take what is not loaded from ``catalog``, unless that is newer."""
        with self.lock, transaction(self.connection):
            position = self.position()
            token = meta.read_token(self.connection, catalog.number)
            return (
                catalog.database == position.database
                and token in (None, catalog.token)
                and absent.repack(self.connection, catalog, position.number)
            )

    def complete(self, catalog: Catalog) -> None:
        """Be the replica of ``catalog``, but for the packs that it lacks."""
        with self.lock, transaction(self.connection):
            packs.complete(self.connection, catalog)

    def copy_over(self, other: ReplicaFile) -> None:
        """Put the content of this file into ``other``, in one transaction.

        Raises ``sqlite3.OperationalError`` if another process writes there
        for longer than a connection waits.
        """
        with other.lock:
            self.connection.backup(other.connection, progress=_give_up_if_busy)

    def keep_copy(self) -> Path:
        """Write the content to a file of its own beside this one."""
        position = self.position()
        path = self.path.with_name(
            f"{self.path.name}-diverged-{position.number}-{position.token[:8]}"
        )
        create_private(path)
        if not path.stat().st_size:
            self.execute("VACUUM INTO ?", [str(path)])
        return path

    def discard(self) -> None:
        """Close and delete the file."""
        self.close()
        delete_file(self.path)

    def close(self) -> None:
        """Close the connection, in whose use nobody is."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._may_lack = True  # it may be another file that is opened next

    def end(self) -> None:
        """Close it for good: another file comes into its place."""
        self._has_ended = True
        self.close()


def _give_up_if_busy(status: int, _left: int, _total: int) -> None:
    # ``backup`` would try again for ever, and who changes the schema may wait
    # for what its caller holds.
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise sqlite3.OperationalError("database is locked")


def create_private(path: Path) -> None:
    """Create the file, readable by its owner alone, if there is none.

    One that is there is not opened: closing it again would drop the locks
    that SQLite holds on it in this process.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def delete_file(path: Path) -> None:
    """Delete a replica file that nobody has open, and what lies beside it."""
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def beside(path: Path, kind: str) -> Path:
    """A new path beside that of a replica, ``<path>-<kind>-<random>``.

    Who makes such files holds a lock of that kind.
    """
    return path.with_name(f"{path.name}-{kind}-{secrets.token_hex(4)}")


def delete_left_beside(path: Path, kind: str) -> None:
    """Delete what processes have left that died; the caller holds the lock."""
    for left in path.parent.iterdir():
        if left.name.startswith(f"{path.name}-{kind}-"):
            left.unlink(missing_ok=True)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write in one transaction, and roll it back on an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
