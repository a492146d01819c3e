"""Looking over the store of a database."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from email.utils import formatdate

import pytest

from s3cache.conf import DatabaseOptions
from s3cache.doctor import Finding, Level, examination, examine
from s3cache.log.keys import HEAD
from s3cache.stores import DirectoryStore, Store
from s3cache.stores.probe import ProbeResult, probe
from tests.db.hosts import FaultyStore, says
from tests.s3_server import S3Server

OPTIONS = DatabaseOptions(storage="default")


def look(store: Store, hosts: int = 1) -> dict[str, Finding]:
    found = [*examine(store, OPTIONS, hosts=hosts)]
    assert all(one.advice for one in found if one.level is not Level.OK)
    return {one.about: one for one in found}


def head(**fields: object) -> bytes:
    return json.dumps({"database": "d" * 16, "format": 1, **fields}).encode()


def test_a_good_store_is_well_and_is_left_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "_SLOW", 60.0)  # whatever else runs here
    store.put(HEAD, head(created="2026-01-01"))
    before = store.list("").keys
    found = look(store)
    for about in ("store", "latency", "clock", "database", "cost"):
        assert found[about].level is Level.OK
    assert [(one.key, one.etag) for one in store.list("").keys] == [
        (one.key, one.etag) for one in before
    ]


def test_a_store_that_is_unsuitable_is_all_that_is_said(
    s3_store: Store, s3_server: S3Server
) -> None:
    with s3_server.fault("PUT", status=403, code="AccessDenied"):
        (only,) = look(s3_store).values()
    assert only.level is Level.ERROR
    assert "s3:PutObject" in only.message


@pytest.mark.parametrize("about", ["conditional-delete", "bulk-delete"])
def test_what_a_store_need_not_honour_is_a_note(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, about: str
) -> None:
    assert about not in look(directory_store)
    less = {about.replace("-", "_"): False}
    suitable = replace(probe(directory_store), **less)
    monkeypatch.setattr(examination, "probe", lambda store: suitable)
    assert look(directory_store)[about].level is Level.NOTE


def test_no_database_yet_is_a_note(directory_store: DirectoryStore) -> None:
    found = look(directory_store)["database"]
    assert found.level is Level.NOTE
    assert "manage.py migrate" in found.advice


def test_a_damaged_head_is_an_error(directory_store: DirectoryStore) -> None:
    directory_store.put(HEAD, b"{")
    found = look(directory_store)["database"]
    assert found.level is Level.ERROR
    assert "_head is damaged" in found.message
    assert "bring back an older version" in found.advice


def test_a_log_without_a_head_is_no_empty_place(
    directory_store: DirectoryStore,
) -> None:
    """`migrate` would refuse it."""
    directory_store.put("_log/000000000007", b"x")
    found = look(directory_store)["database"]
    assert found.level is Level.ERROR
    assert found.message.endswith("somebody deleted it, or a copy is not complete.")
    assert "Bring _head back" in found.advice


@pytest.mark.parametrize(
    ("about", "kind", "key"),
    [("latency", "PUT", "_probe/"), ("database", "GET", HEAD), ("cost", "LIST", "")],
)
def test_a_store_that_fails_after_the_probe(
    directory_store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    about: str,
    kind: str,
    key: str,
) -> None:
    """All the rest is looked at, and there is something to do."""
    store = FaultyStore(directory_store)
    suitable = probe(directory_store)

    def probed(asked: Store) -> ProbeResult:
        store.on(kind, key, says(503))
        return suitable

    monkeypatch.setattr(examination, "probe", probed)
    found = look(store)
    assert [one.about for one in found.values() if one.level is Level.ERROR] == [about]
    assert "Run this again" in found[about].advice
    assert "cost" in found


def test_a_slow_store_is_a_warning_with_figures(
    s3_store: Store, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "_SLOW", 0.02)
    monkeypatch.setattr(s3_server, "latency", 0.03)
    found = look(s3_store)["latency"]
    assert found.level is Level.WARNING
    assert found.figures["put_seconds"] >= 0.03
    assert found.figures["get_seconds"] >= 0.03


@pytest.mark.parametrize("offset", [-500.0, 500.0])
def test_clocks_that_differ_are_a_warning(
    s3_store: Store, s3_server: S3Server, offset: float
) -> None:
    date = formatdate(time.time() + offset, usegmt=True)
    with s3_server.fault("GET", HEAD, status=404, code="NoSuchKey", date=date):
        found = look(s3_store)["clock"]
    assert found.level is Level.WARNING
    assert 490 < found.figures["skew_seconds"] < 510


# Costs


def test_a_months_bill_is_of_what_the_log_shows(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """37 entries within an hour are 36 commits in it."""
    directory_store.put(HEAD, head())
    for number in range(1, 38):
        directory_store.put(f"_log/{number:012}", b"x" * 1000)
    found = look(directory_store, hosts=3)["cost"]
    commits = 36 * 24 * 30
    asked = 3 * 86_400 * 30 + 2 * commits
    assert found.figures["commits_per_day"] == 36 * 24
    assert found.figures["stored_bytes"] == 37_000 + len(head())
    assert found.figures["commits_dollars"] == pytest.approx(commits * 0.005 / 1000)
    assert found.figures["asking_dollars"] == pytest.approx(asked * 0.0004 / 1000)
    assert "3 hosts that are busy all day" in found.message


def test_of_a_large_location_the_first_pages_are_listed(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "_PAGES", 1)
    for number in range(1001):
        directory_store.put(f"other/{number}", b"x")
    before = directory_store.requests.list
    found = look(directory_store)["cost"]
    assert "more than 0.0 MB in 1,000 objects" in found.message
    assert directory_store.requests.list - before <= 6  # the probe's and this one
