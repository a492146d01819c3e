"""A replica in this process: what ties its parts together."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from django.db import OperationalError

from s3cache.conf import DatabaseOptions
from s3cache.counting import Counters
from s3cache.exceptions import LogDiverged, TransactionConflict
from s3cache.log.catalog import Catalog
from s3cache.log.catch_up import advance, catch_up, load, rebuild
from s3cache.log.commit import CommitOptions, commit
from s3cache.log.effects import Position, Staged, Steps, Turn
from s3cache.log.head import Head
from s3cache.log.keys import HEAD
from s3cache.replica import meta
from s3cache.replica.absent import NotLoaded
from s3cache.replica.analysis import Analyser
from s3cache.replica.asking import Asking
from s3cache.replica.batch import Committer, stage_batch
from s3cache.replica.block import Block
from s3cache.replica.connections import (
    Registration,
    closed_on_error,
    connect,
    identity_of,
)
from s3cache.replica.cut import Wanted
from s3cache.replica.file import (
    FileLeft,
    ReplicaFile,
    beside,
    delete_file,
    delete_left_beside,
)
from s3cache.replica.founding import create_database
from s3cache.replica.ids import IdChunks
from s3cache.replica.meta import Recent
from s3cache.replica.needs import Needs
from s3cache.replica.performer import Performer
from s3cache.replica.reader import Reader
from s3cache.replica.requests import Request, ReserveIds
from s3cache.replica.rest import Rest
from s3cache.replica.side_file import SideFile
from s3cache.replica.sql import quote
from s3cache.replica.tables import Schema, read_schema, schema_version
from s3cache.replica.watch import Watch
from s3cache.replica.writer import Owner, Writer
from s3cache.stores.base import Store

T = TypeVar("T")

logger = logging.getLogger("s3cache.replica")

#: Readers that are kept open while no Django connection uses them.
IDLE_READERS = 32

#: Seconds that a fork waits for other threads' statements and snapshots, and
#: who rebuilds the replica for one who opens it.
PATIENCE = 2.0

#: How often files are opened that are deleted before all are open.
OPEN_TRIES = 5

#: Seconds that a process waits for another one that makes the replica.
OPEN_TIMEOUT = 600.0


@dataclass(slots=True)
class _Open:
    """The connections of this process that are not a reader's."""

    file: ReplicaFile
    writer: Writer
    analyser: Analyser
    watch: Watch
    generation: float
    identity: tuple[int, int]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Use all of them: no other thread does."""
        with self.writer.unused(), self.file.lock, self.analyser.lock:
            yield

    def end(self) -> None:
        """Close all of them for good; whoever gets one later gets another."""
        with contextlib.ExitStack() as whatever_one_raises:
            for one in (self.analyser, self.file, self.writer):
                whatever_one_raises.callback(one.end)
            self.watch.close()


class Replica:
    """The replica at ``path``, of the database in ``store``.

    One object per path and process, for all its threads. Connections are
    opened when they are needed, and closed before a fork: SQLite keeps its
    locks by process, and would mix up those of parent and child.

    Locks are taken in this order: those of the side file (``flushing``,
    ``commit`` or ``asking``, ``opening``, ``rebuilding``), the writer's, the
    file's, SQLite's own for writing, the analyser's, and ``_open_lock``, under
    which connections are opened. A reader's comes before them all, for who
    has it may have to open the files: nobody who holds another one waits for
    it. What is being opened has locks that no other thread has got yet.
    """

    def __init__(self, path: Path, options: DatabaseOptions, store: Store) -> None:
        self.path = path
        self.options = options
        self.store = store
        self._registrations: dict[tuple[str, Any], Registration] = {}
        self.host = _host_name(path)
        #: Not a set: while one thread goes over that, another may add to it.
        self._readers: weakref.WeakKeyDictionary[Reader, None] = (
            weakref.WeakKeyDictionary()
        )
        self._idle_readers: list[Reader] = []
        self._process = os.getpid()
        self._is_spoiled = False
        self._is_retired = False
        self._is_opening = False
        self._held_for_fork = contextlib.ExitStack()
        self._side: SideFile | None = None
        self._open: _Open | None = None
        self._is_ready = False
        self._announced = -1
        self._schema: Schema | None = None
        #: What this process did: "commits" and the "transactions" in them,
        #: "retries" (a batch was run again, for another host was first),
        #: "conflicts" (a caller got ``TransactionConflict``), "stale_reads",
        #: and the entries that "changed" or, if others made them, "moved" a
        #: table, which is named in lower case after that. What changed one
        #: "again" had moved it already, in another process of this host.
        #: All of these only grow.
        self.events = Counters[tuple[str, str]]()
        self._needs = Needs(lambda: self.analyser, self.describe)
        #: How far the keeper is known to have come: "packed", "recorded".
        self.reached: dict[str, int] = {}
        #: What statistics call the database; see ``conf.counted_as``.
        self.alias = ""
        #: Told of each pack that is loaded: how many are left then.
        self.on_load: Callable[[int], None] | None = None
        #: Called with the number of each entry that this process creates,
        #: once its commit is over; raises nothing.
        self.on_entry: Callable[[Replica, int], None] | None = None
        #: Called in each process that has opened the replica, and every time
        #: that the store was asked; does not wait and raises nothing.
        self.on_use: Callable[[Replica], None] | None = None
        #: Called when nobody uses the replica any more.
        self.on_forget: Callable[[], None] | None = None
        #: Waits for this host's turn to write, so many seconds at most.
        self.take_turn: Callable[[float], Turn | None] | None = None
        self._make_locks()

    def _make_locks(self) -> None:
        self._open_lock = threading.RLock()
        #: The thread that holds the lock of rebuilding; 0: none does.
        self._rebuilder = 0
        self._announce_lock = threading.Lock()
        self._committer = Committer(
            self._commit_batch, lambda: self.options.commit_timeout
        )
        self.asking = Asking(self)
        #: Of packs that are loaded in part.
        self.rest = Rest(self)
        self.ids = IdChunks(self._reserve_ids)

    # Opening and closing.

    @property
    def side(self) -> SideFile:
        """The numbers and locks that processes share."""
        side = self._side
        if side is None:
            with self._open_lock:
                if self._side is None:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._check_not_retired()
                    self._side = SideFile(_side_path(self.path))
                side = self._side
        return side

    @property
    def is_open(self) -> bool:
        """Whether this process has the replica open."""
        return self._open is not None and self._is_ready

    def _opened(self) -> _Open:
        opened = self._open
        if self._process != os.getpid():
            self.after_fork_in_child()  # a server has gone past Python's hooks
        elif opened is not None and self._is_ready:
            return opened
        # While one thread makes the replica, the others wait here.
        with self._to_open():
            if self._open is None:
                self._check_not_retired()
                if self._is_spoiled:
                    raise self.forked()
                self._is_opening = True
                try:
                    self._open_what_stays()
                finally:
                    self._is_opening = False
            if self._open is None:
                raise OperationalError(f"{self.path} could not be opened")
            return self._open

    @contextlib.contextmanager
    def _to_open(self) -> Iterator[None]:
        """Hold what lets one thread open the files.

        Who rebuilds the replica does not open files that were closed under
        it, nor wait for one who does: that one makes the replica, if it was
        deleted, and waits for the lock of rebuilding.
        """
        rebuilds = self._rebuilder == threading.get_ident()
        if not self._open_lock.acquire(timeout=PATIENCE if rebuilds else -1):
            raise self._deleted()
        try:
            if rebuilds and self._open is None:
                raise self._deleted()
            yield
        finally:
            self._open_lock.release()

    def _deleted(self) -> OperationalError:
        return OperationalError(
            f"database is locked: {self.path} was deleted or closed while it was "
            f"made anew, so that another thread or process makes it; try again"
        )

    @contextlib.contextmanager
    def hold_rebuild_lock(self, timeout: float) -> Iterator[None]:
        """Be the only thread of this host that builds a replica.

        ``timeout`` is in seconds; raises ``OperationalError`` after them.
        """
        with self.side.rebuilding.held(timeout):
            self._rebuilder = threading.get_ident()
            try:
                delete_left_beside(self.path, "new")
                yield
            finally:
                self._rebuilder = 0

    def forked(self) -> OperationalError:
        """The error for what a child of a fork cannot do."""
        return OperationalError(
            f"This process was forked while {self.path} was in use, so it "
            f"cannot use that file: SQLite would mix up parent and child. Fork "
            f"outside of atomic(), and let the server run Python's fork hooks "
            f"(uWSGI: py-call-uwsgi-fork-hooks) or load the application after "
            f"the fork."
        )

    def _open_what_stays(self) -> None:
        """Open the files; again, where somebody deletes them meanwhile."""
        for left in reversed(range(OPEN_TRIES)):
            try:
                self._open_files()
                return
            except sqlite3.Error:
                if not left or self.path.exists():
                    raise

    def _open_files(self) -> None:
        with (
            self.side.opening.held(OPEN_TIMEOUT),
            contextlib.ExitStack() as on_error,
        ):
            file = ReplicaFile.open(
                self.path,
                store=self.store.name,
                registrations=self._registrations.values(),
            )
            file.reconnect = lambda: self._connect(create=False)
            file.before_move = self._before_move
            on_error.callback(file.close)
            writer = Writer(
                lambda: self._connect(create=False),
                self.options.commit_timeout,
                self._needs,
            )
            on_error.callback(writer.close)
            # All three now: what is deleted later cannot be connected to.
            analyser = Analyser(
                lambda: self._connect(read_only=True, cached_statements=0)
            )
            on_error.callback(analyser.close)
            analyser.connect()
            generation = _as_number(file.generation())
            opened = _Open(
                file,
                writer,
                analyser,
                Watch(writer, self.side.is_sole_user),
                generation,
                identity_of(self.path),
            )
            on_error.pop_all()
            on_error.callback(self._close_files, opened)
            self._open = opened
            self._make_current()
            on_error.pop_all()
            opened.generation = self.side.generation
            self._is_ready = True
        if self.on_use is not None:
            self.on_use(self)

    def _make_current(self) -> None:
        """See to it that the file is a replica of what the store holds."""
        position = self.file.position()
        generation = _as_number(self.file.generation())
        if self.side.generation != generation:
            self.side.reset(generation)
            self.side.moved_to(position.number)
        if not position.database:
            self._make_first()
        elif self.file.store_name() != self.store.name:
            # The settings name another bucket now, perhaps another database.
            self.side.remember("checked_at", 0.0)
            self.catch_up()
            self.file.set_store_name(self.store.name)
        if self._announced < 0:
            self._announced = self.file.position().number

    def _make_first(self) -> None:
        try:
            self.catch_up()
        except LogDiverged:
            # Only then: on all hosts but the first ``_head`` is there, and
            # looking for it before would be one more request.
            if self.store.get(HEAD).status != 404:
                raise
            create_database(self.store)
            self.catch_up()

    @property
    def file(self) -> ReplicaFile:
        """The file with its applying connection."""
        return self._opened().file

    def in_file(self, ask: Callable[[ReplicaFile], T]) -> T:
        """What ``ask`` says of the file in use, not of one that was left.

        For who only reads it. Who holds the writer may use ``file``, which
        nobody leaves meanwhile.
        """
        return self._in_use(lambda opened: ask(opened.file))

    def _in_use(self, ask: Callable[[_Open], T]) -> T:
        while True:
            try:
                return ask(self._opened())
            except FileLeft:
                continue

    def opened(self) -> object:
        """What stands for the file that is in use; see ``is_current``."""
        return self._opened()

    @property
    def writer(self) -> Writer:
        """The writing connection."""
        return self._opened().writer

    def take_writer(self, owner: Owner | None = None) -> Writer:
        """Hold the writing connection until its ``let_go``.

        That of the file that is in use when it is had, not of one that was
        deleted while it was waited for.
        """
        while True:
            writer = self.writer
            if writer.take(owner):
                return writer

    @contextlib.contextmanager
    def writing(self, owner: Owner | None = None) -> Iterator[Writer]:
        """Use the writing connection; see ``take_writer``."""
        writer = self.take_writer(owner)
        try:
            yield writer
        finally:
            writer.let_go()

    @contextlib.contextmanager
    def in_nobodys_way(self) -> Iterator[None]:
        """Let another connection write: what the writer has is rolled back.

        A change of the schema, too, which is then run again; only the thread
        that makes it gets here meanwhile.
        """
        with self.writing() as writer:
            writer.rollback()
            yield

    @property
    def analyser(self) -> Analyser:
        """What tells the tables of a statement."""
        return self._opened().analyser

    @property
    def watch(self) -> Watch:
        """What keeps idle blocks from standing in others' way."""
        return self._opened().watch

    @property
    def _keys(self) -> tuple[bytes, ...]:
        return self.options.signing_keys

    def new_reader(self) -> Reader:
        """A reader for one Django connection, to be given back.

        The replica is not opened, and made, before it is read: its schema may
        need functions that a ``connection_created`` receiver registers.
        """
        if self._process != os.getpid():
            self.after_fork_in_child()  # a server has gone past Python's hooks
        try:
            return self._idle_readers.pop()
        except IndexError:
            reader = Reader(self._connect_reader, self._needs, self.after_read)
            reader.keep_to(self._open)
            with self._open_lock:
                self._readers[reader] = None
            return reader

    def give_back(self, reader: Reader) -> None:
        """Keep a reader for the next Django connection that is opened.

        Django closes its connections after each request; compiled statements
        and functions are worth keeping.
        """
        reader.rollback()
        reader.keep_to(self._open)
        if len(self._idle_readers) < IDLE_READERS:
            self._idle_readers.append(reader)
        else:
            reader.close()

    def move(self, reader: Reader) -> None:
        """Have a reader without a transaction read the file that is in use."""
        reader.keep_to(self._open)

    def _connect_reader(self) -> sqlite3.Connection:
        while True:
            # No thread is in the middle of this while another one forks.
            with self._open_lock:
                opened = self._opened()
                if identity_of(self.path) == opened.identity:
                    try:
                        return self._connect(read_only=True)
                    except sqlite3.Error:
                        if identity_of(self.path) == opened.identity:
                            raise  # else it was deleted just now
            self._open_anew(opened)

    def _connect(self, **how: Any) -> sqlite3.Connection:
        # Not to a file that another thread is about to make.
        with self._to_open():
            if self._open is None and not self._is_opening:
                self._opened()
            try:
                return self._connect_to_one_file(**how)
            except sqlite3.Error as error:
                opened = self._open
                if opened is not None and isinstance(error, _Unfinished):
                    opened.identity = (-1, -1)  # the other file may get the same
                if opened is not None and identity_of(self.path) != opened.identity:
                    # It was deleted: whoever comes next opens it anew.
                    opened.generation = -1.0
                raise

    def _connect_to_one_file(self, **how: Any) -> sqlite3.Connection:
        # SQLite opens the WAL by its name when it first reads: if the file is
        # deleted in that moment, it might be the WAL of another one.
        while True:
            before = identity_of(self.path)
            if self._open is not None and before != self._open.identity:
                raise _Unfinished("unable to open database file")
            connection = connect(
                self.path, registrations=self._registrations.values(), **how
            )
            try:
                with closed_on_error(connection):
                    connection.execute("SELECT 1 FROM sqlite_master").fetchone()
                    if self._is_ready and not meta.is_complete(connection):
                        raise _Unfinished("unable to open database file")
                    if identity_of(self.path) == before:
                        return connection
            except sqlite3.Error:
                if identity_of(self.path) == before:
                    raise
            connection.close()

    def register(self, registration: Registration) -> None:
        """Have a function, aggregate or collation on every connection."""
        if self._registrations.get(registration.name) == registration:
            return  # as each new connection of Django's says again
        # A new one: another thread may be going over the one there is.
        self._registrations = {
            **self._registrations,
            registration.name: registration,
        }
        if self._open is not None:
            with self.writing() as writer, self.file.lock:
                registration.on(writer.connection)
                registration.on(self.file.connection)
                self.analyser.register(registration)

    def close(self) -> None:
        """Close all connections; the next use opens them again."""
        # A thread that asks ahead, or loads what is left, is let finish.
        self.rest.wait()
        with self.asking.lock:
            for reader in self._known_readers():
                reader.close()
        with self._open_lock:
            # Not while a thread opens them, which has to use what it opens.
            opened = self._open
        if opened is not None:
            with opened.held(), self._open_lock:
                self._close_files(opened)

    def _close_files(self, opened: _Open) -> None:
        if self._open is opened:
            self._is_ready = False
            self._open = None
        opened.end()

    def _known_readers(self) -> list[Reader]:
        references = self._readers.keyrefs()
        return [one for found in references if (one := found()) is not None]

    def retire(self, *, delete_side: bool = True) -> None:
        """Be used no more, by whoever still has this object.

        Another object may take its place at ``path``.
        """
        self._is_retired = True
        self.close()  # what a thread has opened that did not know yet, too
        with self._open_lock:
            side, self._side = self._side, None
            if side is not None and delete_side:
                side.delete()
            elif side is not None:
                side.close()

    def _check_not_retired(self) -> None:
        if self._is_retired:
            raise OperationalError(
                f"{self.path} was closed for good in this process, and its "
                f"database is opened anew by another connection, or dropped."
            )

    def rebuild(self) -> None:
        """Make the replica anew from the store, whatever it holds.

        A file that other threads or processes are using is not deleted: its
        content is replaced.
        """
        if self._delete():
            self.catch_up()
            return
        while self.run(rebuild(self.position(), self._keys)) is None:
            pass  # it has gone on meanwhile

    def _delete(self) -> bool:
        """Delete the file, unless somebody uses it; whether it is gone."""
        if not self.side.is_sole_user():
            return False  # and wait for none that opens it, with all closed
        locks = self._close_all()
        if locks is None:
            return False
        with locks, self.side.opening.held(OPEN_TIMEOUT):
            if not self.side.is_sole_user():
                return False
            delete_file(self.path)
            self.side.reset(0.0)
            if self._open is not None:
                self._close_files(self._open)
            self.ids.forget()
            self._schema = None
            return True

    # Forks.

    def before_fork(self) -> None:
        """Close what SQLite would mix up, and let nobody open it.

        Threads that are about to use a connection wait until the fork is
        done; then it is opened for them again. Where that is not possible
        nothing is touched, and the child cannot use the replica.
        """
        locks = self._close_all()
        if locks is not None:
            self._held_for_fork = locks

    def close_if_idle(self) -> bool:
        """Close all files, unless one is in use just now; False: one is.

        The next use opens them again.
        """
        locks = self._try_to_close_all()
        if locks is None:
            return False
        locks.close()
        return True

    def _close_all(self) -> contextlib.ExitStack | None:
        """Close all connections, and hold what lets others open them.

        None, and nothing is closed, if they are in use for too long.
        """
        deadline = time.monotonic() + PATIENCE
        while (locks := self._try_to_close_all()) is None:
            if self._is_in_use_here() or time.monotonic() >= deadline:
                return None
            time.sleep(0.001)
        return locks

    def _is_in_use_here(self) -> bool:
        """Whether it is the calling thread itself that is in the way."""
        opened = self._open
        return any(
            reader.is_in_own_transaction() for reader in self._known_readers()
        ) or (opened is not None and opened.writer.is_held_here_for_schema())

    def _try_to_close_all(self) -> contextlib.ExitStack | None:
        # Readers' locks do not come first here, so none is waited for.
        with contextlib.ExitStack() as locks:

            def take(lock: threading.Lock | threading.RLock) -> bool:
                if taken := lock.acquire(blocking=False):
                    locks.callback(lock.release)
                return taken

            if not take(self._open_lock):
                return None
            readers = self._known_readers()
            opened = self._open
            if opened is not None and not (
                take(opened.writer.lock)
                and not opened.writer.held_for_schema
                and take(opened.file.lock)
                and take(opened.analyser.lock)
            ):
                return None
            if not all(take(reader.lock) for reader in readers):
                return None
            if any(reader.is_in_transaction() for reader in readers):
                return None
            for reader in readers:
                reader.suspend()
            if opened is not None:
                opened.writer.close()
                opened.file.close()
                opened.analyser.close()
            return locks.pop_all()

    def after_fork_in_parent(self) -> None:
        """Go on: only the child is concerned."""
        self._held_for_fork.close()

    def after_fork_in_child(self) -> None:
        """Hold none of the parent's locks, ids and connections."""
        self._process = os.getpid()
        self._held_for_fork.pop_all()
        opened, self._open, self._is_ready = self._open, None, False
        inherited: list[object] = [
            connection
            for reader in self._known_readers()
            if (connection := reader.forget()) is not None
        ]
        if opened is not None and not opened.writer.is_closed:
            inherited.append(opened)
        if inherited or self._is_opening:
            # Closing them here would drop the parent's locks; so they are
            # kept, and with them what SQLite believes of this file.
            _inherited.extend(inherited)
            self._is_spoiled = True
            self._is_opening = False
        if self._side is not None:
            self._side.after_fork_in_child()
        self._make_locks()

    # Protocols.

    def run(self, steps: Steps[T]) -> T:
        """Run a protocol that commits nothing."""
        return Performer(self).run(steps)

    def _commit_options(self) -> CommitOptions:
        return CommitOptions(
            host=self.host,
            timeout=self.options.commit_timeout,
            signing_keys=self._keys,
            turns=self.take_turn is not None,
        )

    def _commit_batch(self, batch: Sequence[Request]) -> None:
        def stage() -> Staged:
            while True:
                try:
                    with self.writing() as writer:
                        return stage_batch(writer, batch)
                except NotLoaded as missing:
                    self.load_for(missing)

        self._commit(Performer(self, stage))

    def commit_staged(self, stage: Callable[[], Staged]) -> None:
        """Commit what ``stage`` says; the caller holds the commit lock."""
        try:
            self._commit(Performer(self, stage, has_lock=True))
        except TransactionConflict:
            self.events.count(("conflicts", ""))
            raise

    def _commit(self, performer: Performer) -> None:
        try:
            performer.run(commit(self._commit_options()))
        finally:
            self.events.add(("retries", ""), max(performer.staged - 1, 0))
        if performer.created:
            self.events.count(("commits", ""))
            self.events.add(("transactions", ""), performer.transactions)
            if self.on_entry is not None:
                self.on_entry(self, performer.created)

    def submit(self, request: Request) -> Any:
        """Have ``request`` committed with others that wait."""
        self.follow_file()
        try:
            return self._committer.submit(request)
        except TransactionConflict:
            self.events.count(("conflicts", ""))
            raise

    def reach(self, what: str, number: int) -> None:
        """Note how far the keeper has come; it never goes back."""
        self.reached[what] = max(number, self.reached.get(what, 0))

    def may_lack(self) -> bool:
        """Whether there are packs that are not loaded, or may be soon."""
        return self.in_file(lambda file: file.may_lack())

    def lacking_packs(self) -> int:
        """How many packs are not loaded, for nobody needed them."""
        return self.in_file(lambda file: file.lacking_packs())

    def size(self) -> int:
        """The bytes of the file and its WAL."""
        found = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                found += self.path.with_name(self.path.name + suffix).stat().st_size
        return found

    def position(self) -> Position:
        """Where the replica is, which the host's processes are told.

        Also if it was another thread or process that moved it: that one may
        not have come to this yet, or have died, and what is known of the
        state before would still be taken for current by who knows this.
        """

        def tell(opened: _Open) -> Position:
            # Before the file is looked at: what others say meanwhile stays.
            told = self.side.number
            position = opened.file.position()
            if told != position.number and self.is_current(opened):
                self.side.moved_to(position.number)
            return position

        return self._in_use(tell)

    def new_block(
        self, reader: Reader, *, always_replay: bool = False, run_actions: bool = True
    ) -> Block:
        """A transaction for the Django connection of ``reader``."""
        return Block(self, reader, always_replay=always_replay, run_actions=run_actions)

    def unlay(self, block: Block) -> None:
        """Take away the rows that ``block`` may have left on the writer."""
        opened = self._open
        if opened is not None and opened.writer.owner is block:
            with self.writing():
                pass

    # Freshness.

    def refresh(self, max_age: float, reader: Reader) -> None:
        """See to it that what ``reader`` reads is not older than that.

        ``max_age`` is in seconds; see ``Asking``.
        """
        self.follow_file()
        reader.keep_to(self._open)
        self.asking.ask_if_due(max_age)

    def _before_move(self, number: int) -> None:
        if self.is_current():
            self.side.moves_to(number)

    def after_read(self) -> None:
        """Have no later read go back behind one that was made just now.

        It may have seen an entry before who applied that told of it, or died,
        and another one, or another process, may go by what is known.
        """
        side = self._side
        if side is not None and side.is_moving():
            self.position()

    def is_current(self, since: object = None) -> bool:
        """Whether the open file is the one that the side file is about.

        And has been in use ``since`` that was ``opened``.
        """
        opened = self._open
        return (
            opened is not None
            and (since is None or since is opened)
            and opened.generation == self.side.generation
        )

    def follow_file(self) -> None:
        """Go on after another process has made the replica anew."""
        opened = self._opened()
        if opened.generation == self.side.generation:
            return
        if identity_of(self.path) == opened.identity:
            self.ids.forget()
            self._schema = None
            opened.generation = self.side.generation
            return
        self._open_anew(opened)
        for reader in self._known_readers():
            reader.close_if_idle()

    def _open_anew(self, opened: _Open) -> None:
        """Leave a file that was deleted, and open what is in its place.

        Whoever waits for its connections then gets new ones. Until the new
        file is complete nobody connects to it. Who changes the schema goes on
        with the old one.
        """
        if opened.writer.is_held_here_for_schema():
            raise self._deleted()
        with contextlib.ExitStack() as until_it_is_complete:
            with opened.held():
                until_it_is_complete.enter_context(self._open_lock)
                self.ids.forget()
                self._schema = None
                self._close_files(opened)
            self._opened()

    def advance(self, number: int) -> None:
        """Apply the entries up to ``number``, which another host has named.

        By one process of this host, while the others wait. Whether more
        follow is for reads to ask. Raises what ``catch_up`` does.
        """
        self.follow_file()
        if self.side.number < number:
            with self.side.asking.held(self.options.commit_timeout):
                if self.side.number < number:
                    self.run(advance(number, self._keys))

    def catch_up(self) -> Position:
        """Ask the store now, and apply all that is new."""
        while True:
            opened = self._opened()
            reached = self.run(catch_up(self._keys))
            if not self._is_ready or self.is_current(opened):
                return reached
            self.follow_file()  # it was for one that was deleted meanwhile

    # What it lacks.

    def load(
        self, keys: frozenset[str] | None = None, first: Wanted | None = None
    ) -> None:
        """Load packs that the replica lacks, by key; None: all of them.

        Nothing if it lacks none of them. For whom some rows of theirs are
        enough ``first``, it may be only those; the others follow in a thread.
        Raises ``StoreError`` if the store does not answer, ``LogDiverged`` if
        a pack is missing for good, and ``EntryFormatError`` if one is damaged.
        """
        if keys != frozenset() and self.may_lack():
            try:
                self.run(load(keys, self._keys, first))
            finally:
                self.rest.load_soon()

    def load_for(self, missing: NotLoaded) -> None:
        """Load what somebody was refused for; see ``load``."""
        self.load(missing.keys, missing.first)

    def loading(self, attempt: Callable[[], T]) -> T:
        """What ``attempt`` returns, with all loaded that it needs."""
        while True:
            try:
                return attempt()
            except NotLoaded as missing:
                self.load_for(missing)

    # Copies of it, and the new file of a rebuild.

    def copy_to(self, connection: sqlite3.Connection) -> None:
        """Put what the replica holds now into the file of ``connection``."""
        reader = self.new_reader()
        try:
            with reader.held() as held:
                held.backup(connection)
        finally:
            self.give_back(reader)

    def new_file(
        self, head: Head, catalog: Catalog | None = None, *, kind: str
    ) -> ReplicaFile:
        """An empty replica of the database of ``head``, ``beside`` this."""
        file = ReplicaFile.open(
            beside(self.path, kind),
            store=self.store.name,
            registrations=self._registrations.values(),
        )
        try:
            file.begin_at(head, catalog)
        except BaseException:
            file.discard()
            raise
        return file

    def replace_by(
        self, new: ReplicaFile, replaces: Position, *, keep_old: bool
    ) -> bool:
        """Put the content of ``new`` in the place of the replica's.

        Only if that is still at ``replaces``; else the result is False. With
        ``keep_old`` the replica is kept in a file of its own. The caller
        holds the writer, and discards ``new`` whatever becomes of this.
        """
        opened, file = self._opened(), self.file
        old, now = file.position(), new.position()
        if not old.is_at(replaces):
            return False
        if identity_of(self.path) != opened.identity:
            # What the side file says is about the one in its place.
            opened.generation = -1.0
            raise self._deleted()
        if keep_old and old.number:
            logger.error(
                "The store no longer has what %s holds; a copy is kept as %s.",
                self.path,
                file.keep_copy(),
            )
        self.side.moves_to(now.number)
        new.copy_over(file)
        generation = _as_number(file.generation())
        self.side.reset(generation)
        self.side.moved_to(now.number)
        self.side.proved(now.number, now.proved_at)
        opened.generation = generation
        self.ids.forget()
        return True

    # Ids.

    def _reserve_ids(self, table: str, column: str, count: int, above: int) -> range:
        ids: range = self.submit(ReserveIds(table, column, count, above))
        return ids

    def take_ids(
        self, reader: Reader, block: Block | None, table: str, column: str, count: int
    ) -> Sequence[int] | None:
        """Ids for new rows; None, outside a block: let SQLite choose.

        Ids that are taken already, in the replica or in the block, are
        skipped.
        """

        def largest_in(low: int, high: int) -> int | None:
            found: int | None = reader.execute(
                f"SELECT max({quote(column)}) FROM main.{quote(table)} "
                f"WHERE {quote(column)} BETWEEN ? AND ?",
                [low, high],
            ).fetchone()[0]
            own = block.largest_id(table, low, high) if block is not None else None
            return max((n for n in (found, own) if n is not None), default=None)

        reset_at: int = reader.execute(
            "SELECT ids_reset_at FROM main._s3cache_meta", ()
        ).fetchone()[0]
        wanted = count if block is None else block.ids_wanted(table, column, count)
        return self.ids.take(
            table,
            column,
            count,
            wanted=wanted,
            reset_at=reset_at,
            largest_in=largest_in,
            must=block is not None,
        )

    # The schema.

    def describe(self, connection: sqlite3.Connection) -> Schema:
        """The tables as ``connection`` sees them."""
        version = schema_version(connection)
        known = self._schema
        if known is None or known.version != version:
            known = self._schema = read_schema(connection, version)
        return known

    # News.

    def has_news(self) -> bool:
        """Whether entries were applied that ``news`` has not told of."""
        return self.side.number != self._announced

    def skip_news(self) -> None:
        """Tell nobody of what was applied so far."""
        self._announced = self.side.number

    def news(self, reader: Reader) -> list[Recent]:
        """The entries that were applied since this was last asked.

        Each is told once in a process, in order, whoever applied it. What
        came with a replica that was made anew is not.
        """
        with reader.held() as connection:
            with self._announce_lock:
                _generation, reached = meta.read_generation(connection)
                before, self._announced = self._announced, reached
            if before < 0 or reached <= before:
                return []
            return meta.read_recent(connection, before, reached) or []


class _Unfinished(sqlite3.OperationalError):
    """Another file took the place of the one that is in use.

    Another process may just be making it: there is nothing in it yet.
    """


def _side_path(path: Path) -> Path:
    return path.with_name(f"{path.name}-s3cache")


def _host_name(path: Path) -> str:
    identity = hashlib.blake2b(str(path.absolute()).encode(), digest_size=3)
    return f"{socket.gethostname()}-{identity.hexdigest()}"


def _as_number(generation: str) -> float:
    """A generation as a double that holds it exactly."""
    return float(int(generation[:12] or "0", 16))


# What a child of a fork must not close.
_inherited: list[object] = []

_replicas: dict[Path, Replica] = {}
_replicas_lock = threading.Lock()


def replica_at(path: Path, options: DatabaseOptions, store: Store) -> Replica:
    """The replica at ``path`` in this process."""
    # One object by file: record locks do not hold between two of a process.
    key = path.resolve()
    with _replicas_lock:
        replica = _replicas.get(key)
        if replica is not None and replica.store.name != store.name:
            replica.close()
            replica.store = store
        if replica is None:
            replica = _replicas[key] = Replica(key, options, store)
        replica.options = options
        return replica


def positions() -> dict[Replica, tuple[float, int]]:
    """Generation and position of the replicas that this process has open.

    They may have come further already, never less far.
    """
    return {
        replica: (replica._side.generation, replica._side.number)
        for replica in list(_replicas.values())
        if replica._is_ready and replica._side is not None
    }


def open_replica(path: Path) -> Replica | None:
    """The replica at ``path``, if this process has used it."""
    return _replicas.get(path.resolve())


def forget_replica(path: Path) -> None:
    """Close the replica at ``path``, which nobody uses any more."""
    if (replica := _closed(path)) is not None:
        replica.retire()


def drop_replica(path: Path) -> None:
    """Delete the replica at ``path``, which other processes may have open.

    They notice when they use it, and do not find its database. The side file
    stays, for they could not agree by two.
    """
    replica, side_path = _closed(path), _side_path(path)
    if replica is None and not side_path.exists():
        delete_file(path)
        return
    side = SideFile(side_path) if replica is None else replica.side
    with side.opening.held(OPEN_TIMEOUT):
        delete_file(path)
        side.reset(0.0)
    if replica is None:
        side.close()
    else:
        replica.retire(delete_side=False)


def _closed(path: Path) -> Replica | None:
    """The replica at ``path``, closed: this process has none there now."""
    with _replicas_lock:
        replica = _replicas.pop(path.resolve(), None)
    if replica is not None:
        if replica.on_forget is not None:
            replica.on_forget()
        replica.close()
    return replica


def _before_fork() -> None:
    for replica in list(_replicas.values()):
        replica.before_fork()


def _after_fork_in_parent() -> None:
    for replica in list(_replicas.values()):
        replica.after_fork_in_parent()


def _after_fork_in_child() -> None:
    global _replicas_lock
    _replicas_lock = threading.Lock()
    for replica in list(_replicas.values()):
        replica.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
