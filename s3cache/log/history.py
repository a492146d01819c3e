"""What the log tells of the past."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s3cache.exceptions import LogDiverged
from s3cache.log.catch_up import created_at
from s3cache.log.effects import GetMany, Steps
from s3cache.log.entry import Entry, Row, Rows, Statement, Value
from s3cache.log.keys import entry_key
from s3cache.log.proof import open_entry, read_head
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure


@dataclass(frozen=True)
class Logged:
    """An entry, and when the store got it (its clock, epoch seconds)."""

    entry: Entry
    at: float


@dataclass(frozen=True)
class RowKey:
    """The key of a row: as storage values, or as people write those."""

    values: list[Value]
    texts: list[str]

    def is_of(self, row: Row) -> bool:
        """Whether it is the key ``row``."""
        return row == self.values or list(map(str, row)) == self.texts


@dataclass(frozen=True)
class Summary:
    """Rows that an entry left behind and deleted, by table; its DDL."""

    rows: Counter[str]
    deleted: Counter[str]
    statements: list[str]


class Unclear(enum.Enum):
    """What cannot be told from an entry alone."""

    UNTOUCHED = "the entry did not change the row"
    SCHEMA = "the entry changed the table's schema"


#: What an entry made of a row: its values by column, or None if it was
#: deleted.
Left = Mapping[str, Value] | None


def read_logged(
    numbers: Sequence[int], signing_keys: tuple[bytes, ...]
) -> Steps[list[Logged]]:
    """Read these entries at the same time, in their order.

    Those that have been trimmed are left out. Raises ``LogDiverged`` if one
    is missing that has not.
    """
    answers: Sequence[Answer] = yield GetMany([entry_key(n) for n in numbers])
    found = []
    for number, answer in zip(numbers, answers, strict=True):
        if answer.status not in (200, 404):
            raise failure(answer, f"read {entry_key(number)}")
        entry = None
        if answer.status == 200:
            entry = yield from open_entry(answer, number, signing_keys)
        if entry is not None:
            found.append(Logged(entry, created_at(answer)))
        elif (yield from read_head()).trimmed < number:
            raise LogDiverged(
                f"{entry_key(number)} is missing, though the log is not trimmed so "
                f"far: manage.py s3cache_verify tells more."
            )
    return found


def touches(entry: Entry, table: str) -> bool:
    """Whether ``entry`` changed rows of ``table``, or its schema."""
    return any(
        _same(change.table, table)
        if isinstance(change, Rows)
        else isinstance(change, Statement) and _names(change.sql, table)
        for change in entry.changes
    )


def left_by(entry: Entry, table: str, key: RowKey) -> Left | Unclear:
    """What ``entry`` made of the row ``key`` of ``table``."""
    left: Left | Unclear = Unclear.UNTOUCHED
    for change in entry.changes:
        if isinstance(change, Statement) and _names(change.sql, table):
            return Unclear.SCHEMA
        if isinstance(change, Rows) and _same(change.table, table):
            if any(map(key.is_of, change.deleted)):
                left = None
            indexes = [change.columns.index(column) for column in change.key]
            for row in change.rows:
                if key.is_of([row[index] for index in indexes]):
                    left = dict(zip(change.columns, row, strict=True))
    return left


def summary(entry: Entry) -> Summary:
    """What ``entry`` changed, without the values."""
    told = Summary(Counter(), Counter(), [])
    for change in entry.changes:
        if isinstance(change, Rows):
            told.rows[change.table] += len(change.rows)
            told.deleted[change.table] += len(change.deleted)
        elif isinstance(change, Statement):
            told.statements.append(change.sql)
    return told


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()


def _names(sql: str, table: str) -> bool:
    # Perhaps a column of that name; whatever concerns the table has the word.
    word = rf"(?<!\w){re.escape(table)}(?!\w)"
    return re.search(word, sql, re.IGNORECASE) is not None
