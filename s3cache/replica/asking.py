"""When the store is asked for news, and who waits for the answer."""

from __future__ import annotations

import copy
import logging
import math
import sqlite3
import threading
from typing import TYPE_CHECKING

from django.db import OperationalError

from s3cache.exceptions import LogDiverged, StoreError
from s3cache.replica import clock

if TYPE_CHECKING:
    from s3cache.replica.replica import Replica

logger = logging.getLogger("s3cache.replica")

#: Seconds for which a store that failed is not asked again by reads; longer
#: if it took longer to fail, or they would do nothing but wait.
RETRY_AFTER = 1.0

#: A read that finds this share of ``max_age`` gone has the store asked in the
#: background: on a busy host nobody waits for it.
AHEAD = 0.9


class Asking:
    """The questions of one replica in this process: one for all who wait."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._retry_at = 0.0
        #: The last question that nobody could go on without: when it began,
        #: and why it failed.
        self._failure: tuple[float, Exception | None] = (0.0, None)
        #: Held by the thread that asks.
        self.lock = threading.Lock()

    def ask_if_due(self, max_age: float) -> None:
        """Ask if what is known is older than ``max_age``, in seconds.

        While the store is down, or another process changes the schema, it
        may become ``stale_if_error`` seconds older than that.
        """
        age = self._age()
        if age < max_age * AHEAD:
            return
        if age < max_age:
            self._ask_ahead(max_age)
            return
        # Whoever waits for another caller's question to be answered needs no
        # answer of its own if that was asked after it came: with `max_age` 0,
        # all that wait share the next question, instead of asking in turn. So
        # they do if it fails, which takes longer.
        came_at = clock.now()
        oldest = came_at - max_age
        with self.lock:
            if self._asked_before(oldest):
                failed_at, error = self._failure
                if error is not None and failed_at >= came_at:
                    raise copy.copy(error)
                self._ask(max_age, oldest)

    def expect_news(self, max_age: float | None = None) -> None:
        """Make the next read ask the store, if the store can be reached.

        ``max_age`` is that of the read in seconds, None: the database's.
        """
        side, options = self._replica.side, self._replica.options
        asked_at = side.asked_at
        if asked_at:
            due = clock.now() - (options.max_age if max_age is None else max_age)
            side.remember("asked_at", min(asked_at, due))

    def _age(self) -> float:
        """Seconds since the store was last asked with success."""
        asked_at = self._replica.side.asked_at
        return clock.now() - asked_at if asked_at else math.inf

    def _asked_before(self, moment: float) -> bool:
        """Whether the store was asked with success before ``moment``."""
        asked_at = self._replica.side.asked_at
        return not asked_at or asked_at <= moment

    def _ask_ahead(self, max_age: float) -> None:
        """Ask in a thread, so that the answer is there when it is needed.

        The thread ends with the answer: none is left to be lost in a fork.
        """
        if self.lock.acquire(blocking=False):
            try:
                thread = threading.Thread(
                    target=self._ask_and_release,
                    args=(max_age, self.lock),
                    name="s3cache-ask",
                    daemon=True,
                )
                thread.start()
            except BaseException:
                self.lock.release()
                raise

    def _ask_and_release(self, max_age: float, lock: threading.Lock) -> None:
        try:
            self._ask(max_age, clock.now() - max_age * AHEAD)
        except (OperationalError, sqlite3.Error) as error:
            # The next read asks again, and is told.
            store = self._replica.store.name
            logger.info("%s could not be asked ahead: %s", store, error)
        finally:
            lock.release()

    def _ask(self, max_age: float, oldest: float) -> None:
        """Ask the store, unless another process has since ``oldest``."""
        replica = self._replica
        age = self._age()
        may_be_stale = age < max_age + replica.options.stale_if_error
        if may_be_stale and clock.now() < self._retry_at:
            replica.events.count(("stale_reads", ""))
            return
        began_at = clock.now()
        try:
            with replica.side.asking.held(replica.options.commit_timeout):
                if self._asked_before(oldest):
                    replica.catch_up()
            if replica.on_use is not None:
                replica.on_use(replica)
        except LogDiverged:
            raise
        except (OperationalError, sqlite3.OperationalError) as error:
            if not may_be_stale:
                # Each caller's thread adds its traceback to one of its own.
                self._failure = began_at, copy.copy(error)
                raise
            replica.events.count(("stale_reads", ""))
            now = clock.now()
            self._retry_at = now + max(RETRY_AFTER, now - began_at)
            level = logging.ERROR if isinstance(error, StoreError) else logging.WARNING
            logger.log(
                level,
                "%s answers from what it knew %.1f s ago: %s",
                replica.path.name,
                age,
                error,
            )
