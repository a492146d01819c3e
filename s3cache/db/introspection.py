"""Introspection without the replica's own tables."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3 import introspection

from s3cache.replica.tables import OWN_PREFIX


class DatabaseIntrospection(introspection.DatabaseIntrospection):
    """SQLite's introspection; the replica's own tables are not the user's."""

    def get_table_list(self, cursor: Any) -> list[Any]:
        """The tables and views of the database."""
        return [
            table
            for table in super().get_table_list(cursor)
            if not table.name.startswith(OWN_PREFIX)
        ]
