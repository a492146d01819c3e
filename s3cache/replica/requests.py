"""What callers want to have committed: the members of a batch."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from s3cache.log.effects import Position
from s3cache.replica import meta
from s3cache.replica.absent import NotLoaded
from s3cache.replica.delta import Delta
from s3cache.replica.meta import Touched
from s3cache.replica.results import Result
from s3cache.replica.script import Script
from s3cache.replica.sql import quote
from s3cache.replica.writer import Uncaptured, Writer


@dataclass(frozen=True, slots=True)
class Base:
    """The state that a block's decisions rest on."""

    generation: str
    number: int


class TransactionEnded(Exception):
    """SQLite rolled all back: OR ROLLBACK, a full disk, an I/O error."""

    def __init__(self, request: Request) -> None:
        super().__init__("a statement ended the transaction of its batch")
        self.request = request


class Stage:
    """One attempt to run a batch, at one position, on the writer."""

    def __init__(self, writer: Writer, position: Position) -> None:
        self.writer = writer
        self.position = position
        self._since: dict[Base, list[Touched] | None] = {}

    def touched_since(self, base: Base) -> list[Touched] | None:
        """What was committed after ``base``; None if that is not known."""
        if base not in self._since:
            connection = self.writer.connection
            generation, number = meta.read_generation(connection)
            recent = None
            if generation == base.generation and base.number <= number:
                recent = meta.read_recent(connection, base.number, number)
            self._since[base] = (
                None if recent is None else [entry.touched for entry in recent]
            )
        return self._since[base]

    def touched_by_members(self, names: Iterable[str]) -> Touched:
        """What the members of the batch before this one changed."""
        keys = {}
        for name in names:
            if name in self.writer.touched:
                table = self.writer.capture.tables[name]
                keys[name] = frozenset(self.writer.capture.changed_keys(table))
        return Touched(keys)


class Request(ABC):
    """A member of a batch.

    ``outcome`` is set by each attempt; it is released to the caller when the
    batch has been committed.
    """

    outcome: Any = None
    error: Exception | None = None
    done: bool = False

    def statements(self) -> Sequence[tuple[str, Any]]:
        """The statements whose writes have to be captured."""
        return ()

    def tables(self) -> Sequence[str]:
        """The tables, besides, whose writes have to be captured."""
        return ()

    @abstractmethod
    def run(self, stage: Stage) -> Any:
        """Do it on the stage; raise what the caller is to be told."""

    def attempt(self, stage: Stage) -> None:
        """Run within a savepoint, so that an error leaves nothing behind."""
        writer = stage.writer
        connection = writer.connection
        before = set(writer.touched)
        connection.execute("SAVEPOINT s3cache_member")
        self.outcome, self.error = None, None
        try:
            self.outcome = self.run(stage)
        except (Uncaptured, NotLoaded):
            raise
        except Exception as error:
            self.error = error
            if not connection.in_transaction:
                raise TransactionEnded(self) from error
            connection.execute("ROLLBACK TO s3cache_member")
            writer.touched = before
        connection.execute("RELEASE s3cache_member")


@dataclass
class StatementRequest(Request):
    """Statements in autocommit mode; the outcome is the last one's result."""

    commands: Sequence[tuple[str, Any, bool]]
    check_foreign_keys: bool = True

    def statements(self) -> Sequence[tuple[str, Any]]:
        return [
            (sql, (params[0] if params else ()) if many else params)
            for sql, params, many in self.commands
        ]

    def run(self, stage: Stage) -> Result | None:
        result = None
        for sql, params, many in self.commands:
            result = stage.writer.execute(
                sql, params, many=many, run_actions=self.check_foreign_keys
            )
        if self.check_foreign_keys:
            stage.writer.check_foreign_keys()
        return result


@dataclass
class BlockRequest(Request):
    """An ``atomic()`` block that is done."""

    base: Base
    delta: Delta
    script: Script
    check_foreign_keys: bool = True
    always_replay: bool = False
    run_actions: bool = True
    #: What is reserved by the same entry; each then has its outcome.
    ahead: Sequence[ReserveIds] = ()

    def tables(self) -> Sequence[str]:
        return self.delta.names()

    def run(self, stage: Stage) -> None:
        self._lay_or_replay(stage)
        for reservation in self.ahead:
            reservation.outcome = reservation.run(stage)

    def _lay_or_replay(self, stage: Stage) -> None:
        if self.always_replay or self._was_overtaken(stage):
            self._replay(stage)
            return
        writer = stage.writer
        before = set(writer.touched)
        writer.connection.execute("SAVEPOINT s3cache_block")
        try:
            writer.touched.update(self.delta.names())
            self.delta.lay(writer.connection)
            if self.check_foreign_keys:
                writer.check_foreign_keys()
        except sqlite3.IntegrityError:
            # It clashes with a row of somebody else's: let the statements
            # themselves say what that means.
            writer.connection.execute("ROLLBACK TO s3cache_block")
            writer.touched = before
            self._replay(stage)
        writer.connection.execute("RELEASE s3cache_block")

    def _was_overtaken(self, stage: Stage) -> bool:
        since = stage.touched_since(self.base)
        if since is None or any(map(self.delta.meets, since)):
            return True
        return self.delta.meets(stage.touched_by_members(self.delta.names()))

    def _replay(self, stage: Stage) -> None:
        writer = stage.writer
        self.script.replay(
            lambda sql, p, many: writer.execute(
                sql, p, many=many, run_actions=self.run_actions
            )
        )
        if self.check_foreign_keys:
            writer.check_foreign_keys()


@dataclass
class ReserveIds(Request):
    """A range of AUTOINCREMENT ids; the outcome is the range."""

    table: str
    column: str
    count: int
    above: int = 0
    #: The entry that reset the ids last, as far as the batch can see.
    reset_at: int = 0

    def run(self, stage: Stage) -> range:
        connection = stage.writer.connection
        self.reset_at = meta.read_ids_reset_at(connection)
        stage.writer.check_loaded([self.table])
        stage.writer.touched.add("sqlite_sequence")
        largest = connection.execute(
            f"SELECT max({quote(self.column)}) FROM main.{quote(self.table)}"
        ).fetchone()[0]
        row = connection.execute(
            "SELECT seq FROM main.sqlite_sequence WHERE name = ?", [self.table]
        ).fetchone()
        start = max(largest or 0, row[0] if row else 0, self.above) + 1
        stop = start + self.count
        if row:
            connection.execute(
                "UPDATE main.sqlite_sequence SET seq = ? WHERE name = ?",
                [stop - 1, self.table],
            )
        else:
            connection.execute(
                "INSERT INTO main.sqlite_sequence (name, seq) VALUES (?, ?)",
                [self.table, stop - 1],
            )
        return range(start, stop)
