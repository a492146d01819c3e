"""The database wrapper: SQLite's, over a replica of a log in a bucket."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import cache, partial
from pathlib import Path
from threading import get_ident
from types import FunctionType
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    IntegrityError,
    NotSupportedError,
    OperationalError,
    connections,
)
from django.db.backends.sqlite3 import base as sqlite_base
from django.db.backends.utils import CursorWrapper, debug_transaction
from django.utils.asyncio import async_unsafe

from s3cache import conf
from s3cache.conf import DatabaseOptions
from s3cache.db import requests_log
from s3cache.db.behind import Behind, behind_of
from s3cache.db.client import DatabaseClient
from s3cache.db.commits import note_commit
from s3cache.db.connection import Connection
from s3cache.db.creation import STORE_DIRECTORY, DatabaseCreation
from s3cache.db.cursor import Cursor, prepared
from s3cache.db.features import DatabaseFeatures
from s3cache.db.introspection import DatabaseIntrospection
from s3cache.db.moments import Moment
from s3cache.db.news import news_of
from s3cache.db.operations import DatabaseOperations
from s3cache.db.schema import DatabaseSchemaEditor
from s3cache.keeper.background import keep_after
from s3cache.records.background import record_after
from s3cache.replica import clock
from s3cache.replica.absent import NotLoaded
from s3cache.replica.block import Block
from s3cache.replica.foreign_keys import find_orphan
from s3cache.replica.reader import Reader
from s3cache.replica.replica import Replica, replica_at
from s3cache.replica.requests import StatementRequest
from s3cache.replica.results import Result
from s3cache.replica.sql import Kind, kind_of, words
from s3cache.replica.tables import Schema, Table
from s3cache.results import open_blocks, watching
from s3cache.results.reading import Reading, label_and_action
from s3cache.results.statements import Known, Place, Statements
from s3cache.results.versions import At, Scope
from s3cache.results.watching import watchers
from s3cache.signals import rows_changed
from s3cache.stores import DirectoryStore, store_for
from s3cache.stores.base import Store
from s3cache.upkeep import upkeep


class DatabaseWrapper(sqlite_base.DatabaseWrapper):
    """A connection to a database that lives in a bucket.

    To Django it is SQLite: SQL, types and functions are SQLite's. Statements
    go to the replica, and what they change to the log.
    """

    display_name = "s3cache"
    is_s3cache = True

    SchemaEditorClass = DatabaseSchemaEditor
    client_class = DatabaseClient
    creation_class = DatabaseCreation
    features_class = DatabaseFeatures
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations

    connection: Connection | None
    _manual = False
    _block: Block | None = None
    _in_atomic_block = False
    _is_marked_open = False

    def __init__(self, settings_dict: dict[str, Any], alias: str = "default") -> None:
        super().__init__(settings_dict, alias)
        self._foreign_keys = True
        self.noted_requests: list[str] = []
        #: What the next INSERT is told, if it is in a block; see ``want_ids``.
        self._ids_wanted: tuple[str, int] | None = None
        #: Set by ``s3cache.transactions.serializable``.
        self.serializable_block = False
        #: Set by ``s3cache.transactions.write_behind``.
        self.write_behind_block = False

    # The connection.

    def get_connection_params(self) -> dict[str, Any]:
        """Where the replica is, and what it is a replica of."""
        name = self.settings_dict["NAME"]
        if not name or str(name).startswith(("file:", ":memory:")):
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]['NAME'] is {name!r}, but must be the "
                f"path of the replica, a file of its own on a local disk."
            )
        options = DatabaseOptions.from_settings(
            self.alias, self.settings_dict["OPTIONS"]
        )
        # Set by creation.py while tests run.
        directory = self.settings_dict.get(STORE_DIRECTORY)
        return {
            "path": Path(name),
            "options": options,
            "store": (
                DirectoryStore(directory)
                if directory
                else store_for(options.storage, options.location)
            ),
        }

    @async_unsafe
    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        """A connection to the replica, which is made if there is none."""
        if conf.was_closed(self.alias, self.settings_dict):
            raise OperationalError(
                f"The database {self.alias!r} was closed in this process, or moved, "
                f"since this thread has used it: enter tenants.using() again."
            )
        with requests_log.noted_by(self):
            replica = replica_at(**conn_params)
            # Nobody reads the records of a test database.
            is_test = STORE_DIRECTORY in self.settings_dict
            replica.alias = conf.counted_as(self.alias)
            behind_of(replica)  # which goes on with what it finds
            replica.on_entry = keep_after if is_test else _keep_record_and_tell
            if not is_test and (news := news_of(replica)) is not None:
                news.on_followed = partial(_announce, self.settings_dict, self.alias)
            reader = replica.new_reader()
        self._block = None
        self._manual = False
        self._mark_open()
        self._foreign_keys = True
        return Connection(replica, reader)

    @property
    def replica(self) -> Replica:
        """The replica: ``path``, ``store``, ``position()`` and more."""
        self.ensure_connection()
        return self._connected.replica

    @property
    def store(self) -> Store:
        """The store that the database lives in."""
        return self.replica.store

    @property
    def _connected(self) -> Connection:
        if self.connection is None:
            self.ensure_connection()
        return self.connection  # type: ignore[return-value]

    def make_debug_cursor(self, cursor: Any) -> requests_log.DebugCursor:
        """A cursor that logs statements with their store requests."""
        return requests_log.DebugCursor(cursor, self)

    def create_cursor(self, name: str | None = None) -> Cursor:
        """A cursor whose statements go through ``run``."""
        return Cursor(self.run)

    def is_in_memory_db(self) -> bool:
        """Never: what is in memory cannot be shared between processes."""
        return False

    def _close(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.rollback()
        super()._close()  # type: ignore[misc]

    # Statements.

    def run(
        self, sql: str, params: Any, many: bool, reading: Reading | None = None
    ) -> Result:
        """Execute a statement, wherever it belongs.

        ``params`` is a sequence or a mapping; with ``many`` a list of them.
        ``reading`` is the query of a SELECT that Django compiled.
        """
        if not watchers:
            return self._run(sql, params, many, reading)
        with watching.statement(self.alias):
            return self._run(sql, params, many, reading)

    def _run(
        self, sql: str, params: Any, many: bool, reading: Reading | None
    ) -> Result:
        if self._block is not None:
            if reading is not None:
                reading.bypass()
            return self._run_in_block(self._block, sql, params, many, reading)
        kind = kind_of(sql)
        if self._manual and kind is not Kind.PRAGMA:
            self._block = self._new_block()
            return self._run_in_block(self._block, sql, params, many, reading)
        if kind is Kind.EITHER:
            access = self._connected.replica.analyser.access(sql, params)
            kind = Kind.WRITE if access.writes else Kind.READ
        if kind is Kind.READ:
            return self._read(sql, params, reading)
        return self._runners[kind](self, sql, params, many)

    def _run_in_block(
        self,
        block: Block,
        sql: str,
        params: Any,
        many: bool,
        reading: Reading | None,
    ) -> Result:
        if kind_of(sql) is Kind.PRAGMA:
            result = self._foreign_keys_pragma(sql)
            if result is not None:
                return result
        elif words(sql, 1) in (["COMMIT"], ["END"]):
            self._end_block(commit=True)
            return Result()
        elif words(sql, 1) == ["ROLLBACK"] and "TO" not in words(sql, 3):
            self._end_block(commit=False)
            return Result()
        elif words(sql, 1) == ["BEGIN"]:
            raise sqlite3.OperationalError(
                "cannot start a transaction within a transaction"
            )
        if watchers:
            self._tell_of(sql, params, reading)
        if (
            kind_of(sql) is Kind.SCHEMA
            and not block.changes_schema
            and not block.is_behind
        ):
            self._send_all_behind()
        if (
            self._connected.replica.side.pending
            and not (block.has_looked or block.changes_schema)
            and not (block.is_behind and kind_of(sql) is Kind.WRITE)
        ):
            access = self._connected.replica.analyser.access(
                sql, next(iter(params), ()) if many else params
            )
            self._send_behind(access.reads)
        with requests_log.noted_by(self):
            return block.execute(sql, params, many=many)

    def _tell_of(self, sql: str, params: Any, reading: Reading | None) -> None:
        """Tell who watches of a read inside a transaction."""
        if kind_of(sql) not in (Kind.READ, Kind.EITHER):
            return
        access = self._connected.replica.analyser.access(sql, params)
        if not access.writes:
            tables = tuple(sorted(access.reads))
            what = label_and_action(reading)
            watching.tell(*what, "bypass", watching.Why.BLOCK, tables)

    def _read(self, sql: str, params: Any, reading: Reading | None) -> Result:
        connection = self._connected
        replica, statements = connection.replica, connection.statements
        oldest = self._refresh_for(sql, params)
        while True:
            try:
                return statements.read(
                    connection.reader,
                    sql,
                    params,
                    reading=reading,
                    # Asked before this read came, and too long ago: in vain.
                    stale=replica.side.asked_at < oldest,
                )
            except NotLoaded as missing:
                with requests_log.noted_by(self):
                    replica.load_for(missing)

    def _refresh_for(self, sql: str, params: Any) -> float:
        """Refresh for a SELECT; when the store must have been asked last."""
        connection = self._connected
        if connection.replica.side.pending:
            self._send_behind(connection.statements.plan(sql, params).tables)
        max_age = connection.replica.options.max_age
        if apps.models_ready and max_ages():
            max_age = self.max_age_of(connection.statements.plan(sql, params).tables)
        oldest = clock.now() - max_age
        self._refresh(max_age)
        return oldest

    def place_of_result(self, sql: str, params: Any, reading: Reading) -> Place | None:
        """Where a SELECT that is made now looks for its result.

        As ``execute()`` gets it. None: its result is not kept, which holds
        for all that is read inside a transaction.
        """
        if self._block is not None or self._manual:
            return None
        sql, params = prepared(sql, params)
        self._refresh_for(sql, params)
        connection = self._connected
        return connection.statements.place(connection.reader, sql, params, reading)

    def max_age_of(self, tables: Iterable[str]) -> float:
        """How old what is read of ``tables`` may be, in seconds.

        The most demanding table counts; one that a model does not speak for
        is as old as the database may be.
        """
        usual, ages = self.replica.options.max_age, max_ages()
        return min((ages.get(table, usual) for table in tables), default=usual)

    def refresh_results(self, max_age: float) -> bool:
        """Do what a read does first; False if it has to do the rest too.

        Not inside a transaction, and not while the store is down.
        """
        if self._block is not None or self._manual:
            return False
        self.ensure_connection()
        with self.wrap_database_errors:
            oldest = clock.now() - max_age
            self._refresh(max_age)
            connection = self._connected
            return (
                connection.replica.side.asked_at >= oldest
                and connection.statements.follow(connection.reader)
            )

    def tables_of(self, sql: str, params: Any) -> tuple[str, ...]:
        """What a SELECT of Django's reads, sorted and in lower case."""
        return self.statements.plan(*prepared(sql, params)).tables

    def needs_cursor(self) -> bool:
        """Whether each statement has to go through a cursor of Django's.

        For somebody wants to see it, or to forbid it.
        """
        return bool(
            self.execute_wrappers
            or self.queries_logged
            or "cursor" in vars(self)  # a tool, or a test, has its own
            or not _is_djangos(CursorWrapper.execute)  # tools that trace
            # Of another thread, to which Django may refuse it.
            or self._thread_ident != get_ident()  # type: ignore[attr-defined]
        )

    def read_at_once(
        self, known: Known, params: Any, scopes: Sequence[Scope]
    ) -> tuple[At, list[Any]] | None:
        """`Statements.read_at_once`, after ``refresh_results``.

        Not if ``needs_cursor()``.
        """
        connection = self._connected
        with self.wrap_database_errors:
            statements = connection.statements
            return statements.read_at_once(connection.reader, known, params, scopes)

    def look(self, tables: Iterable[str], moment: Moment, *, ask: bool) -> bool:
        """Add what ``tables`` are at to ``moment``; see `s3cache.db.moments`.

        False if that cannot be said.
        """
        if self._block is not None or self._manual:
            return False
        self.ensure_connection()
        max_age = self.max_age_of(tables)
        with self.wrap_database_errors:
            oldest = clock.now() - max_age
            if ask:
                self._send_behind(tables)
                self._refresh(max_age)
            connection = self._connected
            versions = connection.statements.versions
            if not connection.statements.follow(connection.reader):
                return False
        asked_at = connection.replica.side.asked_at
        moment.at[self.alias] = At(versions.schema, versions.of(tables))
        moment.replicas[self.alias] = connection.replica
        moment.left = min(moment.left, asked_at + max_age - clock.now())
        moment.is_stale |= asked_at < oldest
        return True

    @property
    def statements(self) -> Statements:
        """The results of this database."""
        self.ensure_connection()
        return self._connected.statements

    @property
    def reader(self) -> Reader:
        """What reads the replica for this connection."""
        return self._connected.reader

    @property
    def in_atomic_block(self) -> bool:
        """Whether ``atomic()`` is open, as Django says."""
        return self._in_atomic_block

    @in_atomic_block.setter
    def in_atomic_block(self, value: bool) -> None:
        self._in_atomic_block = value
        self._mark_open()

    def _mark_open(self) -> None:
        # A block may also have been begun by hand.
        is_open = self._in_atomic_block or self._manual or self._block is not None
        if is_open is not self._is_marked_open:
            self._is_marked_open = is_open
            open_blocks.mark(self.alias, is_open=is_open)

    def _write(self, sql: str, params: Any, many: bool) -> Result:
        replica, behind = self._connected.replica, write_behind_tables()
        if behind or replica.side.pending:
            first = next(iter(params), ()) if many else params
            access = replica.analyser.access(sql, first)
            written = {name for name in access.writes if name[:7] != "sqlite_"}
            if written and written <= behind:
                return self._write_behind(sql, params, many)
            self._send_behind(access.reads | written, must=True)
        request = StatementRequest([(sql, params, many)], self._foreign_keys)
        result: Result = self.submit(request)
        return result

    def _write_behind(self, sql: str, params: Any, many: bool) -> Result:
        """Take a statement into the outbox; told by the state of today."""
        block = self._new_block()
        block.is_behind = True
        try:
            with requests_log.noted_by(self):
                result = block.execute(sql, params, many=many)
                self.behind.take(block.steps)
        finally:
            block.rollback()
        return result

    def _send_behind(self, tables: Iterable[str], *, must: bool = False) -> None:
        """Send what waits for ``tables`` before they are read or written."""
        if self._connected.replica.side.pending:
            with requests_log.noted_by(self):
                self.behind.send_for(tables, must=must)

    def _send_all_behind(self) -> None:
        """Send what waits before a change of the schema keeps it from that."""
        if self._connected.replica.side.pending:
            with requests_log.noted_by(self):
                self.behind.send()

    @property
    def behind(self) -> Behind:
        """What is written behind: commits that wait on this host."""
        return behind_of(self.replica)

    def _change_schema(self, sql: str, params: Any, many: bool) -> Result:
        self._send_all_behind()
        block = self._new_block()
        try:
            with requests_log.noted_by(self):
                result = block.execute(sql, params, many=many)
                block.commit(check_foreign_keys=self._foreign_keys)
        finally:
            block.rollback()
        note_commit(self.alias, self.replica)
        self.announce()
        return result

    def _transaction(self, sql: str, params: Any, many: bool) -> Result:
        verb = words(sql, 1)[0]
        if verb == "BEGIN":
            self._block = self._new_block()
            self._mark_open()
            return Result()
        if verb == "SAVEPOINT":
            raise sqlite3.OperationalError("SAVEPOINT needs a transaction")
        raise sqlite3.OperationalError(
            f"cannot {verb.lower()} - no transaction is active"
        )

    def _pragma(self, sql: str, params: Any, many: bool) -> Result:
        return self._foreign_keys_pragma(sql) or self._connected.execute(sql, params)

    def _maintain(self, sql: str, params: Any, many: bool) -> Result:
        # VACUUM, ANALYZE and REINDEX concern this file, not the database.
        replica = self._connected.replica
        replica.load()
        with replica.writing() as writer:
            if words(sql, 1) == ["VACUUM"] and "INTO" not in words(sql, 3):
                self._check_vacuum(writer.schema)
            return replica.file.execute(sql, params)

    def _check_vacuum(self, schema: Schema) -> None:
        """Refuse to give rows other rowids than they have on other hosts.

        VACUUM does that to tables that have neither an INTEGER PRIMARY KEY
        nor an index; and entries of the log name their rows by the rowid.
        """
        with self._connected.reader.held() as connection:
            indexed = {
                name
                for (name,) in connection.execute(
                    "SELECT lower(tbl_name) FROM main.sqlite_master "
                    "WHERE type = 'index'"
                )
            }
        for table in schema:
            if table.carries_rowid and table.name.lower() not in indexed:
                raise NotSupportedError(
                    f"VACUUM is not supported while there is a table without a "
                    f"primary key, like {table.name}: it would number the rows "
                    f"anew, on this host alone. rebuild_replica() makes the file "
                    f"small, too."
                )

    def _refuse(self, sql: str, params: Any, many: bool) -> Result:
        raise NotSupportedError(
            f"{words(sql, 1)[0]} is not supported: a database in a bucket is one "
            f"replica file. Use another alias of DATABASES."
        )

    _runners: Mapping[Kind, Callable[..., Result]] = {
        Kind.WRITE: _write,
        Kind.SCHEMA: _change_schema,
        Kind.TRANSACTION: _transaction,
        Kind.PRAGMA: _pragma,
        Kind.MAINTENANCE: _maintain,
        Kind.REFUSED: _refuse,
    }

    def submit(self, request: StatementRequest) -> Any:
        """Have writes committed together with those of other threads."""
        replica = self._connected.replica
        with requests_log.noted_by(self):
            result = replica.submit(request)
        note_commit(self.alias, replica)
        self.announce()
        return result

    def refresh(self) -> None:
        """See to it that the replica is not older than ``max_age``."""
        self._refresh(self._connected.replica.options.max_age)

    def _refresh(self, max_age: float) -> None:
        with requests_log.noted_by(self):
            connection = self._connected
            connection.replica.refresh(max_age, connection.reader)
        self.announce()

    # Blocks.

    @property
    def block(self) -> Block | None:
        """The open transaction, or None."""
        return self._block

    def _new_block(self) -> Block:
        self.refresh()
        connection = self._connected
        block = connection.replica.new_block(
            connection.reader,
            always_replay=self.serializable_block,
            # As SQLite's pragma, which does nothing within a transaction.
            run_actions=self._foreign_keys,
        )
        block.is_behind = self.write_behind_block
        return block

    def _end_block(self, *, commit: bool) -> None:
        block, self._block = self._block, None
        self._mark_open()
        if block is None:
            return
        if not commit:
            block.rollback()
            return
        has_changes = block.has_changes
        if block.is_behind:
            try:
                with requests_log.noted_by(self):
                    self.behind.take(block.steps)
            finally:
                block.rollback()
            return
        changed = block.changed_tables
        if changed and self._connected.replica.side.pending:
            try:
                # What was written before must not win over this.
                self._send_behind(changed, must=True)
            except BaseException:
                block.rollback()
                raise
        with requests_log.noted_by(self):
            # Read here: serializable() may have been entered after BEGIN.
            block.commit(check_foreign_keys=self._foreign_keys)
        if has_changes:
            note_commit(self.alias, self.replica)
        self.announce()

    def _start_transaction_under_autocommit(self) -> None:
        self.ensure_connection()
        self.cursor().execute("BEGIN")

    def _set_autocommit(self, autocommit: bool) -> None:
        with self.wrap_database_errors:
            self._manual = not autocommit
            self._mark_open()
            if autocommit:
                self._end_block(commit=True)

    def _commit(self) -> None:
        if self.connection is not None:
            try:
                with debug_transaction(self, "COMMIT"), self.wrap_database_errors:
                    self._end_block(commit=True)
            except BaseException:
                # Django forgets them only if it is a DatabaseError, and would
                # run them after the next commit.
                self.run_on_commit = []
                raise
            requests_log.show(self)

    def _rollback(self) -> None:
        if self.connection is not None:
            with debug_transaction(self, "ROLLBACK"), self.wrap_database_errors:
                self._end_block(commit=False)

    def want_ids(self, table: str, count: int) -> None:
        """Say how many ids the INSERTs that come next take, in one block."""
        self._ids_wanted = table, count

    def take_ids(self, table: str, column: str, count: int) -> Sequence[int] | None:
        """Ids for new rows that nobody else gets; None: let SQLite choose."""
        self.ensure_connection()
        connection, block = self._connected, self._block
        wanted, self._ids_wanted = self._ids_wanted, None
        if block is not None and wanted is not None:
            block.want_ids(*wanted)
        if block is not None and not block.needs_ids:
            return None
        if block is None:
            if not connection.replica.ids.has_chunk(table):
                return None
            self.refresh()
        reader = connection.reader
        with self.wrap_database_errors, requests_log.noted_by(self):
            return (block or connection.replica).loading(
                lambda: connection.replica.take_ids(reader, block, table, column, count)
            )

    def table(self, name: str) -> Table | None:
        """The table ``name`` as the open transaction sees it."""
        replica = self._connected.replica
        if self._block is not None and self._block.changed_tables is None:
            return replica.writer.schema.get(name)
        with self._connected.reader.held() as connection:
            return replica.describe(connection).get(name)

    def take_turn(self, *, wait: bool = True) -> None:
        """Take the turn of ``select_for_update()``, if in a block."""
        if self._block is not None:
            with self.wrap_database_errors:
                self._block.take_turn(wait=wait)

    # Freshness and news.

    def catch_up(self) -> None:
        """Ask the store for what other hosts have committed, and apply it.

        Nothing in a block: it keeps to what it has seen.
        """
        if self._block is None:
            with self.wrap_database_errors, requests_log.noted_by(self):
                self.replica.catch_up()
            self.announce()

    @property
    def position(self) -> int:
        """The number of the last log entry that the replica has applied."""
        return self.replica.position().number

    def commit_outcome(self, token: str) -> str:
        """What became of a commit that raised ``CommitOutcomeUnknown``.

        ``token`` is the exception's. "committed" or "lost"; "" as long as
        the log has not got that far.
        """
        self.catch_up()
        return self.replica.in_file(lambda file: file.outcome_of(token))

    def rebuild_replica(self) -> None:
        """Make the replica anew from the store, whatever it holds.

        Other threads and processes may go on using it.
        """
        if self._block is not None:
            raise NotSupportedError("A replica cannot be rebuilt inside a transaction.")
        with requests_log.noted_by(self):
            self.replica.rebuild()

    def announce(self) -> None:
        """Send ``rows_changed`` for what was applied since the last time."""
        connection = self.connection
        if connection is None or self._block is not None:
            return
        upkeep()
        replica = connection.replica
        if not replica.has_news():
            return
        if not rows_changed.receivers:
            replica.skip_news()
            return
        for entry in replica.news(connection.reader):
            for table, keys in entry.touched.keys.items():
                for error in _send(
                    self.alias, table, keys, entry.number, entry.host == replica.host
                ):
                    requests_log.logger.error(
                        "A receiver of rows_changed failed.", exc_info=error
                    )

    # Foreign keys.

    def _foreign_keys_pragma(self, sql: str) -> Result | None:
        self.statements.heed_pragma(sql)
        found = words(sql.replace("=", " "), 3)
        if found[1:2] != ["FOREIGN_KEYS"]:
            return None
        if len(found) == 3:
            self._foreign_keys = found[2] not in ("OFF", "0", "FALSE", "NO")
            return Result()
        return self._connected.reader.execute(f"SELECT {int(self._foreign_keys)}", ())

    def disable_constraint_checking(self) -> bool:
        """Check no foreign keys from here on; inside a transaction, too."""
        self.ensure_connection()
        self._foreign_keys = False
        return True

    def enable_constraint_checking(self) -> None:
        """Check foreign keys again."""
        self._foreign_keys = True

    def check_constraints(self, table_names: Iterable[str] | None = None) -> None:
        """Raise ``IntegrityError`` for a row that refers to nothing."""
        self.ensure_connection()
        replica = self._connected.replica
        with requests_log.noted_by(self):
            replica.load()
        block = self._block
        if block is None:
            with self._connected.reader.held() as connection:
                schema = replica.describe(connection)
                self._check(connection, schema, _named(schema, table_names))
            return
        with block.shown() as (connection, changed):
            schema = replica.describe(connection)
            if table_names is None and changed is not None:
                tables = _near(schema, changed)
            else:
                tables = _named(schema, table_names)
            self._check(connection, schema, tables)

    def _check(
        self, connection: sqlite3.Connection, schema: Schema, tables: Iterable[Table]
    ) -> None:
        for table in tables:
            orphan = find_orphan(connection, schema, table)
            if orphan is not None:
                key = orphan.key
                raise IntegrityError(
                    f"The row in table '{table.name}' with primary key "
                    f"'{orphan.row_key}' has an invalid foreign key: "
                    f"{table.name}.{key.columns[0]} contains a value "
                    f"'{orphan.value}' that does not have a corresponding value "
                    f"in {key.parent}.{key.parent_columns[0]}."
                )


def _keep_record_and_tell(replica: Replica, number: int) -> None:
    """What is to be done beside other work after entry ``number``."""
    if (news := news_of(replica)) is not None:
        news.publish(number)
    keep_after(replica, number)
    record_after(replica)


def _announce(settings: dict[str, Any], alias: str) -> None:
    """Send ``rows_changed`` in a thread that has no connection of its own."""
    if not rows_changed.receivers:
        return
    wrapper = DatabaseWrapper(settings, alias)
    try:
        wrapper.ensure_connection()
        wrapper.announce()
    finally:
        wrapper.close()
        connections.close_all()  # those that receivers have opened


@cache
def max_ages() -> Mapping[str, float]:
    """``S3Meta.max_age`` of the models that have one, by lower-case table."""
    return {
        model._meta.db_table.lower(): options.max_age
        for model in apps.get_models(include_auto_created=True)
        if (options := getattr(model, "_s3meta", None)) is not None
        and options.max_age is not None
    }


def write_behind_tables() -> Set[str]:
    """The tables of models that are written behind, in lower case."""
    return _write_behind_tables() if apps.models_ready else frozenset()


@cache
def _write_behind_tables() -> frozenset[str]:
    return frozenset(
        model._meta.db_table.lower()
        for model in apps.get_models()
        if (options := getattr(model, "_s3meta", None)) is not None
        and options.write_behind
    )


def _is_djangos(method: Callable[..., Any]) -> bool:
    """Whether nobody has put a method of his own in the place of Django's.

    One that says that it is Django's, as ``functools.wraps`` has it, too.
    """
    return (
        type(method) is FunctionType
        and method.__globals__.get("__name__") == CursorWrapper.__module__
    )


def _named(schema: Schema, names: Iterable[str] | None) -> list[Table]:
    if names is None:
        return list(schema)
    return [table for name in names if (table := schema.get(name)) is not None]


def _near(schema: Schema, changed: Iterable[str]) -> list[Table]:
    """The tables that a change of ``changed`` can have made invalid."""
    names = set(changed)
    return [
        table
        for table in schema
        if table.name.lower() in names
        or any(key.parent.lower() in names for key in table.foreign_keys)
    ]


def _send(
    using: str,
    table: str,
    keys: frozenset[tuple[Any, ...]] | None,
    position: int,
    local: bool,
) -> list[Exception]:
    # Not has_listeners(): that means those who listen to any sender.
    if not rows_changed.receivers:
        return []
    model = next(
        (
            model
            for model in apps.get_models(include_auto_created=True)
            if model._meta.db_table.lower() == table and not model._meta.proxy
        ),
        None,
    )
    pks = None if keys is None else tuple(k[0] if len(k) == 1 else k for k in keys)
    sent = rows_changed.send_robust(
        sender=model,
        using=using,
        table=model._meta.db_table if model is not None else table,
        pks=pks,
        position=position,
        local=local,
    )
    return [said for _receiver, said in sent if isinstance(said, Exception)]
