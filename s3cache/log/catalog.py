"""Catalogs: what a new replica starts from.

A catalog describes the whole database at one position of the log: its schema,
and the packs that hold its rows. Catalogs and packs are created once, under
names that are used once, and never change. A pack that no entry has touched
since it was written stands in later catalogs as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from s3cache.exceptions import EntryFormatError
from s3cache.log.effects import Position
from s3cache.log.entry import DAMAGE, NewerFormat, newer_format, seal_text, unseal_text
from s3cache.log.keys import PACKS

FORMAT = 1


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rows of ``table`` with ``after`` < rowid <= ``upto``.

    None is no limit. A table without rowids is one segment.
    """

    table: str
    after: int | None = None
    upto: int | None = None

    def has(self, rowid: int) -> bool:
        """Whether the row with ``rowid`` belongs here."""
        return (self.after is None or self.after < rowid) and (
            self.upto is None or rowid <= self.upto
        )


class Pack(msgspec.Struct, frozen=True):
    """One pack: an object with rows of one or more segments.

    ``number`` is the entry at which it was written. ``etag``, ``size`` and
    ``sha256`` are of the object, ``raw_size`` and ``raw_sha256`` of what it
    holds compressed. ``bounds`` are the smallest and the largest key in it, by
    table, where rows are not found by rowid: of tables whose primary key is
    one column of text, compared byte by byte.
    """

    key: str
    etag: str
    number: int
    segments: list[Segment]
    rows: int
    size: int
    sha256: str
    raw_size: int
    raw_sha256: str
    bounds: dict[str, tuple[str, str]] = {}

    def damage(self, body: bytes) -> str:
        """What is wrong with the object's ``body``, or ""."""
        if len(body) != self.size:
            return f"it has {len(body):,} bytes instead of {self.size:,}"
        if hashlib.sha256(body).hexdigest() != self.sha256:
            return "its SHA-256 is another one"
        return ""


class Catalog(msgspec.Struct, frozen=True):
    """The database after entry ``number``.

    ``token``, ``etag`` and ``modified`` are of that entry. ``schema`` are
    the statements that make it, ``sequences`` where AUTOINCREMENT goes on,
    ``versions`` which entry changed each table last (number, token).
    ``retired`` are objects that earlier catalogs needed, and when (by the
    store's clock, epoch seconds) that ended: who began with one of those may
    still read them.
    """

    database: str
    number: int
    token: str
    etag: str
    modified: float
    schema: list[str]
    sequences: dict[str, int]
    packs: list[Pack]
    versions: dict[str, tuple[int, str]] = {}
    retired: dict[str, float] = {}
    format: int = FORMAT

    @property
    def position(self) -> Position:
        """Where a replica is that was made from it."""
        return Position(
            self.database, self.number, self.token, self.etag, self.modified
        )


class _Version(msgspec.Struct):
    format: int


# Made by one thread; see s3cache.log.entry.
_catalog = msgspec.json.Decoder(Catalog)
_version = msgspec.json.Decoder(_Version)


def seal_catalog(
    catalog: Catalog, *, key: str, signing_keys: Sequence[bytes] = ()
) -> bytes:
    """The bytes of ``catalog``, stored under ``key``."""
    return seal_text(msgspec.json.encode(catalog), key=key, signing_keys=signing_keys)


def open_catalog(
    sealed: bytes, *, key: str, signing_keys: Sequence[bytes] = ()
) -> Catalog:
    """The catalog stored under ``key``.

    Raises ``EntryFormatError`` for what a newer release wrote, a signature
    that is missing or wrong, and damaged bytes. The catalog has the SHA-256
    of each pack: who signs it signs them.
    """
    body = unseal_text(sealed, key=key, signing_keys=signing_keys)
    try:
        version = _version.decode(body).format
        if version > FORMAT:
            raise NewerFormat(newer_format(key, version, FORMAT))
        catalog = _catalog.decode(body)
    except DAMAGE as error:
        raise EntryFormatError(f"{key} is damaged: {error}") from error
    for pack in catalog.packs:
        if not pack.key.startswith(PACKS):
            raise EntryFormatError(f"{key} is damaged: {pack.key!r} is no pack.")
    return catalog
