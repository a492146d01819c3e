"""The schema editor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3 import schema
from django.db.backends.utils import strip_quotes

from s3cache.replica.schema_block import COPY_MARK
from s3cache.replica.sql import quote

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """SQLite's schema editor; tables that it remakes keep what SQLite forgets.

    That is the AUTOINCREMENT position, or ids that were deleted or reserved
    would be given out again, and the rowids, which every host has to agree on.
    """

    connection: DatabaseWrapper
    _remaking = ""

    def _remake_table(self, model: Any, *args: Any, **kwargs: Any) -> None:
        table = strip_quotes(model._meta.db_table)
        before = None if self.collect_sql else self._sequence(table)
        self._remaking = table
        try:
            super()._remake_table(model, *args, **kwargs)  # type: ignore[misc]
        finally:
            self._remaking = ""
        if before is not None:
            with self.connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE sqlite_sequence SET seq = max(seq, %s) WHERE name = %s",
                    [before, table],
                )

    def _sequence(self, table: str) -> int | None:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
            row = cursor.fetchone()
        return row[0] if row else None

    def execute(self, sql: Any, params: Any = ()) -> None:
        """Execute a statement; mark the copy of a table that is remade."""
        if self._remaking and isinstance(sql, str) and not self.collect_sql:
            sql = self._marked(sql, f"new__{self._remaking}", self._remaking)
        super().execute(sql, params)

    def _marked(self, sql: str, new: str, old: str) -> str:
        into = f"INSERT INTO {quote(new)} ("
        columns, select, values = sql.removeprefix(into).partition(") SELECT ")
        if not sql.startswith(into) or not select:
            return sql
        tables = [self.connection.table(name) for name in (new, old)]
        if all(table is not None and table.carries_rowid for table in tables):
            columns, values = f"rowid, {columns}", f"rowid, {values}"
        return f"{COPY_MARK} {into}{columns}{select}{values}"
