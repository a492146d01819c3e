"""SQL compilers: which query it is, ids, and ``select_for_update()``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db import NotSupportedError
from django.db.models import Field, Model
from django.db.models.options import Options
from django.db.models.sql import compiler
from django.db.models.sql.compiler import SQLDeleteCompiler, SQLUpdateCompiler

from s3cache.results.reading import QuerySQL, Reading

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper

__all__ = [
    "SQLAggregateCompiler",
    "SQLCompiler",
    "SQLDeleteCompiler",
    "SQLInsertCompiler",
    "SQLUpdateCompiler",
]


class _Reads(compiler.SQLCompiler):
    """A compiler whose SQL says which query it is of."""

    connection: DatabaseWrapper
    _by_chunks: bool | None = None

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Tell what is executed of what is only compiled."""
        self._by_chunks = bool(kwargs.get("chunked_fetch") or any(args[1:2]))
        try:
            return super().execute_sql(*args, **kwargs)
        finally:
            self._by_chunks = None

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        """SQL that carries its query, if it is about to be executed."""
        sql, params = super().as_sql(*args, **kwargs)
        if (by_chunks := self._by_chunks) is not None:
            sql = QuerySQL(
                Reading(self.query, self.connection, sql, params, by_chunks=by_chunks)
            )
        return sql, params


class SQLCompiler(_Reads):
    """SELECT, with ``select_for_update()`` as a turn among blocks."""

    connection: DatabaseWrapper

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Take the turn first, if the query asks for it.

        ``has_select_for_update`` is off, or Django would put FOR UPDATE into
        the SQL.
        """
        query = self.query
        if query.select_for_update:
            if query.select_for_update_skip_locked:
                raise NotSupportedError(
                    "select_for_update(skip_locked=True) is not supported: blocks "
                    "take turns, and no row is locked by itself."
                )
            self.connection.take_turn(wait=not query.select_for_update_nowait)
        return super().execute_sql(*args, **kwargs)


class SQLAggregateCompiler(_Reads, compiler.SQLAggregateCompiler):
    """SELECT of aggregates over another query."""


def id_column(options: Options[Any], fields: Iterable[object]) -> str:
    """The column whose value an INSERT of ``fields`` leaves open, or ""."""
    field = options.auto_field
    if (
        field is None
        or field.column is None
        or field in fields
        or field.model._meta.db_table != options.db_table
    ):
        return ""
    return field.column


class SQLInsertCompiler(compiler.SQLInsertCompiler):
    """INSERT, with ids that no other transaction can get."""

    connection: DatabaseWrapper
    _ids: dict[int, int] | None = None

    def as_sql(self) -> Any:  # type: ignore[override]
        """Put the ids into the statement, if they come from a chunk."""
        if self._ids is None:
            self._take_ids()
        return super().as_sql()

    def _take_ids(self) -> None:
        self._ids = {}
        query = self.query
        options = query.get_meta()
        column = id_column(options, query.fields)
        if not column:
            return
        ids = self.connection.take_ids(options.db_table, column, len(query.objs))
        if ids is not None and options.auto_field is not None:
            self._ids = {id(obj): one for obj, one in zip(query.objs, ids, strict=True)}
            query.fields = [options.auto_field, *query.fields]

    def pre_save_val(self, field: Field[Any, Any], obj: Model) -> Any:
        """The value of ``field``, or the id that ``obj`` was given."""
        if self._ids and field is self.query.get_meta().auto_field:
            return self._ids[id(obj)]
        return super().pre_save_val(field, obj)
