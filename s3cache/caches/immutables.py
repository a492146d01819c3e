"""
What may be handed to several callers, and what it weighs.

An object of these types can be changed by nobody, so a cache in memory keeps
it as it is: no bytes are made of it and none are read back. A list, dict or
set of such objects is copied, which takes a fraction of what decoding takes.
"""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable, Collection
from decimal import Decimal
from sys import getsizeof
from types import NoneType
from typing import Any, Final, TypeAlias
from uuid import UUID

from django.utils.safestring import SafeString

__all__ = ["Copier", "kept", "weigh"]

Copier: TypeAlias = Callable[[Any], Any]

# Exact types: a subclass may have attributes.
_ATOMS: Final = frozenset(
    {
        NoneType,
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        SafeString,
        Decimal,
        datetime.date,
        datetime.timedelta,
    }
)
_ZONED: Final = frozenset({datetime.datetime, datetime.time})
_ZONES: Final = frozenset({NoneType, datetime.timezone, zoneinfo.ZoneInfo})
_NESTED: Final = frozenset({tuple, frozenset})
_COPIERS: Final[dict[type, Copier]] = {
    list: list.copy,
    dict: dict.copy,
    set: set.copy,
}
_STR_BYTES: Final = getsizeof("")
_SIZES: Final[dict[type, int]] = {
    NoneType: getsizeof(None),
    bool: getsizeof(True),
    float: getsizeof(0.0),
}
_UUID_BYTES: Final = getsizeof(UUID(int=0)) + getsizeof(2**127)


def kept(value: Any) -> tuple[int, Copier | None] | None:
    """
    Return how to keep `value` as it is, or None: encode it.

    That is its size in memory, in bytes, and what makes what each caller
    gets; None: the object itself.
    """
    copier = _COPIERS.get(type(value))
    if copier is None:
        weight = weigh(value)
        return None if weight is None else (weight, None)
    if type(value) is dict:
        weight = _weigh_all(value)
        if weight is not None:
            of_values = _weigh_all(value.values())
            weight = None if of_values is None else weight + of_values
    else:
        weight = _weigh_all(value)
    return None if weight is None else (weight + getsizeof(value), copier)


def weigh(value: Any) -> int | None:
    """
    Return the bytes of a value that nobody can change, else None.

    An object that several others refer to is counted each time: what is kept
    is at most as large as its weight.
    """
    kind = type(value)
    if kind in _ATOMS:
        return getsizeof(value)
    if kind in _NESTED:
        weight = _weigh_all(value)
        return None if weight is None else weight + getsizeof(value)
    if kind in _ZONED:
        return getsizeof(value) if type(value.tzinfo) in _ZONES else None
    return _UUID_BYTES if kind is UUID else None


def _weigh_all(items: Collection[Any]) -> int | None:
    # A call for each item, getsizeof() too, would be most of what set() costs.
    total = 0
    for item in items:
        kind = type(item)
        if kind is str and item.isascii():
            total += _STR_BYTES + len(item)
        elif kind in _SIZES:
            total += _SIZES[kind]
        elif (weight := weigh(item)) is not None:
            total += weight
        else:
            return None
    return total
