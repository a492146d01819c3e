"""Errors of SQLite that are about this host, and not about a statement."""

from __future__ import annotations

import sqlite3
from typing import Final

_OF_THE_HOST: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    }
)


def is_of_the_host(error: sqlite3.Error) -> bool:
    """Whether the same statement may succeed later, or elsewhere.

    The disk is full, say. What came to such an error proves nothing.
    """
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _OF_THE_HOST
