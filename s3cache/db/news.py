"""News between hosts: a commit tells the others, and they follow at once.

A message says "the log is at n", and a host that hears it reads the entries
up to n. It is an accelerator and never an authority: reads ask the log when
``max_age`` is over, whether messages come or not.

The thread that hears does not wait for a store: following is done by a thread
of its own, which ends when it has come to where the last message was.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from django.db import OperationalError

from s3cache.bus.bus import Bus, Subscription, bus_for
from s3cache.bus.turns import Ticket, Turns
from s3cache.log.effects import Turn
from s3cache.replica import clock
from s3cache.replica.replica import Replica

__all__ = ["News", "news_of"]

logger = logging.getLogger("s3cache.bus")

PATIENCE: Final = 10.0
"""Seconds that the end of a replica waits for what is being followed."""


class News:
    """What one process tells of, and hears about, one database."""

    def __init__(self, replica: Replica, alias: str) -> None:
        self.replica = replica
        self.bus: Bus = bus_for(alias)
        #: Told, in the following thread, that entries were applied.
        self.on_followed: Callable[[], None] | None = None
        #: Numbers since the process began, for statistics.
        self.published = 0
        self.followed = 0
        self.failed = 0
        self.turns: Turns | None = None
        self._subscription: Subscription | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._wanted = 0
        self._thread: threading.Thread | None = None

    @property
    def topic(self) -> str:
        """Where commits to this database are told of; "": not known yet."""
        return self._subscription.topic if self._subscription is not None else ""

    @property
    def hears(self) -> bool:
        """Whether a commit of another host would be heard of now."""
        return self._subscription is not None and self._subscription.hears

    def listen(self, replica: Replica) -> None:
        """Be told of commits from now on; again and again costs nothing."""
        if self._pid != os.getpid():
            self._begin_anew()
        database = replica.position().database
        topic = f"s3cache:log:{{{database}}}"
        if self.topic == topic:
            self.bus.listen()
            return
        self.end()
        self._subscription = self.bus.subscribe(topic, self._heard, self._missed)
        self.turns = Turns(self.bus, database, replica.host, self._other_writes)

    def end(self) -> None:
        """Hear nothing more."""
        subscription, turns = self._subscription, self.turns
        self._subscription = self.turns = None
        if subscription is not None:
            subscription.end()
        if turns is not None:
            turns.end()

    def wait(self, seconds: float) -> None:
        """Wait, so long at most, until nothing that was heard is followed."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def publish(self, number: int) -> None:
        """Tell the others of entry ``number``; never waits, never raises."""
        if self.topic:
            self.published += 1
            self.bus.publish(self.topic, b"%d" % number)

    def take_turn(self, patience: float) -> Turn | None:
        """Wait for this host's turn to write."""
        if self.turns is None:
            return None
        ticket = self.turns.take(patience)
        return None if ticket is None else _TakenTurn(self.turns, ticket, self.replica)

    def _other_writes(self) -> None:
        self.replica.side.remember("foreign_at", clock.now())

    # In the hearing thread

    def _missed(self) -> None:
        """What was missed is asked for by the next read after ``max_age``."""

    def _heard(self, message: bytes) -> None:
        number = int(message)
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._subscription is None or self.replica.side.number >= number:
                return
            self._wanted = max(self._wanted, number)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._follow, name="s3cache-follow", daemon=True
                )
                self._thread.start()

    # In the following thread

    def _follow(self) -> None:
        while True:
            with self._lock:
                wanted, self._wanted = self._wanted, 0
                if self._subscription is None or self.replica.side.number >= wanted:
                    self._thread = None
                    return
            try:
                self.replica.advance(wanted)
                self.followed += 1
                if self.on_followed is not None:
                    self.on_followed()
            except (OperationalError, sqlite3.Error) as error:
                # The next read asks, and is told.
                self.failed += 1
                logger.info("%s was not followed: %s", self.replica.store.name, error)
            except Exception:
                self.failed += 1
                logger.exception("%s was not followed", self.replica.store.name)


class _TakenTurn(Turn):
    """A turn that is passed on with where the replica is then."""

    def __init__(self, turns: Turns, ticket: Ticket, replica: Replica) -> None:
        self._turns = turns
        self._ticket = ticket
        self._replica = replica
        self.number = ticket.number

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._turns.pass_on(self._ticket, self._replica.side.number)


_news: dict[Path, News] = {}


def news_of(replica: Replica) -> News | None:
    """Return the news of a replica whose database has a Redis, or None.

    One object per replica and process; another alias makes another one.
    """
    alias = replica.options.redis
    news = _news.get(replica.path)
    if news is not None and (news.replica is not replica or news.bus.alias != alias):
        end_news(replica)
        news = None
    if news is None and alias is not None:
        news = _news.setdefault(replica.path, News(replica, alias))
        replica.on_use = news.listen
        replica.take_turn = news.take_turn
        replica.on_forget = lambda: end_news(replica)
        if replica.is_open:
            news.listen(replica)
    return news


def end_news(replica: Replica) -> None:
    """Tell nobody of this replica's commits, and hear of no others."""
    news = _news.pop(replica.path, None)
    if news is not None:
        news.end()
        news.wait(PATIENCE)
    replica.on_use = replica.take_turn = None
