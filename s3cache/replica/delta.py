"""The rows that an ``atomic()`` block changed, in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from s3cache.log.entry import Row, Rows
from s3cache.replica.applying import lay_rows
from s3cache.replica.meta import Key, Touched, keys_of
from s3cache.replica.tables import Table

_ABSENT = object()


@dataclass(slots=True)
class TableDelta:
    """The changed rows of one table: by key the new row, None if deleted."""

    table: Table
    rows: dict[Key, Row | None] = field(default_factory=dict)
    #: No id is larger, if the key is one.
    largest: int = 0

    def largest_id(self, low: int, high: int) -> int | None:
        """The largest id from ``low`` to ``high`` among the changed rows.

        Asked for each row that a block creates, usually about ids that are
        above all that it has: then without a look at them all.
        """
        if not self.table.integer_key or self.largest < low:
            return None
        return max((key[0] for key in self.rows if low <= key[0] <= high), default=None)


class Delta:
    """Changed rows by table, with an undo log for savepoints."""

    def __init__(self) -> None:
        self.tables: dict[str, TableDelta] = {}
        self._undo: list[tuple[TableDelta, Key, object]] = []

    def __bool__(self) -> bool:
        return any(delta.rows for delta in self.tables.values())

    def merge(self, table: Table, rows: Rows) -> None:
        """Add what a statement changed in ``table``."""
        delta = self.tables.get(table.name.lower())
        if delta is None:
            delta = self.tables[table.name.lower()] = TableDelta(table)
        deleted = list(map(tuple, rows.deleted))
        for key in deleted:
            self._set(delta, key, None)
        keys = keys_of(rows.rows, table.key_indexes)
        for key, row in zip(keys, rows.rows, strict=True):
            self._set(delta, key, row)
        if table.integer_key:
            ids = (key[0] for key in chain(deleted, keys))
            delta.largest = max(delta.largest, max(ids, default=0))

    def _set(self, delta: TableDelta, key: Key, row: Row | None) -> None:
        self._undo.append((delta, key, delta.rows.get(key, _ABSENT)))
        delta.rows[key] = row

    def mark(self) -> int:
        """A point to ``undo_to``."""
        return len(self._undo)

    def undo_to(self, mark: int) -> None:
        """Take back what was merged since ``mark``."""
        while len(self._undo) > mark:
            delta, key, before = self._undo.pop()
            if before is _ABSENT:
                del delta.rows[key]
            else:
                delta.rows[key] = before  # type: ignore[assignment]

    def changed_tables(self) -> Iterator[TableDelta]:
        """The tables that have changed rows."""
        return (delta for delta in self.tables.values() if delta.rows)

    def names(self) -> list[str]:
        """The lower-case names of the tables that have changed rows."""
        return [name for name, delta in self.tables.items() if delta.rows]

    def lay(self, connection: sqlite3.Connection) -> None:
        """Put the rows over whatever ``connection`` sees."""
        for delta in self.changed_tables():
            lay_rows(
                connection,
                delta.table,
                [row for row in delta.rows.values() if row is not None],
                [key for key, row in delta.rows.items() if row is None],
            )

    def meets(self, touched: Touched) -> bool:
        """Whether another commit changed one of these rows."""
        if touched.schema:
            return True
        for name, delta in self.tables.items():
            if delta.rows and name in touched.keys:
                keys = touched.keys[name]
                if keys is None or not keys.isdisjoint(delta.rows):
                    return True
        return False
