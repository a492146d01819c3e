"""Creating the next entry of the log: the commit.

``PUT _log/<n+1> If-None-Match: *`` is atomic and totally ordered. Everything
here is about what may go wrong around that one request.
"""

from __future__ import annotations

import enum
from contextlib import ExitStack
from dataclasses import dataclass

from msgspec.structs import replace

from s3cache.exceptions import (
    CommitOutcomeUnknown,
    EntryFormatError,
    LogDiverged,
    StoreError,
    StoreUnavailable,
)
from s3cache.log.catch_up import (
    CONTENDED_FOR,
    LONGEST_TURN,
    advance,
    apply_next,
    ask_next,
    compare,
    created_at,
    reach_newest,
    rebuild,
)
from s3cache.log.effects import (
    Apply,
    Create,
    Get,
    HoldCommitLock,
    KeepPending,
    Lacking,
    Now,
    Position,
    Proved,
    Recall,
    Remember,
    Sleep,
    Stage,
    Staged,
    Steps,
    TakeTurn,
    Token,
    Turn,
    Where,
)
from s3cache.log.entry import Entry, Sealed, is_end, seal, token_of
from s3cache.log.keys import blob_key, entry_key
from s3cache.log.patience import backoff, patiently
from s3cache.log.proof import BELIEVED_FOR, believable, is_unclear
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure

#: How long a turn is, in round trips: for a loser to read what was first, to
#: run its batch again, and to be first itself.
TURN = 2

#: Seconds that a host may win without a break before it lets others have a
#: turn, even if it knows of none; and how long such turns are, one after the
#: other, in round trips: those others may be slower, and some entries behind.
TURN_EVERY = 5.0
LONG_TURNS = (3, 6, 12)

#: The most seconds that a commit waits for its host's turn, and the share of
#: the time that it has left.
TURN_PATIENCE = 5.0
TURN_SHARE = 0.25


class Outcome(enum.Enum):
    """What became of one frozen body.

    ``VOID``: it did not count, and never will. The log had gone on, and been
    trimmed, past the number that it asked for.
    """

    WON = "won"
    LOST = "lost"
    VOID = "void"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """How to commit.

    ``host`` is written into entries and differs from replica to replica;
    ``timeout`` is in seconds; the first of ``signing_keys`` signs. With
    ``turns`` there is somebody who gives hosts their turns.
    """

    host: str = ""
    timeout: float = 20.0
    signing_keys: tuple[bytes, ...] = ()
    turns: bool = False


def commit(options: CommitOptions) -> Steps[Position]:
    """Run the batch and commit what it changes; return where that left us.

    The batch is run again, on a newer state, as often as another host was
    first. What the batch's callers were told may be released once this
    returns: either the entry exists, or the state that the batch was judged
    by was the newest at some moment after the call.

    Raises ``CommitOutcomeUnknown`` when it cannot be told whether the entry
    was created, and anything else only when the commit certainly did not and
    will not happen.
    """
    deadline: float = (yield Now()) + options.timeout
    return (yield from patiently(_commit(options, deadline), deadline))


def _commit(options: CommitOptions, deadline: float) -> Steps[Position]:
    losses = 0
    wants_turn = options.turns
    with (yield HoldCommitLock(deadline)), ExitStack() as held:
        while True:
            yield from compare(options.signing_keys)
            yield from let_others_go_first()
            if wants_turn and (losses or (yield from is_contended())):
                yield from take_turn(held, options, deadline)
                wants_turn = False
            staged: Staged = yield Stage()
            if not staged.changes:
                if (yield from is_newest(staged.position, options)):
                    return staged.position
            else:
                token: str = yield Token()
                entry = freeze(staged, token, options.host)
                if losses:
                    entry = yield from complain(entry)
                outcome, answer = yield from create(
                    entry, staged.position, options, deadline
                )
                if outcome is Outcome.WON:
                    return (yield from apply_own(entry, answer, options))
                yield from go_on(staged.position, outcome, answer, options)
                losses += 1
                if losses > 1:
                    yield from reach_newest(options.signing_keys)
            yield from give_up_after(deadline)


def is_contended() -> Steps[bool]:
    """Whether another host has written a moment ago."""
    state = yield Recall()
    now: float = yield Now()
    return bool(state.foreign_at) and 0 <= now - state.foreign_at <= CONTENDED_FOR


def take_turn(held: ExitStack, options: CommitOptions, deadline: float) -> Steps[None]:
    """Wait for this host's turn, and come to where the one before it is.

    A host that is told where gets its entry with one PUT, without losing a
    race before. Where there are no turns to be had it has to win one.
    """
    now: float = yield Now()
    patience = min(TURN_PATIENCE, TURN_SHARE * (deadline - now))
    turn: Turn | None = yield TakeTurn(max(patience, 0.0))
    if turn is not None:
        held.enter_context(turn)
        yield from advance(turn.number, options.signing_keys)


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


def complain(entry: Entry) -> Steps[Entry]:
    """Have ``entry`` tell others how long it takes to be first here.

    It lost already. Who reads it lets us have turns that are long enough.
    """
    state = yield Recall()
    return replace(entry, round_trip=round(state.round_trip, 3))


def is_newest(position: Position, options: CommitOptions) -> Steps[bool]:
    """Whether no entry follows ``position``; what does is applied.

    Nobody is told "no such row" or "already exists" by an old replica.
    """
    asked_at: float = yield Now()
    answer = yield from ask_next(position)
    if not (yield from believable(position, answer)):
        yield from go_on(position, Outcome.VOID, answer, options)
        return False
    if answer.status == 404:
        yield Proved(position.number, asked_at, answer.date or 0.0)
        return True
    yield from go_on(position, Outcome.LOST, answer, options)
    return False


def go_on(
    position: Position, outcome: Outcome, answer: Answer, options: CommitOptions
) -> Steps[None]:
    """Bring the replica beyond ``position``, where it cannot stay.

    With ``LOST`` the answer has the entry that was first. If that is an old
    one, we are behind, and losing to every entry in turn would take forever.
    """
    here: Position = yield Where()
    if not here.is_at(position):
        return
    if outcome is not Outcome.LOST or not (
        yield from apply_next(position, answer, options.signing_keys)
    ):
        yield from rebuild(position, options.signing_keys)
    elif is_old(answer):
        yield from reach_newest(options.signing_keys)


def is_old(answer: Answer) -> bool:
    """Whether the entry in ``answer`` is more than a moment old."""
    return (
        answer.date is None
        or answer.modified is None
        or answer.date - answer.modified > CONTENDED_FOR
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """The end of sending one frozen body, and the last answer.

    It was sent for the first time after ``first_at`` (the host's clock), and
    ``round_trip`` is of the last time, in seconds, but never more than
    ``LONGEST_TURN``: it says how long to wait, not how long we slept.
    ``unclear``: an earlier attempt may have had its effect.
    """

    answer: Answer
    first_at: float
    round_trip: float
    unclear: bool = False


def create(
    entry: Entry, position: Position, options: CommitOptions, deadline: float
) -> Steps[tuple[Outcome, Answer]]:
    """Create the entry after ``position``, whatever the network does.

    The answer that is returned with ``WON`` is the one that told: of the PUT,
    or of reading the entry. From the first request on that may have had its
    effect, nothing but ``CommitOutcomeUnknown`` is raised.
    """
    sealed = seal(
        entry,
        key=entry_key(entry.number),
        blob_key=blob_key(entry.number, entry.token),
        signing_keys=options.signing_keys,
    )
    if sealed.blob:
        yield from store_blob(sealed, deadline)
    sent = yield from send(entry, sealed.body, deadline)
    try:
        outcome, answer = yield from judge(entry, position, sent, options)
    except (StoreError, LogDiverged, EntryFormatError) as error:
        raise (yield from unknown(entry, error)) from error
    if outcome is Outcome.UNKNOWN:
        raise (yield from unknown(entry, failure(sent.answer, "create it")))
    return outcome, answer


def send(entry: Entry, body: bytes, deadline: float) -> Steps[Sent]:
    """Send the same bytes until the store says 200 or 412, or for too long."""
    key = entry_key(entry.number)
    first_at: float = yield Now()
    sent_at = first_at
    unclear = False
    attempt = 0
    while True:
        answer: Answer = yield Create(key, body)
        now: float = yield Now()
        if is_unclear(answer):
            unclear = True
        elif not unclear and answer.status not in (200, 412):
            raise failure(answer, f"create {key}")
        if answer.status in (200, 412) or now >= deadline:
            round_trip = min(now - sent_at, LONGEST_TURN)
            return Sent(answer, first_at, round_trip, unclear)
        yield Sleep(backoff(attempt))
        attempt += 1
        sent_at = yield Now()


def judge(
    entry: Entry, position: Position, sent: Sent, options: CommitOptions
) -> Steps[tuple[Outcome, Answer]]:
    """What became of the body that was sent."""
    if sent.answer.status == 200:
        now: float = yield Now()
        yield Remember(won_at=now, round_trip=sent.round_trip)
        outcome, answer = (yield from counts(position, sent.answer)), sent.answer
    else:
        yield Remember(round_trip=sent.round_trip)
        outcome, answer = yield from whose(entry, position, options)
        if outcome is Outcome.LOST and sent.unclear and is_end(len(answer.body)):
            # Not that of the log, perhaps: who drops it replaces entries.
            raise LogDiverged("the database was dropped meanwhile.")
    if outcome is Outcome.VOID:
        outcome = yield from void_or_unknown(sent.first_at)
    return outcome, answer


def counts(position: Position, answer: Answer) -> Steps[Outcome]:
    """What a 200 for the entry after ``position`` is worth."""
    if (yield from believable(position, answer)):
        return Outcome.WON
    return Outcome.VOID


def whose(
    entry: Entry, position: Position, options: CommitOptions
) -> Steps[tuple[Outcome, Answer]]:
    """Whether the entry that is in the log under our number is ours.

    Asked after a 412, and when time is over. ``VOID`` if what is there does
    not count any more, ``UNKNOWN`` if nothing is there, for it may still
    come.
    """
    key = entry_key(entry.number)
    answer: Answer = yield Get(key)
    if answer.status not in (200, 404):
        raise failure(answer, f"read {key}")
    if not (yield from believable(position, answer)):
        return Outcome.VOID, answer
    if answer.status == 404:
        return Outcome.UNKNOWN, answer
    if not is_ours(entry, answer, options):
        return Outcome.LOST, answer
    now: float = yield Now()
    yield Remember(won_at=now)
    return Outcome.WON, answer


def is_ours(entry: Entry, answer: Answer, options: CommitOptions) -> bool:
    """Whether the object in ``answer`` is ``entry``."""
    key = entry_key(entry.number)
    try:
        token = token_of(answer.body, key=key, signing_keys=options.signing_keys)
    except EntryFormatError:
        return False  # ours could be read
    return token == entry.token


def void_or_unknown(first_sent_at: float) -> Steps[Outcome]:
    """What to make of an entry whose number the trim has reached.

    Either it had done so before we sent anything. Or our entry counted, and
    we slept for so long that it has been trimmed since: between the answer
    and the look at ``_head``, or between two attempts. But that takes a day.
    """
    now: float = yield Now()
    if 0 <= now - first_sent_at <= BELIEVED_FOR:
        return Outcome.VOID
    return Outcome.UNKNOWN


def apply_own(entry: Entry, answer: Answer, options: CommitOptions) -> Steps[Position]:
    """Apply the entry that we created; return the replica's position.

    A reader of this host may have done so before, and gone on. Or it has
    made the replica anew since the batch was run, and what the batch needed
    is not loaded any more; or it has found one in its place that another
    process has made, and that has not got so far.
    """
    try:
        position: Position | Lacking = yield Apply(
            entry, answer.etag, created_at(answer), True
        )
        if isinstance(position, Lacking) or position.number < entry.number:
            position = yield from reach_newest(options.signing_keys)
    except Exception as error:
        raise (yield from unknown(entry, error)) from error
    if position.database != entry.database or position.number < entry.number:
        replaced = LogDiverged("the replica was replaced by an older one.")
        raise (yield from unknown(entry, replaced))
    return position


def unknown(entry: Entry, error: Exception) -> Steps[CommitOutcomeUnknown]:
    """The error for a commit that may or may not have happened."""
    yield KeepPending(entry.number, entry.token)
    return CommitOutcomeUnknown(
        f"It is not known whether entry {entry.number} was created: {error} "
        f"It is there whole or not at all: read before you write it again.",
        position=entry.number,
        token=entry.token,
    )


def store_blob(sealed: Sealed, deadline: float) -> Steps[None]:
    """Store the body that the entry will name, and read it back.

    The commit may sleep for days before it creates the entry. So whoever
    removes orphans must leave a blob alone until the number that it is for
    is taken by another entry, or trimmed: its age proves nothing.
    """
    attempt = 0
    while True:
        answer: Answer = yield Create(sealed.blob_key, sealed.blob)
        if answer.status in (200, 412):
            answer = yield Get(sealed.blob_key)
            if answer.status == 200 and answer.body == sealed.blob:
                return
        if not is_unclear(answer) or (yield Now()) >= deadline:
            raise failure(answer, f"store {sealed.blob_key}")
        yield Sleep(backoff(attempt))
        attempt += 1


def let_others_go_first() -> Steps[None]:
    """Wait a few round trips after a win that others may have lost.

    Where others are known, for as long as the slowest of them needs. Now and
    then also where none are: a host that always wins never meets an entry of
    those that always lose.
    """
    state = yield Recall()
    if not state.won_at:
        return
    now: float = yield Now()
    is_due = not 0 <= now - state.turn_at < TURN_EVERY
    if not state.turn_at:
        yield Remember(turn_at=now)
        is_due = False
    if abs(state.won_at - state.foreign_at) <= CONTENDED_FOR:
        wait = TURN * max(state.round_trip, state.foreign_round_trip)
    elif is_due:
        turn = LONG_TURNS[int(now / TURN_EVERY) % len(LONG_TURNS)]
        wait = turn * state.round_trip
    else:
        return
    wait = state.won_at + min(wait, LONGEST_TURN) - now
    if wait > 0:
        yield Sleep(wait)
    if is_due:
        yield Remember(turn_at=now)


def give_up_after(deadline: float) -> Steps[None]:
    """Raise ``StoreUnavailable`` if ``deadline`` is over."""
    if (yield Now()) >= deadline:
        raise StoreUnavailable(
            "Other hosts were first until commit_timeout was over. "
            "Nothing was committed; try again."
        )
