"""The statements that are read most often, and the slowest reads.

Only what is asked of `Statements` comes here: hits of the hot path need no
statement. Parameters are never kept. Both tables are bounded.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Final

from s3cache import conf

__all__ = ["MOST_SLOW", "MOST_STATEMENTS", "Queries", "Slow", "Statement", "queries"]

#: So many statements are known; the least read half goes when they are more.
MOST_STATEMENTS: Final = 500

#: So many slow reads are known: the newest.
MOST_SLOW: Final = 200

#: Characters of a statement that are kept.
_LONGEST: Final = 2_000


@dataclass(slots=True)
class Statement:
    """What became of the reads by one statement, in seconds in all."""

    database: str
    label: str
    action: str
    sql: str
    tables: tuple[str, ...]
    events: dict[str, int] = field(default_factory=dict)
    cache_seconds: float = 0.0
    db_seconds: float = 0.0

    @property
    def number(self) -> int:
        """How often it was read."""
        return sum(self.events.values())

    def since(self, before: Statement | None) -> Statement:
        """What was read since it was like that.

        If it was read more often then, it was forgotten in between.
        """
        if before is None or before.number > self.number:
            return self
        return replace(
            self,
            events={
                event: number - before.events.get(event, 0)
                for event, number in self.events.items()
            },
            cache_seconds=self.cache_seconds - before.cache_seconds,
            db_seconds=self.db_seconds - before.db_seconds,
        )


@dataclass(frozen=True, slots=True)
class Slow:
    """One read that took long; ``at`` is in epoch seconds."""

    database: str
    sql: str
    tables: tuple[str, ...]
    was_kept: bool
    seconds: float
    rows: int
    at: float


class Queries:
    """Those of one process, for all its threads."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Know of none."""
        self._lock = threading.Lock()
        self._statements: dict[tuple[str, str], Statement] = {}
        self._slow: list[Slow] = []
        self._slow_number = 0

    def note(
        self,
        database: str,
        label: str,
        action: str,
        sql: str,
        tables: tuple[str, ...],
        event: str,
        seconds: float,
        rows: int,
    ) -> None:
        """A read was answered; ``event`` is one of the first four."""
        was_kept = event in ("hit", "wait")
        key = database, sql
        with self._lock:
            one = self._statements.get(key)
            if one is None:
                self._make_room()
                one = Statement(database, label, action, sql[:_LONGEST], tables)
                self._statements[key] = one
            one.events[event] = one.events.get(event, 0) + 1
            if was_kept:
                one.cache_seconds += seconds
            else:
                one.db_seconds += seconds
        if seconds >= conf.settings().slow_query:
            slow = Slow(
                database, sql[:_LONGEST], tables, was_kept, seconds, rows, time.time()
            )
            with self._lock:
                self._slow = [*self._slow[1 - MOST_SLOW :], slow]
                self._slow_number += 1

    def _make_room(self) -> None:
        known = self._statements
        if len(known) < MOST_STATEMENTS:
            return
        kept = heapq.nlargest(
            MOST_STATEMENTS // 2, known.items(), key=lambda one: one[1].number
        )
        self._statements = dict(kept)

    def statements(self) -> dict[tuple[str, str], Statement]:
        """What is known of each, as it is now, by database and statement."""
        with self._lock:
            return {
                key: replace(one, events=one.events.copy())
                for key, one in self._statements.items()
            }

    def slow(self, after: int = 0) -> tuple[int, list[Slow]]:
        """How many slow reads there were, and those after the first so many.

        The newest of them, the oldest first.
        """
        with self._lock:
            number = self._slow_number
            new = number if number < after else number - after
            return number, self._slow[max(len(self._slow) - new, 0) :]


#: Those of this process.
queries = Queries()

os.register_at_fork(after_in_child=queries.clear)
