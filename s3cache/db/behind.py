"""Writing behind: the outbox of a database on this host, and sending it.

A thread sends what waits, a second after the first commit came, and ends when
nothing waits any more. A read of a table that waits, and a write to it that
does not wait, send it first; so does the end of a process. Which of the
processes of a host sends is decided by a lock.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.db import NotSupportedError, OperationalError

from s3cache.log.drive import drive
from s3cache.log.effects import Effect, Held
from s3cache.log.outbox import (
    HoldOutbox,
    Mark,
    Newest,
    NextCommits,
    OldCopy,
    Park,
    Part,
    Sent,
    Settle,
    Submit,
    send,
)
from s3cache.replica import clock
from s3cache.replica.outbox import (
    ALL_TABLES,
    CREATE_MARKS,
    MARKS,
    Command,
    Outbox,
    OutboxRequest,
    Waiting,
    bits_of,
)
from s3cache.replica.side_file import ProcessLock
from s3cache.replica.sql import Kind, kind_of, quote

if TYPE_CHECKING:
    from s3cache.replica.replica import Replica
    from s3cache.replica.script import Step

__all__ = ["Behind", "Sent", "behind_of"]

logger = logging.getLogger("s3cache.replica")

#: Seconds that commits wait for others to be sent with.
INTERVAL: Final = 1.0

#: Seconds between attempts while the store is down; the last repeats.
PAUSES: Final = (1.0, 2.0, 5.0, 10.0)

#: Seconds for which a read does not try again what has just failed.
RETRY_AFTER: Final = 1.0


class Behind:
    """The outbox of one replica, as this process uses it."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        path = replica.path
        self.outbox = Outbox(
            path.with_name(f"{path.name}-outbox"), lambda: replica.side
        )
        #: Numbers since the process began, for statistics.
        self.taken = 0
        self.sent = 0
        self.parked = 0
        self.failures = 0
        self._thread_of = 0
        self._lock = threading.Lock()
        self._retry_at = 0.0
        self._marked = ""
        """The database that is known to have them."""

    # Taking commits

    def take(self, steps: Sequence[Step]) -> None:
        """Take what a block has done; it is safe when this returns."""
        commands = [
            (one.sql, one.params, one.many)
            for one in steps
            if one.seen.error is None and kind_of(one.sql) is not Kind.READ
        ]
        tables = self._tables_of(commands)
        if not tables:
            return
        self._check(tables)
        self.outbox.append(self.replica.position().database, tables, commands)
        self.taken += 1
        self.send_soon()

    def _tables_of(self, commands: Iterable[Command]) -> set[str]:
        found: set[str] = set()
        for sql, params, many in commands:
            if kind_of(sql) in (Kind.WRITE, Kind.EITHER):
                first = (params[0] if params else ()) if many else params
                found |= self.replica.analyser.access(sql, first or ()).writes
        return {name for name in found if not name.startswith("sqlite_")}

    def _check(self, tables: Iterable[str]) -> None:
        """Refuse what could only be found wrong when it is too late."""
        reader = self.replica.new_reader()
        try:
            for table in tables:
                indexes = reader.execute(f"PRAGMA index_list({quote(table)})", ()).rows
                for _number, name, unique, origin, _partial in indexes:
                    if unique and origin != "pk":
                        raise NotSupportedError(
                            f"{table} cannot be written behind: whether the values "
                            f"of {name} are unique is not known before the commit "
                            f"is sent, and then nobody is there to be told."
                        )
        finally:
            self.replica.give_back(reader)

    # Sending

    def is_pending(self, tables: Iterable[str]) -> bool:
        """Whether one of these tables may have commits that wait."""
        pending = self.replica.side.pending
        return bool(pending) and bool(int(pending) & bits_of(tables))

    def send_for(self, tables: Iterable[str], *, must: bool) -> None:
        """Send what waits, if it is about these tables.

        A reader does not fail for it (``must``): while the store is down it
        gets what it would get anyway.
        """
        if not self.is_pending(tables):
            return
        if not must and clock.now() < self._retry_at:
            self.replica.events.count(("stale_reads", ""))
            return
        try:
            self.send()
        except (OperationalError, sqlite3.Error) as error:
            if must:
                raise
            self._retry_at = clock.now() + RETRY_AFTER
            self.replica.events.count(("stale_reads", ""))
            logger.warning("%s: read without the outbox: %s", self.outbox.path, error)

    def send(self) -> Sent:
        """Send all that waits now, in order; raises what a commit raises.

        Waits for another process that is at it, as long as that one gets on:
        ``OperationalError`` if it sends nothing for ``commit_timeout``.
        """
        patience = self.replica.options.commit_timeout
        while True:
            oldest = self.outbox.oldest()
            try:
                turn = self._take_turn(patience)
            except OperationalError:
                if self.outbox.oldest() == oldest:
                    raise
            else:
                return self._send(turn)

    def try_to_send(self) -> Sent | None:
        """The same; None: another process or thread is at it."""
        try:
            turn = self._take_turn(0.0)
        except OperationalError:
            return None
        return self._send(turn)

    def _take_turn(self, patience: float) -> Held:
        flushing = self.replica.side.flushing
        flushing.acquire(patience)
        return _released(flushing)

    def _send(self, turn: Held) -> Sent:
        done = Sent()
        try:
            if self.outbox.newest():
                # Perhaps nobody reads or writes here for long.
                self.replica.follow_file()
            drive(send(done), _Sending(self, turn).perform)
            self.outbox.recount()
        except (OperationalError, sqlite3.Error):
            self.failures += 1
            raise
        finally:
            self.sent += done.commits
            self.parked += done.parked
        return done

    def make_marks(self, database: str) -> None:
        """See to it that the database can say what has been sent."""
        if self._marked == database:
            return
        reader = self.replica.new_reader()
        try:
            known = "SELECT 1 FROM main.sqlite_master WHERE name = ?"
            if not reader.execute(known, [MARKS]).rows:
                self.replica.catch_up()
                block = self.replica.new_block(reader)
                try:
                    block.execute(CREATE_MARKS, ())
                    block.commit()
                finally:
                    block.rollback()
        finally:
            self.replica.give_back(reader)
        self._marked = database

    def forget_marks(self) -> None:
        """Have ``make_marks`` look again."""
        self._marked = ""

    # The thread

    def send_soon(self) -> None:
        """Have all that waits sent, a moment from now."""
        if self._thread_of == os.getpid():
            return
        with self._lock:
            if self._thread_of == os.getpid():
                return
            self._thread_of = os.getpid()
        # Not a daemon: a process that ends sends its outbox first, once.
        thread = threading.Thread(target=self._wait_and_send, name="s3cache-flush")
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is ending
            self._thread_of = 0
            logger.info("%s is sent by another process: %s", self.outbox.path, error)

    def _wait_and_send(self) -> None:
        main, failed = threading.main_thread(), 0
        while True:
            main.join(PAUSES[min(failed, len(PAUSES)) - 1] if failed else INTERVAL)
            is_last = not main.is_alive()
            try:
                self.try_to_send()
                failed = 0
            except (OperationalError, sqlite3.Error) as error:
                failed += 1
                logger.warning(
                    "%s was not sent, and waits: %s", self.outbox.path, error
                )
            except Exception:
                failed += 1
                logger.exception("%s is not sent, and waits", self.outbox.path)
            if is_last or not (failed or self._goes_on()):
                return

    def _goes_on(self) -> bool:
        """Whether there is more to send, and no other thread to do it."""
        with self._lock:
            self._thread_of = 0
        # Who takes a commit from here on begins a thread.
        if not self.outbox.newest():
            return False
        with self._lock:
            if self._thread_of == os.getpid():
                return False
            self._thread_of = os.getpid()
        return True

    def recover(self) -> None:
        """Go on with what a process has left that died."""
        try:
            if self.outbox.is_empty_file() or not self.outbox.recount():
                return
        except sqlite3.Error as error:
            # A full disk, perhaps: the thread looks again and again, and so
            # does who reads, whatever it is.
            self.replica.side.remember("pending", ALL_TABLES)
            logger.warning("%s cannot be read: %s", self.outbox.path, error)
        self.send_soon()

    def after_fork_in_child(self) -> None:
        """Have no thread, and no lock of the parent's."""
        self._lock = threading.Lock()
        self._thread_of = 0
        self.outbox.after_fork_in_child()


@contextmanager
def _released(lock: ProcessLock) -> Iterator[None]:
    """Give a lock that is held back at the end of the context."""
    try:
        yield
    finally:
        lock.release()


class _Sending:
    """Performs what sending asks for; ``turn`` is held already."""

    def __init__(self, behind: Behind, turn: Held) -> None:
        self._behind = behind
        self._outbox = behind.outbox
        self._turn = turn
        self._performers: dict[type, Callable[[Any], Any]] = {
            HoldOutbox: lambda _effect: self._turn,
            Newest: lambda _effect: self._outbox.newest(),
            NextCommits: lambda _effect: self._outbox.waiting(),
            Submit: self._submit,
            Settle: self._settle,
            Park: lambda effect: self._park(effect.number, effect.error),
            Part: self._part,
        }

    def perform(self, effect: Effect) -> Any:
        return self._performers[type(effect)](effect)

    def _submit(self, effect: Submit[Waiting]) -> Mark | OldCopy | None:
        behind, database = self._behind, effect.commits[0].database
        outcome: Mark | OldCopy | None
        while True:
            if behind.replica.position().database == database:
                behind.make_marks(database)
            request = OutboxRequest(self._outbox.outset(), effect.commits)
            try:
                outcome = behind.replica.submit(request)
            except sqlite3.OperationalError as error:
                # Was it put back to what it was before it had any?
                if f"no such table: main.{MARKS}" not in str(error):
                    raise
                behind.forget_marks()
            else:
                return outcome

    def _settle(self, effect: Settle) -> None:
        self._outbox.settle(effect.mark)
        for number, error in effect.mark.parked:
            self._tell(number, error)

    def _park(self, number: int, error: str) -> None:
        self._outbox.park(number, error)
        self._tell(number, error)

    def _part(self, effect: Part) -> int:
        parked = self._outbox.part(effect.error)
        logger.error("%s: %s", self._outbox.path, effect.error)
        return len(parked)

    def _tell(self, number: int, error: str) -> None:
        logger.error("Commit %d of %s: %s", number, self._outbox.path, error)


_all: dict[Path, Behind] = {}
_all_lock = threading.Lock()


def behind_of(replica: Replica) -> Behind:
    """Return the outbox of a replica; one object per replica and process."""
    found = _all.get(replica.path)
    if found is not None and found.replica is replica:
        return found
    with _all_lock:
        found = _all.get(replica.path)
        if found is not None and found.replica is replica:
            return found
        if found is not None:
            found.outbox.close()
        made = _all[replica.path] = Behind(replica)
    made.recover()
    return made


def forget_behind(path: Path) -> None:
    """Close the outbox of a replica, and delete it."""
    found = _all.pop(path.resolve(), None)
    if found is not None:
        found.outbox.close()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(f"{path.name}-outbox{suffix}").unlink(missing_ok=True)


def _before_fork() -> None:
    for one in list(_all.values()):
        one.outbox.before_fork()


def _after_fork_in_parent() -> None:
    for one in list(_all.values()):
        one.outbox.after_fork_in_parent()


def _after_fork_in_child() -> None:
    global _all_lock
    _all_lock = threading.Lock()
    for one in list(_all.values()):
        one.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
