"""Results as bytes, for caches that others can write to: no pickle.

Rows hold what SQLite's module returns: None, int, float, str, bytes, and, by
the declared type of the column, bool, date, time and datetime. The last three
are written as text, with a letter for the column.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from s3cache.replica.results import Result

__all__ = ["Undecodable", "decode", "encode"]

_Row = tuple[Any, ...]

_PLAIN: Final = frozenset([int, float, str, bytes, bool, type(None)])

#: By type a letter, and what writes a value.
_LETTERS: Final[dict[type, tuple[str, Callable[[Any], object]]]] = {
    dt.datetime: ("m", dt.datetime.isoformat),
    dt.date: ("d", dt.date.isoformat),
    dt.time: ("t", dt.time.isoformat),
}

_PARSERS: Final[dict[str, Callable[[str], object]]] = {
    "m": dt.datetime.fromisoformat,
    "d": dt.date.fromisoformat,
    "t": dt.time.fromisoformat,
}

_Stored = tuple[list[str], str, list[tuple[Any, ...]]]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


class Undecodable(ValueError):
    """What a cache returned is no result."""


def encode(result: Result) -> bytes | None:
    """``result`` as bytes; None if it has values of another type."""
    names = [column[0] for column in result.description or ()]
    rows: Sequence[_Row] = result.rows
    letters = ""
    if not _PLAIN.issuperset(map(type, chain.from_iterable(rows))):
        found = list(zip(*rows, strict=True))
        columns: list[Iterable[Any]] = [*found]
        written = [" "] * len(found)
        for index, column in enumerate(found):
            if _PLAIN.issuperset(map(type, column)):
                continue
            kinds = set(map(type, column))
            kinds.discard(type(None))
            kind = kinds.pop()
            if kinds or kind not in _LETTERS:
                return None
            written[index], write = _LETTERS[kind]
            columns[index] = _each(write, column)
        letters = "".join(written)
        rows = list(zip(*columns, strict=True))
    return _encoder.encode((names, letters, rows))


def decode(data: object) -> Result:
    """The result that ``data`` is; raises ``Undecodable``."""
    if not isinstance(data, bytes):
        raise Undecodable(f"a {type(data).__name__} is no result")
    try:
        names, letters, rows = _decoder.decode(data)
        if letters.strip():
            columns = zip(letters, zip(*rows, strict=True), strict=True)
            read = [_read(letter, column) for letter, column in columns]
            rows = list(zip(*read, strict=True))
    except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
        raise Undecodable(str(error)) from error
    return Result.of(names, rows)


def _read(letter: str, column: _Row) -> Iterable[object]:
    return column if letter == " " else _each(_PARSERS[letter], column)


def _each(convert: Callable[[Any], object], column: _Row) -> Iterable[object]:
    """The values of a column, converted, but None: without a loop, mostly."""
    if None in column:
        return [None if value is None else convert(value) for value in column]
    return map(convert, column)
