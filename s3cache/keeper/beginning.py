"""The beginning of a database where another one was dropped.

Its log goes on from the other one's end. A host that has not noticed yet
could else create entries that are still to come; and a log with somebody
else's entry in it cannot be followed.

``_head`` is read first, and replaced at last if it is still the same object.
So there was no other database in between, and the end that was found is the
one that the log goes on from. The catalog comes before ``_head``, which names
it; see ``ending`` for what those leave alone who still drop the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3cache.keeper.effects import Replace
from s3cache.keeper.ending import look, read
from s3cache.keeper.rounds import list_all
from s3cache.log.catalog import Catalog, seal_catalog
from s3cache.log.effects import Create, Get, OtherEffect, Steps, Token
from s3cache.log.entry import seal_end
from s3cache.log.head import Head, encode_head
from s3cache.log.keys import HEAD, LOG, catalog_key, entry_key
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure

__all__ = ["Describe", "begin_in_place_of_dropped"]


@dataclass(frozen=True, slots=True)
class Describe(OtherEffect):
    """``head`` with what the store honours, and the time; a ``Head``."""

    head: Head


def begin_in_place_of_dropped(signing_keys: Sequence[bytes]) -> Steps[bool]:
    """Create an empty database where another one was dropped, if it was.

    Whether it was. If another host is faster, its database is as good. Raises
    ``StoreError``: then there is one, or it is to be begun again.
    """
    before = yield from look()
    head, _ = read(before)
    if head is not None:
        return False
    last = yield from end_of_log()
    if not last:
        return False
    database: str = yield Token()
    token: str = yield Token()
    key = catalog_key(last, token)
    empty = Catalog(
        database=database[:16],
        number=last,
        token=token,
        etag="",
        modified=0.0,
        schema=[],
        sequences={},
        packs=[],
    )
    body = seal_catalog(empty, key=key, signing_keys=signing_keys)
    made: Answer = yield Create(key, body)
    if made.status != 200:
        raise failure(made, f"create {key}")
    new: Head = yield Describe(Head(database=empty.database, trimmed=last, catalog=key))
    yield from put_head(new, before)
    return True


def end_of_log() -> Steps[int]:
    """The number of the log's end; 0 if it has none, or was moved."""
    log = yield from list_all(LOG)
    last = max(log.entries, default=0)
    if not last:
        return 0
    found: Answer = yield Get(entry_key(last))
    if found.status not in (200, 404):
        raise failure(found, f"read {entry_key(last)}")
    return last if found.body == seal_end("") else 0


def put_head(head: Head, before: Answer) -> Steps[None]:
    """Make ``_head`` lead to the new database, if it is as it was before."""
    body = encode_head(head)
    answer: Answer = yield (
        Replace(HEAD, body, before.etag) if before.status == 200 else Create(HEAD, body)
    )
    # 412: another host was first.
    if answer.status not in (200, 412):
        raise failure(answer, f"write {HEAD}")
