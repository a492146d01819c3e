"""Names of the objects in the bucket, below the database's location."""

from __future__ import annotations

HEAD = "_head"
LOG = "_log/"
BLOBS = "_blobs/"
CATALOGS = "_catalog/"
PACKS = "_packs/"


def entry_key(number: int) -> str:
    """The key of log entry ``number``; twelve digits keep LIST in order."""
    return f"{LOG}{number:012d}"


def entry_number(key: str) -> int | None:
    """The number of a log entry's key, or None if the key is not one."""
    digits = key.removeprefix(LOG)
    if len(digits) == 12 and digits.isdecimal() and digits.isascii():
        return int(digits)
    return None


def blob_key(number: int, token: str) -> str:
    """The key of the body that entry ``number`` of ``token`` refers to."""
    return f"{BLOBS}{number:012d}-{token}"


def blob_number(key: str) -> int | None:
    """The number of the entry that a blob is for, or None if it is none."""
    return entry_number(LOG + key.removeprefix(BLOBS).partition("-")[0])


def catalog_key(number: int, token: str) -> str:
    """The key of a catalog at entry ``number``.

    Of a token of its own: what a keeper that was replaced leaves behind is
    never taken for another's, and no name is used twice.
    """
    return f"{CATALOGS}{number:012d}-{token[:16]}"


def catalog_number(key: str) -> int | None:
    """The number of the entry that a catalog is at, or None if it is none."""
    return entry_number(LOG + key.removeprefix(CATALOGS).partition("-")[0])


def pack_key(number: int, token: str) -> str:
    """The key of a pack that was written at entry ``number``, used once."""
    return f"{PACKS}{number:012d}-{token[:16]}"
