"""Operations that differ from SQLite's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3 import operations
from django.db.models import Field, Model

from s3cache.db.compiler import id_column
from s3cache.replica.requests import StatementRequest
from s3cache.replica.sql import quote

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper


class DatabaseOperations(operations.DatabaseOperations):
    """SQLite's operations, with our compilers."""

    compiler_module = "s3cache.db.compiler"
    connection: DatabaseWrapper

    def bulk_batch_size(self, fields: Any, objs: Any) -> int:
        """How many of ``objs`` one statement may be about.

        Asked by ``bulk_create()`` before its first INSERT: the only moment at
        which it is known how many ids all of them will take. From Django 6.1
        on it may only then begin the block that they are done in.
        """
        size: int = super().bulk_batch_size(fields, objs)
        connection = self.connection.connection
        if connection is not None and _leaves_id(fields, objs):
            self.connection.want_ids(objs[0]._meta.db_table, len(objs))
            # The ids are one more parameter for each row.
            limit = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
            size = min(size, limit // (len(fields) + 1))
        return size

    def execute_sql_flush(self, sql_list: Iterable[str]) -> None:
        """Run the statements of a flush as one commit."""
        connection = self.connection
        connection.ensure_connection()
        if connection.block is not None:
            super().execute_sql_flush(sql_list)
            return
        with connection.wrap_database_errors:
            connection.refresh()
            commands = [
                (sql, (), False) for sql in sql_list if self._does_something(sql)
            ]
            if commands:
                connection.submit(StatementRequest(commands))

    def _does_something(self, sql: str) -> bool:
        # To empty a table that is empty costs capturing it, and a flush is
        # about all tables.
        connection = self.connection.replica.analyser
        tables = connection.access(sql, ()).writes - {"sqlite_sequence"}
        return not tables or any(
            self.connection.run(f"SELECT 1 FROM {quote(table)} LIMIT 1", (), False).rows
            for table in tables
        )


def _leaves_id(fields: Any, objs: Any) -> bool:
    # Updates and deletes ask as well, about names or other kinds of objects.
    return (
        bool(fields and objs)
        and isinstance(objs[0], Model)
        and all(isinstance(field, Field) for field in fields)
        and bool(id_column(objs[0]._meta, fields))
    )
