"""Group commit: callers that wait together are committed together."""

from __future__ import annotations

import copy
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from django.db import DatabaseError, OperationalError

from s3cache.exceptions import CommitOutcomeUnknown
from s3cache.log.effects import Staged
from s3cache.replica.requests import Request, Stage, TransactionEnded
from s3cache.replica.writer import Uncaptured, Writer

logger = logging.getLogger("s3cache.replica")

#: After a batch with several callers the next one waits for as many to come
#: back: as long as one more comes in each tenth of the time that the last
#: commit took (at most so many seconds), and for half of it at most. Whoever
#: misses a batch waits for a whole PUT; with less patience half of the
#: callers sit out every other one.
_MAX_PAUSE = 0.01


def stage_batch(writer: Writer, batch: Sequence[Request]) -> Staged:
    """Run the members in turn, see what they changed, and roll it back."""
    statements = [one for request in batch for one in request.statements()]
    tables = [name for request in batch for name in request.tables()]
    left = list(batch)
    while True:
        position = writer.begin(statements, tables)
        try:
            stage = Stage(writer, position)
            for request in left:
                request.attempt(stage)
            return Staged(position, writer.changes(), len(batch))
        except TransactionEnded as ended:
            # It keeps its error; the others are run again without it.
            left.remove(ended.request)
        except Uncaptured as missed:
            if missed.tables <= set(tables):
                raise
            tables.extend(missed.tables)
        finally:
            writer.rollback()


class _Member:
    """A request in the queue, and what wakes the thread that waits for it."""

    __slots__ = ("_signal", "done", "leads", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.leads = False
        self.done = False
        self._signal = threading.Lock()
        self._signal.acquire()

    def wait(self, seconds: float) -> None:
        """Wait for ``wake``, at most so long; a negative number: for ever."""
        self._signal.acquire(timeout=seconds)

    def wake(self) -> None:
        """Have ``wait`` return; called once for each reason to."""
        self._signal.release()


class Committer:
    """The queue of one replica in this process.

    One of the callers commits for all that wait with it: there is no thread
    that a fork could lose. ``commit`` runs the protocol for a batch. Then
    exactly those threads are woken that have something to do: the batch's,
    and one that leads the next. A condition variable would have them all
    queue for its lock, which costs as much as the rest of a commit.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Request]], None],
        timeout: Callable[[], float],
    ) -> None:
        self._commit = commit
        self._timeout = timeout
        self._lock = threading.Lock()
        self._complete = threading.Condition(self._lock)
        self._busy = False
        self._waiting: list[_Member] = []
        self._expected = 0
        self._spent = 0.0

    def submit(self, request: Request) -> Any:
        """Have ``request`` committed; return its outcome or raise its error.

        Raises ``OperationalError`` if its turn does not come in time; then
        it has not been run.
        """
        member = _Member(request)
        try:
            self._enter(member)
            self._wait(member)
        except BaseException:
            self._leave(member)
            raise
        if member.leads:
            self._lead(member)
        if request.error is not None:
            raise request.error
        return request.outcome

    def _enter(self, member: _Member) -> None:
        with self._lock:
            self._waiting.append(member)
            if not self._busy:
                self._busy = member.leads = True
            elif len(self._waiting) == self._expected:
                self._complete.notify()

    def _wait(self, member: _Member) -> None:
        """Wait for the end of a batch with ``member``, or until it leads."""
        patience = 2 * self._timeout()
        deadline = time.monotonic() + patience
        while not member.done and not member.leads:
            left = deadline - time.monotonic()
            if left > 0:
                member.wait(left)
                continue
            with self._lock:
                # Once in a batch, only its end tells what happened.
                if member in self._waiting and not member.leads:
                    raise OperationalError(
                        f"database is locked: other commits took {patience:g} "
                        f"s. Nothing of this one was done."
                    )
            member.wait(-1)

    def _leave(self, member: _Member) -> None:
        with self._lock:
            if member in self._waiting:
                self._waiting.remove(member)
            if member.leads:
                self._pass_on()

    def _pass_on(self) -> None:
        """Have the next caller lead; the lock is held."""
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].wake()
        else:
            self._busy = False

    def _lead(self, leader: _Member) -> None:
        batch: list[_Member] = []
        started = time.monotonic()
        try:
            batch = self._gather()
            started = time.monotonic()
            self._commit([member.request for member in batch])
        except (DatabaseError, sqlite3.Error) as error:
            for member in batch:
                # Each caller's thread raises, and adds its traceback to, an
                # exception of its own.
                member.request.outcome = None
                member.request.error = copy.copy(error)
        except BaseException:
            # Whatever it is, a time limit perhaps or a bug: it may have come
            # after the commit.
            for member in batch:
                member.request.outcome = None
                member.request.error = CommitOutcomeUnknown(
                    "The thread that committed for several callers was "
                    "interrupted: read before you write again.",
                    position=0,
                    token="",
                )
            raise
        finally:
            self._spent = time.monotonic() - started
            self._expected = len(batch) + len(self._waiting)
            self._leave(leader)
            for member in batch:
                member.done = True
                if member is not leader:
                    member.wake()

    def _gather(self) -> list[_Member]:
        """The members of the next batch, once they are there."""
        with self._lock:
            deadline = time.monotonic() + self._spent / 2
            while len(self._waiting) < self._expected:
                before = len(self._waiting)
                self._complete.wait(min(self._spent / 10, _MAX_PAUSE))
                if len(self._waiting) == before or time.monotonic() >= deadline:
                    break
            batch, self._waiting = self._waiting, []
        return batch
