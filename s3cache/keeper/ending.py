"""The end of a log: its database was moved, or dropped.

An object takes the place of the entry after the last one, so that nobody can
create that entry any more, and who reads it is told why. Where a database is
moved, that is all: what is there stays.

Where it is dropped, a host that is behind must not create an entry in a place
that was freed. It believes what it is told for an hour (``BELIEVED_FOR``)
without a look at ``_head``. So

1. the end is put in the place of the next entry: the log is all that there is;
2. ``_head`` is deleted: who looks at it learns that there is no database;
3. each entry that a host may still ask for without that look is replaced by
   the end, and stays: its place is never free;
4. everything else is deleted.

Whoever is at entry n was told at some moment that there is no n+1 yet. If
n+1 is older than an hour, that was longer ago, and nothing is believed before
a look at ``_head``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from s3cache.keeper.effects import Delete, Replace
from s3cache.keeper.rounds import list_all
from s3cache.log.drive import drive
from s3cache.log.effects import Create, Effect, Get, ListPage, Steps
from s3cache.log.entry import seal_end
from s3cache.log.head import decode_head
from s3cache.log.keys import HEAD, LOG, entry_key
from s3cache.log.proof import BELIEVED_FOR
from s3cache.stores.base import Answer, Listed, Store
from s3cache.stores.failures import failure

__all__ = ["begin_drop", "end_log", "finish_drop", "on"]

T = TypeVar("T")


def on(store: Store, steps: Steps[T]) -> T:
    """Run a protocol of this module on ``store``; no replica takes part.

    Each request is made once. Who calls it again goes on.
    """
    performers: dict[type, Callable[[Any], Answer]] = {
        Get: lambda effect: store.get(effect.key),
        ListPage: lambda effect: store.list(
            effect.prefix, start_after=effect.start_after
        ),
        Create: lambda effect: store.put(effect.key, effect.body, if_none_match=True),
        Replace: lambda effect: store.put(
            effect.key, effect.body, if_match=effect.etag
        ),
        Delete: lambda effect: store.delete_many(effect.keys),
    }

    def perform(effect: Effect) -> Answer:
        return performers[type(effect)](effect)

    return drive(steps, perform)


def end_log(moved_to: str) -> Steps[int | None]:
    """See to it that nothing follows the entry that is returned.

    Which is 0 if there is none. ``moved_to`` is told to those who ask for
    the next one; "": the database is dropped. None if there is no database.
    Raises ``StoreError``: then the log has perhaps ended, or goes on.
    """
    head: Answer = yield Get(HEAD)
    if head.status not in (200, 404):
        raise failure(head, f"read {HEAD}")
    trimmed = decode_head(head.body).trimmed if head.status == 200 else 0
    while True:
        log = yield from list_all(LOG)
        if not log.objects and head.status == 404:
            return None
        last = max([trimmed, *log.entries])
        if last in log.entries and (yield from _is_end(last, moved_to)):
            return last - 1
        key = entry_key(last + 1)
        answer: Answer = yield Create(key, seal_end(moved_to))
        if answer.status == 200:
            return last
        if answer.status != 412:
            raise failure(answer, f"end the log by {key}")


def _is_end(number: int, moved_to: str) -> Steps[bool]:
    found: Answer = yield Get(entry_key(number))
    if found.status not in (200, 404):
        raise failure(found, f"read {entry_key(number)}")
    return found.body == seal_end(moved_to)


def begin_drop() -> Steps[int | None]:
    """Let nobody use the database any more, on no host.

    The result is for ``finish_drop``. Raises ``StoreError``: then it is to be
    begun again.
    """
    last = yield from end_log("")
    if last is not None:
        yield from delete_head()
    return last


def delete_head() -> Steps[None]:
    """Let who looks at ``_head`` know that there is no database."""
    answer: Answer = yield Delete([HEAD])
    if answer.status != 200:
        raise failure(answer, f"delete {HEAD}")


def finish_drop(last: int | None) -> Steps[int]:
    """Delete what is left; return how many objects the database had.

    What stays are ends of its log, some 30 bytes each: in the place of the
    entry after ``last``, and of those that are younger than two hours.
    Raises ``StoreError``: then it is to be dropped again.
    """
    if last is None:
        return (yield from delete_all_but(frozenset()))
    ended = yield from _end_recent(last)
    gone = yield from delete_all_but(ended | {entry_key(last + 1)})
    return 1 + len(ended) + gone  # ``_head`` is gone already


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


def delete_all_but(kept: frozenset[str]) -> Steps[int]:
    """Delete all else, until nothing is left; return how many."""
    gone = 0
    while some := (yield from _delete_once(kept)):
        gone += some
    return gone


def _delete_once(kept: frozenset[str]) -> Steps[int]:
    gone, start_after = 0, ""
    while True:
        page: Answer = yield ListPage("", start_after)
        if page.status != 200:
            raise failure(page, "list what is to be deleted")
        if doomed := [one.key for one in page.keys if one.key not in kept]:
            answer: Answer = yield Delete(doomed)
            if answer.status != 200:
                raise failure(answer, f"delete {doomed[0]} and others")
            gone += len(doomed)
        if not page.more:
            return gone
        start_after = page.keys[-1].key
