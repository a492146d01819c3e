"""Following the log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from s3cache.exceptions import LogDiverged
from s3cache.log.cold_start import begin_anew, load_absent
from s3cache.log.effects import (
    Apply,
    Get,
    GetMany,
    HoldRebuildLock,
    HostState,
    Lacking,
    ListPage,
    Now,
    Position,
    Proved,
    Recall,
    Remember,
    Steps,
    TakeOver,
    Where,
)
from s3cache.log.entry import Entry
from s3cache.log.head import Head
from s3cache.log.keys import LOG, entry_key, entry_number
from s3cache.log.patience import patiently
from s3cache.log.proof import (
    believable,
    is_untrimmed,
    open_entry,
    read_head,
)
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure

#: How an entry is applied; False if it cannot be.
ApplyEntry = Callable[[Entry, Answer, tuple[bytes, ...]], Steps[bool]]

#: After so many entries one by one, the rest is listed and read in parallel.
ONE_BY_ONE = 3

#: Entries that are read at the same time. It bounds the memory of a host
#: that is far behind.
AT_ONCE = 16

#: Seconds after which the newest entry that a replica has is compared with
#: the log: a bucket that was wiped, restored or forked shows there.
CHECK_EVERY = 600.0

#: A host that wins within so many seconds of meeting another host's entry
#: lets the others have a turn; without it two of three busy hosts starve.
CONTENDED_FOR = 5.0

#: The most that one such turn takes, in seconds.
LONGEST_TURN = 1.0

#: What remains, with each other entry that is met, of what one entry told of
#: its host's round trip.
FADING = 0.9

#: How often a new replica is begun again because the trim overtook it.
REBUILD_TRIES = 5

#: How often packs that are gone are looked for in a newer catalog.
LOAD_TRIES = 3

#: Seconds to wait for another process that builds a new replica.
REBUILD_WAIT = 60.0


def catch_up(signing_keys: tuple[bytes, ...] = ()) -> Steps[Position]:
    """Apply all that is new; return a position that was the newest one.

    It was so at some moment after the call. One request when nothing is new,
    one more for each of the first entries; a LIST and parallel requests when
    there are many. A replica that the log does not continue is replaced by a
    new one. Raises ``StoreError`` when the store does not answer,
    ``LogDiverged`` when the log itself is broken, and ``EntryFormatError``
    when an entry cannot be read.
    """
    return (yield from patiently(reach_newest(signing_keys)))


def reach_newest(signing_keys: tuple[bytes, ...]) -> Steps[Position]:
    """``catch_up``, where somebody else sees to the patience."""
    while True:
        reached = yield from compare(signing_keys)
        if reached is None:
            reached = yield from step(signing_keys)
        if reached is None:
            reached = yield from follow(signing_keys)
        if reached is not None:
            return reached


def step(signing_keys: tuple[bytes, ...]) -> Steps[Position | None]:
    """Apply what is new, entry by entry; None if there is more than a few."""
    for _ in range(ONE_BY_ONE):
        asked_at: float = yield Now()
        position: Position = yield Where()
        answer = yield from ask_next(position)
        if not (yield from believable(position, answer)):
            return (yield from rebuild(position, signing_keys))
        if answer.status == 404:
            yield Proved(position.number, asked_at, answer.date or 0.0)
            return position
        if not (yield from apply_next(position, answer, signing_keys)):
            return (yield from rebuild(position, signing_keys))
    return None


def advance(number: int, signing_keys: tuple[bytes, ...]) -> Steps[None]:
    """Apply the entries up to ``number``, which somebody says is there.

    One request for each of them, and none to see whether more follow. That
    somebody may be wrong, or lie: nothing is taken for new or old because of
    what he says. Raises what ``catch_up`` does.
    """
    while True:
        position: Position = yield Where()
        if position.number >= number:
            return
        if not position.database or number - position.number > ONE_BY_ONE:
            break
        answer = yield from ask_next(position)
        if not (yield from believable(position, answer)):
            break
        if answer.status == 404:
            return
        if not (yield from apply_next(position, answer, signing_keys)):
            break
    yield from reach_newest(signing_keys)


def ask_next(position: Position) -> Steps[Answer]:
    """Ask for the entry after ``position``: a 200 or a 404."""
    key = entry_key(position.number + 1)
    answer: Answer = yield Get(key)
    if answer.status not in (200, 404):
        raise failure(answer, f"read {key}")
    return answer


def apply_next(
    position: Position, answer: Answer, signing_keys: tuple[bytes, ...]
) -> Steps[bool]:
    """Apply the entry after ``position``, in an ``answer`` that counts.

    False if it continues another log than the replica's, or is gone.
    """
    entry = yield from open_entry(answer, position.number + 1, signing_keys)
    if entry is None or not continues(entry, position):
        return False
    state = yield Recall()
    if entry.host != state.host:
        yield from meet(entry, state)
    return (yield from apply_entry(entry, answer, signing_keys))


def apply_entry(
    entry: Entry, answer: Answer, signing_keys: tuple[bytes, ...]
) -> Steps[bool]:
    """Apply an entry; first load the packs that it cannot do without.

    False if those are gone, and newer ones are of an entry after this one.
    """
    while True:
        applied: Position | Lacking = yield Apply(
            entry, answer.etag, created_at(answer)
        )
        if not isinstance(applied, Lacking):
            return True
        keys = frozenset(pack.key for pack in applied.packs)
        if not (yield from load_absent(keys, signing_keys)):
            return False


def apply_to_new(
    entry: Entry, answer: Answer, signing_keys: tuple[bytes, ...]
) -> Steps[bool]:
    """Apply an entry to a new replica; False if it lacks too much for that."""
    applied: Position | Lacking = yield Apply(entry, answer.etag, created_at(answer))
    return not isinstance(applied, Lacking)


def meet(entry: Entry, state: HostState) -> Steps[None]:
    """Remember that there are others, and how slow the slowest of them is.

    That fades, so that one slow request does not slow everybody for ever.
    """
    now: float = yield Now()
    slowest = min(entry.round_trip, LONGEST_TURN)
    if 0 <= now - state.foreign_at <= CONTENDED_FOR:
        slowest = max(slowest, FADING * state.foreign_round_trip)
    yield Remember(foreign_at=now, foreign_round_trip=slowest)


def created_at(answer: Answer) -> float:
    """When the entry was created that ``answer`` brought, or put there.

    Never later than that: then it was the newest. An answer's own date says
    when it was read; others may have followed, and been trimmed, by then.
    """
    if answer.modified is None and not answer.body:
        return answer.date or 0.0  # of a PUT, which has no Last-Modified
    return answer.modified or 0.0


def continues(entry: Entry, position: Position) -> bool:
    """Whether ``entry`` is the one after ``position``, in the same log."""
    return entry.follows(position.database, position.number, position.token)


def follow(signing_keys: tuple[bytes, ...]) -> Steps[Position | None]:
    """Apply the rest of the log by LIST and parallel reads.

    None if something came between: the caller looks again.
    """
    while True:
        asked_at: float = yield Now()
        position: Position = yield Where()
        page = yield from list_log(position.number)
        listed = entries_of(page)
        if not (yield from believable(position, page)):
            return (yield from rebuild(position, signing_keys))
        if not is_run(listed, position.number + 1):
            return (yield from rebuild(position, signing_keys))
        if not (yield from apply_listed(listed, signing_keys)):
            return (yield from rebuild(position, signing_keys))
        if not page.more:
            last = max(listed, default=position.number)
            yield Proved(last, asked_at, page.date or 0.0)
            reached: Position = yield Where()
            return reached


def load(
    keys: frozenset[str] | None, signing_keys: tuple[bytes, ...], first: Any = None
) -> Steps[None]:
    """Load the packs ``keys`` that the replica lacks; None: all of them.

    For ``first`` see ``load_absent``. Where they are gone the replica lacks
    other ones then, which somebody who looks again is told of. Raises what
    ``catch_up`` does.
    """
    for _ in range(LOAD_TRIES):
        if (yield from patiently(load_absent(keys, signing_keys, first))):
            return
        # The packs of today are of an entry that it has not applied yet.
        yield from catch_up(signing_keys)
    position: Position = yield Where()
    yield from patiently(rebuild(position, signing_keys))


def list_log(after: int) -> Steps[Answer]:
    """A page of the log after entry ``after``; with no entry if it ends."""
    start_after = entry_key(after)
    while True:
        page: Answer = yield ListPage(LOG, start_after=start_after)
        if page.status != 200:
            raise failure(page, f"list the log after {start_after}")
        if not page.more or entries_of(page):
            return page
        start_after = page.keys[-1].key  # nothing but what others put there


def entries_of(page: Answer) -> dict[int, str]:
    """The entries on a page of the log: ETags by number."""
    return {
        number: one.etag
        for one in page.keys
        if (number := entry_number(one.key)) is not None
    }


def is_run(numbers: Mapping[int, str], first: int) -> bool:
    """Whether ``numbers`` go up one by one from ``first``, or are none."""
    return list(numbers) == list(range(first, first + len(numbers)))


def apply_listed(
    listed: Mapping[int, str],
    signing_keys: tuple[bytes, ...],
    apply: ApplyEntry = apply_entry,
) -> Steps[bool]:
    """Apply entries that a LIST named; False if they cannot be applied.

    What the LIST proved holds for the objects that it named, hence for
    answers with their ETags, however much later these come. Another object
    under such a key was put there by somebody who slept over a trim.
    """
    numbers = list(listed)
    for start in range(0, len(numbers), AT_ONCE):
        chunk = numbers[start : start + AT_ONCE]
        answers: Sequence[Answer] = yield GetMany([entry_key(n) for n in chunk])
        for number, answer in zip(chunk, answers, strict=True):
            if answer.status not in (200, 404):
                raise failure(answer, f"read {entry_key(number)}")
            if answer.status == 404 or answer.etag != listed[number]:
                return False
            entry = yield from open_entry(answer, number, signing_keys)
            position: Position = yield Where()
            if entry is None:
                return False
            if entry.number <= position.number:
                continue
            if not continues(entry, position):
                return False
            if not (yield from apply(entry, answer, signing_keys)):
                return False
    return True


def compare(signing_keys: tuple[bytes, ...]) -> Steps[Position | None]:
    """Compare the replica's newest entries with the log, when that is due.

    One LIST and a look at ``_head`` every ``CHECK_EVERY`` seconds; one LIST
    more for each 1,000 entries since the last time. All of those have to be
    there: a host that goes on writing to a bucket that was wiped finds its
    own new entries, and only the older ones are missing.

    Returns a position that was the newest one, if that turned out on the
    way: nothing follows it, or the replica had to be made anew.
    """
    position: Position = yield Where()
    if not position.database:
        return (yield from rebuild(position, signing_keys))
    now: float = yield Now()
    state = yield Recall()
    if state.checked_at and 0 <= now - state.checked_at < CHECK_EVERY:
        return None
    first = position.number
    if state.checked_at:
        first = min(first, state.checked_number)
    listed, page = yield from list_entries(max(first, 1), position.number)
    head = yield from read_head()
    if not is_untrimmed(position, head) or not has_all(
        listed, max(first, head.trimmed + 1), position
    ):
        return (yield from rebuild(position, signing_keys))
    yield Remember(checked_at=now, checked_number=position.number)
    if page.more or max(listed, default=0) > position.number:
        return None
    yield Proved(position.number, now, page.date or 0.0)
    return position


def list_entries(first: int, last: int) -> Steps[tuple[dict[int, str], Answer]]:
    """The entries from ``first`` to ``last``, and perhaps some more.

    ETags by number, and the last page of the LIST.
    """
    page = yield from list_log(first - 1)
    listed = entries_of(page)
    while page.more and max(listed) < last:
        page = yield from list_log(max(listed))
        listed |= entries_of(page)
    return listed, page


def has_all(listed: Mapping[int, str], first: int, position: Position) -> bool:
    """Whether the entries from ``first`` to ``position`` are all listed.

    And the last of them is the object that the replica has applied, if the
    store tells.
    """
    numbers = range(first, position.number + 1)
    return all(number in listed for number in numbers) and (
        not numbers or not position.etag or listed[position.number] == position.etag
    )


def rebuild(
    position: Position, signing_keys: tuple[bytes, ...]
) -> Steps[Position | None]:
    """Replace the replica by a new one, made from what the store has.

    Readers keep the old one until the new one is complete. None if the
    replica is not at ``position`` any more: then what spoke against that
    position does not speak against this one. Raises ``LogDiverged`` if the
    log contradicts itself.
    """
    started_at: float = yield Now()
    with (yield HoldRebuildLock(started_at + REBUILD_WAIT)):
        here: Position = yield Where()
        if not here.is_at(position):
            return None
        whole = False
        for _ in range(REBUILD_TRIES):
            asked_at: float = yield Now()
            head = yield from read_head()
            reason, diverged = yield from why_not_ours(position, head)
            start = yield from begin_anew(
                head, reason, diverged, signing_keys, whole=whole
            )
            if start is None:
                continue
            listed, page = yield from list_entries(start.number + 1, sys.maxsize)
            if not (yield from is_complete(start, page)):
                continue
            if not is_run(listed, start.number + 1):
                continue
            if not (yield from apply_listed(listed, signing_keys, apply_to_new)):
                whole = True  # the reason may be what it lacks
                continue
            last = max(listed, default=start.number)
            yield Proved(last, asked_at, page.date or 0.0)
            if not (yield TakeOver(position)):
                return None
            yield Remember(checked_at=asked_at, checked_number=last)
            reached: Position = yield Where()
            return reached
    raise LogDiverged(
        "No replica can be made from this log: an entry is missing, or does not "
        "continue the one before it. The bucket was changed by something else "
        "than s3cache; compare it with its last good copy."
    )


def is_complete(start: Position, page: Answer) -> Steps[bool]:
    """Whether a LIST from ``start`` on, up to ``page``, has every entry.

    The trim may have passed ``start`` while its packs were loaded, and no gap
    need tell: the newest entries may be the first that are deleted.
    """
    return believable(start, page)


def why_not_ours(position: Position, head: Head) -> Steps[tuple[str, bool]]:
    """Why the replica at ``position`` cannot go on, for people.

    And whether the log is no longer the one that it has followed.
    """
    if not position.database:
        return "there was none", False
    if head.database != position.database:
        return (
            f"the store holds the database {head.database}, "
            f"the replica {position.database}",
            True,
        )
    if head.trimmed >= position.number:
        return f"the log was trimmed to {head.trimmed} meanwhile", False
    listed, _page = yield from list_entries(head.trimmed + 1, position.number)
    if not has_all(listed, head.trimmed + 1, position):
        return (
            f"the log does not have all entries up to {entry_key(position.number)}, "
            f"or another one under that key, than this replica has applied",
            True,
        )
    return "the log does not continue it", False
