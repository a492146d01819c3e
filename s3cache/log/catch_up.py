"""Following the log."""

from __future__ import annotations

from collections.abc import Sequence

from s3cache.exceptions import LogDiverged
from s3cache.log.effects import (
    Apply,
    Get,
    GetMany,
    ListPage,
    Now,
    Position,
    Proved,
    Recall,
    Remember,
    StartOver,
    Steps,
    TakeOver,
    Where,
)
from s3cache.log.entry import Entry
from s3cache.log.head import Head
from s3cache.log.keys import LOG, entry_key, entry_number
from s3cache.log.proof import believable, failure, open_entry, read_head
from s3cache.stores.base import Answer, Listed

#: After so many entries one by one, the rest is listed and read in parallel.
ONE_BY_ONE = 3

#: Entries that are read at the same time. It bounds the memory of a host
#: that is far behind.
AT_ONCE = 16

#: Seconds after which the newest entry that a replica has is compared with
#: the log: a bucket that was wiped, restored or forked shows there.
CHECK_EVERY = 600.0

#: How often a new replica is begun again because the trim overtook it.
REBUILD_TRIES = 5

TRIMMED = "the log was trimmed meanwhile"


def catch_up(signing_keys: tuple[bytes, ...] = ()) -> Steps[Position]:
    """Apply all that is new; return the position, proved to be the newest.

    One request when nothing is new, one more for each of the first entries;
    a LIST and parallel requests when there are many. A replica that the log
    does not continue is replaced by a new one. Raises ``StoreError`` when
    the store does not answer, and ``LogDiverged`` when the log itself is
    broken.
    """
    replaced = yield from compare(signing_keys)
    if replaced is not None:
        return replaced
    for _ in range(ONE_BY_ONE):
        asked_at: float = yield Now()
        position: Position = yield Where()
        answer: Answer = yield Get(entry_key(position.number + 1))
        if answer.status == 404 and (yield from believable(position, answer)):
            yield Proved(position.number, asked_at, answer.date or 0.0)
            return position
        if not (yield from apply_answer(position, answer, signing_keys)):
            return (yield from rebuild(TRIMMED, signing_keys))
    return (yield from follow(signing_keys))


def apply_answer(
    position: Position, answer: Answer, signing_keys: tuple[bytes, ...]
) -> Steps[bool]:
    """Apply the entry after ``position``, which ``answer`` brought.

    False if the replica cannot go on from ``position``: the answer is one
    that no longer counts, or the entry continues another log.
    """
    key = entry_key(position.number + 1)
    if answer.status not in (200, 404):
        raise failure(answer, f"asking for {key}")
    if answer.status == 404 or not (yield from believable(position, answer)):
        return False
    entry = yield from open_entry(answer, key, signing_keys)
    if not continues(entry, position):
        return False
    yield from apply_foreign(entry, answer)
    return True


def continues(entry: Entry, position: Position) -> bool:
    """Whether ``entry`` is the one after ``position``, in the same log."""
    return entry.follows(position.database, position.number, position.token)


def apply_foreign(entry: Entry, answer: Answer) -> Steps[Position]:
    """Apply an entry that was read from the log."""
    now: float = yield Now()
    yield Remember(foreign_at=now)
    return (yield Apply(entry, answer.etag, answer.modified or 0.0))


def follow(signing_keys: tuple[bytes, ...]) -> Steps[Position]:
    """Apply the rest of the log by LIST and parallel reads."""
    while True:
        asked_at: float = yield Now()
        position: Position = yield Where()
        page = yield from list_log(position.number)
        numbers = entry_numbers(page)
        if not numbers and not (yield from believable(position, page)):
            return (yield from rebuild(TRIMMED, signing_keys))
        if not is_run(numbers, position.number + 1) or not (
            yield from apply_all(numbers, signing_keys)
        ):
            return (yield from rebuild("the log does not continue it", signing_keys))
        if not page.more:
            last = numbers[-1] if numbers else position.number
            yield Proved(last, asked_at, page.date or 0.0)
            return (yield Where())


def list_log(after: int) -> Steps[Answer]:
    """A page of the entries after number ``after``."""
    page: Answer = yield ListPage(LOG, start_after=entry_key(after))
    if page.status != 200:
        raise failure(page, f"listing the log after {entry_key(after)}")
    return page


def apply_all(
    numbers: Sequence[int], signing_keys: tuple[bytes, ...], *, proved: bool = False
) -> Steps[bool]:
    """Apply the entries ``numbers``; False if they do not continue ours.

    The answers are judged once for each ``AT_ONCE`` of them, by the last.
    With ``proved`` the caller has read ``_head`` after listing them, and
    they count as they are.
    """
    for start in range(0, len(numbers), AT_ONCE):
        keys = [entry_key(n) for n in numbers[start : start + AT_ONCE]]
        answers: Sequence[Answer] = yield GetMany(keys)
        for key, answer in zip(keys, answers, strict=True):
            if answer.status == 404:
                return False
            if answer.status != 200:
                raise failure(answer, f"reading {key}")
        position: Position = yield Where()
        if not proved and not (yield from believable(position, answers[-1])):
            return False
        for key, answer in zip(keys, answers, strict=True):
            entry = yield from open_entry(answer, key, signing_keys)
            position = yield Where()
            if entry.number <= position.number:
                continue
            if not continues(entry, position):
                return False
            yield from apply_foreign(entry, answer)
    return True


def compare(signing_keys: tuple[bytes, ...]) -> Steps[Position | None]:
    """Compare the replica's newest entry with the log, when that is due.

    One LIST every ``CHECK_EVERY`` seconds. Returns the new position if the
    replica had to be replaced, and else None.
    """
    now: float = yield Now()
    state = yield Recall()
    if state.checked_at and 0 <= now - state.checked_at < CHECK_EVERY:
        return None
    position: Position = yield Where()
    if position.number:
        page = yield from list_log(position.number - 1)
        first = page.keys[0] if page.keys else None
        key = entry_key(position.number)
        if first is None or (first.key, first.etag) != (key, position.etag):
            head = yield from read_head()
            reason = _why_not_ours(position, first, head)
            if reason:
                replaced = yield from rebuild(reason, signing_keys)
                yield Remember(checked_at=now)
                return replaced
    yield Remember(checked_at=now)
    return None


def _why_not_ours(position: Position, first: Listed | None, head: Head) -> str:
    """Why the log is not the one that the replica has followed, or ""."""
    key = entry_key(position.number)
    if head.database != position.database:
        return (
            f"the store holds the database {head.database}, "
            f"the replica {position.database}"
        )
    if head.trimmed > position.number:
        return f"the log was trimmed to {head.trimmed} meanwhile"
    if head.trimmed == position.number:
        return ""
    if first is not None and first.key == key:
        return f"{key} is not the object that this replica has applied"
    return f"{key} is gone from the log"


def rebuild(reason: str, signing_keys: tuple[bytes, ...]) -> Steps[Position]:
    """Replace the replica by a new one, made from what the store has.

    Readers keep the old one until the new one is complete. The log is listed
    first and ``_head`` read after it, so that one look at it proves all that
    was listed. Raises ``LogDiverged`` if the log contradicts itself.
    """
    for _ in range(REBUILD_TRIES):
        asked_at: float = yield Now()
        page = yield from list_log(0)
        listed = entry_numbers(page)
        while page.more:
            page = yield from list_log(listed[-1])
            listed += entry_numbers(page)
        head = yield from read_head()
        position: Position = yield StartOver(head, reason)
        numbers = [number for number in listed if number > position.number]
        if not is_run(numbers, position.number + 1):
            continue
        if not (yield from apply_all(numbers, signing_keys, proved=True)):
            continue
        last = numbers[-1] if numbers else position.number
        yield Proved(last, asked_at, page.date or 0.0)
        yield TakeOver()
        return (yield Where())
    raise LogDiverged(
        "No replica can be made from this log: an entry is missing, or does not "
        "continue the one before it. The bucket was changed by something else "
        "than s3cache; compare it with its last good copy."
    )


def entry_numbers(page: Answer) -> list[int]:
    """The numbers of the entries on a page of the log."""
    return [n for one in page.keys if (n := entry_number(one.key)) is not None]


def is_run(numbers: Sequence[int], first: int) -> bool:
    """Whether ``numbers`` go up one by one from ``first``, or are none."""
    return list(numbers) == list(range(first, first + len(numbers)))
