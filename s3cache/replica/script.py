"""The statements of a block, and running them again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from s3cache.exceptions import TransactionConflict
from s3cache.replica.capture import Uncaptured
from s3cache.replica.results import Result, Seen
from s3cache.replica.sql import Kind, kind_of, savepoint_name, words


@dataclass(frozen=True, slots=True)
class Step:
    """A statement that a block ran, and what it was told."""

    sql: str
    params: Any
    many: bool
    seen: Seen


class Script:
    """What a block has done so far.

    Between the statements there was Python code that knew nothing but their
    results. If they say the same on a newer state, it would have decided the
    same, and the block may be committed there.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def note(self, sql: str, params: Any, many: bool, seen: Seen) -> None:
        """Add a statement."""
        self.steps.append(Step(sql, params, many, seen))

    def replay(self, execute: Callable[[str, Any, bool], Result]) -> None:
        """Run all statements again by ``execute``.

        Raises ``TransactionConflict`` for the first that says something else,
        and ``sqlite3.IntegrityError`` if one now breaks a constraint that it
        did not: callers such as ``get_or_create`` know what to do then. But
        not for one in a savepoint: whoever would have dealt with that error
        has been told that all went well, and has gone on.
        """
        savepoints: list[str] = []
        for step in self.steps:
            _follow(savepoints, step.sql)
            try:
                seen = Seen(execute(step.sql, step.params, step.many))
            except Uncaptured:
                raise  # it is not an answer: the caller captures more, and repeats
            except sqlite3.IntegrityError as error:
                if step.seen.error is None and not savepoints:
                    raise
                seen = Seen(None, error)
            except sqlite3.Error as error:
                seen = Seen(None, error)
            if not step.seen.matches(seen):
                raise TransactionConflict(
                    f"Another commit changed what this transaction has read or "
                    f"written; nothing of it was committed. The first statement "
                    f"with another result: {step.sql[:200]}"
                )
            # The caller has seen the first result, and not this one.
            step.seen.hand_over(seen)


def _follow(savepoints: list[str], sql: str) -> None:
    """Keep the names of the open savepoints up to date."""
    if kind_of(sql) is not Kind.TRANSACTION:
        return
    name, verb = savepoint_name(sql), words(sql, 1)[0]
    if verb == "SAVEPOINT":
        savepoints.append(name)
    elif verb == "RELEASE" and name in savepoints:
        del savepoints[len(savepoints) - 1 - savepoints[::-1].index(name) :]
