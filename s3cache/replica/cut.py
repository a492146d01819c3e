"""Which rows of a pack are put into their table before the others.

Who waits for a row, or for a page, does not wait until SQLite has put tens of
thousands of others beside them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from s3cache.log.catalog import Pack
from s3cache.replica.absent import Part, packs_of_page, packs_with
from s3cache.replica.sql import in_range, quote
from s3cache.replica.tables import Table

#: A pack with fewer rows is loaded in one go: that takes no time to speak of.
MANY_ROWS = 10_000

#: So many rows are loaded first, at most, of each part of a larger one.
FEW_ROWS = 1_000

#: The first rowid that there can be, and the last.
_FIRST, _LAST = -(2**63), 2**63 - 1

#: The first and the last of some rowids.
Ends = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ByKey:
    """The rows with ``keys``, values of a primary key of one column."""

    table: Table
    keys: Sequence[Any]

    def packs(self, connection: sqlite3.Connection) -> frozenset[str]:
        """The absent packs that may have them."""
        return packs_with(connection, self.table, self.keys)

    def between(self, rows: Rows) -> Ends | None:
        """Between which rowids they are among ``rows``; None: not known."""
        if len(self.keys) > FEW_ROWS:
            return None
        if self.table.is_keyed_by_rowid:
            rowids = [key for key in self.keys if rows.may_have(key)]
            return (min(rowids), max(rowids)) if rowids else None
        marks = ", ".join("?" * len(self.keys))
        return rows.ends(f"AND {rows.key} IN ({marks})", self.keys)


@dataclass(frozen=True, slots=True)
class Page:
    """The first ``count`` rows by primary key; the last ones ``from_end``."""

    table: Table
    count: int
    from_end: bool

    def packs(self, connection: sqlite3.Connection) -> frozenset[str]:
        """The absent packs that they need; see ``packs_of_page``."""
        return packs_of_page(connection, self.table, self.count, self.from_end)

    def between(self, rows: Rows) -> Ends | None:
        """Between which rowids they are among ``rows``; None: not known.

        With some more: of the first ones several may have been deleted.
        """
        if self.count > FEW_ROWS:
            return None
        order = "DESC" if self.from_end else "ASC"
        return rows.ends(f"ORDER BY {rows.key} {order} LIMIT ?", [FEW_ROWS])


Wanted = ByKey | Page


class Rows:
    """The rows of ``part`` in its pack, which is attached as ``pack``."""

    def __init__(
        self, connection: sqlite3.Connection, table: Table, part: Part
    ) -> None:
        self._connection = connection
        self._part = part
        self._table = quote(table.name)
        self._rowid = quote(table.rowid)
        self.key = quote(table.key[0])

    def may_have(self, rowid: int) -> bool:
        """Whether a row with ``rowid`` would be among them."""
        after, upto = self._part.after, self._part.upto
        return (
            (after is None or after < rowid)
            and (upto is None or rowid <= upto)
            and _FIRST <= rowid <= _LAST
        )

    def ends(self, which: str, params: Sequence[Any]) -> Ends | None:
        """The first and the last rowid of those that are meant."""
        _count, low, high = self._ask(self._part, self._rowid, which, params)
        return None if low is None else (low, high)

    def split(self, low: int, high: int) -> tuple[Part, list[Part]] | None:
        """A part with the rows from ``low`` to ``high``, and what remains.

        With some that follow, up to as many as are few; None if those are
        more.
        """
        part = self._part
        row = self._rowid
        count, _first, last = self._ask(
            part, row, f"AND {row} >= ? ORDER BY {row} LIMIT ?", [low, FEW_ROWS]
        )
        if count == FEW_ROWS and last < high:
            return None
        high = max(high, last or high)
        rest = []
        _count, _first, below = self._ask(
            part, row, f"AND {row} < ? ORDER BY {row} DESC LIMIT 1", [low]
        )
        if below is not None:
            rest.append(self._bounded(replace(part, upto=below)))
            part = replace(part, after=below)
        _count, above, _last = self._ask(
            part, row, f"AND {row} > ? ORDER BY {row} LIMIT 1", [high]
        )
        if above is not None:
            rest.append(self._bounded(replace(part, after=high)))
            part = replace(part, upto=high)
        return part, rest

    def _bounded(self, part: Part) -> Part:
        """``part`` with the keys between which its own rows are."""
        if part.low is None:
            return part
        _count, low, high = self._ask(part, self.key)
        return replace(part, low=low, high=high)

    def _ask(
        self, part: Part, column: str, which: str = "", params: Sequence[Any] = ()
    ) -> Any:
        """How many there are, and the smallest and largest ``column``."""
        where, limits = in_range(self._rowid, part.after, part.upto)
        return self._connection.execute(
            f"SELECT count(*), min(c), max(c) FROM (SELECT {column} AS c "
            f"FROM pack.{self._table} WHERE {where} {which})",
            [*limits, *params],
        ).fetchone()


@dataclass(frozen=True, slots=True)
class Cut:
    """The parts that are loaded ``first``, and the ``rest``."""

    first: Sequence[Part]
    rest: Sequence[Part]


def cut(
    connection: sqlite3.Connection, pack: Pack, parts: Sequence[Part], wanted: Wanted
) -> Cut | None:
    """Cut the absent ``parts`` of ``pack``, so that a few rows are enough.

    The pack is attached as ``pack``. None if nothing would remain, or those
    rows would not be few.
    """
    table = wanted.table
    if pack.rows < MANY_ROWS or not table.rowid:
        return None
    first: list[Part] = []
    rest: list[Part] = []
    for part in parts:
        rows = Rows(connection, table, part)
        ends = wanted.between(rows) if part.table == table.name.lower() else None
        if ends is None:
            rest.append(part)
        elif (some := rows.split(*ends)) is None:
            return None
        else:
            first.append(some[0])
            rest += some[1]
    return Cut(first, rest) if first and rest else None
