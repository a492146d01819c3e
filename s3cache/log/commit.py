"""Creating the next entry of the log: the commit.

``PUT _log/<n+1> If-None-Match: *`` is atomic and totally ordered. Everything
here is about what may go wrong around that one request.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from s3cache.exceptions import CommitOutcomeUnknown, StoreError
from s3cache.log.catch_up import TRIMMED, apply_answer, compare, rebuild
from s3cache.log.effects import (
    Apply,
    Create,
    Get,
    HoldCommitLock,
    KeepPending,
    Now,
    Position,
    Proved,
    Recall,
    Remember,
    Sleep,
    Stage,
    Staged,
    Steps,
    Token,
    Where,
)
from s3cache.log.entry import Entry, Sealed, seal, token_of
from s3cache.log.keys import blob_key, entry_key
from s3cache.log.proof import believable, failure, is_unclear
from s3cache.stores.base import Answer

#: A host that won within so many seconds of meeting another host's entry
#: lets the others have a turn; without it two of three busy hosts starve.
CONTENDED_FOR = 5.0

#: Pauses between attempts at the same request, in seconds; the last repeats.
BACKOFF = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


class Outcome(enum.Enum):
    """What became of one frozen body."""

    WON = "won"
    LOST = "lost"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """``host`` is written into entries; ``timeout`` is in seconds."""

    host: str = ""
    timeout: float = 20.0
    signing_keys: tuple[bytes, ...] = ()


def commit(options: CommitOptions) -> Steps[Position]:
    """Run the batch and commit what it changes; return where that left us.

    The batch is run again, on a newer state, as often as another host was
    first. What the batch's callers were told may be released once this
    returns: either the entry exists, or the state that the batch was judged
    by was proved to be the newest.

    Raises ``CommitOutcomeUnknown`` when the store did not say in time
    whether the entry was created, and another ``StoreError`` when the
    commit certainly did not happen.
    """
    deadline = (yield Now()) + options.timeout
    with (yield HoldCommitLock(deadline)):
        yield from compare(options.signing_keys)
        while True:
            yield from let_others_go_first()
            staged: Staged = yield Stage()
            position = staged.position
            if not staged.changes:
                if (yield from is_newest(position, options)):
                    return position
                continue
            token: str = yield Token()
            entry = freeze(staged, token, options.host)
            outcome, answer = yield from create(entry, position, options, deadline)
            if outcome is Outcome.WON:
                return (
                    yield Apply(
                        entry, answer.etag, answer.modified or answer.date or 0.0, True
                    )
                )
            if outcome is Outcome.VOID:
                yield from rebuild(TRIMMED, options.signing_keys)
            else:
                yield from go_on(position, answer, options)
            yield from _give_up_after(deadline)


def freeze(staged: Staged, token: str, host: str) -> Entry:
    """The entry for a batch. A new run of the batch gets a new token.

    Only the token tells whether an entry is ours: two hosts that commit the
    same change to the same state build the same bytes.
    """
    position = staged.position
    return Entry(
        database=position.database,
        number=position.number + 1,
        token=token,
        previous=position.token,
        host=host,
        changes=list(staged.changes),
        transactions=staged.transactions,
    )


def is_newest(position: Position, options: CommitOptions) -> Steps[bool]:
    """Whether no entry follows ``position``; what does is applied.

    Nobody is told "no such row" or "already exists" by an old replica.
    """
    asked_at: float = yield Now()
    answer: Answer = yield Get(entry_key(position.number + 1))
    if answer.status == 404 and (yield from believable(position, answer)):
        yield Proved(position.number, asked_at, answer.date or 0.0)
        return True
    yield from go_on(position, answer, options)
    return False


def go_on(position: Position, answer: Answer, options: CommitOptions) -> Steps[None]:
    """Apply the entry in ``answer``, or find another way forward."""
    now: Position = yield Where()
    if (now.number, now.token) != (position.number, position.token):
        return
    if not (yield from apply_answer(position, answer, options.signing_keys)):
        yield from rebuild(TRIMMED, options.signing_keys)


def create(
    entry: Entry, position: Position, options: CommitOptions, deadline: float
) -> Steps[tuple[Outcome, Answer]]:
    """Create the entry after ``position``, whatever the network does.

    The same bytes are sent until the store says 200 or 412. The answer that
    is returned with ``WON`` is the one that told: of the PUT, or of reading
    the entry.
    """
    key = entry_key(entry.number)
    sealed = seal(
        entry,
        key=key,
        blob_key=blob_key(entry.number, entry.token),
        signing_keys=options.signing_keys,
    )
    if sealed.blob:
        yield from store_blob(sealed, deadline)
    unclear = False
    attempt = 0
    while True:
        sent_at: float = yield Now()
        answer: Answer = yield Create(key, sealed.body)
        now: float = yield Now()
        if answer.status == 200:
            yield Remember(won_at=now, round_trip=now - sent_at)
            if (yield from believable(position, answer)):
                return Outcome.WON, answer
            if unclear:
                # An earlier attempt may have been the one that counted.
                raise (yield from unknown(entry, answer))
            return Outcome.VOID, answer
        if answer.status == 412:
            found = yield from whose(entry, position, options, deadline)
            if found is None:
                raise (yield from unknown(entry, answer))
            return found
        if is_unclear(answer):
            unclear = True
        elif not unclear:
            raise failure(answer, f"creating {key}")
        if now >= deadline:
            raise (yield from unknown(entry, answer))
        yield Sleep(backoff(attempt))
        attempt += 1


def whose(
    entry: Entry, position: Position, options: CommitOptions, deadline: float
) -> Steps[tuple[Outcome, Answer] | None]:
    """Whether the entry that is in the log under our number is ours.

    None if that cannot be told: the store does not say before ``deadline``,
    or the entry is gone, and with it the answer.
    """
    key = entry_key(entry.number)
    attempt = 0
    while True:
        answer: Answer = yield Get(key)
        if answer.status == 200:
            if not (yield from believable(position, answer)):
                return None
            token = token_of(answer.body, key=key, signing_keys=options.signing_keys)
            now: float = yield Now()
            if token == entry.token:
                yield Remember(won_at=now)
                return Outcome.WON, answer
            yield Remember(foreign_at=now)
            return Outcome.LOST, answer
        if answer.status == 404:
            return None
        now = yield Now()
        if now >= deadline:
            return None
        yield Sleep(backoff(attempt))
        attempt += 1


def unknown(entry: Entry, answer: Answer) -> Steps[CommitOutcomeUnknown]:
    """The error for a commit that may or may not have happened."""
    yield KeepPending(entry.number, entry.token)
    said = answer.message or (f"HTTP {answer.status}" if answer.status else "no answer")
    return CommitOutcomeUnknown(
        f"The store did not say whether entry {entry.number} was created ({said}). "
        f"It is there whole or not at all: read before you write it again.",
        position=entry.number,
        token=entry.token,
    )


def store_blob(sealed: Sealed, deadline: float) -> Steps[None]:
    """Store the body that the entry will name, and read it back."""
    attempt = 0
    while True:
        answer: Answer = yield Create(sealed.blob_key, sealed.blob)
        if answer.status in (200, 412):
            found: Answer = yield Get(sealed.blob_key)
            if found.status == 200 and found.body == sealed.blob:
                return
            answer = found
        if not is_unclear(answer):
            raise failure(answer, f"storing {sealed.blob_key}")
        if (yield Now()) >= deadline:
            raise failure(answer, f"storing {sealed.blob_key}")
        yield Sleep(backoff(attempt))
        attempt += 1


def let_others_go_first() -> Steps[None]:
    """Wait two round trips after a win that others may have lost."""
    state = yield Recall()
    if not state.won_at or abs(state.won_at - state.foreign_at) > CONTENDED_FOR:
        return
    now: float = yield Now()
    wait = state.won_at + 2 * state.round_trip - now
    if wait > 0:
        yield Sleep(min(wait, 1.0))


def backoff(attempt: int) -> float:
    """Seconds to wait after attempt number ``attempt``, counted from 0."""
    return BACKOFF[min(attempt, len(BACKOFF) - 1)]


def _give_up_after(deadline: float) -> Steps[None]:
    if (yield Now()) >= deadline:
        raise StoreError(
            "Other hosts were first each time until commit_timeout was over. "
            "Nothing was committed; try again."
        )
