"""One round of the keeper.

The order of its steps is what makes it safe:

1. Take the lease: replace ``_head`` by one that names this keeper. Whoever
   had read ``_head`` before can replace it no more.
2. Write packs and a catalog under names that are used once; read them back.
3. Replace ``_head`` by one that names the catalog and the new trim. That this
   succeeds proves that nobody else had the lease since step 1.
4. Delete what was there before step 3 and what neither the new ``_head`` nor
   a reader of the one before can lead to.

A keeper that is stopped leaves at most objects that nobody refers to, and the
next one deletes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from s3cache.exceptions import (
    EntryFormatError,
    LogDiverged,
    StoreError,
    StoreUnavailable,
)
from s3cache.keeper.effects import Build, Built, Contents, Delete, Replace, Survey
from s3cache.keeper.plan import TARGET, Group, plan
from s3cache.log.catalog import Catalog, Pack, Segment, seal_catalog
from s3cache.log.catch_up import has_all
from s3cache.log.cold_start import read_catalog
from s3cache.log.effects import (
    Create,
    Get,
    ListPage,
    Now,
    Position,
    Sleep,
    Steps,
    Token,
    Where,
)
from s3cache.log.entry import NewerFormat, is_end
from s3cache.log.head import Head, decode_head, encode_head
from s3cache.log.keys import (
    BLOBS,
    CATALOGS,
    HEAD,
    LOG,
    PACKS,
    blob_number,
    catalog_key,
    entry_number,
    pack_key,
)
from s3cache.log.patience import backoff, patiently
from s3cache.log.proof import is_unclear, is_untrimmed
from s3cache.stores.base import DELETE_MANY_LIMIT, Answer, Listed
from s3cache.stores.failures import failure

DAY = 86400.0

#: Entries after the newest catalog from which on another one is written.
PACK_AFTER = 256

#: Seconds for which all packs stay that are needed no more: about as long as
#: a new host takes to read those that it has begun with.
RECENT = 600.0

#: Seconds after which a keeper that has not renewed its lease is given up.
LEASE = 300.0

#: How often a request is sent that gets no clear answer.
TRIES = 5


@dataclass(frozen=True, slots=True)
class KeeperOptions:
    """How to keep. Times are in seconds.

    ``pack_after`` is how many entries there have to be after the newest
    catalog; ``everything`` writes all packs anew, also where nothing has
    changed. ``retain`` is how long entries stay: much longer than
    ``proof.BELIEVED_FOR``, or hosts miss what was trimmed. ``grace`` is how
    long packs stay at most that are needed no more (see ``thinned``).
    ``target`` is the size of a pack
    before compression, in bytes. With ``dry_run`` nothing is written.
    """

    signing_keys: tuple[bytes, ...] = ()
    pack_after: int = PACK_AFTER
    everything: bool = False
    lease: float = LEASE
    retain: float = DAY
    grace: float = DAY
    target: int = TARGET
    dry_run: bool = False


@dataclass(slots=True)
class Kept:
    """What a round did, or would have done if it was a dry run.

    ``busy``: another keeper was at work, so it did nothing, or stopped.
    ``catalog`` is the number of the newest catalog, ``packs`` how many packs
    it has, ``trimmed`` the number of the last entry that is gone, ``newest``
    that of the newest one. ``lost`` counts packs that were not in the bucket
    as they had been written, ``waiting`` objects that are to be deleted
    later.
    """

    busy: bool = False
    catalog: int = 0
    trimmed: int = 0
    newest: int = 0
    packs: int = 0
    packs_written: int = 0
    bytes_written: int = 0
    lost: int = 0
    deleted: int = 0
    waiting: int = 0

    @property
    def backlog(self) -> int:
        """Entries that a new replica has to read one by one."""
        return max(self.newest - self.catalog, 0)


@dataclass(frozen=True, slots=True)
class Held:
    """``_head`` as it was read or written, ``at`` a time of the store."""

    head: Head
    body: bytes
    etag: str
    at: float


@dataclass(frozen=True, slots=True)
class Page:
    """All objects below a prefix, and the store's clock at the first page."""

    objects: Sequence[Listed] = ()
    date: float | None = None

    @property
    def keys(self) -> list[str]:
        """The keys of the objects."""
        return [one.key for one in self.objects]

    @property
    def entries(self) -> dict[int, Listed]:
        """The objects of the log by number."""
        return {
            number: one
            for one in self.objects
            if (number := entry_number(one.key)) is not None
        }


@dataclass(slots=True)
class Round:
    """What a round knows and does; ``catalog`` is None if there is none."""

    options: KeeperOptions
    held: Held
    catalog: Catalog | None
    log: Page
    packs: Page = field(default_factory=Page)
    catalogs: Page = field(default_factory=Page)
    kept: Kept = field(default_factory=Kept)

    @property
    def head(self) -> Head:
        """What ``_head`` is, as far as this round knows."""
        return self.held.head


class LeaseLost(Exception):
    """Another keeper has replaced ``_head``: this round ends."""


def keep(options: KeeperOptions) -> Steps[Kept]:
    """Pack what is due, trim the log, and delete what nobody needs.

    Three requests if there is nothing to do. A replica that is behind, or of
    another log, packs nothing. Raises ``StoreError`` when the store does not
    do its part; what was done until then stays, and the next round goes on.
    """
    return (yield from patiently(_keep(options)))


def _keep(options: KeeperOptions) -> Steps[Kept]:
    held, answer = yield from read_held()
    if is_taken(held, answer, options):
        return Kept(busy=True)
    catalog = yield from old_catalog(held.head, options)
    log = yield from list_all(LOG)
    this = Round(options, held, catalog, log)
    here: Position = yield Where()
    if not is_anything_due(this, here) or options.dry_run:
        yield from look(this, here)
        return this.kept
    token: str = yield Token()
    try:
        yield from replace_head(this, keeper=token)
        yield from work(this, here)
    except LeaseLost:
        this.kept.busy = True
    except (StoreError, LogDiverged, EntryFormatError):
        yield from give_back(this, token)
        raise
    return this.kept


def work(this: Round, here: Position) -> Steps[None]:
    """What a keeper does that has the lease."""
    this.packs = yield from list_all(PACKS)
    this.catalogs = yield from list_all(CATALOGS)
    key = this.head.catalog
    lost = lost_packs(this)
    this.kept.lost = len(lost)
    if lost or is_pack_due(this, here):
        contents: Contents = yield Survey(this.catalog.number if this.catalog else 0)
        this.log = yield from list_all(LOG)
        if is_fit(this, contents):
            key = yield from pack(this, contents, lost)
    trimmed = trim_to(this)
    yield from replace_head(this, catalog=key, trimmed=trimmed, keeper="")
    report(this)
    yield from tidy(this)
    yield from delete_trimmed(this)


def look(this: Round, here: Position) -> Steps[None]:
    """Tell how things are, and with ``dry_run`` what a round would do."""
    report(this)
    if not this.options.dry_run:
        return
    reached = this.kept.catalog
    if is_pack_due(this, here):
        contents: Contents = yield Survey(reached)
        planned = plan(
            this.catalog,
            contents,
            target=this.options.target,
            everything=this.options.everything,
        )
        this.kept.packs_written = len(planned.groups)
        reached = here.number
    this.kept.deleted = len(trimmed_entries(this, trim_to(this, reached)))


def report(this: Round) -> None:
    """Note how far the database is packed and trimmed."""
    kept = this.kept
    kept.trimmed = this.head.trimmed
    kept.newest = max([this.head.trimmed, *this.log.entries])
    if this.catalog is not None:
        kept.catalog, kept.packs = this.catalog.number, len(this.catalog.packs)


# What is due


def is_anything_due(this: Round, here: Position) -> bool:
    """Whether a round has anything to do; orphans alone are no reason."""
    retired = this.catalog.retired.values() if this.catalog else ()
    return (
        is_pack_due(this, here)
        or trim_to(this) > this.head.trimmed
        or bool(trimmed_entries(this, this.head.trimmed))
        or any(this.held.at - at >= this.options.grace for at in retired)
    )


def is_pack_due(this: Round, here: Position) -> bool:
    """Whether there is enough to pack, and the replica is fit for it."""
    packed = this.catalog.number if this.catalog else 0
    if here.number < max(packed, 1):
        return False
    if this.options.everything or (this.head.catalog and this.catalog is None):
        return True
    return here.number - packed >= max(this.options.pack_after, 1) or any(
        packed < number <= here.number and may_go(one, this.log.date, this.options)
        for number, one in this.log.entries.items()
    )


def is_of_this_log(contents: Contents, head: Head, log: Page) -> bool:
    """Whether the replica that is to be packed has followed this log.

    Else a host that has not noticed that the bucket was restored would bring
    back what was lost, for everybody who starts from its packs. Its newest
    entry proves nothing: it may have put that one into the restored log
    itself, behind entries of others.
    """
    position, first = contents.position, head.trimmed + 1
    etags = {number: one.etag for number, one in log.entries.items()}
    return (
        is_untrimmed(position, head)
        and has_all(etags, first, position)
        and all(
            etags.get(number) == etag
            for number, etag in contents.etags.items()
            if number >= first
        )
    )


def is_fit(this: Round, contents: Contents) -> bool:
    """Whether the replica can go on from the catalog."""
    catalog = this.catalog
    if catalog is not None:
        if contents.position.number < catalog.number:
            return False
        # The entry itself may have been trimmed.
        etag = contents.etags.get(catalog.number, catalog.etag)
        if etag != catalog.etag:
            return False
    return is_of_this_log(contents, this.head, this.log)


def lost_packs(this: Round) -> frozenset[str]:
    """Packs that are not in the bucket as they were written.

    Somebody else has deleted or changed them. As long as a host has a
    replica, they are written anew.
    """
    if this.catalog is None:
        return frozenset()
    there = {one.key: (one.size, one.etag) for one in this.packs.objects}
    return frozenset(
        pack.key
        for pack in this.catalog.packs
        if there.get(pack.key) != (pack.size, pack.etag)
    )


# _head


def read_held() -> Steps[tuple[Held, Answer]]:
    """``_head`` with its ETag; raises ``LogDiverged`` if it is gone."""
    answer: Answer = yield Get(HEAD)
    if answer.status == 404:
        raise LogDiverged(f"{HEAD} is missing: there is nothing to keep.")
    if answer.status != 200:
        raise failure(answer, f"read {HEAD}")
    at = answer.date or answer.modified or 0.0
    return Held(decode_head(answer.body), answer.body, answer.etag, at), answer


def is_taken(held: Held, answer: Answer, options: KeeperOptions) -> bool:
    """Whether another keeper is at work, and may still be alive."""
    if not held.head.keeper:
        return False
    if answer.date is None or answer.modified is None:
        return True
    return answer.date - answer.modified < options.lease


def replace_head(this: Round, **changes: Any) -> Steps[None]:
    """Replace ``_head``, and nothing but the one that we know.

    ``revision`` makes its bytes others than all before. So whoever finds them
    there knows that its request was the one, whatever was answered.
    """
    held = this.held
    head = msgspec.structs.replace(
        held.head, revision=held.head.revision + 1, **changes
    )
    body = encode_head(head, over=held.body)
    for attempt in range(TRIES):
        answer: Answer = yield Replace(HEAD, body, held.etag)
        if answer.status == 200:
            this.held = Held(head, body, answer.etag, answer.date or held.at)
            return
        if answer.status not in (404, 412) and not is_unclear(answer):
            raise failure(answer, f"replace {HEAD}")
        now, _answer = yield from read_held()
        if now.body == body:
            this.held = now
            return
        if now.etag != held.etag:
            raise LeaseLost
        yield Sleep(backoff(attempt))
    raise StoreUnavailable(f"The store did not say whether {HEAD} was replaced.")


def give_back(this: Round, token: str) -> Steps[None]:
    """Let another keeper begin at once after a round that failed."""
    if this.head.keeper != token:
        return
    try:
        yield from replace_head(this, keeper="")
    except (LeaseLost, StoreError, LogDiverged, EntryFormatError):
        return  # then it ends by its age


# Packs


def old_catalog(head: Head, options: KeeperOptions) -> Steps[Catalog | None]:
    """The catalog to go on from; None if there is none that can be used.

    Then everything is packed: so a catalog that was lost or damaged is
    replaced, while a host still has what it said.
    """
    if not head.catalog:
        return None
    try:
        return (yield from read_catalog(head, options.signing_keys))
    except NewerFormat:
        raise
    except (EntryFormatError, LogDiverged):
        return None


def pack(this: Round, contents: Contents, lost: frozenset[str]) -> Steps[str]:
    """Write a catalog, and the packs that are new in it; return its key."""
    options = this.options
    planned = plan(
        this.catalog,
        contents,
        target=options.target,
        everything=options.everything,
        lost=lost,
    )
    packs = list(planned.kept)
    renewed_at: float = yield Now()
    for group in planned.groups:
        rest: Sequence[Segment] = group.segments
        while rest:
            now: float = yield Now()
            if not 0 <= now - renewed_at < options.lease / 3:
                yield from replace_head(this)
                renewed_at = now
            built: Built = yield Build(rest, group.limit)
            rest = built.rest
            packs.append((yield from pack_of(this, built, group, contents.position)))
    this.catalog, old = new_catalog(this, contents, packs), this.catalog
    token: str = yield Token()
    key = catalog_key(this.catalog.number, token)
    body = seal_catalog(this.catalog, key=key, signing_keys=options.signing_keys)
    try:
        yield from store(key, body)
    except BaseException:
        this.catalog = old
        raise
    this.kept.bytes_written += len(body)
    return key


def pack_of(this: Round, built: Built, group: Group, position: Position) -> Steps[Pack]:
    """The pack for what was built: the old one, if that has the same rows."""
    old = group.old
    if (
        old is not None
        and not this.options.everything
        and old.raw_sha256 == built.raw_sha256
        and list(old.segments) == list(built.segments)
    ):
        return old
    new = yield from new_pack(built, position.number)
    this.kept.packs_written += 1
    this.kept.bytes_written += new.size
    return new


def new_pack(built: Built, number: int) -> Steps[Pack]:
    """Store what was built at entry ``number``."""
    token: str = yield Token()
    key = pack_key(number, token)
    etag = yield from store(key, built.body)
    return Pack(
        key=key,
        etag=etag,
        number=number,
        segments=list(built.segments),
        rows=built.rows,
        size=len(built.body),
        sha256=hashlib.sha256(built.body).hexdigest(),
        raw_size=built.raw_size,
        raw_sha256=built.raw_sha256,
        bounds=dict(built.bounds),
    )


def new_catalog(this: Round, contents: Contents, packs: Sequence[Pack]) -> Catalog:
    """The catalog of ``contents``, with what it makes superfluous."""
    position = contents.position
    entry = this.log.entries.get(position.number)
    return Catalog(
        database=position.database,
        number=position.number,
        token=position.token,
        etag=entry.etag if entry else position.etag,
        modified=entry.modified if entry else position.proved_at,
        schema=list(contents.schema),
        sequences=dict(contents.sequences),
        packs=list(packs),
        versions=dict(contents.versions),
        retired=retired(this, packs),
    )


def retired(this: Round, packs: Sequence[Pack]) -> dict[str, float]:
    """What readers of earlier catalogs may still want to read."""
    now = this.log.date or this.held.at
    former = {this.head.catalog} if this.head.catalog else set()
    left: dict[str, float] = {}
    if this.catalog is not None:
        former |= {pack.key for pack in this.catalog.packs}
        left = {
            key: at
            for key, at in this.catalog.retired.items()
            if now - at < this.options.grace
        }
    former -= {pack.key for pack in packs}
    return thinned({**left, **dict.fromkeys(sorted(former), now)}, now)


def thinned(retired: dict[str, float], now: float) -> dict[str, float]:
    """Those of ``retired`` that are worth their room.

    All that somebody may be reading just now; of what is older only the
    oldest catalog with its packs, from which any later state can be restored.
    A busy database writes a new generation every few seconds.
    """
    catalogs = [key for key in retired if key.startswith(CATALOGS)]
    if not catalogs:
        return retired
    oldest = min(catalogs, key=made_at)
    return {
        key: at
        for key, at in retired.items()
        if now - at < RECENT
        or (made_at(key) <= made_at(oldest) and at >= retired[oldest])
    }


def made_at(key: str) -> int:
    """The entry at which a pack or a catalog was written."""
    name = key.removeprefix(PACKS).removeprefix(CATALOGS)
    return entry_number(LOG + name.partition("-")[0]) or 0


def store(key: str, body: bytes) -> Steps[str]:
    """Store an object under a name of its own, read it back, return its ETag.

    Until it reads back as it was nothing may lead to it: the rows of entries
    that are trimmed are nowhere else.
    """
    for attempt in range(TRIES):
        answer: Answer = yield Create(key, body)
        if answer.status not in (200, 412) and not is_unclear(answer):
            raise failure(answer, f"store {key}")
        back: Answer = yield Get(key)
        if back.status == 200 and back.body == body:
            return back.etag
        yield Sleep(backoff(attempt))
    raise StoreUnavailable(f"{key} was stored, and does not read back as it was.")


# Trimming and tidying


def list_all(prefix: str) -> Steps[Page]:
    """Every object below ``prefix``."""
    found: list[Listed] = []
    date: float | None = None
    start_after = ""
    while True:
        page: Answer = yield ListPage(prefix, start_after)
        if page.status != 200:
            raise failure(page, f"list {prefix}")
        if date is None:
            date = page.date
        found += page.keys
        if not page.more:
            return Page(found, date)
        start_after = page.keys[-1].key


def trim_to(this: Round, packed: int | None = None) -> int:
    """Up to where entries are packed, and all old enough to go."""
    if packed is None:
        packed = this.catalog.number if this.catalog else 0
    trim = this.head.trimmed
    for number, one in this.log.entries.items():
        if number <= trim:
            continue
        if number > packed or not may_go(one, this.log.date, this.options):
            break
        trim = number
    return trim


def may_go(one: Listed, date: float | None, options: KeeperOptions) -> bool:
    """Whether an entry was stored so long ago that it may go."""
    return date is not None and date - one.modified >= options.retain


def trimmed_entries(this: Round, trimmed: int) -> list[str]:
    """The keys of what is to be deleted of the log up to ``trimmed``."""
    return [
        one.key
        for number, one in this.log.entries.items()
        if number <= trimmed
        and not (is_end(one.size) and not may_go(one, this.log.date, this.options))
    ]


def tidy(this: Round) -> Steps[None]:
    """Delete packs and catalogs that no ``_head`` leads to any more.

    They were there while we had the lease. Who could still make ``_head``
    lead to one, a keeper that lost its lease, cannot replace it: ours came
    between.
    """
    catalog = this.catalog
    if catalog is None and this.head.catalog:
        return  # nobody knows which packs it names
    needed = {this.head.catalog}
    grace: set[str] = set()
    if catalog is not None:
        needed |= {pack.key for pack in catalog.packs}
        grace = {
            key
            for key, at in catalog.retired.items()
            if this.held.at - at < this.options.grace
        }
    there = [*this.packs.keys, *this.catalogs.keys]
    this.kept.waiting = sum(key in grace for key in there)
    yield from delete(this, (key for key in there if key not in needed | grace))


def delete_trimmed(this: Round) -> Steps[None]:
    """Delete entries up to the trim, also what reappeared, and their blobs.

    But not the young ends of a log that was here before: they keep late hosts
    from creating entries in their place (``keeper.ending``).

    A blob whose entry never came may still be named by one: its committer
    may sleep. It goes when the trim has reached its number; its age proves
    nothing.
    """
    trimmed = this.head.trimmed
    yield from delete(this, trimmed_entries(this, trimmed))
    blobs = yield from list_all(BLOBS)
    yield from delete(
        this,
        (
            key
            for key in blobs.keys
            if (number := blob_number(key)) is not None and number <= trimmed
        ),
    )


def delete(this: Round, keys: Iterable[str]) -> Steps[None]:
    """Delete objects. What stays behind is found again in the next round."""
    doomed = list(keys)
    for start in range(0, len(doomed), DELETE_MANY_LIMIT):
        some = doomed[start : start + DELETE_MANY_LIMIT]
        answer: Answer = yield Delete(some)
        if answer.status != 200:
            raise failure(answer, f"delete {some[0]} and others")
        this.kept.deleted += len(some)
