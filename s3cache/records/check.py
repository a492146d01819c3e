"""Looking records over: is each what its row is, and s3cache's own?"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from s3cache.keeper.verify import Finding, Remedy
from s3cache.log.effects import GetMany, Steps
from s3cache.log.patience import patiently
from s3cache.records.effects import FindTables, Key, Page, ReadPage, Row, Tables
from s3cache.records.form import Opened, open_record
from s3cache.records.keys import STATE, record_key
from s3cache.records.writing import (
    AT_ONCE,
    RecordOptions,
    State,
    contradicts,
    find_due,
    list_etags,
    read_state,
)
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure

#: How often all is read again because records were written meanwhile.
TRIES = 3


class Kind(enum.Enum):
    """What is wrong with a record.

    ``CHANGED``, ``ADDED`` and ``REMOVED`` are what somebody else has done, or
    may have done, to the record of a row, where no row is, and by deleting
    it. ``WRONG``: s3cache wrote it, and it is not what the row is.
    ``UNREADABLE``: the row cannot be a record.
    """

    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"
    WRONG = "wrong"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class RecordFinding(Finding):
    """Something about the record of ``table`` with this key.

    ``body`` and ``etag`` are those of the object, if there is one; ``pk`` is
    that of the row, as records have it.
    """

    kind: Kind = Kind.WRONG
    table: str = ""
    pk: Any = None
    body: bytes = b""
    etag: str = ""


@dataclass(slots=True)
class Look:
    """What is known while records are looked over.

    ``pending`` has, by table, the keys of records that are yet to be written,
    None where any may be.
    """

    state: State
    here: int
    pending: dict[str, frozenset[str] | None]
    found: list[Finding]

    def is_pending(self, table: str, key: str) -> bool:
        """Whether the record may be behind its row."""
        keys = self.pending.get(table, frozenset())
        return keys is None or key in keys


def verify_records(signing_keys: tuple[bytes, ...]) -> Steps[list[Finding]]:
    """Read all records, and compare them with the rows of the replica.

    One GET for each, and one LIST for a thousand. What is yet to be written
    is no finding, and neither is that there are no records at all.
    """
    options = RecordOptions(signing_keys=signing_keys)
    return (yield from patiently(_verify_at_rest(options)))


def _verify_at_rest(options: RecordOptions) -> Steps[list[Finding]]:
    for _ in range(TRIES):
        before, answer = yield from read_state()
        if answer.status == 404:
            return []
        found = yield from _verify(options, before.state)
        after, _answer = yield from read_state()
        if not found or before.etag == after.etag:
            break
    return found


def _verify(options: RecordOptions, state: State) -> Steps[list[Finding]]:
    tables: Tables = yield FindTables(state.position)
    here = tables.here
    if state.database != here.database or contradicts(tables, state):
        message = "it is damaged, or of another log."
        return [Finding(STATE, message, Remedy.RECORD)]
    due, _dropped = yield from find_due(options, state, tables, is_same=True)
    pending = {
        table: None
        if keys is None
        else frozenset(record_key(table, key) for key in keys)
        for table, keys in due.items()
    }
    look = Look(state, here.number, pending, [])
    for table in tables.names:
        yield from _verify_table(look, table)
    return look.found


def _verify_table(look: Look, table: str) -> Steps[None]:
    listed = yield from list_etags(table)
    after: Key | None = None
    while True:
        page: Page = yield ReadPage(table, after)
        there = [row for row in page.rows if listed.pop(row.key, None) is not None]
        for row in page.rows:
            if row.problem:
                message = f"its row cannot be a record: {row.problem}."
                look.found.append(
                    RecordFinding(row.key, message, Remedy.NONE, Kind.UNREADABLE)
                )
            elif row not in there and not look.is_pending(table, row.key):
                look.found.append(_missing(row, table))
        for row, answer in zip(
            there, (yield from _read([row.key for row in there])), strict=True
        ):
            if answer.status == 200 and not row.problem:
                _judge(look, table, row, answer, page.number)
        if page.next is None:
            break
        after = page.next
    keys = sorted(listed)
    for key, answer in zip(keys, (yield from _read(keys)), strict=True):
        if answer.status == 200:
            _judge(look, table, Row(key, None), answer, look.here)


def _read(keys: Sequence[str]) -> Steps[list[Answer]]:
    answers: list[Answer] = []
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        got: Sequence[Answer] = yield GetMany(some)
        for key, answer in zip(some, got, strict=True):
            if answer.status not in (200, 404):
                raise failure(answer, f"read {key}")
        answers += got
    return answers


def _missing(row: Row, table: str) -> RecordFinding:
    content = row.content or {}
    return RecordFinding(
        row.key,
        "it is missing, and its row is there.",
        Remedy.RECORD,
        Kind.REMOVED,
        table,
        content.get("pk"),
    )


def _judge(look: Look, table: str, row: Row, answer: Answer, number: int) -> None:
    key = row.key
    there = open_record(answer.body, key=key, database=look.state.database)
    if there is None:
        is_there = row.content is not None
        message = (
            "it is not what s3cache wrote there."
            if is_there
            else "it is not s3cache's, and there is no such row."
        )
        kind = Kind.CHANGED if is_there else Kind.ADDED
        look.found.append(
            RecordFinding(
                key,
                message,
                Remedy.NONE,
                kind,
                table,
                body=answer.body,
                etag=answer.etag,
            )
        )
    elif there.content != row.content and not look.is_pending(table, key):
        message = _wrong(there, row, number)
        look.found.append(RecordFinding(key, message, Remedy.RECORD, Kind.WRONG, table))


def _wrong(there: Opened, row: Row, number: int) -> str:
    if row.content is None:
        return f"it is of entry {there.entry}, and its row is gone."
    if there.entry > number:
        return f"it is of entry {there.entry}, which the log does not have."
    return f"it is of entry {there.entry}, and its row has changed since."


__all__ = ["Kind", "RecordFinding", "verify_records"]
