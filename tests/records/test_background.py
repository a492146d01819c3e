"""Records are written beside other work, some seconds after a commit."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from s3cache.db import base
from s3cache.records import background
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author


@pytest.fixture(autouse=True)
def by_itself(monkeypatch: pytest.MonkeyPatch, by_hand: None) -> None:
    monkeypatch.setattr(base, "record_after", background.record_after)
    monkeypatch.setattr(background, "DELAY", 0.2)


def waiting() -> list[threading.Thread]:
    """The threads that are at it, or wait for their time."""
    return [one for one in threading.enumerate() if one.name == "s3cache-record"]


def wait() -> None:
    """Until no thread is at it."""
    for thread in waiting():
        thread.join()


def test_a_commit_has_its_record_a_little_later(host: Host, bucket: Bucket) -> None:
    author = Author.objects.create(name="Ann")
    wait()
    assert bucket.records() == [f"library_author/rows/{author.pk}.json"]


def test_commits_that_follow_are_written_together(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    wait()
    with bucket.requests() as seen:
        for n in range(10):
            Author.objects.update(born=n)
        wait()
    assert seen.count("PUT log") == 10
    assert seen.count("PUT library_author") < 10
    assert len(waiting()) < 10


def test_where_nothing_has_records_nothing_is_asked(
    hosts: MakeHost, bucket: Bucket
) -> None:
    with hosts(records=False) as host:
        host.catch_up()
        with bucket.requests() as seen:
            Author.objects.create(name="Ann")
            wait()
    assert seen == ["PUT log"]


def test_a_round_that_fails_is_logged_and_fails_no_commit(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(background, "record_now", fail)
    with caplog.at_level(logging.WARNING, "s3cache.records"):
        Author.objects.create(name="Ann")
        wait()
    # Databases of earlier tests may have a thread that waits, too.
    name = host.connection.replica.store.name
    (record,) = (one for one in caplog.records if name in one.getMessage())
    assert record.getMessage().endswith("records were not written")
