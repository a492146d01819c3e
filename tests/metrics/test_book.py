"""The book: sums by time, which are bounded whatever the clock does."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3cache.metrics import fleet
from s3cache.metrics.book import (
    DAY,
    HOUR,
    MINUTE,
    MODEL_WIDTHS,
    MONTH,
    QUARTER,
    SIX_HOURS,
    Book,
    Page,
)
from s3cache.metrics.processes import gone

FOREVER = float("inf")
LABEL = "testapp.gear"


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "book")


def test_a_minute_and_an_hour_are_sums(book: Book) -> None:
    begin = 1_000_000 * HOUR
    for at in (begin, begin + 59, begin + 60):
        with book.writing(at) as writer:
            for width in (MINUTE, HOUR):
                writer.add_bucket("host", width, "default", at, {"hit": 1})
    with book.reading() as reader:
        assert reader.buckets("host", MINUTE, ["default"], begin, FOREVER) == [
            (begin, {"hit": 2}),
            (begin + 60, {"hit": 1}),
        ]
        hours = reader.buckets("host", HOUR, ["default"], begin, FOREVER)
        assert hours == [(begin, {"hit": 3})]


@pytest.mark.parametrize(("width", "kept"), [(QUARTER, DAY), (SIX_HOURS, MONTH)])
def test_a_history_is_bounded(book: Book, width: int, kept: int) -> None:
    steps = kept // width
    with book.writing(0.0) as writer:
        for step in range(2 * steps):
            writer._now = at = float(step * width)
            writer.add_bucket("host", width, "default", at, {"hit": 1})
            if width in MODEL_WIDTHS:
                models = {"shop.product": {"hit": 1}}
                writer.add_models("host", width, "default", at, models)
    with book.reading() as reader:
        found = reader.buckets("host", width, ["default"], 0.0, FOREVER)
        rows = reader._connection.execute("SELECT count(*) FROM buckets").fetchone()[0]
    assert steps <= len(found) <= steps + 6
    assert max(start for start, _ in found) == (2 * steps - 1) * width
    assert rows <= 2 * (steps + 6)


def test_a_clock_that_is_wrong_for_a_while(book: Book) -> None:
    """It costs no more history than it makes up, and that does not count."""

    def count(at: float) -> None:
        with book.writing(at) as writer:
            writer.add_bucket("host", MINUTE, "default", at, {"hit": 1})

    now = 1_000_000 * HOUR
    for minute in range(60):
        count(now + minute * MINUTE)
    for wrong in (now + 500 * DAY, now - 500 * DAY):
        for minute in range(3):
            count(wrong + minute * MINUTE)
    for minute in range(60, 63):
        count(now + minute * MINUTE)
    with book.reading() as reader:
        found = reader.buckets("host", MINUTE, ["default"], now, now + 63 * MINUTE)
    assert [start for start, _ in found] == [now + n * MINUTE for n in range(63)]


def test_a_process_seen_in_the_future_is_gone_all_the_same() -> None:
    page = Page("1-x", seen=2_000_000.0, content=b"")
    assert gone([page], now=1_000_000.0) == ["1-x"]


def test_of_too_many_hosts_the_newest_are_remembered() -> None:
    pages = [Page(str(n), seen=float(n), content=b"") for n in range(700)]
    forgotten = fleet._forgotten(pages, now=700.0)
    assert sorted(map(int, forgotten)) == list(range(200))


def test_what_a_host_tells_after_long_is_spread_over_that_time() -> None:
    at, number = fleet._spread(0.0, 10 * DAY, MINUTE, DAY)
    assert (len(at), max(at)) == (1440, 10 * DAY)
    assert number == 1 + 10 * 1440
    assert fleet._share({"hit": 3.0 * number}, number) == {"hit": 3.0}
    assert fleet._spread(0.0, 60.0, MINUTE, DAY) == ([60.0], 1)
