"""``_head``, the one object that is ever replaced."""

from __future__ import annotations

from typing import Any

import msgspec

from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.log.entry import DAMAGE, NewerFormat, newer_format
from s3cache.log.keys import HEAD

FORMAT = 1


class Head(msgspec.Struct, frozen=True):
    """What a protocol has to know before it can believe the log.

    ``database`` identifies the database for ever. Entries up to ``trimmed``
    are gone from the log: the packs of ``catalog``, the key of one, hold what
    they said. ``keeper`` is the token of the keeper at work, if there is one,
    and ``revision`` counts how often this object was replaced: no two of them
    have the same bytes. ``probe`` is what the store was found to honour when
    the database was created.
    """

    database: str
    format: int = FORMAT
    trimmed: int = 0
    catalog: str = ""
    keeper: str = ""
    revision: int = 0
    created: str = ""
    probe: dict[str, Any] = {}


class _Version(msgspec.Struct):
    format: int


class _Stated(msgspec.Struct):
    """What any ``_head`` of this format says, also one that is no ``Head``."""

    format: int
    database: str = ""
    state: str = ""


#: The state of a ``_head`` whose database was dropped.
_DROPPED = "dropped"

# Made by one thread; see s3cache.log.entry.
_head = msgspec.json.Decoder(Head)
_version = msgspec.json.Decoder(_Version)
_stated = msgspec.json.Decoder(_Stated)


def encode_head(head: Head, *, over: bytes = b"{}") -> bytes:
    """The bytes of ``_head``: JSON, indented for people.

    What a newer release has put into ``over``, the bytes that these replace,
    is kept.
    """
    kept: dict[str, Any] = msgspec.json.decode(over)
    merged = {**kept, **msgspec.to_builtins(head)}
    return msgspec.json.format(msgspec.json.encode(merged), indent=2)


def encode_dropped(database: str) -> bytes:
    """The bytes of ``_head`` where ``database`` was dropped.

    No two databases have the same, so that its ETag is used but once.
    """
    return msgspec.json.encode(_Stated(FORMAT, database, _DROPPED))


def dropped_database(body: bytes) -> str:
    """The database that was dropped, or "" if ``_head`` says no such thing."""
    try:
        found = _stated.decode(body)
    except DAMAGE:
        return ""
    return found.database if found.state == _DROPPED else ""


def was_dropped() -> LogDiverged:
    """The error for who wants to use a database that is there no more."""
    return LogDiverged(
        f"The database was dropped, says {HEAD}. (`tenants.create()` makes "
        f"another one there.)"
    )


def decode_head(body: bytes) -> Head:
    """Read ``_head``.

    Raises ``EntryFormatError`` for what is not one, and ``LogDiverged`` where
    the database was dropped.
    """
    try:
        version = _version.decode(body).format
        if version > FORMAT:
            raise NewerFormat(newer_format(HEAD, version, FORMAT))
        if _stated.decode(body).state == _DROPPED:
            raise was_dropped()
        head = _head.decode(body)
    except DAMAGE as error:
        raise EntryFormatError(f"{HEAD} is damaged: {error}") from error
    if not head.database or head.trimmed < 0:
        raise EntryFormatError(
            f"{HEAD} is damaged: database {head.database!r}, trimmed {head.trimmed}"
        )
    return head
