"""Making a new database of what another one was after some entry."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import msgspec

from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.keeper.effects import Build, Built, Contents, Survey
from s3cache.keeper.performer import KeeperPerformer
from s3cache.keeper.plan import TARGET
from s3cache.keeper.rounds import list_all, new_pack, store
from s3cache.log.catalog import Catalog, Segment, seal_catalog
from s3cache.log.catch_up import apply_listed
from s3cache.log.cold_start import begin_anew
from s3cache.log.effects import Create, Get, Position, Steps, Token, Where
from s3cache.log.head import Head, encode_head
from s3cache.log.keys import CATALOGS, HEAD, LOG, catalog_key, entry_number
from s3cache.log.patience import patiently
from s3cache.log.proof import read_head
from s3cache.replica.replica import Replica
from s3cache.stores.base import Answer, Store
from s3cache.stores.failures import failure
from s3cache.stores.probe import probe

Keys = tuple[bytes, ...]


class CannotRestore(Exception):
    """There is no such state any more, or no room for it."""


def restore(replica: Replica, target: Store, number: int | None = None) -> Head:
    """Put the database of ``replica`` as it was after entry ``number``.

    Into ``target``, which has no database yet, with an id of its own; the
    default is the newest entry. The original is only read. Returns the new
    ``_head``, which is written last: before that there is no database.
    Raises ``CannotRestore``.
    """
    keys = replica.options.signing_keys
    with replica.side.keeping.held(0.0), KeeperPerformer(replica) as performer:
        contents = performer.run(patiently(load_state(number, keys)))
        performer.go_on_with(target)
        performer.run(check_empty(target.name))
        honoured = asdict(probe(target))
        return performer.run(patiently(write_database(contents, honoured, keys)))


def load_state(number: int | None, signing_keys: Keys) -> Steps[Contents]:
    """Load the state after entry ``number`` into a replica of its own."""
    head = yield from read_head()
    log = yield from list_all(LOG)
    entries = {n: one.etag for n, one in log.entries.items() if n > head.trimmed}
    newest = max(entries, default=head.trimmed)
    if number is None:
        number = newest
    if not 0 <= number <= newest:
        raise CannotRestore(f"There is no entry {number}: the newest is {newest}.")
    catalogs = yield from list_all(CATALOGS)
    if head.trimmed > number:
        raise CannotRestore(
            f"The log is trimmed to {head.trimmed}: the states before that are gone."
        )
    for key in [*reversed(catalogs.keys), ""]:
        of = entry_number(LOG + key.removeprefix(CATALOGS).partition("-")[0]) or 0
        if not key:
            of = 0
        if not head.trimmed <= of <= number:
            continue
        tail = {n: entries[n] for n in range(of + 1, number + 1) if n in entries}
        if len(tail) == number - of and (
            yield from _load(
                msgspec.structs.replace(head, catalog=key), tail, signing_keys
            )
        ):
            contents: Contents = yield Survey(0)
            return contents
    raise CannotRestore(
        f"There is no catalog at or before entry {number} that can be read, with all "
        f"entries from there on."
    )


def _load(head: Head, tail: dict[int, str], signing_keys: Keys) -> Steps[bool]:
    try:
        start = yield from begin_anew(head, "a state is restored", False, signing_keys)
        if start is None or not (yield from apply_listed(tail, signing_keys)):
            return False
    except (EntryFormatError, LogDiverged):
        return False
    reached: Position = yield Where()
    return reached.number == start.number + len(tail)


def check_empty(name: str) -> Steps[None]:
    """Refuse a location that is in use."""
    answer: Answer = yield Get(HEAD)
    if answer.status not in (200, 404):
        raise failure(answer, f"read {HEAD}")
    log = yield from list_all(LOG)
    if answer.status == 200 or log.objects:
        raise CannotRestore(f"{name} holds a database already.")


def write_database(
    contents: Contents, honoured: dict[str, object], signing_keys: Keys
) -> Steps[Head]:
    """Write packs, a catalog and at last ``_head`` of a new database."""
    number = contents.position.number
    packs = []
    rest: Sequence[Segment] = [Segment(table) for table in contents.tables]
    while rest:
        built: Built = yield Build(rest, TARGET)
        rest = built.rest
        packs.append((yield from new_pack(built, number)))
    token: str = yield Token()
    catalog = Catalog(
        database=secrets.token_hex(8),
        number=number,
        token=token,
        etag="",
        modified=0.0,
        schema=list(contents.schema),
        sequences=dict(contents.sequences),
        packs=packs,
        versions=dict(contents.versions),
    )
    key = catalog_key(number, token)
    yield from store(key, seal_catalog(catalog, key=key, signing_keys=signing_keys))
    head = Head(
        database=catalog.database,
        trimmed=number,
        catalog=key,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        probe=honoured,
    )
    answer: Answer = yield Create(HEAD, encode_head(head))
    if answer.status == 412:
        raise CannotRestore("Somebody else has made a database there meanwhile.")
    if answer.status != 200:
        raise failure(answer, f"create {HEAD}")
    return head
