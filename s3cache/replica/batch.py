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


class Committer:
    """The queue of one replica in this process.

    The first caller commits for all that wait with it: there is no thread
    that a fork could lose. ``commit`` runs the protocol for a batch.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Request]], None],
        timeout: Callable[[], float],
    ) -> None:
        self._commit = commit
        self._timeout = timeout
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._complete = threading.Condition(lock)
        self._busy = False
        self._waiting: list[Request] = []
        self._expected = 0
        self._spent = 0.0

    def submit(self, request: Request) -> Any:
        """Have ``request`` committed; return its outcome or raise its error.

        Raises ``OperationalError`` if its turn does not come in time; then
        it has not been run.
        """
        batch = self._join(request)
        if batch is not None:
            self._lead(batch)
        if request.error is not None:
            raise request.error
        return request.outcome

    def _join(self, request: Request) -> list[Request] | None:
        """Wait for the outcome, or return the batch that is ours to lead."""
        with self._changed:
            self._waiting.append(request)
            patience = 2 * self._timeout()
            deadline = time.monotonic() + patience
            while True:
                if request.done:
                    return None
                if not self._busy:
                    break
                left = deadline - time.monotonic()
                # Once in a batch, only its end tells what happened.
                if left <= 0 and request in self._waiting:
                    self._waiting.remove(request)
                    raise OperationalError(
                        f"database is locked: other commits took {patience:g} "
                        f"s. Nothing of this one was done."
                    )
                self._changed.wait(max(left, 0.05))
            self._busy = True
            try:
                self._wait_for_others()
            except BaseException:
                self._busy = False
                self._waiting.remove(request)
                self._changed.notify_all()
                raise
            batch, self._waiting = self._waiting, []
        return batch

    def _wait_for_others(self) -> None:
        deadline = time.monotonic() + self._spent / 2
        while len(self._waiting) < self._expected:
            before = len(self._waiting)
            self._complete.wait(min(self._spent / 10, _MAX_PAUSE))
            if len(self._waiting) == before or time.monotonic() >= deadline:
                return

    def _lead(self, batch: list[Request]) -> None:
        started = time.monotonic()
        try:
            self._commit(batch)
        except (DatabaseError, sqlite3.Error) as error:
            for request in batch:
                # Each caller's thread raises, and adds its traceback to, an
                # exception of its own.
                request.outcome, request.error = None, copy.copy(error)
        except BaseException:
            # Whatever it is, a time limit perhaps or a bug: it may have come
            # after the commit.
            for request in batch:
                request.outcome = None
                request.error = CommitOutcomeUnknown(
                    "The thread that committed for several callers was "
                    "interrupted: read before you write again.",
                    position=0,
                    token="",
                )
            raise
        finally:
            with self._changed:
                self._spent = time.monotonic() - started
                self._expected = len(batch) + len(self._waiting)
                for request in batch:
                    request.done = True
                self._busy = False
                self._changed.notify_all()
