"""What processes counted stays, whatever becomes of them."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3cache.metrics import keeping, show
from s3cache.metrics.book import DAY, HOUR, MINUTE, MONTH, Book
from s3cache.metrics.figures import Reads
from s3cache.results.counters import counters
from tests.db.hosts import MakeProcess
from tests.engine import Bucket, Host
from tests.forks import in_child
from tests.metrics import load
from tests.metrics.test_replay import LABEL, reads
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


def test_a_process_that_is_recycled_loses_nothing(
    bucket: Bucket, processes: MakeProcess, tmp_path: Path
) -> None:
    worker = processes("host", records=False)
    worker.call(load.begin, str(tmp_path / "shared"))
    (pk,) = worker.call(load.create, ["a"])
    worker.call(load.get, pk, 10)
    worker.stop()

    another = processes("host", records=False)
    another.call(load.begin, str(tmp_path / "shared"))
    snapshot = another.call(load.snapshot, "host")
    assert reads(snapshot) == {"hit": 9, "miss": 1}
    assert [one["commits"] for one in snapshot["databases"]] == [1]
    assert [one["is_this"] for one in snapshot["processes"]] == [True]


def test_a_process_that_is_killed_loses_its_last_seconds(
    bucket: Bucket, processes: MakeProcess, tmp_path: Path
) -> None:
    worker = processes("host", records=False)
    worker.call(load.begin, str(tmp_path / "shared"))
    (pk,) = worker.call(load.create, ["a"])
    worker.call(load.get, pk, 10)
    assert worker.call(load.flush)
    worker.call(load.get, pk, 5)
    worker.kill()

    another = processes("host", records=False)
    another.call(load.begin, str(tmp_path / "shared"))
    assert reads(another.call(load.snapshot, "host")) == {"hit": 9, "miss": 1}


def test_children_of_a_fork_count_for_themselves(host: Host) -> None:
    count(hits=2)
    keeping.flush()
    count(hits=1)

    def work() -> bool:
        count(hits=10)
        return keeping.flush()

    assert in_child(work)
    assert of_host() == Reads(hit=13)


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


@pytest.fixture
def book(tmp_path: Path, bucket: Bucket) -> Iterator[Book]:
    yield Book(tmp_path / "book")


def test_a_minute_and_an_hour_are_sums(book: Book) -> None:
    begin = 1_000_000 * HOUR
    for at in (begin, begin + 59, begin + 60):
        with book.writing(at) as writer:
            for width in (MINUTE, HOUR):
                writer.add_bucket("host", width, "default", at, {"hit": 1})
    with book.reading() as reader:
        assert reader.buckets("host", MINUTE, ["default"], begin) == [
            (begin, {"hit": 2}),
            (begin + 60, {"hit": 1}),
        ]
        assert reader.buckets("host", HOUR, ["default"], begin) == [(begin, {"hit": 3})]


@pytest.mark.parametrize(("width", "kept"), [(MINUTE, DAY), (HOUR, MONTH)])
def test_a_history_is_bounded(book: Book, width: int, kept: int) -> None:
    steps = kept // width
    with book.writing(0.0) as writer:
        for step in range(2 * steps):
            writer._now = float(step * width)
            writer.add_bucket("host", width, "default", writer._now, {"hit": 1})
    with book.reading() as reader:
        found = reader.buckets("host", width, ["default"], 0.0)
    assert steps <= len(found) <= steps + 2
    assert max(start for start, _ in found) == (2 * steps - 1) * width


def test_the_history_of_one_model(host: Host) -> None:
    count(hits=3, misses=1)
    count(hits=5, model="testapp.product")
    keeping.flush()
    (hour,) = show.history("day", "host", model=LABEL).points
    assert hour.reads == Reads(hit=3, miss=1)
    assert hour.start == int(time.time() // HOUR) * HOUR
