"""Results as bytes, for caches that others can write to: no pickle.

Rows hold what SQLite's module returns: None, int, float, str, bytes, and, by
the declared type of the column, bool, date, time and datetime. The last three
are written as text, with a letter for the column.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from s3cache.replica.results import Result

__all__ = ["Undecodable", "decode", "encode"]

_Row = tuple[Any, ...]

_PLAIN: Final = frozenset([int, float, str, bytes, bool, type(None)])

_LETTERS: Final[dict[type, str]] = {dt.datetime: "m", dt.date: "d", dt.time: "t"}

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
    for column in zip(*rows, strict=True):
        types = set(map(type, column))
        if types <= _PLAIN:
            letters += " "
            continue
        types.discard(type(None))
        letter = _LETTERS.get(types.pop())
        if types or letter is None:
            return None
        letters += letter
    if letters.strip():
        rows = [_map(row, letters, _as_text) for row in rows]
    return _encoder.encode((names, letters, rows))


def decode(data: object) -> Result:
    """The result that ``data`` is; raises ``Undecodable``."""
    if not isinstance(data, bytes):
        raise Undecodable(f"a {type(data).__name__} is no result")
    try:
        names, letters, rows = _decoder.decode(data)
        if letters.strip():
            rows = [_map(row, letters, _from_text) for row in rows]
    except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
        raise Undecodable(str(error)) from error
    return Result.of(names, rows)


def _map(row: _Row, letters: str, convert: Callable[[str, Any], object]) -> _Row:
    return tuple(
        value if letter == " " or value is None else convert(letter, value)
        for letter, value in zip(letters, row, strict=True)
    )


def _as_text(letter: str, value: Any) -> str:
    text: str = value.isoformat()
    return text


def _from_text(letter: str, value: Any) -> object:
    return _PARSERS[letter](value)
