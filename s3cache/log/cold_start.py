"""Beginning a new replica: from packs, or from nothing.

A replica of a large database begins with nothing but the schema, and lacks
all packs. ``load_absent`` loads those that somebody needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.log.catalog import Catalog, Pack, open_catalog
from s3cache.log.effects import (
    Absent,
    Begun,
    Get,
    GetMany,
    HoldRebuildLock,
    Lacking,
    Load,
    Loaded,
    Now,
    Position,
    Repack,
    StartOver,
    Steps,
)
from s3cache.log.head import Head
from s3cache.log.keys import HEAD
from s3cache.log.proof import read_head
from s3cache.stores.base import Answer
from s3cache.stores.failures import failure

#: Packs that are read at the same time. It bounds the memory of a new host.
PACKS_AT_ONCE = 4

#: Seconds to wait for another process that loads packs, a few at a time.
LOAD_WAIT = 120.0


def begin_anew(
    head: Head,
    reason: str,
    diverged: bool,
    signing_keys: tuple[bytes, ...],
    *,
    whole: bool = True,
) -> Steps[Position | None]:
    """Begin a new replica from what ``head`` names; where it then is.

    Unless it has to be ``whole`` it may lack packs. None if what ``head``
    names is gone because a newer ``_head`` names something else by now.
    Raises ``LogDiverged`` if a catalog or pack is missing, and
    ``EntryFormatError`` if one is not what it should be: nothing of such a
    pack is used.
    """
    if head.trimmed and not head.catalog:
        raise EntryFormatError(
            f"{HEAD} is damaged: the log is trimmed to {head.trimmed}, and no "
            f"catalog is named that has what those entries said."
        )
    begun: Begun
    if not head.catalog:
        begun = yield StartOver(head, reason, diverged)
        return begun.position
    catalog = yield from read_catalog(head, signing_keys)
    if catalog is None:
        return None
    begun = yield StartOver(head, reason, diverged, catalog, whole)
    for first in range(0, len(begun.packs), PACKS_AT_ONCE):
        some = begun.packs[first : first + PACKS_AT_ONCE]
        left = len(begun.packs) - first - len(some)
        if missing := (yield from load_packs(some, left)):
            yield from check_replaced(missing, head.database, head.catalog)
            return None
    loaded: Position = yield Loaded()
    return loaded


def load_packs(packs: Sequence[Pack], left: int, first: Any = None) -> Steps[str]:
    """Load ``packs``, read at the same time; ``left`` more are to follow.

    For ``first`` see ``Load``. Returns the key of the first pack that is not
    there, or "".
    """
    answers: Sequence[Answer] = yield GetMany([pack.key for pack in packs])
    for number, (pack, answer) in enumerate(zip(packs, answers, strict=True), 1):
        if answer.status == 404:
            return pack.key
        if answer.status != 200:
            raise failure(answer, f"read {pack.key}")
        body = checked(pack, answer.body)
        yield Load(pack, body, left + len(packs) - number, first)
    return ""


def load_absent(
    keys: frozenset[str] | None, signing_keys: tuple[bytes, ...], first: Any = None
) -> Steps[bool]:
    """Load the packs ``keys`` that the replica in use lacks; None: all.

    A few at a time, so that others get on with theirs. Who waits for some
    rows ``first`` may find that only those have come; see ``Load``. Where a
    newer catalog has other packs by now, the replica lacks those instead,
    under other keys: who needs some of them has to look again. False if those
    are newer than the replica, which has to catch up first. Raises what
    ``begin_anew`` does.
    """
    while True:
        now: float = yield Now()
        with (yield HoldRebuildLock(now + LOAD_WAIT)):
            absent: Lacking = yield Absent(keys, PACKS_AT_ONCE)
            if not absent.packs:
                return True
            missing = yield from load_packs(absent.packs, absent.left, first)
            if missing:
                if not (yield from look_elsewhere(missing, signing_keys)):
                    return False
            elif keys is not None:
                keys -= {pack.key for pack in absent.packs}


def look_elsewhere(missing: str, signing_keys: tuple[bytes, ...]) -> Steps[bool]:
    """Take what the replica lacks from the newest packs; see ``Repack``."""
    head = yield from read_head()
    catalog = None
    if head.catalog:
        catalog = yield from read_catalog(head, signing_keys)
    if catalog is None:
        return True  # it is another one by now: who asked looks again
    if any(pack.key == missing for pack in catalog.packs):
        raise lost(missing)
    done: bool = yield Repack(catalog)
    return done


def read_catalog(head: Head, signing_keys: tuple[bytes, ...]) -> Steps[Catalog | None]:
    """The catalog that ``head`` names; None if it is another one by now."""
    answer: Answer = yield Get(head.catalog)
    if answer.status == 404:
        yield from check_replaced(head.catalog, head.database, head.catalog)
        return None
    if answer.status != 200:
        raise failure(answer, f"read {head.catalog}")
    catalog = open_catalog(answer.body, key=head.catalog, signing_keys=signing_keys)
    if catalog.database != head.database or catalog.number < head.trimmed:
        raise EntryFormatError(
            f"{head.catalog} is of entry {catalog.number} of the database "
            f"{catalog.database}: not what _head says (trimmed {head.trimmed}, "
            f"database {head.database})."
        )
    return catalog


def check_replaced(key: str, database: str, catalog: str) -> Steps[None]:
    """Raise ``LogDiverged`` unless a newer ``_head`` names another catalog.

    Then ``key``, to which this one led, may be gone.
    """
    now = yield from read_head()
    if (now.database, now.catalog) == (database, catalog):
        raise lost(key)


def lost(key: str) -> LogDiverged:
    """The error for an object that should be there."""
    return LogDiverged(
        f"{key} is missing, and a new replica needs it. Any host that still "
        f"has a replica can replace it: run `manage.py s3cache_compact "
        f"--everything` there."
    )


def checked(pack: Pack, body: bytes) -> bytes:
    """``body``, if it is what the catalog says of ``pack``."""
    if damage := pack.damage(body):
        raise EntryFormatError(f"{pack.key} is damaged: {damage}.")
    return body
