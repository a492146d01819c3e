"""Entries of the log, and their form as bytes.

An object of the log is two lines of text: a small JSON header (format,
compression, signature) and the body, JSON as well, compressed when it is
large. Somebody with nothing but a browser and ``zstd`` can read what
happened.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import msgspec
import zstandard

from s3cache.exceptions import EntryFormatError
from s3cache.log.keys import BLOBS

FORMAT = 1

#: Bodies shorter than this stay readable as they are.
COMPRESS_ABOVE = 4 * 1024

#: Sealed entries above this size leave their body in an object of its own,
#: so that whoever asks for the next entry never waits for megabytes.
BLOB_ABOVE = 4 * 1024 * 1024

#: What a body may grow to when it is decompressed. It bounds what one commit
#: may hold, and what a forged entry can make a reader allocate.
MAX_BODY = 1024 * 1024 * 1024

#: What reading bytes raises that are not what they should be.
DAMAGE = (msgspec.MsgspecError, zstandard.ZstdError, ValueError, RecursionError)

#: A raw storage value: None, int, float, str or bytes.
Value = None | int | float | str | bytes
Row = list[Any]


class Rows(msgspec.Struct, frozen=True, tag="rows", omit_defaults=True):
    """The rows of one table that a commit left behind.

    ``key`` names the columns that identify a row. ``rows`` has the new state
    of each changed row, by ``columns``; ``deleted`` the keys of rows that are
    gone. A row whose key changed stands under both.
    """

    table: str
    key: list[str]
    columns: list[str]
    rows: list[Row] = []
    deleted: list[Row] = []


class Statement(msgspec.Struct, frozen=True, tag="sql", omit_defaults=True):
    """A statement that has the same effect on every replica: DDL."""

    sql: str
    params: Row = []


class Sequences(msgspec.Struct, frozen=True, tag="sequences"):
    """Where AUTOINCREMENT goes on, by table: ids are never given twice."""

    values: dict[str, int]


Change = Rows | Statement | Sequences


class NewerFormat(EntryFormatError):
    """A newer release wrote it: it is whole, and not for this one to mend."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the log: one commit, atomic and in its place for ever.

    ``token`` is random and new for every body, ``previous`` the token of the
    entry before. ``transactions`` counts the callers whose transactions were
    committed together. ``changes`` apply in their order. ``round_trip`` is of
    a host that was not first at once, in seconds.
    """

    database: str
    number: int
    token: str
    previous: str
    host: str
    changes: list[Change]
    transactions: int = 1
    round_trip: float = 0.0

    def follows(self, database: str, number: int, token: str) -> bool:
        """Whether this entry is the one after ``number`` with ``token``."""
        return (
            self.database == database
            and self.number == number + 1
            and self.previous == token
        )


class _Version(msgspec.Struct):
    s3cache: int
    moved: str = ""
    dropped: bool = False


class _Header(msgspec.Struct, omit_defaults=True):
    s3cache: int
    encoding: str = ""
    signature: str = ""
    blob: str = ""
    sha256: str = ""
    size: int = 0
    token: str = ""


# Decoders are made here, by one thread: a type that is described to msgspec
# by two threads that decode it for the first time ends the process (0.22).
_entry = msgspec.json.Decoder(Entry)
_version = msgspec.json.Decoder(_Version)
_header = msgspec.json.Decoder(_Header)


class Sealed(msgspec.Struct, frozen=True):
    """An entry as bytes; ``blob`` is what has to be stored before it."""

    body: bytes
    blob_key: str = ""
    blob: bytes = b""


def seal(
    entry: Entry, *, key: str, blob_key: str, signing_keys: Sequence[bytes] = ()
) -> Sealed:
    """The bytes of ``entry``, stored under ``key``.

    The first of ``signing_keys`` signs them. Raises ``EntryFormatError`` when
    the commit is larger than ``MAX_BODY``.
    """
    body = msgspec.json.encode(_escaped(entry))
    if len(body) > MAX_BODY:
        raise EntryFormatError(
            f"The commit holds {len(body):,} bytes, more than the {MAX_BODY:,} that "
            f"one entry may have. Split it into smaller transactions."
        )
    header = _Header(s3cache=FORMAT)
    if len(body) > COMPRESS_ABOVE:
        body = zstandard.ZstdCompressor(level=1).compress(body)
        header.encoding = "zstd"
    blob = b""
    if len(body) > BLOB_ABOVE:
        blob, body = body, b""
        header.blob = blob_key
        header.sha256 = hashlib.sha256(blob).hexdigest()
        header.size = len(blob)
        header.token = entry.token
    if signing_keys:
        header.signature = _signature(signing_keys[0], key, header, body)
    sealed = msgspec.json.encode(header) + b"\n" + body
    return Sealed(sealed, blob_key if blob else "", blob)


def blob_of(sealed: bytes, *, key: str) -> str:
    """The key of the blob that the entry at ``key`` refers to, or ""."""
    header, _body = _split(sealed, key)
    if header.blob and not header.blob.startswith(BLOBS):
        raise EntryFormatError(f"{key} is damaged: {header.blob!r} is no blob.")
    return header.blob


def unseal(
    sealed: bytes,
    *,
    key: str,
    signing_keys: Sequence[bytes] = (),
    blob: bytes = b"",
) -> Entry:
    """The entry that was stored under ``key``.

    With ``signing_keys`` an entry that none of them signed is refused. Raises
    ``EntryFormatError`` for what a newer release wrote, a bad signature, and
    damaged bytes; nothing of such an entry is used.
    """
    header, body = _verified(sealed, key, signing_keys)
    if header.blob:
        if len(blob) != header.size or (
            hashlib.sha256(blob).hexdigest() != header.sha256
        ):
            raise EntryFormatError(
                f"{header.blob}, the body of {key}, is not what {key} says it is: "
                f"{len(blob):,} bytes instead of {header.size:,}, or other ones."
            )
        body = blob
    try:
        if header.encoding:
            body = _decompressed(body, header.encoding)
        return _unescaped(_entry.decode(body))
    except DAMAGE as error:
        raise EntryFormatError(f"{key} is damaged: {error}") from error


def seal_end(moved_to: str) -> bytes:
    """What stands in the place of the entry after a log's last one.

    Nobody can create that entry any more, and who reads it is told why: the
    database is elsewhere now, or nowhere (``""``).
    """
    why: dict[str, Any] = {"moved": moved_to} if moved_to else {"dropped": True}
    return msgspec.json.encode({"s3cache": FORMAT, **why}) + b"\n"


def is_end(size: int) -> bool:
    """Whether an object of the log, of ``size`` bytes, says "dropped".

    No entry is as short: it has a token.
    """
    return size == len(seal_end(""))


def token_of(sealed: bytes, *, key: str, signing_keys: Sequence[bytes] = ()) -> str:
    """The token of the entry at ``key``, without the blob that it names."""
    header, _body = _verified(sealed, key, signing_keys)
    if header.blob:
        return header.token
    return unseal(sealed, key=key, signing_keys=signing_keys).token


def seal_text(body: bytes, *, key: str, signing_keys: Sequence[bytes] = ()) -> bytes:
    """The bytes of another JSON object of the log, stored under ``key``.

    With a header like an entry's, and compressed and signed like one.
    """
    header = _Header(s3cache=FORMAT, sha256=hashlib.sha256(body).hexdigest())
    if len(body) > COMPRESS_ABOVE:
        body = zstandard.ZstdCompressor(level=3).compress(body)
        header.encoding = "zstd"
    if signing_keys:
        header.signature = _signature(signing_keys[0], key, header, body)
    return msgspec.json.encode(header) + b"\n" + body


def unseal_text(
    sealed: bytes, *, key: str, signing_keys: Sequence[bytes] = ()
) -> bytes:
    """What ``seal_text`` was given; raises what ``unseal`` raises."""
    header, body = _verified(sealed, key, signing_keys)
    try:
        if header.encoding:
            body = _decompressed(body, header.encoding)
    except DAMAGE as error:
        raise EntryFormatError(f"{key} is damaged: {error}") from error
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise EntryFormatError(f"{key} is damaged: its SHA-256 is another one.")
    return body


def _verified(
    sealed: bytes, key: str, signing_keys: Sequence[bytes]
) -> tuple[_Header, bytes]:
    """Header and body, if one of ``signing_keys`` (if any) signed them."""
    header, body = _split(sealed, key)
    signature, header.signature = header.signature.encode(), ""
    if signing_keys and not any(
        hmac.compare_digest(_signature(k, key, header, body).encode(), signature)
        for k in signing_keys
    ):
        raise EntryFormatError(
            f"{key} is not signed by any of the keys in "
            f"OPTIONS['signing_keys']. Somebody else wrote it, or a key is "
            f"missing from the list."
        )
    return header, body


def _split(sealed: bytes, key: str) -> tuple[_Header, bytes]:
    line, newline, body = sealed.partition(b"\n")
    try:
        first = _version.decode(line)
        version = first.s3cache
        if moved := first.moved:
            raise EntryFormatError(
                f"{key} is the end of this log: the database was moved to {moved}. "
                f"Open it there."
            )
        if first.dropped:
            raise EntryFormatError(
                f"{key} is the end of this log: the database was dropped."
            )
        if version > FORMAT:
            raise NewerFormat(newer_format(key, version, FORMAT))
        header = _header.decode(line)
    except DAMAGE as error:
        raise EntryFormatError(
            f"{key} is not an entry of an s3cache log: {error}"
        ) from error
    if not newline:
        raise EntryFormatError(f"{key} is damaged: it ends within its first line.")
    return header, body


def newer_format(key: str, found: int, known: int) -> str:
    """What to tell people about an object of a later format."""
    return (
        f"{key} has format {found}; this release of s3cache reads formats up to "
        f"{known}. A newer release writes this database: upgrade this host."
    )


def _signature(secret: bytes, key: str, header: _Header, body: bytes) -> str:
    mac = hmac.new(secret, digestmod=hashlib.sha256)
    for part in (key.encode(), msgspec.json.encode(header), body):
        mac.update(len(part).to_bytes(8, "big"))
        mac.update(part)
    return mac.hexdigest()


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding != "zstd":
        raise ValueError(f"its encoding is {encoding!r}")
    size = zstandard.frame_content_size(body)
    if not 0 <= size <= MAX_BODY:
        told = f"{size:,} bytes" if size >= 0 else "nobody knows how many bytes"
        raise ValueError(
            f"it would decompress to {told}, and an entry holds at most {MAX_BODY:,}"
        )
    return zstandard.ZstdDecompressor().decompress(body, max_output_size=MAX_BODY)


# JSON has neither bytes nor infinities: such a value stands as an object
# with one member, {"bytes": base64} or {"float": "inf"}. No other value is an
# object.


def _escaped(entry: Entry) -> Entry:
    return msgspec.structs.replace(
        entry, changes=[_map_values(c, _escape_rows) for c in entry.changes]
    )


def _unescaped(entry: Entry) -> Entry:
    for change in entry.changes:
        if type(change) is Rows:
            _check_lengths(change)
    return msgspec.structs.replace(
        entry, changes=[_map_values(c, _unescape_rows) for c in entry.changes]
    )


def _check_lengths(change: Rows) -> None:
    wrong = set(map(len, change.rows)) - {len(change.columns)}
    wrong |= set(map(len, change.deleted)) - {len(change.key)}
    if wrong:
        raise ValueError(f"a row of {change.table} has {wrong.pop()} values")


def _map_values(change: Change, convert: Callable[[list[Row]], list[Row]]) -> Change:
    if type(change) is Rows:
        return msgspec.structs.replace(
            change, rows=convert(change.rows), deleted=convert(change.deleted)
        )
    if type(change) is Statement:
        (params,) = convert([change.params])
        return msgspec.structs.replace(change, params=params)
    return change


# A commit may have millions of values, and hardly any has to be converted:
# they are looked at together, without a call for each.


def _escape_rows(rows: list[Row]) -> list[Row]:
    kinds = set(map(type, chain.from_iterable(rows)))
    if kinds.isdisjoint(_ESCAPED):
        return rows
    if bytes not in kinds and all(map(_is_finite, zip(*rows, strict=True))):
        return rows
    return [[_escape(value) for value in row] for row in rows]


_ESCAPED = frozenset([bytes, float])


def _is_finite(column: Sequence[Any]) -> bool:
    """Whether a column without bytes needs no escape; False: look closer."""
    kinds = set(map(type, column))
    if float not in kinds:
        return True
    return str not in kinds and all(map(math.isfinite, filter(None, column)))


def _escape(value: Any) -> Any:
    if type(value) is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if type(value) is float and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _unescape_rows(rows: list[Row]) -> list[Row]:
    kinds = set(map(type, chain.from_iterable(rows)))
    if kinds <= _PLAIN:
        return rows
    if not kinds <= _IN_JSON:
        raise ValueError("a value is none that SQLite has")
    return [[_unescape(value) for value in row] for row in rows]


_PLAIN = frozenset([type(None), int, float, str])
_IN_JSON = _PLAIN | {dict}


def _unescape(value: Any) -> Any:
    if type(value) is not dict:
        return value
    match value:
        case {"bytes": str(text)}:
            return base64.b64decode(text, validate=True)
        case {"float": str(text)}:
            return float(text)
    raise ValueError("a value is none that SQLite has")
