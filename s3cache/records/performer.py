"""Performing the effects of writing records: the store, and the replica."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from django.core.serializers.base import SerializationError

from s3cache.exceptions import StoreUnavailable
from s3cache.keeper.effects import Replace
from s3cache.log.effects import Create, Effect, Get
from s3cache.records.effects import (
    FindTables,
    Key,
    KeysOf,
    Page,
    ReadPage,
    ReadRows,
    RecallETags,
    RememberETags,
    Remove,
    Request,
    Row,
    SendMany,
    Tables,
    Touched,
    joined,
)
from s3cache.records.etags import ETags
from s3cache.records.keys import record_key
from s3cache.records.rendering import Rendering
from s3cache.replica import meta
from s3cache.replica.performer import Performer
from s3cache.replica.replica import Replica
from s3cache.replica.sql import quote
from s3cache.replica.tables import Schema, Table, read_schema, schema_version
from s3cache.stores.base import Answer

#: Requests that are under way at the same time.
PARALLEL = 16

#: Rows of a page.
PAGE = 256


class RecordPerformer(Performer):
    """Performs the effects of one round of writing records.

    Reads no more than a page of rows in one transaction, so that neither a
    commit nor the WAL has to wait for the store. ``renderings`` are by
    lower-case table name. Where ``is_wanted`` says no, nothing more is sent:
    the round ends with ``StoreUnavailable``. Use it as a context.
    """

    def __init__(
        self,
        replica: Replica,
        renderings: Mapping[str, Rendering],
        is_wanted: Callable[[], bool],
    ) -> None:
        super().__init__(replica)
        self._of = replica
        self._renderings = renderings
        self._is_wanted = is_wanted
        self._etags = ETags.beside(replica.path)
        self._schema: Schema | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._own: dict[type, Callable[[Any], Any]] = {
            Replace: self._replace,
            Remove: self._remove,
            SendMany: self._send_many,
            FindTables: self._find_tables,
            KeysOf: self._keys_of,
            # A row that is not loaded would be taken for one that is gone.
            ReadRows: lambda effect: replica.loading(lambda: self._read_rows(effect)),
            ReadPage: lambda effect: replica.loading(lambda: self._read_page(effect)),
            RecallETags: lambda effect: self._etags.recall(effect.keys),
            RememberETags: lambda effect: self._etags.remember(effect.etags),
        }

    def __enter__(self) -> RecordPerformer:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _perform(self, effect: Effect) -> Any:
        perform = self._own.get(type(effect))
        return perform(effect) if perform else super()._perform(effect)

    # The store.

    def _replace(self, effect: Replace) -> Answer:
        return self._store.put(effect.key, effect.body, if_match=effect.etag)

    def _remove(self, effect: Remove) -> Answer:
        return self._store.delete(effect.key, if_match=effect.etag)

    def _send_many(self, effect: SendMany) -> Sequence[Answer]:
        if not self._is_wanted():
            raise StoreUnavailable("This process ends.")
        if len(effect.requests) == 1:
            return [self._send(effect.requests[0])]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(PARALLEL)
        waiting: list[Future[Answer]] = []
        with contextlib.suppress(RuntimeError):  # the interpreter is ending
            for one in effect.requests:
                sent = self._pool.submit(copy_context().run, self._send, one)
                waiting.append(sent)
        answers = [one.result() for one in waiting]
        return answers + [self._send(one) for one in effect.requests[len(answers) :]]

    def _send(self, request: Request) -> Answer:
        match request:
            case Get(key):
                return self._store.get(key)
            case Create(key, body):
                return self._store.put(key, body, if_none_match=True)
            case Replace():
                return self._replace(request)
            case Remove():
                return self._remove(request)

    # The replica.

    @contextlib.contextmanager
    def _snapshot(self, table: str = "") -> Iterator[tuple[sqlite3.Connection, Schema]]:
        """One state of the replica, with all rows of ``table``."""
        reader = self._of.new_reader()
        try:
            with reader.held() as connection:
                connection.execute("BEGIN")
                try:
                    reader.check_tables([table.lower()])
                    version = schema_version(connection)
                    if self._schema is None or self._schema.version != version:
                        self._schema = read_schema(connection, version)
                    yield connection, self._schema
                finally:
                    connection.execute("ROLLBACK")
        finally:
            self._of.give_back(reader)

    def _find_tables(self, effect: FindTables) -> Tables:
        since = effect.since
        with self._snapshot() as (connection, schema):
            here = meta.read_position(connection)
            follows: bool | None = None
            touched: Touched | None = None
            if since.database == here.database and since.number <= here.number:
                token = (
                    here.token
                    if since.number == here.number
                    else meta.read_token(connection, since.number)
                )
                follows = None if token is None else token == since.token
                recent = meta.read_recent(connection, since.number, here.number)
                if recent is not None:
                    touched = {}
                    for one in recent:
                        more = self._names(schema, one.touched)
                        touched = None if more is None else joined(touched, more)
                        if touched is None:
                            break
        return Tables(
            here=here,
            names=[t.name for t in schema if self._has_records(t)],
            in_schema=frozenset(table.name for table in schema),
            follows=follows,
            touched=touched,
        )

    def _has_records(self, table: Table) -> bool:
        rendering = self._renderings.get(table.name.lower())
        return rendering is not None and set(rendering.key_columns) <= {*table.columns}

    def _keys_of(self, effect: KeysOf) -> Touched | None:
        with self._snapshot() as (_connection, schema):
            return self._names(schema, meta.touched_by(effect.changes))

    def _names(self, schema: Schema, touched: meta.Touched) -> Touched | None:
        """``touched`` by the names and keys of records."""
        if touched.schema:
            return None
        found: dict[str, frozenset[Key] | None] = {}
        for name, keys in touched.keys.items():
            table = schema.get(name)
            if table is None or not self._has_records(table):
                continue
            # A row that is gone is known by the log's key alone.
            is_key = table.key == self._renderings[name].key_columns
            found[table.name] = keys if is_key else None
        return found

    def _read_rows(self, effect: ReadRows) -> Page:
        with self._snapshot(effect.table) as (connection, schema):
            number = meta.read_position(connection).number
            table, rendering = self._table(schema, effect.table)
            # Where 'a' became 'A', by NOCASE the row would be found for both.
            where = " AND ".join(
                f"{quote(c)} = ?{i} AND {quote(c)} = ?{i} COLLATE BINARY"
                for i, c in enumerate(rendering.key_columns, 1)
            )
            sql = f"{_select(table)} WHERE {where}"
            found = [connection.execute(sql, key).fetchone() for key in effect.keys]
        return Page(
            number,
            [
                Row(record_key(table.name, key), None)
                if row is None
                else _render(table, rendering, row)
                for key, row in zip(effect.keys, found, strict=True)
            ],
        )

    def _read_page(self, effect: ReadPage) -> Page:
        with self._snapshot(effect.table) as (connection, schema):
            number = meta.read_position(connection).number
            table, rendering = self._table(schema, effect.table)
            order = (table.rowid,) if table.rowid else table.key
            names = ", ".join(map(quote, order))
            where, params = "", list(effect.after or ())
            if params:
                where = f" WHERE ({names}) > ({', '.join('?' * len(params))})"
            rows = connection.execute(
                f"{_select(table)}{where} ORDER BY {names} LIMIT {PAGE}", params
            ).fetchall()
        after = None
        if len(rows) == PAGE:
            indexes = [table.columns.index(column) for column in order]
            after = tuple(rows[-1][index] for index in indexes)
        return Page(number, [_render(table, rendering, row) for row in rows], after)

    def _table(self, schema: Schema, name: str) -> tuple[Table, Rendering]:
        table = schema.get(name)
        if table is None:
            raise sqlite3.OperationalError(f"no such table: {name}")
        return table, self._renderings[name.lower()]


def _select(table: Table) -> str:
    # The sign keeps SQLite's module from converting what it takes for a date.
    columns = ", ".join(f"+{quote(column)}" for column in table.columns)
    return f"SELECT {columns} FROM main.{quote(table.name)}"  # noqa: S608


def _render(table: Table, rendering: Rendering, row: Sequence[Any]) -> Row:
    values = dict(zip(table.columns, row, strict=True))
    key = record_key(table.name, [values[name] for name in rendering.key_columns])
    if table.carries_rowid and table.rowid not in rendering.key_columns:
        del values[table.rowid]
    try:
        return Row(key, rendering.content(list(values), list(values.values())))
    except SerializationError as error:
        return Row(key, None, str(error))
