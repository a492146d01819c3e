"""What kind of statement a piece of SQL is, told by its first word."""

from __future__ import annotations

import enum
import re


class Kind(enum.Enum):
    """How a statement is treated."""

    READ = "read"
    WRITE = "write"
    SCHEMA = "schema"
    TRANSACTION = "transaction"
    PRAGMA = "pragma"
    MAINTENANCE = "maintenance"
    REFUSED = "refused"
    #: WITH: a read or a write, which only SQLite can tell.
    EITHER = "either"


_KINDS = {
    **dict.fromkeys(["SELECT", "VALUES", "EXPLAIN"], Kind.READ),
    **dict.fromkeys(["INSERT", "REPLACE", "UPDATE", "DELETE"], Kind.WRITE),
    **dict.fromkeys(["CREATE", "ALTER", "DROP"], Kind.SCHEMA),
    **dict.fromkeys(
        ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"],
        Kind.TRANSACTION,
    ),
    "PRAGMA": Kind.PRAGMA,
    **dict.fromkeys(["ANALYZE", "REINDEX", "VACUUM"], Kind.MAINTENANCE),
    **dict.fromkeys(["ATTACH", "DETACH"], Kind.REFUSED),
    "WITH": Kind.EITHER,
}

#: White space, comments and opening brackets, then a word.
_FIRST_WORD = re.compile(r"(?:[\s(;]+|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]+)", re.DOTALL)

_WORDS = re.compile(r"(?:\s+|--[^\n]*\n|/\*.*?\*/|\()*([^\s(;]+)", re.DOTALL)


def kind_of(sql: str) -> Kind:
    """The kind of ``sql``; what SQLite will not understand is a READ."""
    match = _FIRST_WORD.match(sql)
    if match is None:
        return Kind.READ
    return _KINDS.get(match[1].upper(), Kind.READ)


def words(sql: str, count: int) -> list[str]:
    """The first ``count`` words of ``sql``, comments left out, upper case."""
    found: list[str] = []
    position = 0
    while len(found) < count and (match := _WORDS.match(sql, position)):
        found.append(match[1].upper())
        position = match.end()
    return found


def savepoint_name(sql: str) -> str:
    """The name that SAVEPOINT, RELEASE or ROLLBACK TO is about, or "".

    SQLite compares the names without regard to case.
    """
    name = sql.rstrip(" \t\r\n;").split()[-1]
    if words(sql, 2)[:1] == ["ROLLBACK"] and "TO" not in words(sql, 3):
        return ""
    return name.strip("\"`[]'").lower()


def quote(name: str) -> str:
    """``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


_REFUSED_OBJECTS = {
    "TRIGGER": (
        "triggers would run on each replica again, on top of what they did "
        "where the statement ran"
    ),
    "VIRTUAL": "the rows of virtual tables cannot be followed",
    "TEMP": "a temporary table would belong to one connection of this process",
}
_REFUSED_OBJECTS["TEMPORARY"] = _REFUSED_OBJECTS["TEMP"]


def why_refused(sql: str) -> str:
    """Why the schema cannot have what a CREATE statement creates, or ""."""
    found = words(sql, 3)
    if found[:1] != ["CREATE"]:
        return ""
    return next(
        (_REFUSED_OBJECTS[word] for word in found[1:] if word in _REFUSED_OBJECTS), ""
    )
