"""What processes counted stays, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from typing import Any

import pytest

from s3cache.metrics import keeping, show
from s3cache.metrics.book import (
    HOUR,
    QUARTER,
    SIX_HOURS,
    Book,
)
from s3cache.metrics.figures import Reads, Span
from s3cache.results.counters import counters
from tests.engine import Host
from tests.forks import in_child
from tests.metrics.test_replay import LABEL
from tests.testapp.models import Gear

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


def count(hits: int = 0, misses: int = 0, model: str = LABEL) -> None:
    for event, number in (("hit", hits), ("miss", misses)):
        for _ in range(number):
            counters.count(model, "get", event, database="default")


def of_host(model: str = LABEL) -> Reads:
    for one in show.snapshot("host").models:
        if one.model == model:
            return one.reads
    return Reads()


def forget_process() -> None:
    """Be another process from here on, which has counted nothing."""
    counters.clear()
    keeping._kept = keeping._Kept()


def test_three_hits_and_a_miss(host: Host) -> None:
    gear = Gear.objects.create(name="a")
    for _ in range(4):
        Gear.objects.get(pk=gear.pk)

    for scope in ("process", "host", "fleet"):
        snapshot = show.snapshot(scope)
        (get,) = [one for one in snapshot.reads if one.model == LABEL]
        assert (get.action, get.reads) == ("get", Reads(hit=3, miss=1))
        assert get.reads.hit_rate == 0.75


def test_eight_threads_lose_nothing(host: Host) -> None:
    threads = [threading.Thread(target=count, args=(500, 100)) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        keeping.flush()
    for thread in threads:
        thread.join()

    assert of_host() == Reads(hit=4_000, miss=800)
    assert show.snapshot("process").all_reads == Reads(hit=4_000, miss=800)


def test_a_process_that_is_killed_loses_its_last_seconds(host: Host) -> None:
    count(hits=2)
    keeping.flush()
    count(hits=1)

    def work() -> bool:
        count(hits=10)  # beside those of the process that it was forked from
        added = keeping.flush()
        count(hits=100)
        return added

    assert in_child(work)  # which kills it
    assert of_host() == Reads(hit=13)


def test_a_process_that_is_killed_while_it_writes(host: Host) -> None:
    count(hits=2)
    keeping.flush()
    book = keeping.book()
    assert book is not None
    journal = book.path.with_name(f"{book.path.name}-journal")

    def work() -> bool:
        with book.writing(time.time()) as writer:
            writer._connection.execute("PRAGMA cache_size = 1")  # so the file changes
            key = "read", "default", LABEL, "get", "", "hit"
            writer.add("host", {key: 1.0})
            writer.add("host", {(*key[:2], str(n), *key[3:]): 1.0 for n in range(999)})
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    in_child(work)
    assert journal.stat().st_size > 0
    count(hits=1)
    assert of_host() == Reads(hit=3)
    assert sum(p.reads.hit for p in show.history("day", "host").points) == 3


def test_a_change_that_another_process_applied_first_counts_once(host: Host) -> None:
    """Whoever adds to the book in between: numbers only grow."""
    host.catch_up()
    events = host.connection.replica.events
    for number in range(1, 4):
        for what in ("moved", "changed", "again"):
            events.count((what, "testapp_gear"))
            keeping.flush()
        (gear,) = show.snapshot("host").models
        assert (gear.model, gear.changes) == (LABEL, number)
    (hour,) = show.history("day", "host", model=LABEL).points
    assert hour.changes == 3


def test_numbers_survive_a_restart(host: Host) -> None:
    count(hits=2)
    keeping.flush()
    forget_process()
    count(hits=3)

    assert of_host() == Reads(hit=5)
    assert show.snapshot("process").all_reads == Reads(hit=3)
    assert sum(p.reads.hit for p in show.history("day", "host").points) == 5


def test_a_process_that_is_gone_disappears(host: Host) -> None:
    assert in_child(keeping.flush)
    book = keeping.book()
    assert book is not None
    with book.reading() as reader:
        (page,) = reader.pages("process")
    assert int(page.name.partition("-")[0]) != os.getpid()
    assert {one.is_this for one in show.snapshot("host").processes} == {True, False}

    aged(book, "UPDATE pages SET seen = seen - 60 WHERE name = ?", page.name)
    assert {one.is_this for one in show.snapshot("host").processes} == {True}


def aged(book: Book, statement: str, *params: Any) -> None:
    with sqlite3.connect(book.path) as connection:
        connection.execute(statement, params)
    connection.close()


def test_what_cannot_be_kept_now_is_kept_later(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    count(hits=1)
    book = keeping.book()
    assert book is not None
    keeping.flush()
    monkeypatch.setattr("s3cache.metrics.book._PATIENCE", 0.0)
    other = sqlite3.connect(book.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    count(hits=1)
    assert not keeping.flush()
    assert "What was counted cannot be kept now: database is locked" in caplog.text
    assert of_host() == Reads(hit=2)  # what is not in the book is added
    other.execute("ROLLBACK")
    other.close()
    assert keeping.flush()
    assert keeping.pending() == {}
    assert of_host() == Reads(hit=2)


def test_a_damaged_book_is_begun_anew(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    count(hits=1)
    keeping.flush()
    book = keeping.book()
    assert book is not None
    book.path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    assert not keeping.flush()
    assert "is damaged, and begun anew" in caplog.text
    count(hits=2)
    assert keeping.flush()
    assert of_host() == Reads(hit=2)


def test_only_its_owner_may_read_the_book(host: Host) -> None:
    keeping.flush()
    book = keeping.book()
    assert book is not None
    assert book.path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_kept_where_the_settings_say_so(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"METRICS": False}
    count(hits=3)
    assert not keeping.flush()
    assert of_host() == Reads(hit=3)  # those of this process
    assert show.history().points == ()


def test_reset_begins_at_0_and_leaves_the_history(host: Host) -> None:
    count(hits=3)
    before = show.snapshot("host").since
    show.reset()
    assert of_host() == Reads()
    assert show.snapshot("host").since > before
    count(hits=1)
    assert of_host() == Reads(hit=1)
    assert sum(p.reads.hit for p in show.history("day", "host").points) == 4


def test_reset_of_another_database_leaves_this_one(host: Host) -> None:
    count(hits=3)
    show.reset(database="other")
    assert of_host() == Reads(hit=3)
    show.reset(database="default")
    assert of_host() == Reads()


# History


def test_the_history_of_one_model(host: Host) -> None:
    count(hits=3, misses=1)
    count(hits=5, model="testapp.product")
    keeping.flush()
    widths: dict[Span, int] = {"day": HOUR, "month": SIX_HOURS}
    for span, width in widths.items():
        (one,) = show.history(span, "host", model=LABEL).points
        assert one.reads == Reads(hit=3, miss=1)
        assert one.start == time.time() // width * width


def test_a_history_by_longer_steps(host: Host) -> None:
    count(hits=3, misses=1)
    steps: list[tuple[Span, int]]
    steps = [("day", QUARTER), ("day", HOUR), ("month", SIX_HOURS)]
    for span, step in steps:
        history = show.history(span, "host", step=step)
        assert [one.reads for one in history.points] == [Reads(hit=3, miss=1)]
        assert (history.step, history.points[0].start % step) == (step, 0)
    assert show.history("day", "host", since=time.time() + 60).points == ()
    with pytest.raises(ValueError, match="step is 7, but must be one of"):
        show.history("day", step=7)
