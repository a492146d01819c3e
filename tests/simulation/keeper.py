"""A model of the keeper: packs, the trim, and what it deletes.

It follows the design's rules to the letter, and is killed and put to sleep
like everything else. Two of them may be at work at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from s3cache.log import effects as e
from s3cache.log.catch_up import has_all
from s3cache.log.head import Head, decode_head
from s3cache.log.keys import BLOBS, HEAD, LOG, entry_number
from s3cache.log.proof import is_untrimmed

from .store import DAY, Store

if TYPE_CHECKING:
    from .database import State

CATALOGS = "_catalog/"

_packs: WeakKeyDictionary[Store, dict[str, tuple[e.Position, State]]] = (
    WeakKeyDictionary()
)


def packs_of(store: Store) -> dict[str, tuple[e.Position, State]]:
    """What the objects that are packs hold, by name."""
    return _packs.setdefault(store, {})


def catalog_key(trimmed: int) -> str:
    return f"{CATALOGS}{trimmed:012d}"


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace ``_head``, if it has this ETag."""

    key: str
    head: Head
    etag: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete objects."""

    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Pack:
    """Pack the replica as it is; the result is a ``Packed``."""


@dataclass(frozen=True, slots=True)
class Packed:
    name: str
    position: e.Position


Steps = Any  # e.Steps, and the effects above


def keep(random: Any) -> Steps:
    """One round of the keeper."""
    answer = yield e.Get(HEAD)
    if answer.status != 200:
        return
    head, etag = decode_head(answer.body), answer.etag
    packed: Packed = yield Pack()
    listed = yield from list_all(LOG)
    if listed is None:
        return
    if is_of_this_log(packed.position, head, listed):
        trim = trim_to(head, listed, packed.position.number)
        if trim > head.trimmed:
            moved = yield from move(head, etag, packed, trim)
            if not moved:
                return
            head = Head(head.database, trimmed=trim)
    yield from delete_trimmed(head, listed, random)
    yield from delete_blobs(head, listed)
    yield from delete_packs(head)


def is_of_this_log(position: e.Position, head: Head, listed: Sequence[Any]) -> bool:
    """Whether the replica that was packed has followed this log.

    Else a host that has not noticed that the bucket was restored would bring
    back what was lost, for everybody who starts from its packs.
    """
    etags = {
        number: one.etag
        for one, _date in listed
        if (number := entry_number(one.key)) is not None
    }
    return is_untrimmed(position, head) and has_all(etags, head.trimmed + 1, position)


def list_all(prefix: str) -> Steps:
    """Every object below ``prefix``, or None if the store does not say."""
    found: list[Any] = []
    start_after = prefix
    while True:
        page = yield e.ListPage(prefix, start_after)
        if page.status != 200:
            return None
        found += [(one, page.date) for one in page.keys]
        if not page.more:
            return found
        start_after = page.keys[-1].key


def trim_to(head: Head, listed: Sequence[Any], packed: int) -> int:
    """Up to where entries are packed, and all a day old."""
    trim = head.trimmed
    for one, date in listed:
        number = entry_number(one.key)
        if number is None or number <= head.trimmed:
            continue
        if not is_old(one, date) or number > packed:
            break
        trim = number
    return trim


def is_old(one: Any, date: float | None) -> bool:
    return date is not None and date - one.modified >= DAY


def move(head: Head, etag: str, packed: Packed, trim: int) -> Steps:
    """Store the pack, then its catalog, then the head that names both."""
    answer = yield e.Create(packed.name, b"pack")
    if answer.status not in (200, 412):
        return False
    answer = yield e.Create(catalog_key(trim), packed.name.encode())
    if answer.status not in (200, 412):
        return False
    # Another keeper's catalog for the same trim is as good as ours, once it
    # is known to be there: catalogs are immutable.
    answer = yield e.Get(packed.name)
    if answer.status != 200:
        return False
    answer = yield e.Get(catalog_key(trim))
    if answer.status != 200:
        return False
    new = Head(head.database, trimmed=trim)
    answer = yield Replace(HEAD, new, etag)
    if answer.status == 200:
        return True
    answer = yield e.Get(HEAD)
    return answer.status == 200 and decode_head(answer.body).trimmed >= trim


def delete_trimmed(head: Head, listed: Sequence[Any], random: Any) -> Steps:
    """Delete what is at or below the trim, also what reappeared there."""
    doomed = [
        one.key
        for one, _date in listed
        if (number := entry_number(one.key)) is not None and number <= head.trimmed
    ]
    random.shuffle(doomed)
    while doomed:
        some, doomed = doomed[:5], doomed[5:]
        yield Delete(some)


def delete_blobs(head: Head, listed: Sequence[Any]) -> Steps:
    """Delete bodies whose number is trimmed."""
    blobs = yield from list_all(BLOBS)
    doomed = [
        one.key for one, _date in blobs or () if blob_number(one.key) <= head.trimmed
    ]
    if doomed:
        yield Delete(doomed)


def blob_number(key: str) -> int:
    return int(key.removeprefix(BLOBS).partition("-")[0])


def delete_packs(head: Head) -> Steps:
    """Delete catalogs that were followed by another a day ago."""
    catalogs = yield from list_all(CATALOGS)
    if not catalogs:
        return
    for (one, date), (following, _date) in zip(catalogs, catalogs[1:], strict=False):
        number = int(one.key.removeprefix(CATALOGS))
        if number < head.trimmed and is_old(following, date):
            yield Delete([one.key])
