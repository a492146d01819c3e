"""The buffered result of a statement."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from typing import Any

#: Results of up to so many rows are kept to compare with; of larger ones a
#: digest.
_KEPT_ROWS = 100

#: What SQLite's module tells of a column beside its name.
_NOT_TOLD = (None,) * 6


class Result:
    """All that a statement returned; nothing, without a cursor.

    Nothing of SQLite's stays open.

    A replay compares results: if every statement says what it said before,
    the Python code between them would have decided the same.
    """

    __slots__ = (
        "_lastrowid",
        "_next",
        "_repeats",
        "_rowcount",
        "description",
        "lastrowid_seen",
        "rowcount_seen",
        "rows",
    )

    def __init__(self, cursor: sqlite3.Cursor | None = None) -> None:
        self.description: Any = None if cursor is None else cursor.description
        self.rows: list[Any] = []
        if cursor is not None and cursor.description:
            self.rows = cursor.fetchall()
        self._rowcount = -1 if cursor is None else cursor.rowcount
        self._lastrowid = None if cursor is None else cursor.lastrowid
        self.rowcount_seen = False
        self.lastrowid_seen = False
        self._next = 0
        self._repeats: Result | None = None

    @property
    def shown(self) -> Result:
        """The one that the caller has, of which this may be a repetition."""
        return self._repeats or self

    def repeat(self, first: Result) -> None:
        """Be what the statement says now to whom ``first`` was given.

        The caller may look at the row count and the id of ``first`` later
        than now. What has been looked at is the same in both.
        """
        shown = self._repeats = first.shown
        shown._rowcount = self._rowcount
        shown._lastrowid = self._lastrowid

    @classmethod
    def of(cls, names: Iterable[str], rows: list[Any]) -> Result:
        """A result that was read before: its columns and its rows."""
        made = cls()
        made.description = tuple((name, *_NOT_TOLD) for name in names)
        made.rows = rows
        return made

    def again(self) -> Result:
        """The same rows for another reader, from the first one on."""
        made = type(self)()
        made.description, made.rows = self.description, self.rows
        return made

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the last INSERT; who looks at it depends on it."""
        self.lastrowid_seen = True
        return self._lastrowid

    @property
    def rowcount(self) -> int:
        """The rows that were changed, or -1; as with ``lastrowid``."""
        self.rowcount_seen = True
        return self._rowcount

    @property
    def found_nothing(self) -> bool:
        """Whether there was no row to change; nobody is told by this."""
        return self._rowcount == 0

    def fetchone(self) -> Any:
        """The next row, or None."""
        if self._next >= len(self.rows):
            return None
        self._next += 1
        return self.rows[self._next - 1]

    def fetchmany(self, size: int) -> list[Any]:
        """Up to ``size`` of the rows that are left."""
        rows = self.rows[self._next : self._next + size]
        self._next += len(rows)
        return rows

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        rows = self.rows[self._next :]
        self._next = len(self.rows)
        return rows


class Seen:
    """What the caller of a statement learned from it."""

    __slots__ = ("_result", "_rows", "error")

    def __init__(self, result: Result | None, error: Exception | None = None) -> None:
        self._result = result
        self._rows = _digest(result.rows) if result is not None else None
        self.error = type(error) if error is not None else None

    def matches(self, other: Seen) -> bool:
        """Whether ``other``, of the same statement, says the same."""
        mine, theirs = self._result, other._result
        if mine is None or theirs is None:
            return mine is theirs and self.error is other.error
        mine = mine.shown
        if mine.lastrowid_seen and mine._lastrowid != theirs._lastrowid:
            return False
        if mine.rowcount_seen and mine._rowcount != theirs._rowcount:
            return False
        return bool(self._rows == other._rows)

    def hand_over(self, other: Seen) -> None:
        """Let ``other``, which takes this one's place, be what callers see."""
        if self._result is not None and other._result is not None:
            other._result.repeat(self._result)


def _digest(rows: list[Any]) -> Any:
    if len(rows) <= _KEPT_ROWS:
        return rows
    # Not hash(): hash(-1) == hash(-2).
    return hashlib.blake2b(repr(rows).encode("utf-8", "surrogatepass")).digest()
