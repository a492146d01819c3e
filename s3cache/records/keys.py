"""Names of records in the bucket: ``<table>/rows/<pk>.json``.

A name holds nothing but lower case ASCII letters, digits, ``-`` and ``_``;
any other byte of the UTF-8 form is ``~xx``. So no key leaves its prefix, and
no two differ by case or by their Unicode form alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from s3cache.log.entry import Value

#: How far records are written.
STATE: Final = "_records"

#: Names above so many characters end in a hash instead.
_LONGEST: Final = 200
_KEPT: Final = 120

_UNSAFE = re.compile(rb"[^a-z0-9\-_]")
_UNSAFE_TABLE = re.compile(rb"[^a-z0-9\-_]|\A_")


def rows_prefix(table: str) -> str:
    """Where the records of ``table`` are.

    No table is named like one of the project's own prefixes: these begin
    with ``_``, which is escaped there.
    """
    return (
        f"{_shortened(_escaped(_UNSAFE_TABLE, table.encode(errors=_LOSSLESS)))}/rows/"
    )


def record_key(table: str, key: Sequence[Value]) -> str:
    """The key of the record of a row, by the raw values of its primary key."""
    return f"{rows_prefix(table)}{_shortened(','.join(map(_part, key)))}.json"


#: SQLite keeps text that is no valid Unicode.
_LOSSLESS: Final = "surrogatepass"


def _part(value: Value) -> str:
    # What is not text or a whole number begins with what no text makes.
    match value:
        case str():
            return _escaped(_UNSAFE, value.encode(errors=_LOSSLESS)) or "~"
        case int():
            return str(value)
        case bytes():
            return f"~~b{value.hex()}"
        case float():
            return f"~~f{_escaped(_UNSAFE, repr(value).encode())}"
    return "~~n"


def _escaped(unsafe: re.Pattern[bytes], raw: bytes) -> str:
    return unsafe.sub(lambda found: b"~%02x" % found[0][0], raw).decode()


def _shortened(name: str) -> str:
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{name[:_KEPT]}~~h{digest}"
