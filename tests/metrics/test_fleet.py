"""What hosts tell each other, and what is made of it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from s3cache.metrics import fleet, keeping, show
from s3cache.metrics.book import Book
from s3cache.metrics.figures import Reads
from s3cache.metrics.fleet import HostPage
from s3cache.metrics.tally import CacheState, Groups
from tests.engine import Host

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

LABEL = "testapp.gear"


@pytest.fixture
def book(host: Host) -> Book:
    assert keeping.flush()
    found = keeping.book()
    assert found is not None
    return found


def told(name: str, began: float = 1.0, hits: int = 0, **its: Any) -> HostPage:
    totals: Groups = {("read", "default", LABEL): {"get\x1f\x1fhit": float(hits)}}
    page = HostPage(
        host=name,
        began=began,
        processes=1,
        positions={},
        replica_bytes=0,
        memory=None,
        reads={},
        requests=0,
        totals=fleet._encode(list(totals.items())),
        caches=[],
    )
    return msgspec.structs.replace(page, **its)


def hear(book: Book, *pages: HostPage) -> None:
    """Of all of them at the same time, as from a cache."""
    now = time.time()
    with book.writing(now) as writer:
        fleet._add(writer, {one.host: fleet._encode(one) for one in pages}, now)


def hits() -> tuple[int, int]:
    """Those of the fleet: in all, and in its history."""
    points = show.history("day").points
    return show.snapshot().all_reads.hit, sum(one.reads.hit for one in points)


def test_what_a_host_told_before_counts_once(book: Book) -> None:
    hear(book, told("a", hits=5), told("b", hits=3))
    assert hits() == (8, 0)  # nobody knows when that was
    for _ in range(2):
        hear(book, told("a", hits=7), told("b", hits=4))
    assert hits() == (11, 3)
    (of_model,) = show.history("day", model=LABEL).points
    assert of_model.reads == Reads(hit=3)


def test_a_host_that_has_lost_its_disk_loses_nothing(book: Book) -> None:
    """Its new numbers may be higher than the old ones were."""
    hear(book, told("a", hits=5))
    hear(book, told("a", began=2.0, hits=7))
    assert hits() == (12, 7)


def test_what_another_release_told_is_left_out(book: Book) -> None:
    now = time.time()
    with book.writing(now) as writer:
        fleet._add(writer, {"a": b"\x81\xa3new\x07", "b": b"\xc1"}, now)
        writer.write_page("told", "c", b"\x81\xa3old\x07")
    hear(book, told("c", hits=5))
    assert hits() == (0, 0)
    hear(book, told("c", hits=6))
    assert hits() == (1, 1)


def test_the_caches_of_all_hosts(book: Book, settings: Any) -> None:
    """What each host has for itself adds up; what they share is there once."""
    settings.CACHES = {}
    own = CacheState(alias="own", driver="MemoryCache", counts={}, size=4, memory=10)
    shared = CacheState(
        alias="shared", driver="S3Cache", counts={}, size=9, spans_hosts=True
    )
    hear(book, told("a", caches=[own, shared]), told("b", caches=[own, shared]))
    found = {one.alias: (one.size, one.memory) for one in show.caches()}
    assert found == {"own": (8, 20), "shared": (9, None)}
    assert show.caches("host") == ()
