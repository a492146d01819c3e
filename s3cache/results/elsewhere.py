"""Hot results in caches of other makers: as bytes, under readable keys.

``MemoryCache`` keeps the objects themselves. Other caches may be shared with
other processes and with other programs: what is in them is MessagePack, no
pickled objects, and each row says which of its values are more than that.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache

from s3cache.results.codec import Undecodable
from s3cache.results.counters import Key, counters
from s3cache.results.keys import NAMESPACE, readable

__all__ = ["Elsewhere", "Rows", "dump", "hot_prefix", "load"]

logger = logging.getLogger("s3cache.results")

#: What is kept: rows of values that nobody can change.
Rows = Sequence[tuple[Any, ...]]

T = TypeVar("T")

_PLAIN: Final = frozenset([int, float, str, bytes, bool, type(None)])

#: By type a letter, and how a value is written.
_LETTERS: Final[dict[type, tuple[str, Callable[[Any], str]]]] = {
    dt.datetime: ("m", dt.datetime.isoformat),
    dt.date: ("d", dt.date.isoformat),
    dt.time: ("t", dt.time.isoformat),
    Decimal: ("n", str),
    UUID: ("u", str),
}

_PARSERS: Final[dict[str, Callable[[str], object]]] = {
    "m": dt.datetime.fromisoformat,
    "d": dt.date.fromisoformat,
    "t": dt.time.fromisoformat,
    "n": Decimal,
    "u": UUID,
}

#: Values that are written out in a key; others are hashed, after a "~".
_SHORT: Final = re.compile(r"[\w.@+-]{1,40}", re.ASCII)

_encoder = msgspec.msgpack.Encoder()
#: Of each row its values, and the positions and letters of those that are not
#: plain.
_decoder = msgspec.msgpack.Decoder(list[tuple[list[Any], list[tuple[int, str]]]])


def dump(rows: Rows) -> bytes | None:
    """``rows`` as bytes; None if they hold what would not come back."""
    written = []
    for row in rows:
        letters: list[tuple[int, str]] = []
        values = list(row)
        for position, value in enumerate(row):
            kind = type(value)
            if kind in _PLAIN:
                continue
            if kind not in _LETTERS or not _comes_back(value):
                return None
            letter, write = _LETTERS[kind]
            letters.append((position, letter))
            values[position] = write(value)
        written.append((values, letters))
    return _encoder.encode(written)


def _comes_back(value: Any) -> bool:
    """Whether a moment is all that its text says."""
    return getattr(value, "tzinfo", None) in (None, dt.UTC) and not getattr(
        value, "fold", 0
    )


def load(data: object) -> list[tuple[Any, ...]]:
    """The rows that ``data`` is; raises ``Undecodable``."""
    if not isinstance(data, bytes):
        raise Undecodable(f"a {type(data).__name__} is no result")
    try:
        rows = []
        for values, letters in _decoder.decode(data):
            for position, letter in letters:
                values[position] = _PARSERS[letter](values[position])
            rows.append(tuple(values))
    except (
        msgspec.DecodeError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise Undecodable(str(error)) from error
    return rows


def hot_prefix(label: str) -> str:
    """What the keys of a model's hot results begin with."""
    return f"{NAMESPACE}:hot:{label[:60]}:"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One kind of read in ``CACHES[alias]``; ``prefix`` is that of its keys.

    ``counted`` is what failures are counted for.
    """

    alias: str
    prefix: str
    counted: Key
    #: That of all threads; None: each has its own, which may have to wait.
    cache: LocMemCache | None

    @classmethod
    def of(cls, alias: str, counted: Key, words: Sequence[object]) -> Elsewhere:
        """Of the read that ``words`` tell apart from all others."""
        digest = hashlib.blake2b(repr(words).encode(), digest_size=16).hexdigest()
        prefix = f"{hot_prefix(counted[1])}{digest}"
        cache = caches[alias]
        shared = cache if type(cache) is LocMemCache else None
        return cls(alias, prefix, counted, shared)

    def find(
        self,
        values: tuple[Any, ...],
        versions: object,
        make: Callable[[Rows], T],
    ) -> T | None:
        """What ``make`` makes of the rows that are kept, or None."""
        try:
            data = (self.cache or caches[self.alias]).get(self._key(values, versions))
            return None if data is None else _made(data, make)
        except Undecodable as error:
            self._count("broken", "A hot result cannot be read: %s", error)
        except Exception as error:
            # Any cache serves, so any error is possible.
            self._count("failed", "The cache failed: %s", error)
        return None

    def keep(
        self, values: tuple[Any, ...], versions: object, rows: Rows, ttl: float
    ) -> None:
        """Have ``find`` find it, for ``ttl`` seconds, if it can be kept."""
        data = dump(rows)
        if data is None:
            return
        try:
            cache = self.cache or caches[self.alias]
            cache.set(self._key(values, versions), data, ttl)
        except Exception as error:  # as above
            self._count("failed", "The cache failed: %s", error)

    def _key(self, values: tuple[Any, ...], versions: Any) -> str:
        if type(versions[0]) is int:
            versions = (versions,)
        return f"{self.prefix}:{readable(versions)}:{_written(values)}"

    def _count(self, event: str, message: str, error: Exception) -> None:
        counters.ticker(self.counted, event)()
        logger.warning(message, error)


def _made(data: object, make: Callable[[Rows], T]) -> T:
    rows = load(data)
    try:
        return make(rows)
    except (LookupError, ValueError) as error:
        raise Undecodable(f"these are other rows: {error}") from error


def _written(values: tuple[Any, ...]) -> str:
    """``values``, whose types are known, in a word that is safe in a key."""
    if len(values) == 1:
        word = str(values[0])
        if _SHORT.fullmatch(word):
            return word
    text = repr(values).encode("utf-8", "surrogatepass")
    return "~" + hashlib.blake2b(text, digest_size=16).hexdigest()
