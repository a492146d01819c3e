"""What writing records asks of the world, beside what the keeper asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3cache.keeper.effects import Replace
from s3cache.log.effects import Create, Get, OtherEffect, Position
from s3cache.log.entry import Change

#: The raw values of the columns that identify a row.
Key = tuple[Any, ...]

#: The keys of rows that changed, by table; None where all may have.
Touched = Mapping[str, frozenset[Key] | None]


def joined(one: Touched, two: Touched) -> dict[str, frozenset[Key] | None]:
    """What either of them says has changed."""
    both = dict(one)
    for name, keys in two.items():
        known = both.get(name, frozenset())
        both[name] = None if known is None or keys is None else known | keys
    return both


@dataclass(frozen=True, slots=True)
class Remove(OtherEffect):
    """Delete an object if it has this ETag; the result is an ``Answer``."""

    key: str
    etag: str


Request = Get | Create | Replace | Remove


@dataclass(frozen=True, slots=True)
class SendMany(OtherEffect):
    """Send requests at the same time; the result is their ``Answer``s."""

    requests: Sequence[Request]


@dataclass(frozen=True, slots=True)
class FindTables(OtherEffect):
    """Which tables have records, and what changed in them.

    ``since`` is the position that records are written to. The result is a
    ``Tables``.
    """

    since: Position


@dataclass(frozen=True, slots=True)
class KeysOf(OtherEffect):
    """The rows that ``changes`` of an entry touch, as ``Tables.touched``."""

    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class ReadRows(OtherEffect):
    """The rows of ``table`` with these ``keys``, as they are now.

    The result is a ``Page``, with a ``Row`` for each key in their order.
    """

    table: str
    keys: Sequence[Key]


@dataclass(frozen=True, slots=True)
class ReadPage(OtherEffect):
    """Some rows of ``table`` after ``Page.next``, as they are now.

    The result is a ``Page``; its ``next`` is None behind the last row.
    """

    table: str
    after: Key | None


@dataclass(frozen=True, slots=True)
class RecallETags(OtherEffect):
    """The ETags, by key, that this host knows of records of s3cache's."""

    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class RememberETags(OtherEffect):
    """Remember ETags of records; None: there is no such record."""

    etags: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables that this host writes records of.

    ``here`` is where the replica is, ``in_schema`` what tables it has, also
    such without records. ``follows`` tells whether it has gone on from
    ``since``, None if it does not know. ``touched`` has, by name, the keys
    of the rows that changed after that, None where all may have; and is
    itself None if this host does not know.
    """

    here: Position
    names: Sequence[str]
    in_schema: frozenset[str]
    follows: bool | None
    touched: Touched | None


@dataclass(frozen=True, slots=True)
class Row:
    """A row as a record's content, or that there is none (None).

    ``problem`` says why it cannot be a record.
    """

    key: str
    content: Mapping[str, Any] | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows as they were at entry ``number``."""

    number: int
    rows: Sequence[Row]
    next: Key | None = None
