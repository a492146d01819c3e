"""Blocks that change the schema: migrations.

Such a block holds the host's commit lock and the writing connection from its
first DDL statement to its end, and its statements run there one after the
other. When another host commits first, all of them are run again.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any

from django.db import NotSupportedError

from s3cache.exceptions import TransactionConflict
from s3cache.log.catch_up import catch_up
from s3cache.log.effects import Position, Staged
from s3cache.log.entry import Change, Rows, Sequences, Statement
from s3cache.replica.applying import read_sequences
from s3cache.replica.capture import column_name
from s3cache.replica.foreign_keys import check_tables, referred_columns, with_children
from s3cache.replica.host_errors import is_of_the_host
from s3cache.replica.results import Result, Seen
from s3cache.replica.script import Script
from s3cache.replica.sql import (
    REFUSED_OBJECTS,
    Kind,
    kind_of,
    quote,
    savepoint_name,
    words,
)
from s3cache.replica.tables import Schema
from s3cache.replica.writer import Writer

if TYPE_CHECKING:
    from s3cache.replica.replica import Replica

#: What rows a statement with this comment changes follows from the rows that
#: are there, on every replica: it is logged as it is. The schema editor puts
#: it on the statement that copies a table it remakes.
COPY_MARK = "/* s3cache: copy */"

#: The functions that such a statement may call.
_PURE = frozenset(["coalesce", "ifnull", "nullif", "abs", "lower", "upper", "length"])

_LITERAL = re.compile(
    r"\(?(?:[-+]?[\d.]+|'(?:[^']|'')*'|NULL|TRUE|FALSE)\)?", re.IGNORECASE
)


class SchemaBlock:
    """The rest of a block, from its first DDL statement on."""

    def __init__(self, replica: Replica, *, run_actions: bool = True) -> None:
        self._replica = replica
        self._run_actions = run_actions
        self._writer: Writer
        self._changes: list[Change] = []
        self._savepoints: list[tuple[str, int, set[str]]] = []
        self._script = Script()
        self._position: Position | None = None
        self._holds = False
        self._check_foreign_keys = True
        self._sequences: dict[str, int] = {}

    def begin(self, script: Script) -> None:
        """Take the locks, and do what the block has done so far."""
        replica = self._replica
        # DDL may copy any rows. What lacks nothing will lack nothing later.
        replica.load()
        replica.side.commit.acquire(replica.options.commit_timeout)
        try:
            self._writer = replica.take_writer()
        except BaseException:
            replica.side.commit.release()
            raise
        self._holds = True
        self._writer.held_for_schema = True
        try:
            replica.run(catch_up(replica.options.signing_keys))
            self._start()
            script.replay(self._again)
        except BaseException:
            self.end()
            raise

    def _start(self) -> None:
        self._writer.rollback()
        self._writer.capture_nothing()
        self._changes, self._savepoints, self._script = [], [], Script()
        self._position = self._writer.begin()
        self._sequences = read_sequences(self._writer.connection)

    def _again(self, sql: str, params: Any, many: bool) -> Result:
        kind = kind_of(sql)
        if kind is Kind.EITHER:
            kind = Kind.WRITE
        return self.execute(kind, sql, params, many=many)

    def execute(self, kind: Kind, sql: str, params: Any, *, many: bool) -> Result:
        """Run a statement."""
        try:
            result = self._run(kind, sql, params, many)
        except sqlite3.Error as error:
            self._script.note(sql, params, many, Seen(None, error))
            raise
        if kind is not Kind.PRAGMA:
            self._script.note(sql, params, many, Seen(result))
        return result

    def _run(self, kind: Kind, sql: str, params: Any, many: bool) -> Result:
        writer = self._writer
        if kind is Kind.TRANSACTION:
            return self._savepoint(sql)
        if kind is Kind.SCHEMA or (
            kind is Kind.WRITE and COPY_MARK in sql and self._is_pure(sql, params)
        ):
            return self._change_schema(sql, params, many)
        if kind is Kind.PRAGMA:
            return self._unguarded(sql, params, many)
        if kind is Kind.WRITE:
            written = writer.capture.written_by(sql, params[0] if many else params)
            for name in with_children(writer.schema, written):
                if (table := writer.schema.get(name)) is not None:
                    writer.capture.add(table, referred_columns(writer.schema, name))
        return writer.execute(sql, params, many=many, run_actions=self._run_actions)

    def _change_schema(self, sql: str, params: Any, many: bool) -> Result:
        writer = self._writer
        self._flush()
        writer.capture.drop_all()
        before = writer.schema
        result = self._unguarded(sql, params, many)
        self._check_names()
        filled = self._filled_by(sql, before)
        if filled is not None:
            self._changes += filled
        else:
            for one in params if many else [params]:
                self._changes.append(Statement(sql, self._raw(one)))
        return result

    def _check_names(self) -> None:
        """Refuse tables that differ by the case of letters alone.

        SQLite knows no case but that of ASCII; for us "É" is "é".
        """
        seen: dict[str, str] = {}
        for (name,) in self._writer.connection.execute(
            "SELECT name FROM main.sqlite_master WHERE type = 'table' ORDER BY rowid"
        ).fetchall():
            other = seen.setdefault(name.lower(), name)
            if other != name:
                raise NotSupportedError(
                    f"A table {name} is not supported while there is one named "
                    f"{other}: they differ by the case of letters alone."
                )

    def _raw(self, params: Any) -> list[Any]:
        """The parameters as storage values, which an entry can hold."""
        if not params:
            return []
        marks = ", ".join("?" * len(params))
        connection = self._writer.connection
        return list(connection.execute(f"SELECT {marks}", list(params)).fetchone())

    def _filled_by(self, sql: str, before: Schema) -> list[Change] | None:
        """What CREATE TABLE ... AS SELECT made: the table, and its rows.

        The SELECT may say something else on another replica.
        """
        if "SELECT" not in sql.upper() or words(sql, 2) != ["CREATE", "TABLE"]:
            return None
        connection = self._writer.connection
        for table in self._writer.schema:
            if before.get(table.name) is None:
                columns = ", ".join(f"+{column_name(table, c)}" for c in table.columns)
                rows = connection.execute(
                    f"SELECT {columns} FROM main.{quote(table.name)}"
                ).fetchall()
                create = connection.execute(
                    "SELECT sql FROM main.sqlite_master WHERE name = ?", [table.name]
                ).fetchone()[0]
                return [
                    Statement(create),
                    Rows(
                        table.name,
                        list(table.key),
                        list(table.columns),
                        list(map(list, rows)),
                    ),
                ]
        return None

    def _is_pure(self, sql: str, params: Any) -> bool:
        """Whether a copy gives the same rows on every replica."""
        capture, connection = self._writer.capture, self._writer.connection
        if not capture.functions_of(sql, params) <= _PURE:
            return False
        for name in capture.written_by(sql, params):
            table = self._writer.schema.get(name)
            if table is None or (table.carries_rowid and "(rowid, " not in sql):
                return False
            # The authorizer is not told of functions in a DEFAULT.
            for column in connection.execute(f"PRAGMA table_info({quote(name)})"):
                if column[4] is not None and not _LITERAL.fullmatch(column[4]):
                    return False
        return True

    def _unguarded(self, sql: str, params: Any, many: bool) -> Result:
        connection = self._writer.connection
        if not connection.in_transaction:
            raise sqlite3.OperationalError("SQLite has ended the transaction")
        capture = self._writer.capture
        with capture.unguarded():
            try:
                if many:
                    return Result(connection.executemany(sql, params))
                return Result(connection.execute(sql, params))
            except sqlite3.DatabaseError as error:
                if not capture.refused_temporary:
                    raise
                raise NotSupportedError(
                    f"{sql[:100]} is not supported: {REFUSED_OBJECTS['TEMP']}."
                ) from error

    def _flush(self) -> None:
        """Write down the rows that changed since the last DDL statement."""
        writer = self._writer
        for table in writer.touched_tables():
            rows = writer.capture.read(table)
            if rows is not None:
                self._changes.append(rows)
                writer.capture.clear([table])
        writer.touched = set()

    def _savepoint(self, sql: str) -> Result:
        writer = self._writer
        name = savepoint_name(sql)
        verb = words(sql, 1)[0]
        if verb == "SAVEPOINT":
            # What was noted so far belongs before the savepoint.
            self._flush()
            result = Result(writer.connection.execute(sql))
            self._savepoints.append((name, len(self._changes), set(writer.touched)))
            return result
        result = Result(writer.connection.execute(sql))
        index = max(i for i, one in enumerate(self._savepoints) if one[0] == name)
        if verb == "ROLLBACK":
            _name, length, touched = self._savepoints[index]
            del self._changes[length:]
            del self._savepoints[index + 1 :]
            writer.touched = set(touched)
            writer.capture.after_rollback(writer.schema)
        else:
            del self._savepoints[index:]
        return result

    def commit(self, *, check_foreign_keys: bool) -> None:
        """Commit all of it as one entry."""
        self._check_foreign_keys = check_foreign_keys
        try:
            self._replica.commit_staged(self._stage)
        finally:
            self.end()

    def _stage(self) -> Staged:
        if self._position is None or not self._writer.connection.in_transaction:
            # An entry that came first was applied, here or by the attempt.
            script = self._script
            self._start()
            try:
                script.replay(self._again)
            except sqlite3.Error as error:
                if is_of_the_host(error):
                    raise
                raise TransactionConflict(
                    f"Another host's commit stands in the way of this schema "
                    f"change; nothing of it was committed: {error}"
                ) from error
        position = self._position
        if position is None:
            raise TransactionConflict("the schema change was not begun")
        self._flush()
        changes = list(self._changes)
        if self._check_foreign_keys:
            check_tables(
                self._writer.connection,
                self._writer.schema,
                {change.table for change in changes if isinstance(change, Rows)},
            )
        sequences = self._moved_sequences()
        if sequences is not None:
            changes.append(sequences)
        self._writer.rollback()
        self._writer.capture.drop_all()
        self._position = None
        self._rehearse(position, changes)
        return Staged(position, changes, 1)

    def _rehearse(self, position: Position, changes: list[Change]) -> None:
        """Have the entry applied here before it is in the log for ever.

        One that no replica can apply would be the end of the database.
        """
        try:
            self._replica.file.rehearse(position, changes)
        except sqlite3.Error as error:
            if is_of_the_host(error):
                raise
            raise NotSupportedError(
                f"This schema change cannot be committed: what it came to cannot be "
                f"done again from the log ({error}). Nothing of it was committed."
            ) from error

    def _moved_sequences(self) -> Sequences | None:
        now = read_sequences(self._writer.connection)
        if any(isinstance(change, Statement) for change in self._changes):
            # DDL moves sequences in ways that depend on SQLite's release.
            return Sequences(now) if now else None
        moved = {t: n for t, n in now.items() if self._sequences.get(t) != n}
        return Sequences(moved) if moved else None

    def end(self) -> None:
        """Roll back what is open, and let others go on."""
        if not self._holds:
            return
        self._holds = False
        self._writer.held_for_schema = False
        try:
            self._writer.rollback()
            self._writer.capture.drop_all()
        finally:
            self._writer.let_go()
            self._replica.side.commit.release()
