"""What a visit reads, and whether a cache had it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from s3cache.results.watching import Read, Watch, Why, watch

#: Changes with each visit, and is excluded from the result cache.
HOUSEKEEPING = ("sessions.", "admin.logentry")


def reads_of(visit: Callable[[], Any]) -> list[Read]:
    """The kinds of reads of ``visit``, but for sessions and the like.

    Nor what reads no table: constraints are checked by such a statement.
    """
    with watch(Watch()) as seen:
        visit()
    return [
        one
        for one in seen.reads
        if one.tables and not one.label.startswith(HOUSEKEEPING)
    ]


def events_of(visit: Callable[[], Any]) -> set[str]:
    """What becomes of the reads that ``visit`` makes."""
    return {read.event for read in reads_of(visit)}


def is_cached(visit: Callable[[], Any]) -> bool:
    """Whether a later visit reads, and reads nothing but caches.

    Choices of forms are read by ``iterator()``, which is kept when it is
    asked for a second time.
    """
    visit()
    if any(read.why is Why.FIRST for read in reads_of(visit)):
        visit()
    reads = reads_of(visit)
    missed = [(read.label, read.why) for read in reads if read.event != "hit"]
    assert not missed, missed
    return bool(reads)
