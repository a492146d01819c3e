"""What kind of statement a piece of SQL is, told by its first word."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from itertools import islice


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

#: White space, comments and opening brackets. What was skipped is not tried
#: in another way: it would take exponential time.
_SKIPPED = r"(?:[\s(;]|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+"

_FIRST_WORD = re.compile(_SKIPPED + "([A-Za-z]+)", re.DOTALL)

#: A quoted name or string, or what stands between those and the skipped.
_WORD = re.compile(
    _SKIPPED
    + r"""("(?:[^"]|"")*"|`(?:[^`]|``)*`|'(?:[^']|'')*'|\[[^\]]*\]"""
    + r"""|[^\s(;"`'\[/-]+|.)""",
    re.DOTALL,
)


def kind_of(sql: str) -> Kind:
    """The kind of ``sql``; what SQLite will not understand is a READ."""
    match = _FIRST_WORD.match(sql)
    if match is None:
        return Kind.READ
    return _KINDS.get(match[1].upper(), Kind.READ)


def words(sql: str, count: int) -> list[str]:
    """The first ``count`` words of ``sql``, comments left out, upper case.

    A quoted name is one word.
    """
    return [word.upper() for word in islice(_words(sql), count)]


def _words(sql: str) -> Iterator[str]:
    position = 0
    while match := _WORD.match(sql, position):
        yield match[1]
        position = match.end()


def savepoint_name(sql: str) -> str:
    """The name that SAVEPOINT, RELEASE or ROLLBACK TO is about, or "".

    SQLite compares the names without regard to case.
    """
    *_, name = ["", *_words(sql)]
    if words(sql, 1) == ["ROLLBACK"] and "TO" not in words(sql, 3):
        return ""
    return _unquoted(name).lower()


def _unquoted(name: str) -> str:
    if name.startswith("["):
        return name[1:-1]
    mark = name[:1]
    if mark in ('"', "`", "'"):
        return name[1:-1].replace(mark * 2, mark)
    return name


def quote(name: str) -> str:
    """``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_column(name: str) -> str:
    """A column, or the rowid, as SQL.

    A quoted "rowid" that names no column would be read as a string.
    """
    return name if name in ("rowid", "_rowid_", "oid") else quote(name)


def in_range(rowid: str, after: int | None, upto: int | None) -> tuple[str, list[int]]:
    """The condition ``after`` < ``rowid`` <= ``upto``, None is no limit."""
    terms, params = ["1"], []
    if after is not None:
        terms.append(f"{rowid} > ?")
        params.append(after)
    if upto is not None:
        terms.append(f"{rowid} <= ?")
        params.append(upto)
    return " AND ".join(terms), params


#: Why the schema cannot have some kinds of objects, by the word for them.
REFUSED_OBJECTS = {
    "TRIGGER": (
        "triggers would run on each replica again, on top of what they did "
        "where the statement ran"
    ),
    "VIRTUAL": "the rows of virtual tables cannot be followed",
    "TEMP": "a temporary table would belong to one connection of this process",
}
REFUSED_OBJECTS["TEMPORARY"] = REFUSED_OBJECTS["TEMP"]


def why_refused(sql: str) -> str:
    """Why the schema cannot have what a CREATE statement creates, or ""."""
    found = words(sql, 3)
    if found[:1] != ["CREATE"]:
        return ""
    return next(
        (REFUSED_OBJECTS[word] for word in found[1:] if word in REFUSED_OBJECTS), ""
    )
