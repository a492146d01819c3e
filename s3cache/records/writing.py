"""Writing records: the protocol.

``_records`` says to which entry records are written. A round reads which rows
have changed since, writes each of them once, as it is by then, and moves
``_records`` on. Whoever is stopped in the middle has moved nothing, and the
next one, on any host, does the same rows again.

No record is overwritten but one that s3cache wrote, and none by an older one:

- A record is replaced and deleted only with ``If-Match``, on the ETag of what
  s3cache is known to have written there, and created only where there is none.
- Where that fails, the record is read. What somebody else wrote is left alone
  and reported. What was written at a later entry is left alone, too.
- Each record has the entry in it that it was read at, so no two of them have
  the same bytes: a request that comes late finds another ETag.

What these rules leave: a record that is created late, after its row was
deleted by an entry that another host has written. If its writer lives, it
finds that ``_records`` has moved, and does its rows again. If it died,
``s3cache_verify`` finds the record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from s3cache.exceptions import (
    EntryFormatError,
    LogDiverged,
    StoreError,
    StoreUnavailable,
)
from s3cache.keeper.effects import Replace
from s3cache.keeper.rounds import LEASE, list_all
from s3cache.log.catch_up import catch_up
from s3cache.log.effects import (
    Create,
    Get,
    GetMany,
    Now,
    Position,
    Remember,
    Sleep,
    Steps,
    Token,
)
from s3cache.log.entry import DAMAGE, NewerFormat, newer_format
from s3cache.log.keys import entry_key
from s3cache.log.patience import backoff, patiently
from s3cache.log.proof import is_unclear, open_entry, read_head
from s3cache.records.effects import (
    FindTables,
    Key,
    KeysOf,
    Page,
    ReadPage,
    ReadRows,
    RecallETags,
    RememberETags,
    Remove,
    Request,
    Row,
    SendMany,
    Tables,
    Touched,
    joined,
)
from s3cache.records.form import EMPTY, open_record, seal_record
from s3cache.records.keys import STATE, rows_prefix
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure

FORMAT = 1

#: Requests that are sent at the same time.
AT_ONCE = 16

#: Requests a second; a prefix of S3's takes 3,500 writes.
RATE = 400.0

#: Above so many rows a round says first that it is at work.
CLAIM_ABOVE = 1000

#: ``_records`` moves on after so many entries even if no record changed:
#: hosts do not remember for ever what entries have changed.
KEEP_UP = 1000

#: Entries that are read again to find out what they changed. From there on
#: all records are compared with their rows.
READ_AGAIN = 512

#: How often a request is sent that gets no clear answer, and how often all
#: is done again that another writer came between.
TRIES = 8

#: Keys that a report names at most, of each kind.
NAMED = 1000


class State(msgspec.Struct, frozen=True):
    """``_records``: how far records are written.

    All rows of ``tables`` have their records as of entry ``number`` with
    ``token``. ``purges`` says whether the store deletes on condition.
    ``writer`` is the token of who is at work, if that takes long, and
    ``revision`` counts how often this object was replaced: no two of them
    have the same bytes.
    """

    database: str
    number: int = 0
    token: str = ""
    tables: list[str] = []
    purges: bool = False
    writer: str = ""
    revision: int = 0
    format: int = FORMAT

    @property
    def position(self) -> Position:
        """Where a replica is that has all that records say."""
        return Position(self.database, self.number, self.token)


class _Version(msgspec.Struct):
    format: int


# Made by one thread; see s3cache.log.entry.
_state = msgspec.json.Decoder(State)
_version = msgspec.json.Decoder(_Version)


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """How to write records. ``rate`` is in requests a second.

    With ``everything`` all records are compared with their rows, and those
    that are not as they should be are written, whatever their entry is.
    A round of more than ``at_most`` records is left to others. With
    ``dry_run`` nothing is written.
    """

    signing_keys: tuple[bytes, ...] = ()
    everything: bool = False
    lease: float = LEASE
    rate: float = RATE
    at_once: int = AT_ONCE
    at_most: int | None = None
    dry_run: bool = False
    claim_above: int = CLAIM_ABOVE


@dataclass(slots=True)
class Recorded:
    """What a round did.

    ``busy``: another writer was at work. Records are written to entry
    ``number``; ``newest`` is where the replica was. ``written`` and
    ``removed`` count records, ``compared`` those that were as they should
    be. ``foreign`` are the keys of objects that somebody else wrote, which
    are left as they are, ``unreadable`` those of rows that cannot be written
    as records, with the reason.
    """

    busy: bool = False
    number: int = 0
    newest: int = 0
    written: int = 0
    removed: int = 0
    compared: int = 0
    foreign: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def backlog(self) -> int:
        """Entries that records do not show yet."""
        return max(self.newest - self.number, 0)


@dataclass(frozen=True, slots=True)
class Held:
    """``_records`` as it was read or written; no ETag: there is none."""

    state: State
    etag: str


class Overtaken(Exception):
    """Another writer has moved ``_records`` on."""


#: What to write, by table: the keys of rows, or None for all of them.
Due = dict[str, frozenset[Key] | None]


@dataclass(slots=True)
class Round:
    """What a round knows and does.

    With ``is_forked`` a record of a later entry is none of this log's.
    """

    options: RecordOptions
    held: Held
    here: Position
    due: Due
    dropped: Sequence[str]
    recorded: Recorded
    is_forked: bool = False
    token: str = ""
    began_at: float = 0.0
    renewed_at: float = 0.0
    sent: int = 0

    @property
    def state(self) -> State:
        """What ``_records`` is, as far as this round knows."""
        return self.held.state


def write_records(options: RecordOptions) -> Steps[Recorded]:
    """Bring records to where the replica is.

    One request if they are there. Raises ``StoreError`` when the store does
    not do its part; the next round does all again that this one did.
    """
    return (yield from patiently(_write(options)))


def _write(options: RecordOptions) -> Steps[Recorded]:
    recorded = Recorded()
    again: Due = {}
    for _ in range(TRIES):
        held, answer = yield from read_state()
        if is_taken(held.state, answer, options):
            recorded.busy = True
            return recorded
        this = yield from begin(options, held, recorded, again)
        if this is None or options.dry_run:
            return recorded
        try:
            yield from work(this)
        except (StoreError, LogDiverged, EntryFormatError):
            yield from give_back(this)
            raise
        except Overtaken:
            # What it wrote may be newer, or older, than what we wrote. At a
            # state that is not older than the other's it is told apart.
            yield from catch_up(options.signing_keys)
            again = joined(again, this.due)
        else:
            return recorded
    recorded.busy = True
    return recorded


def begin(
    options: RecordOptions, held: Held, recorded: Recorded, again: Due
) -> Steps[Round | None]:
    """What there is to do; None if there is nothing."""
    state = held.state
    tables: Tables = yield FindTables(state.position)
    is_forked = contradicts(tables, state)
    if is_forked:
        # This host is behind; or it, or ``_records``, is of another log.
        yield Remember(checked_at=0.0)
        yield from catch_up(options.signing_keys)
        tables = yield FindTables(state.position)
        is_forked = contradicts(tables, state)
    here = tables.here
    is_same = state.database == here.database and not is_forked
    recorded.number = state.number if is_same else 0
    recorded.newest = here.number
    if not here.database:
        return None
    due, dropped = yield from find_due(options, state, tables, is_same=is_same)
    due = joined(due, again)
    moved = here.number - state.number if is_same else here.number
    if not (due or dropped) and (moved < KEEP_UP or not tables.names):
        recorded.number = here.number
        return None
    if options.at_most is not None and size_of(due, dropped) > options.at_most:
        return None
    if not is_same:
        head = yield from read_head()
        begun = State(
            here.database,
            here.number,
            here.token,
            purges=head.probe.get("conditional_delete") is True,
            revision=state.revision,
        )
        held = Held(begun, held.etag)
    now: float = yield Now()
    return Round(
        options,
        held,
        here,
        due,
        dropped,
        recorded,
        is_forked=is_forked or options.everything,
        began_at=now,
        renewed_at=now,
    )


def contradicts(tables: Tables, state: State) -> bool:
    """Whether the replica is not where it was when ``_records`` was written.

    Or, if it has the newest entry, whether the log was put back since.
    """
    here = tables.here
    if here.database != state.database:
        return False
    return tables.follows is False or here.number < state.number


def find_due(
    options: RecordOptions, state: State, tables: Tables, *, is_same: bool
) -> Steps[tuple[Due, Sequence[str]]]:
    """The rows whose records are behind, and tables that are no more."""
    covered = frozenset(state.tables) if is_same else frozenset()
    touched = tables.touched
    if touched is None and is_same and not options.everything:
        touched = yield from touched_in_log(state, tables.here, options)
    due: Due = {}
    for name in tables.names:
        if options.everything or name not in covered or touched is None:
            due[name] = None
        elif name in touched:
            due[name] = touched[name]
    return due, sorted(covered - tables.in_schema)


def touched_in_log(
    state: State, here: Position, options: RecordOptions
) -> Steps[Touched | None]:
    """What the entries after ``state`` changed, from the log itself.

    A host that has begun with packs does not know. None if the log does not
    have them any more, or if there are too many.
    """
    numbers = range(state.number + 1, here.number + 1)
    if len(numbers) > READ_AGAIN:
        return None
    found: Due = {}
    token = state.token
    for start in range(0, len(numbers), AT_ONCE):
        some = numbers[start : start + AT_ONCE]
        answers: Sequence[Answer] = yield GetMany([entry_key(n) for n in some])
        for number, answer in zip(some, answers, strict=True):
            if answer.status != 200:
                return None
            try:
                entry = yield from open_entry(answer, number, options.signing_keys)
            except (EntryFormatError, LogDiverged):
                return None
            if entry is None or not entry.follows(state.database, number - 1, token):
                return None
            token = entry.token
            keys: Due | None = yield KeysOf(entry.changes)
            if keys is None:
                return None
            found = joined(found, keys)
    return found


def size_of(due: Due, dropped: Sequence[str]) -> float:
    """How many rows are due; of whole tables nobody knows."""
    if dropped or None in due.values():
        return math.inf
    return sum(len(keys) for keys in due.values() if keys is not None)


def work(this: Round) -> Steps[None]:
    """Write what is due, and move ``_records``."""
    if size_of(this.due, this.dropped) > this.options.claim_above:
        this.token = yield Token()
        yield from move(this, writer=this.token)
    for table, keys in this.due.items():
        if keys is None:
            yield from write_table(this, table)
        else:
            yield from write_rows(this, table, sorted(keys, key=repr))
        if keys is None and table not in this.state.tables:
            # Of this table nothing has to be done again from here on.
            this.held = Held(
                msgspec.structs.replace(
                    this.state, tables=sorted({*this.state.tables, table})
                ),
                this.held.etag,
            )
    for table in this.dropped:
        yield from remove_leftovers(this, (yield from list_etags(table)))
    here = this.here
    tables = sorted({*this.state.tables, *this.due} - {*this.dropped})
    yield from move(
        this, number=here.number, token=here.token, tables=tables, writer=""
    )
    this.recorded.number = here.number


# _records


def read_state() -> Steps[tuple[Held, Answer]]:
    """``_records``; what cannot be read counts as one that says nothing."""
    answer: Answer = yield Get(STATE)
    if answer.status == 404:
        return Held(State(""), ""), answer
    if answer.status != 200:
        raise failure(answer, f"read {STATE}")
    try:
        state = decode_state(answer.body)
    except NewerFormat:
        raise
    except EntryFormatError:
        state = State("")
    return Held(state, answer.etag), answer


def decode_state(body: bytes) -> State:
    """Read ``_records``; raises ``EntryFormatError`` for what is not one."""
    try:
        version = _version.decode(body).format
        if version > FORMAT:
            raise NewerFormat(newer_format(STATE, version, FORMAT))
        return _state.decode(body)
    except DAMAGE as error:
        raise EntryFormatError(f"{STATE} is damaged: {error}") from error


def is_taken(state: State, answer: Answer, options: RecordOptions) -> bool:
    """Whether another writer is at work, and may still be alive."""
    if not state.writer:
        return False
    if answer.date is None or answer.modified is None:
        return True
    return answer.date - answer.modified < options.lease


def move(this: Round, **changes: Any) -> Steps[None]:
    """Replace ``_records``, and nothing but the one that we know."""
    state = msgspec.structs.replace(
        this.state, revision=this.state.revision + 1, **changes
    )
    body = msgspec.json.format(msgspec.json.encode(state), indent=2)
    etag = this.held.etag
    for attempt in range(TRIES):
        answer: Answer = yield (
            Replace(STATE, body, etag) if etag else Create(STATE, body)
        )
        if answer.status == 200:
            this.held = Held(state, answer.etag)
            return
        if answer.status not in (404, 412) and not is_unclear(answer):
            raise failure(answer, f"write {STATE}")
        now: Answer = yield Get(STATE)
        if now.status == 200 and now.body == body:
            this.held = Held(state, now.etag)
            return
        if now.status not in (200, 404):
            raise failure(now, f"read {STATE}")
        if (now.etag if now.status == 200 else "") != etag:
            raise Overtaken
        yield Sleep(backoff(attempt))
    raise StoreUnavailable(f"The store did not say whether {STATE} was written.")


def give_back(this: Round) -> Steps[None]:
    """Let another writer begin at once after a round that failed."""
    if not this.state.writer:
        return
    try:
        yield from move(this, writer="")
    except (Overtaken, StoreError):
        return  # then it ends by its age


def renew(this: Round) -> Steps[None]:
    """Show from time to time that we are alive, if that was announced."""
    now: float = yield Now()
    if this.state.writer and not 0 <= now - this.renewed_at < this.options.lease / 3:
        yield from move(this)
        this.renewed_at = now


# Records


@dataclass(slots=True)
class Sending:
    """A record on its way; ``body`` is None if there is to be none.

    ``lenient``: one that says the same as of an earlier entry may stay.
    What has the ETag ``known`` may be replaced, whatever it says.
    """

    row: Row
    body: bytes | None
    entry: int
    request: Request | None
    lenient: bool = False
    known: str = ""
    etag: str | None = None


def write_rows(this: Round, table: str, keys: Sequence[Key]) -> Steps[None]:
    """Write the records of some rows, as the rows are now."""
    for start in range(0, len(keys), this.options.at_once):
        some = keys[start : start + this.options.at_once]
        page: Page = yield ReadRows(table, some)
        known: Mapping[str, str] = yield RecallETags([row.key for row in page.rows])
        sending = []
        for row in readable(this, page):
            one = outgoing(this, row, page.number)
            one.known = known.get(row.key, "")
            one.request = request_for(this, one, one.known)
            sending.append(one)
        yield from send(this, sending)


def write_table(this: Round, table: str) -> Steps[None]:
    """Compare all records of a table with its rows, and write what differs."""
    listed = yield from list_etags(table)
    after: Key | None = None
    while True:
        page: Page = yield ReadPage(table, after)
        known: Mapping[str, str] = yield RecallETags([row.key for row in page.rows])
        sending = []
        for row in page.rows:
            is_there = listed.pop(row.key, None) is not None
            if row.problem:
                continue
            one = outgoing(this, row, page.number)
            one.lenient, one.known = True, known.get(row.key, "")
            one.request = Get(row.key) if is_there else request_for(this, one, "")
            sending.append(one)
        readable(this, page)
        for start in range(0, len(sending), this.options.at_once):
            yield from send(this, sending[start : start + this.options.at_once])
        if page.next is None:
            break
        after = page.next
    yield from remove_leftovers(this, listed)


def remove_leftovers(this: Round, listed: Mapping[str, str]) -> Steps[None]:
    """Remove records whose rows were not there when the round began.

    One of a later entry may have its row by now.
    """
    keys = sorted(listed)
    for start in range(0, len(keys), this.options.at_once):
        some = keys[start : start + this.options.at_once]
        number = this.here.number
        yield from send(
            this, [Sending(Row(key, None), None, number, Get(key)) for key in some]
        )


def list_etags(table: str) -> Steps[dict[str, str]]:
    """The ETags of all objects that are where records of ``table`` belong."""
    page = yield from list_all(rows_prefix(table))
    return {one.key: one.etag for one in page.objects}


def readable(this: Round, page: Page) -> Iterable[Row]:
    """The rows of ``page`` that can be records; the others are noted."""
    unreadable = this.recorded.unreadable
    for row in page.rows:
        if row.problem and len(unreadable) < NAMED:
            unreadable[row.key] = row.problem
    return [row for row in page.rows if not row.problem]


def outgoing(this: Round, row: Row, number: int) -> Sending:
    """The record of ``row``, as read at entry ``number``."""
    body = None
    if row.content is not None:
        body = seal_record(
            row.content, key=row.key, database=this.here.database, entry=number
        )
    return Sending(row, body, number, None)


def request_for(this: Round, one: Sending, etag: str) -> Request:
    """What puts ``one`` in the place of what has ``etag``, if known."""
    key = one.row.key
    if one.body is not None:
        return Replace(key, one.body, etag) if etag else Create(key, one.body)
    if not etag:
        return Get(key)
    return Remove(key, etag) if this.state.purges else Replace(key, EMPTY, etag)


def send(this: Round, sending: Sequence[Sending]) -> Steps[None]:
    """Send records until it is clear what became of each."""
    yield from renew(this)
    waiting = list(sending)
    if not waiting:
        return
    for attempt in range(TRIES):
        answers: Sequence[Answer] = yield SendMany(
            [one.request for one in waiting if one.request is not None]
        )
        this.sent += len(waiting)
        for one, answer in zip(waiting, answers, strict=True):
            one.request = judge(this, one, answer)
        yield from pace(this)
        waiting = [one for one in waiting if one.request is not None]
        if not waiting:
            break
        if any(map(is_unclear, answers)):
            yield Sleep(backoff(attempt))
    else:
        raise StoreUnavailable(f"The store did not take {waiting[0].row.key}.")
    yield RememberETags({one.row.key: one.etag for one in sending})


def judge(this: Round, one: Sending, answer: Answer) -> Request | None:
    """What to send next; None if nothing is left to do."""
    request, recorded = one.request, this.recorded
    key = one.row.key
    if isinstance(request, Get):
        if answer.status == 404:
            one.etag = None
            return Create(key, one.body) if one.body is not None else None
        if answer.status == 200:
            return judge_there(this, one, answer)
        if is_unclear(answer):
            return request
        raise failure(answer, f"read {key}")
    if answer.status == 200:
        if one.body is None:
            recorded.removed += 1
            one.etag = None
        else:
            recorded.written += 1
            one.etag = answer.etag
        return None
    if answer.status in (404, 412) or is_unclear(answer):
        return Get(key)
    raise failure(answer, f"write {key}")


def judge_there(this: Round, one: Sending, answer: Answer) -> Request | None:
    """What to do about the object that ``answer`` has found."""
    key, recorded = one.row.key, this.recorded
    there = open_record(answer.body, key=key, database=this.here.database)
    one.etag = answer.etag
    if there is None:
        if answer.etag == one.known:
            return request_for(this, one, answer.etag)  # it was adopted
        one.etag = None
        if len(recorded.foreign) < NAMED:
            recorded.foreign.append(key)
        return None
    if answer.body == one.body or (one.body is None and there.content is None):
        recorded.compared += 1
        return None
    if there.entry > one.entry:
        if not this.is_forked:
            return None  # of a writer that is ahead of us
    elif one.lenient and there.content == one.row.content:
        recorded.compared += 1
        return None
    return request_for(this, one, answer.etag)


def pace(this: Round) -> Steps[None]:
    """Keep to the rate."""
    now: float = yield Now()
    ahead = this.sent / this.options.rate - (now - this.began_at)
    if 0 < ahead <= this.sent / this.options.rate:
        yield Sleep(ahead)


__all__ = ["RecordOptions", "Recorded", "State", "decode_state", "write_records"]
