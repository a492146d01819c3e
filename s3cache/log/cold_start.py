"""Beginning a new replica: from packs, or from nothing."""

from __future__ import annotations

from collections.abc import Sequence

from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.log.catalog import Catalog, Pack, open_catalog
from s3cache.log.effects import Get, GetMany, Load, Loaded, Position, StartOver, Steps
from s3cache.log.head import Head
from s3cache.log.keys import HEAD
from s3cache.log.proof import read_head
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure

#: Packs that are read at the same time. It bounds the memory of a new host.
PACKS_AT_ONCE = 4


def begin_anew(
    head: Head, reason: str, diverged: bool, signing_keys: tuple[bytes, ...]
) -> Steps[Position | None]:
    """Begin a new replica from what ``head`` names; where it then is.

    None if that is gone because a newer ``_head`` names something else by
    now. Raises ``LogDiverged`` if a catalog or pack is missing, and
    ``EntryFormatError`` if one is not what it should be: nothing of such a
    pack is used.
    """
    if head.trimmed and not head.catalog:
        raise EntryFormatError(
            f"{HEAD} is damaged: the log is trimmed to {head.trimmed}, and no "
            f"catalog is named that has what those entries said."
        )
    if not head.catalog:
        start: Position = yield StartOver(head, reason, diverged)
        return start
    catalog = yield from read_catalog(head, signing_keys)
    if catalog is None:
        return None
    yield StartOver(head, reason, diverged, catalog)
    for first in range(0, len(catalog.packs), PACKS_AT_ONCE):
        some = catalog.packs[first : first + PACKS_AT_ONCE]
        answers: Sequence[Answer] = yield GetMany([pack.key for pack in some])
        for pack, answer in zip(some, answers, strict=True):
            if not (yield from is_there(answer, pack.key, head)):
                return None
            yield Load(pack, checked(pack, answer.body))
    loaded: Position = yield Loaded()
    return loaded


def read_catalog(head: Head, signing_keys: tuple[bytes, ...]) -> Steps[Catalog | None]:
    """The catalog that ``head`` names; None if it is another one by now."""
    answer: Answer = yield Get(head.catalog)
    if not (yield from is_there(answer, head.catalog, head)):
        return None
    catalog = open_catalog(answer.body, key=head.catalog, signing_keys=signing_keys)
    if catalog.database != head.database or catalog.number < head.trimmed:
        raise EntryFormatError(
            f"{head.catalog} is of entry {catalog.number} of the database "
            f"{catalog.database}: not what _head says (trimmed {head.trimmed}, "
            f"database {head.database})."
        )
    return catalog


def is_there(answer: Answer, key: str, head: Head) -> Steps[bool]:
    """Whether ``answer`` has the object ``key``, which ``head`` leads to.

    False if a newer ``_head`` leads elsewhere by now: then it may be gone.
    """
    if answer.status == 200:
        return True
    if answer.status != 404:
        raise failure(answer, f"read {key}")
    now = yield from read_head()
    if (now.database, now.catalog) == (head.database, head.catalog):
        raise LogDiverged(
            f"{key} is missing, and a new replica needs it. Any host that still "
            f"has a replica can replace it: run `manage.py s3cache_compact "
            f"--everything` there."
        )
    return False


def checked(pack: Pack, body: bytes) -> bytes:
    """``body``, if it is what the catalog says of ``pack``."""
    if damage := pack.damage(body):
        raise EntryFormatError(f"{pack.key} is damaged: {damage}.")
    return body
