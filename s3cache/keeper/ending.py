"""The end of a log: its database was moved, or dropped.

An object takes the place of the entry after the last one, so that nobody can
create that entry any more, and who reads it is told why. Where a database is
moved, that is all: what is there stays.

Where it is dropped, a host that is behind must not create an entry in a place
that was freed. It believes what it is told for an hour (``BELIEVED_FOR``)
without a look at ``_head``. So

1. the end is put in the place of the next entry: the log is all that there is;
2. ``_head`` is replaced: who looks at it learns that there is no database;
3. each entry that a host may still ask for without that look is replaced by
   the end, and stays: its place is never free;
4. everything else is deleted.

Whoever is at entry n was told at some moment that there is no n+1 yet. If
n+1 is older than an hour, that was longer ago, and nothing is believed before
a look at ``_head``.

Another database may be made there (``beginning``) while somebody still drops
the first one: who was asleep, or a request that arrives late. So

- ``_head`` is replaced if it has the ETag that was read, and never deleted:
  a request that is late meets another ETag;
- ``_head`` is read after each LIST: what was listed before it says that there
  is no new database is none of the new one's, but for its catalog, which
  comes before its ``_head``, and which its number tells;
- the number of the end comes from such a LIST: its place is not free any more
  where there is a new database.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3cache.exceptions import LogDiverged
from s3cache.keeper.effects import Delete, Replace
from s3cache.keeper.rounds import Page, list_all
from s3cache.log.effects import Create, Get, ListPage, Steps
from s3cache.log.entry import seal_end
from s3cache.log.head import (
    Head,
    decode_head,
    dropped_database,
    encode_dropped,
    was_dropped,
)
from s3cache.log.keys import HEAD, LOG, catalog_number, entry_key
from s3cache.log.proof import BELIEVED_FOR
from s3cache.stores.base import Answer, Listed
from s3cache.stores.failures import failure

__all__ = ["Ended", "begin_drop", "end_log", "finish_drop"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A log that has ended after entry ``last``, 0 if it has none.

    ``database`` is "" where there was no ``_head`` that tells.
    """

    last: int
    database: str


def end_log(moved_to: str) -> Steps[Ended | None]:
    """See to it that nothing follows the entry that is returned.

    ``moved_to`` is told to those who ask for the next one; "": the database
    is dropped. None if there is no database. Raises ``StoreError``: then the
    log has perhaps ended, or goes on. Raises ``LogDiverged`` if another
    database has taken its place meanwhile, or if it is to be moved and was
    dropped.
    """
    known: str | None = None
    while True:
        log, answer = yield from list_and_look()
        head, database = read(answer)
        if not log.objects and answer.status == 404:
            return None
        if known not in (None, database):
            raise another()
        known = database
        if head is None and database and moved_to:
            raise was_dropped()
        trimmed = head.trimmed if head else 0
        last = max([trimmed, *log.entries])
        # One that the trim has reached is that of a database before this one,
        # or of somebody who slept.
        if last > trimmed and (yield from _is_end(last, moved_to)):
            return Ended(last - 1, database)
        key = entry_key(last + 1)
        created: Answer = yield Create(key, seal_end(moved_to))
        if created.status not in (200, 412):
            raise failure(created, f"end the log by {key}")
        if created.status == 200 and (yield from is_above_trim(last, database)):
            return Ended(last, database)


def is_above_trim(last: int, database: str) -> Steps[bool]:
    """Whether an end after ``last`` is one: its place was not trimmed.

    For then there were others after it: who slept since he saw the log has
    put the end where nobody looks. See ``proof``.
    """
    head, now = read((yield from look()))
    if now != database:
        raise another()
    return head is not None and head.trimmed <= last


def list_and_look() -> Steps[tuple[Page, Answer]]:
    """The log, and ``_head`` as it was after that was listed."""
    log = yield from list_all(LOG)
    answer = yield from look()
    return log, answer


def look() -> Steps[Answer]:
    """``_head``, if there is one."""
    answer: Answer = yield Get(HEAD)
    if answer.status not in (200, 404):
        raise failure(answer, f"read {HEAD}")
    return answer


def read(answer: Answer) -> tuple[Head | None, str]:
    """What ``_head`` says, and of which database; None: that is dropped."""
    if answer.status == 404:
        return None, ""
    if database := dropped_database(answer.body):
        return None, database
    head = decode_head(answer.body)
    return head, head.database


def another() -> LogDiverged:
    """The error for who was late."""
    return LogDiverged("Another database has taken the place of this one.")


def _is_end(number: int, moved_to: str) -> Steps[bool]:
    found: Answer = yield Get(entry_key(number))
    if found.status not in (200, 404):
        raise failure(found, f"read {entry_key(number)}")
    return found.body == seal_end(moved_to)


def begin_drop() -> Steps[Ended | None]:
    """Let nobody use the database any more, on no host.

    The result is for ``finish_drop``. Raises what ``end_log`` does: after a
    ``StoreError`` it is to be begun again.
    """
    ended = yield from end_log("")
    if ended is not None:
        yield from bury(ended.database)
    return ended


def bury(database: str) -> Steps[None]:
    """Let who looks at ``_head`` know that there is no database."""
    while True:
        answer = yield from look()
        head, found = read(answer)
        if found not in ("", database):
            raise another()
        if head is None:
            return
        replaced: Answer = yield Replace(HEAD, encode_dropped(database), answer.etag)
        if replaced.status == 200:
            return
        if replaced.status != 412:  # a keeper was faster
            raise failure(replaced, f"replace {HEAD}")


def finish_drop(ended: Ended | None) -> Steps[int]:
    """Delete what is left; return how many objects the database had.

    What stays are ends of its log, some 30 bytes each: in the place of the
    entry after the last, of those that are younger than two hours, and of
    ``_head``. Raises ``StoreError``: then it is to be dropped again. Where
    another database has been made meanwhile, the rest is left to its keeper.
    """
    if ended is None:
        return (yield from delete_all_of(Ended(0, ""), frozenset()))
    recent = yield from _end_recent(ended.last)
    kept = recent | {HEAD, entry_key(ended.last + 1)}
    gone = yield from delete_all_of(ended, kept)
    return bool(ended.database) + len(recent) + gone


def _end_recent(last: int) -> Steps[frozenset[str]]:
    """Put the end in the place of young entries, and return their keys."""
    log = yield from list_all(LOG)
    recent = [
        one
        for number, one in log.entries.items()
        if number <= last and may_be_created_again(one, log.date)
    ]
    for one in recent:
        yield from _end_at(one)
    return frozenset(one.key for one in recent)


def may_be_created_again(one: Listed, date: float | None) -> bool:
    """Whether a host may create this entry, if it is gone, and believe it.

    Twice the time, for clocks of a store that differ.
    """
    return date is None or date - one.modified <= 2 * BELIEVED_FOR


def _end_at(one: Listed) -> Steps[None]:
    answer: Answer = yield Replace(one.key, seal_end(""), one.etag)
    if answer.status == 412:  # another host drops it, too
        answer = yield Get(one.key)
        if answer.body == seal_end(""):
            return
    if answer.status != 200:
        raise failure(answer, f"end the log at {one.key}")


def delete_all_of(ended: Ended, kept: frozenset[str]) -> Steps[int]:
    """Delete all else, until nothing is left; return how many."""
    gone = 0
    while some := (yield from _delete_once(ended, kept)):
        gone += some
    return gone


def _delete_once(ended: Ended, kept: frozenset[str]) -> Steps[int]:
    gone, start_after = 0, ""
    while True:
        page: Answer = yield ListPage("", start_after)
        if page.status != 200:
            raise failure(page, "list what is to be deleted")
        doomed = [
            one.key
            for one in page.keys
            if one.key not in kept and not is_of_next(one.key, ended.last)
        ]
        if doomed and not (yield from is_still_dropped(ended.database)):
            return 0
        if doomed:
            answer: Answer = yield Delete(doomed)
            if answer.status != 200:
                raise failure(answer, f"delete {doomed[0]} and others")
            gone += len(doomed)
        if not page.more:
            return gone
        start_after = page.keys[-1].key


def is_of_next(key: str, last: int) -> bool:
    """Whether a database that is being made after entry ``last`` needs it."""
    return (catalog_number(key) or 0) > last


def is_still_dropped(database: str) -> Steps[bool]:
    """Whether there is no new database yet."""
    head, found = read((yield from look()))
    return head is None and found in ("", database)
