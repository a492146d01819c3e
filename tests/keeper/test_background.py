"""The keeper at work beside commits."""

from __future__ import annotations

import logging
import threading

import pytest

from s3cache.keeper import background
from s3cache.keeper.rounds import KeeperOptions
from s3cache.log.head import decode_head
from s3cache.log.keys import HEAD
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author


def wait() -> None:
    """Until no round is under way."""
    for thread in threading.enumerate():
        if thread.name == "s3cache-keep":
            thread.join()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 16th entry is the one."""
    monkeypatch.setattr(background, "PACK_AFTER", 16)
    monkeypatch.setattr(background, "_OPTIONS", KeeperOptions(pack_after=8))


def create_until_due(host: Host) -> None:
    while True:
        Author.objects.create(name=f"author {host.position}")
        if host.position % 16 == 0:
            wait()
            return


def test_whoever_creates_every_so_manieth_entry_packs(
    host: Host, hosts: MakeHost, bucket: Bucket
) -> None:
    create_until_due(host)
    head = decode_head(bucket.store.get(HEAD).body)
    assert head.catalog.startswith(f"_catalog/{host.position:012d}-")
    assert hosts("new").dump() == host.dump()


def test_all_other_commits_ask_for_nothing(host: Host, bucket: Bucket) -> None:
    create_until_due(host)
    with bucket.requests() as seen:
        Author.objects.create(name="one")
        wait()
    assert seen == ["PUT log"]


def test_a_round_that_fails_is_logged_and_fails_no_commit(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(background, "keep_now", fail)
    with caplog.at_level(logging.WARNING, "s3cache.keeper"):
        create_until_due(host)
    name = host.connection.replica.store.name
    (record,) = (one for one in caplog.records if name in one.getMessage())
    assert record.getMessage().endswith("was not packed")
    assert record.exc_info is not None
