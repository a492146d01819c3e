"""``VERBOSE``: reads and changes, in the log; nothing while it is off."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from s3cache.results.watching import watchers
from s3cache.signals import rows_changed
from tests.engine import Host, MakeHost
from tests.library.models import Author
from tests.results.seen import directory
from tests.testapp.models import Category

pytestmark = directory


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        re.sub(r"[\d.]+ ms", "some ms", record.getMessage())
        for record in caplog.records
        if record.name == "s3cache.verbose"
    ]


def test_hits_misses_and_changes_are_logged(
    host: Host, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.S3CACHE = {"VERBOSE": True}
    with caplog.at_level(logging.INFO, "s3cache.verbose"):
        Author.objects.create(name="a secret name")
        for _ in range(2):
            list(Author.objects.filter(name="a secret name"))
    assert said(caplog) == [
        f"changed: 1 rows of library_author at entry {host.position}, by this host; "
        f"results of them are not used any more",
        "miss: library.author list of library_author: its result was not in the "
        "cache; some ms",
        "hit: library.author list of library_author: its result was in the cache; "
        "some ms",
    ]


def test_so_are_hits_of_the_hot_path_and_changes_of_other_hosts(
    hosts: MakeHost, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CACHES = {"default": {"BACKEND": "s3cache.caches.MemoryCache"}}
    here, there = hosts(), hosts()
    with there:
        there.catch_up()
        Category.objects.create(name="secret")
    with here:
        here.catch_up()
        for _ in range(3):
            Category.objects.get(name="secret")
        settings.S3CACHE = {"VERBOSE": True}
        Category.objects.get(name="secret")
        with caplog.at_level(logging.INFO, "s3cache.verbose"):
            for _ in range(2):
                Category.objects.get(name="secret")
            with there:
                Category.objects.create(name="another")
            caplog.clear()
            here.catch_up()
    assert any("by another host" in one for one in said(caplog))
    assert "secret" not in caplog.text


def test_off_nobody_is_told(
    host: Host, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(watchers), len(rows_changed.receivers)
    settings.S3CACHE = {"VERBOSE": True}
    settings.S3CACHE = {}
    assert (set(watchers), len(rows_changed.receivers)) == before
    with caplog.at_level(logging.INFO, "s3cache.verbose"):
        list(Author.objects.all())
    assert said(caplog) == []
