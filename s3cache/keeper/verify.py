"""Looking a database over: what is in the bucket, and what a replica holds.

``verify_bucket`` reads everything that a host may have to read, and names what
is not as it should be. It changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.keeper.rounds import Page, list_all
from s3cache.log.catalog import Catalog, open_catalog
from s3cache.log.effects import Get, GetMany, Steps
from s3cache.log.entry import Entry, NewerFormat, is_end
from s3cache.log.head import Head, decode_head
from s3cache.log.keys import BLOBS, CATALOGS, HEAD, LOG, PACKS, blob_number, entry_key
from s3cache.log.patience import patiently
from s3cache.log.proof import open_entry
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure

#: Entries, and packs, that are read at the same time.
ENTRIES_AT_ONCE = 16
PACKS_AT_ONCE = 4

#: How often all is read again because ``_head`` has changed meanwhile.
TRIES = 3


class Remedy(enum.Enum):
    """What would put right what was found.

    ``KEEP``: a round of the keeper that writes all packs anew. ``REBUILD``:
    a new replica. ``RECORD``: records that are written anew. ``NONE``:
    nothing that a program may decide.
    """

    KEEP = "keep"
    REBUILD = "rebuild"
    RECORD = "record"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, with the object's key."""

    key: str
    message: str
    remedy: Remedy = Remedy.NONE


def verify_bucket(signing_keys: tuple[bytes, ...]) -> Steps[list[Finding]]:
    """Read ``_head``, catalog, packs, log and bodies; tell what is wrong.

    Commits may go on meanwhile; where a keeper came between, all is read
    again. Raises ``StoreError`` when the store does not
    answer, and ``NewerFormat`` for what only a newer release can judge.
    """
    return (yield from patiently(_verify_at_rest(signing_keys)))


def _verify_at_rest(signing_keys: tuple[bytes, ...]) -> Steps[list[Finding]]:
    for _ in range(TRIES):
        before: Answer = yield Get(HEAD)
        found = yield from _verify(signing_keys)
        after: Answer = yield Get(HEAD)
        if not found or before.etag == after.etag:
            break
    return found


def _verify(signing_keys: tuple[bytes, ...]) -> Steps[list[Finding]]:
    head, found = yield from _verify_head()
    if head is None:
        return found
    catalog: Catalog | None = None
    if head.catalog:
        catalog, wrong = yield from _verify_catalog(head, signing_keys)
        found += wrong
    elif head.trimmed:
        found.append(
            Finding(
                HEAD,
                f"the log is trimmed to {head.trimmed}, and no catalog is named.",
                Remedy.KEEP,
            )
        )
    packs = yield from list_all(PACKS)
    catalogs = yield from list_all(CATALOGS)
    if catalog is not None:
        found += yield from _verify_packs(catalog)
    if catalog is not None or not head.catalog:
        found += _leftovers(head, catalog, packs, catalogs)
    found += yield from _verify_log(head, catalog, signing_keys)
    return found


def _verify_head() -> Steps[tuple[Head | None, list[Finding]]]:
    answer: Answer = yield Get(HEAD)
    if answer.status == 404:
        return None, [
            Finding(HEAD, "it is missing. Restore it from a version or a backup.")
        ]
    if answer.status != 200:
        raise failure(answer, f"read {HEAD}")
    try:
        return decode_head(answer.body), []
    except NewerFormat:
        raise
    except (EntryFormatError, LogDiverged) as error:
        return None, [Finding(HEAD, str(error))]


def _verify_catalog(
    head: Head, signing_keys: tuple[bytes, ...]
) -> Steps[tuple[Catalog | None, list[Finding]]]:
    key = head.catalog
    answer: Answer = yield Get(key)
    if answer.status == 404:
        return None, [Finding(key, "it is missing: no host can start.", Remedy.KEEP)]
    if answer.status != 200:
        raise failure(answer, f"read {key}")
    try:
        catalog = open_catalog(answer.body, key=key, signing_keys=signing_keys)
    except NewerFormat:
        raise
    except EntryFormatError as error:
        return None, [Finding(key, str(error), Remedy.KEEP)]
    if catalog.database != head.database:
        message = f"it is of the database {catalog.database}."
        return None, [Finding(key, message, Remedy.KEEP)]
    if catalog.number < head.trimmed:
        message = (
            f"it is of entry {catalog.number}, and the log is trimmed to "
            f"{head.trimmed}: what was between them is lost to new hosts."
        )
        return None, [Finding(key, message, Remedy.KEEP)]
    return catalog, []


def _verify_packs(catalog: Catalog) -> Steps[list[Finding]]:
    found: list[Finding] = []
    for start in range(0, len(catalog.packs), PACKS_AT_ONCE):
        some = catalog.packs[start : start + PACKS_AT_ONCE]
        answers: Sequence[Answer] = yield GetMany([pack.key for pack in some])
        for pack, answer in zip(some, answers, strict=True):
            if answer.status == 404:
                message = "it is missing: no host can start."
                found.append(Finding(pack.key, message, Remedy.KEEP))
            elif answer.status != 200:
                raise failure(answer, f"read {pack.key}")
            elif damage := pack.damage(answer.body):
                message = f"it is damaged: {damage}."
                found.append(Finding(pack.key, message, Remedy.KEEP))
    return found


def _leftovers(
    head: Head, catalog: Catalog | None, packs: Page, catalogs: Page
) -> Iterator[Finding]:
    """What no host needs; the keeper at work may be about to name it."""
    if head.keeper:
        return
    needed = {head.catalog}
    if catalog is not None:
        needed |= {pack.key for pack in catalog.packs} | catalog.retired.keys()
    for key in [*packs.keys, *catalogs.keys]:
        if key not in needed:
            yield Finding(key, "nothing refers to it.", Remedy.KEEP)


def _verify_log(
    head: Head, catalog: Catalog | None, signing_keys: tuple[bytes, ...]
) -> Steps[list[Finding]]:
    log = yield from list_all(LOG)
    found = [
        Finding(one.key, f"the log is trimmed to {head.trimmed}.", Remedy.KEEP)
        for number, one in log.entries.items()
        if number <= head.trimmed and not is_end(one.size)
    ]
    numbers = [number for number in log.entries if number > head.trimmed]
    newest = max(numbers, default=head.trimmed)
    missing = set(range(head.trimmed + 1, newest + 1)) - set(numbers)
    found += [Finding(entry_key(n), "it is missing.") for n in sorted(missing)]
    if catalog is not None and catalog.number > newest:
        message = f"it is of entry {catalog.number}, and the log ends at {newest}."
        found.append(Finding(head.catalog, message))
    before: Entry | None = None
    for start in range(0, len(numbers), ENTRIES_AT_ONCE):
        some = numbers[start : start + ENTRIES_AT_ONCE]
        answers: Sequence[Answer] = yield GetMany([entry_key(n) for n in some])
        for number, answer in zip(some, answers, strict=True):
            if answer.status == 404:
                continue  # trimmed since it was listed
            if answer.status != 200:
                raise failure(answer, f"read {entry_key(number)}")
            entry, wrong = yield from _verify_entry(
                number, answer, before, head, catalog, signing_keys
            )
            found += wrong
            before = entry
    blobs = yield from list_all(BLOBS)
    found += [
        Finding(key, "its entry is trimmed.", Remedy.KEEP)
        for key in blobs.keys
        if (of := blob_number(key)) is not None and of <= head.trimmed
    ]
    return found


def _verify_entry(
    number: int,
    answer: Answer,
    before: Entry | None,
    head: Head,
    catalog: Catalog | None,
    signing_keys: tuple[bytes, ...],
) -> Steps[tuple[Entry | None, list[Finding]]]:
    key = entry_key(number)
    try:
        entry = yield from open_entry(answer, number, signing_keys)
    except NewerFormat:
        raise
    except (EntryFormatError, LogDiverged) as error:
        return None, [Finding(key, str(error))]
    if entry is None:
        return None, []  # trimmed meanwhile
    if (entry.database, entry.number) != (head.database, number):
        message = f"it is entry {entry.number} of the database {entry.database}."
        return None, [Finding(key, message)]
    if before is not None and number == before.number + 1:
        previous = before.token
    elif number == 1:
        previous = ""
    elif catalog is not None and number == catalog.number + 1:
        previous = catalog.token
    else:
        previous = entry.previous
    found = []
    if entry.previous != previous:
        found.append(Finding(key, "it does not continue the entry before it."))
    is_packed = catalog is not None and number == catalog.number
    if catalog is not None and is_packed and entry.token != catalog.token:
        message = f"{head.catalog} was made after another entry of this number."
        found.append(Finding(key, message))
    return entry, found


__all__ = ["Finding", "Remedy", "verify_bucket"]
