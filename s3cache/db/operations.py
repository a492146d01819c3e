"""Operations that differ from SQLite's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3 import operations

from s3cache.db import requests_log
from s3cache.replica.requests import StatementRequest
from s3cache.replica.sql import quote

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper


class DatabaseOperations(operations.DatabaseOperations):
    """SQLite's operations, with our compilers."""

    compiler_module = "s3cache.db.compiler"
    connection: DatabaseWrapper

    def last_executed_query(self, cursor: Any, sql: str, params: Any) -> str:
        """The statement for ``connection.queries``, with its requests."""
        text: str = super().last_executed_query(cursor, sql, params)
        return text + requests_log.comment(self.connection)

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
