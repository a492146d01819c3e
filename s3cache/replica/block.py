"""``atomic()`` blocks: a snapshot to read, a delta to write."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import NotSupportedError, OperationalError

from s3cache.exceptions import TransactionConflict
from s3cache.replica import clock, meta
from s3cache.replica.absent import NotLoaded
from s3cache.replica.capture import Uncaptured
from s3cache.replica.delta import Delta
from s3cache.replica.foreign_keys import with_children
from s3cache.replica.requests import Base, BlockRequest, ReserveIds
from s3cache.replica.results import Result, Seen
from s3cache.replica.schema_block import SchemaBlock
from s3cache.replica.script import Script, Step
from s3cache.replica.sql import Kind, kind_of, savepoint_name, why_refused, words

if TYPE_CHECKING:
    from s3cache.replica.reader import Reader
    from s3cache.replica.replica import Replica
    from s3cache.replica.writer import Writer

T = TypeVar("T")


class Block:
    """A transaction of one Django connection.

    Until its first write it reads from one snapshot. A write, and a read of
    a table that it has changed, is run on the replica's writing connection
    with the block's rows laid over the newest state. Nothing is written
    anywhere before ``commit``. Not for several threads at once.

    ``always_replay`` makes it serializable. Without ``run_actions`` what is
    deleted takes nothing along, whatever ON DELETE says. A block becomes a
    ``SchemaBlock`` with its first DDL statement.
    """

    def __init__(
        self,
        replica: Replica,
        reader: Reader,
        *,
        always_replay: bool = False,
        run_actions: bool = True,
    ) -> None:
        self._replica = replica
        self._process = os.getpid()
        self._reader = reader
        self._always_replay = always_replay
        self._run_actions = run_actions
        self._base: Base | None = None
        self._delta = Delta()
        self._script = Script()
        self._savepoints: list[tuple[str, int]] = []
        self._schema_block: SchemaBlock | None = None
        self._in_snapshot = False
        self._has_turn = False
        self._began_at = clock.now()
        self._broken: TransactionConflict | None = None
        self._ids_wanted: dict[str, int] = {}
        #: How many ids it has been given, by table and column.
        self._ids_taken: Counter[tuple[str, str]] = Counter()
        #: Its statements are run again later, whatever they say then: what it
        #: is told need not be the newest state.
        self.is_behind = False
        self.done = False

    @property
    def steps(self) -> Sequence[Step]:
        """What it has done so far; raises if it has changed the schema."""
        if self._schema_block is not None:
            raise NotSupportedError("A change of the schema cannot be written behind.")
        if self._broken is not None:
            raise self._broken
        return self._script.steps

    @property
    def has_looked(self) -> bool:
        """Whether it has a state that its decisions rest on."""
        return self._base is not None

    @property
    def has_changes(self) -> bool:
        """Whether the block has changed something so far."""
        return self._schema_block is not None or bool(self._delta)

    @property
    def changes_schema(self) -> bool:
        """Whether it does; then it keeps all others of the host waiting."""
        return self._schema_block is not None

    @property
    def changed_tables(self) -> set[str] | None:
        """The lower-case names of the changed tables; None: any may be."""
        if self._schema_block is not None:
            return None
        return set(self._delta.names())

    def execute(self, sql: str, params: Any, *, many: bool = False) -> Result:
        """Run a statement of the block.

        Raises what SQLite raises, and ``TransactionConflict`` if the block
        cannot be committed any more: then it can only be rolled back.
        """
        self._check_process()
        kind = kind_of(sql)
        if self._broken is not None:
            if kind is Kind.TRANSACTION:
                # If ROLLBACK TO failed, Django would roll back at the end of
                # the outer atomic() without a word.
                return Result()
            raise self._broken
        if kind is Kind.EITHER:
            access = self._replica.analyser.access(sql, params)
            kind = Kind.WRITE if access.writes else Kind.READ
        if self._changes_schema(kind, sql) and self._schema_block is None:
            self._become_schema_block()
        if self._schema_block is not None:
            return self._schema_block.execute(kind, sql, params, many=many)
        try:
            result = self._run(kind, sql, params, many)
        except sqlite3.Error as error:
            self._script.note(sql, params, many, Seen(None, error))
            raise
        if kind is not Kind.PRAGMA:
            self._script.note(sql, params, many, Seen(result))
        return result

    def _changes_schema(self, kind: Kind, sql: str) -> bool:
        if kind is Kind.SCHEMA:
            if reason := why_refused(sql):
                raise NotSupportedError(f"{sql[:100]} is not supported: {reason}.")
            return True
        # The sequences are part of the state that a delta does not have.
        return kind is Kind.WRITE and "sqlite_sequence" in sql.lower()

    def _run(self, kind: Kind, sql: str, params: Any, many: bool) -> Result:
        if kind is Kind.TRANSACTION:
            return self._savepoint(sql)
        if kind is Kind.WRITE:
            return self._write(sql, params, many)
        if kind is Kind.READ and self._delta:
            reads = self._replica.analyser.access(sql, params).reads
            if not reads.isdisjoint(self._delta.names()):
                return self._run_on_writer(sql, params, many)
        return self._read(sql, params)

    def _read(self, sql: str, params: Any) -> Result:
        def attempt() -> Result:
            self._look()
            return self._reader.execute(sql, params)

        return self.loading(attempt)

    def loading(self, attempt: Callable[[], T]) -> T:
        """What ``attempt`` reads, with all loaded that it needs.

        The snapshot does not have what is loaded, so another one is taken.
        """
        while True:
            try:
                return attempt()
            except NotLoaded as missing:
                self._replica.load_for(missing)
                self._look_again()

    def _look_again(self) -> None:
        """Take another snapshot, which has what was loaded meanwhile.

        If entries were applied meanwhile, what the block has seen has to be
        seen in the newer state as well.
        """
        if not self._in_snapshot:
            return
        before, has_seen = self._base, bool(self._script.steps)
        self._end_snapshot()
        self._base = None
        self._look()
        if has_seen and self._base != before:
            self.rebase()

    def _write(self, sql: str, params: Any, many: bool) -> Result:
        """Run a statement that writes.

        That there is nothing to write, or that it may not be written, is
        only said of a state that was the newest since the block began.
        """
        error: sqlite3.IntegrityError | None = None
        try:
            result = self._run_on_writer(sql, params, many)
            if not result.found_nothing or self.is_behind or self._is_current():
                return result
        except sqlite3.IntegrityError as found:
            if self.is_behind or self._is_current():
                raise
            error = found
        before = self._replica.position().number
        self._replica.catch_up()
        if self._replica.position().number != before:
            return self._run_on_writer(sql, params, many)
        if error is not None:
            raise error
        return result

    def _is_current(self) -> bool:
        return self._replica.side.asked_at >= self._began_at

    def _look(self) -> None:
        """Take the snapshot, if this is the block's first look at anything."""
        if self._base is None:
            self._reader.begin()
            self._in_snapshot = True
            with self._reader.held() as connection:
                self._base = Base(*meta.read_generation(connection))

    def _end_snapshot(self) -> None:
        if self._in_snapshot:
            self._in_snapshot = False
            self._reader.rollback()

    def _savepoint(self, sql: str) -> Result:
        name = savepoint_name(sql)
        verb = words(sql, 1)[0]
        if verb == "SAVEPOINT":
            self._savepoints.append((name, self._delta.mark()))
        else:
            index = self._find_savepoint(name)
            if verb == "ROLLBACK":
                self._replica.unlay(self)
                self._delta.undo_to(self._savepoints[index][1])
                del self._savepoints[index + 1 :]
            else:
                del self._savepoints[index:]
        return Result()

    def _find_savepoint(self, name: str) -> int:
        for index in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[index][0] == name:
                return index
        raise sqlite3.OperationalError(f"no such savepoint: {name}")

    def _run_on_writer(self, sql: str, params: Any, many: bool) -> Result:
        self._look()
        tries = 3
        while True:
            try:
                with self._replica.writing(self) as writer:
                    try:
                        if self._lay(writer, sql, params, many):
                            return self._run_laid(writer, sql, params, many)
                    except Uncaptured:
                        # The schema changed since the statement was looked at.
                        tries -= 1
                        if not tries:
                            raise
                        continue
            except NotLoaded as missing:
                self._replica.load_for(missing)
                continue
            # A row of the block was changed by somebody else. Done again on
            # the newest state, the block either comes to the same, or fails.
            self.rebase()

    def _run_laid(self, writer: Writer, sql: str, params: Any, many: bool) -> Result:
        writer.touched = set()
        # It is judged by the newest state, and so is what comes after it: a
        # row that an INSERT has clashed with has to be there for a SELECT,
        # or get_or_create() would find neither way.
        self._end_snapshot()
        try:
            result = writer.execute(
                sql, params, many=many, run_actions=self._run_actions
            )
            for table in writer.touched_tables():
                rows = writer.capture.read(table)
                if rows is not None:
                    self._delta.merge(table, rows)
                    writer.capture.clear([table])
        except BaseException:
            writer.rollback()
            raise
        if self._replica.side.is_sole_user():
            self._replica.watch.start()
        else:
            writer.rollback()
        return result

    def _lay(self, writer: Writer, sql: str, params: Any, many: bool) -> bool:
        """Lay the delta over the newest state; False if it does not fit."""
        first = (params[0] if params else ()) if many else params
        if writer.owner is self:
            written = with_children(
                writer.schema, writer.capture.written_by(sql, first)
            )
            if all(
                name in writer.capture.tables or writer.schema.get(name) is None
                for name in written
            ):
                return True
            writer.rollback()
        writer.begin([(sql, first)], self._delta.names())
        try:
            if self._delta:
                if self._was_overtaken(writer.connection):
                    writer.rollback()
                    return False
                try:
                    self._delta.lay(writer.connection)
                except sqlite3.IntegrityError:
                    writer.rollback()
                    return False
                writer.capture.clear(
                    writer.capture.tables[name] for name in self._delta.names()
                )
        except BaseException:
            writer.rollback()
            raise
        writer.owner = self
        return True

    def _was_overtaken(self, connection: sqlite3.Connection) -> bool:
        generation, number = meta.read_generation(connection)
        base = self._base
        if base is None or base.generation != generation or number < base.number:
            return True
        recent = meta.read_recent(connection, base.number, number)
        return recent is None or any(self._delta.meets(one.touched) for one in recent)

    def rebase(self) -> None:
        """Do all statements again on the newest state.

        Raises ``TransactionConflict`` if one of them says something else.
        Then the block has no state any more, and stays so.
        """
        script = self._restart()
        try:
            script.replay(lambda sql, p, many: self.execute(sql, p, many=many))
        except (OperationalError, sqlite3.Error) as error:
            # It belongs to a statement that has long been done.
            raise self._break(error) from error

    def _break(self, error: Exception) -> TransactionConflict:
        """Refuse to go on: the block has no state any more."""
        if not isinstance(error, TransactionConflict):
            error = TransactionConflict(
                f"What this transaction had done could not be done again, and "
                f"nothing of it was committed: {error}"
            )
        self._broken = error
        self._replica.events.count(("conflicts", ""))
        return error

    def _restart(self) -> Script:
        """Forget what was done, and return it."""
        script, self._script = self._script, Script()
        self._replica.unlay(self)
        self._end_snapshot()
        # Else it would be done again on a file that was left, for ever.
        self._replica.move(self._reader)
        self._delta = Delta()
        self._savepoints = []
        self._base = None
        return script

    def take_turn(self, *, wait: bool = True) -> None:
        """Be the only block of this host that holds rows for update.

        From then on the block reads the newest state. Raises
        ``OperationalError`` if the turn is not free in time, or at once
        without ``wait``.
        """
        if self._has_turn:
            return
        replica = self._replica
        replica.side.turn.acquire(replica.options.commit_timeout if wait else 0.0)
        self._has_turn = True
        # What is read from here on is the newest state. What was read before
        # still counts: it is compared when the block commits.
        self._end_snapshot()
        if not self._script.steps:
            self._base = None

    def _become_schema_block(self) -> None:
        script = self._restart()
        schema_block = SchemaBlock(self._replica, run_actions=self._run_actions)
        try:
            schema_block.begin(script)
        except (OperationalError, sqlite3.Error) as error:
            self._break(error)
            raise
        self._schema_block = schema_block

    def commit(self, *, check_foreign_keys: bool = True) -> None:
        """Commit what the block has changed; it is over then in any case."""
        if self.done:
            return
        if self._is_inherited():
            self.done = True
        self._check_process()
        try:
            if self._broken is not None:
                raise self._broken
            if self._schema_block is not None:
                self._schema_block.commit(check_foreign_keys=check_foreign_keys)
                return
            self._replica.unlay(self)
            self._end_snapshot()
            if self._delta and self._base is not None:
                ahead = self._ids_to_reserve()
                self._replica.submit(
                    BlockRequest(
                        base=self._base,
                        delta=self._delta,
                        script=self._script,
                        check_foreign_keys=check_foreign_keys,
                        always_replay=self._always_replay,
                        run_actions=self._run_actions,
                        ahead=ahead,
                    )
                )
                for one in ahead:
                    self._replica.ids.keep(one.table, one.outcome, one.reset_at)
        finally:
            self.rollback()

    def _ids_to_reserve(self) -> list[ReserveIds]:
        """What the next block like this one would have to wait for."""
        ids = self._replica.ids
        return [
            ReserveIds(table, column, size)
            for (table, column), taken in self._ids_taken.items()
            if table.lower() in self._delta.tables and (size := ids.ahead(table, taken))
        ]

    def rollback(self) -> None:
        """Forget what the block has done."""
        if self.done:
            return
        self.done = True
        if self._is_inherited():
            return
        try:
            if self._schema_block is not None:
                self._schema_block.end()
            self._replica.unlay(self)
            self._end_snapshot()
        finally:
            if self._has_turn:
                self._has_turn = False
                self._replica.side.turn.release()

    def __del__(self) -> None:
        # A thread that ended within a block has left it.
        if self._has_turn and not self._is_inherited():
            self._has_turn = False
            self._replica.side.turn.release()

    def _is_inherited(self) -> bool:
        """Whether it belongs to a process that this one was forked from."""
        return self._process != os.getpid()

    def _check_process(self) -> None:
        if self._is_inherited():
            raise self._replica.forked()

    @contextmanager
    def shown(self) -> Iterator[tuple[sqlite3.Connection, Sequence[str] | None]]:
        """The connection that shows the block's state, and what it changed.

        The caller has all loaded. None: anything may have been changed.
        """
        if self._schema_block is None and not self._delta:
            self._look()
            self._look_again()
            with self._reader.held() as connection:
                yield connection, []
            return
        while True:
            with self._replica.writing(self) as writer:
                if self._schema_block is not None:
                    yield writer.connection, None
                    return
                if self._lay(writer, "SELECT 1", (), many=False):
                    yield writer.connection, self._delta.names()
                    return
            self.rebase()  # which waits for others, so nobody waits for it

    def want_ids(self, table: str, count: int) -> None:
        """Say how many ids the INSERTs that come next are going to take."""
        self._ids_wanted[table] = count

    def ids_wanted(self, table: str, column: str, count: int) -> int:
        """How many are left to take, with the ``count`` that are taken now."""
        self._ids_taken[table, column] += count
        wanted = max(self._ids_wanted.pop(table, 0), count)
        if wanted > count:
            self._ids_wanted[table] = wanted - count
        return wanted

    def largest_id(self, table: str, low: int, high: int) -> int | None:
        """The largest id between two that the block itself has used."""
        delta = self._delta.tables.get(table.lower())
        return None if delta is None else delta.largest_id(low, high)

    @property
    def needs_ids(self) -> bool:
        """Whether ids have to come from a chunk."""
        return self._schema_block is None
