"""Earlier states of a database, and of single rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from s3cache.keeper.restore import restore
from s3cache.log.catch_up import AT_ONCE
from s3cache.log.entry import Value
from s3cache.log.history import Left, Logged, RowKey, Unclear, left_by, read_logged
from s3cache.log.proof import read_head
from s3cache.replica.replica import Replica
from s3cache.replica.sql import quote
from s3cache.stores.directory import DirectoryStore


class NoSuchState(Exception):
    """The log does not reach so far, or not yet."""


class Past:
    """What the log of ``replica``'s database still tells.

    The replica is to have caught up. ``newest`` is the last entry that there
    is, ``trimmed`` the last one that is gone.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.trimmed = replica.run(read_head()).trimmed
        self.newest = replica.position().number

    def entries(self, newest: int | None = None) -> Iterator[Logged]:
        """The entries from ``newest`` (default: the last one) backwards.

        Read as they are asked for, ``AT_ONCE`` at the same time.
        """
        last = self.newest if newest is None else min(newest, self.newest)
        while last > self.trimmed:
            first = max(last - AT_ONCE, self.trimmed) + 1
            numbers = range(last, first - 1, -1)
            yield from self._replica.run(
                read_logged(numbers, self._replica.options.signing_keys)
            )
            last = first - 1

    def row(self, table: str, key: RowKey, number: int) -> dict[str, Value] | None:
        """The row of ``table`` ``key``, as it was after an entry.

        None if there was none. Found in the entry that changed it, in the
        replica if no later entry did, else in a copy of the whole database as
        it was then, which takes as long as a restore. Raises ``NoSuchState``.
        """
        if not self.trimmed <= number <= self.newest:
            raise NoSuchState(
                f"There is no state after entry {number} any more, or not yet: the "
                f"log goes from {self.trimmed} to {self.newest}."
            )
        left = self._left_by(self.entries(number), table, key)
        if not isinstance(left, Unclear):
            return None if left is None else dict(left)
        if left is Unclear.UNTOUCHED and number < self.newest:
            since = (one for one in self.entries() if one.entry.number > number)
            left = self._left_by(since, table, key)
        if left is Unclear.UNTOUCHED:
            return _find(self._replica, table, key)
        with tempfile.TemporaryDirectory() as folder:
            then = DirectoryStore(Path(folder, "store"))
            restore(self._replica, then, number)
            options = self._replica.options
            copy = Replica(Path(folder, "replica.sqlite3"), options, then)
            try:
                return _find(copy, table, key)
            finally:
                copy.close()

    def _left_by(
        self, entries: Iterator[Logged], table: str, key: RowKey
    ) -> Left | Unclear:
        for one in entries:
            left = left_by(one.entry, table, key)
            if left is not Unclear.UNTOUCHED:
                return left
        return Unclear.UNTOUCHED


def _find(replica: Replica, name: str, key: RowKey) -> dict[str, Value] | None:
    """The row as it is in ``replica``."""
    reader = replica.new_reader()
    try:
        with reader.held() as connection:
            table = replica.describe(connection).get(name)
        if table is None or len(table.key) != len(key.texts):
            return None
        columns = ", ".join(f"+{quote(column)}" for column in table.columns)
        where = " AND ".join(
            f"({quote(column)} = ? OR CAST({quote(column)} AS TEXT) = ?)"
            for column in table.key
        )
        sql = f"SELECT {columns} FROM {quote(table.name)} WHERE {where}"  # noqa: S608
        params = [*chain.from_iterable(zip(key.values, key.texts, strict=True))]
        row = replica.loading(lambda: reader.execute(sql, params)).fetchone()
        return None if row is None else dict(zip(table.columns, row, strict=True))
    finally:
        replica.give_back(reader)
