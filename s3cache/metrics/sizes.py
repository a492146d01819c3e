"""How large tables are: about, and without reading them."""

from __future__ import annotations

import sqlite3

from django.apps import apps
from django.db import Error

from s3cache.metrics.tally import replicas
from s3cache.replica import sql

__all__ = ["rows_of"]


def rows_of(database: str, label: str) -> int:
    """About how many rows of a model this host has, never too few.

    As many as there are numbers between its first row and its last one: what
    was deleted in between counts, what was at the beginning does not. 0 where
    that is not known.
    """
    replica = replicas().get(database)
    if replica is None or not replica.is_open:
        return 0
    try:
        model = apps.get_model(label.partition("@")[0])
    except (LookupError, ValueError):
        return 0
    table = sql.quote(model._meta.db_table)
    reader = replica.new_reader()
    try:
        with reader.held() as held:
            # Two statements: SQLite looks up one end at a time.
            first, last = (
                held.execute(f"SELECT {end}(rowid) FROM {table}").fetchone()[0]  # noqa: S608
                for end in ("min", "max")
            )
    except (Error, sqlite3.Error):
        return 0  # it has no rowids, or is not there
    finally:
        replica.give_back(reader)
    return 0 if first is None else last - first + 1
