"""When something fails, the pages are there all the same, and say so."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from django.contrib.admin.models import LogEntry
from django.db import OperationalError, connections
from django.test import Client

from s3cache import conf
from s3cache.dashboard import inspector
from s3cache.metrics import keeping
from s3cache.metrics.book import Book
from tests.dashboard.pages import PAGES, ROOT, check
from tests.db.hosts import FaultyStore, lost_before
from tests.engine import NEVER, Bucket, Host
from tests.library.models import Author

YES = {"confirmed": "yes"}


def every_page(client: Client) -> None:
    for address in PAGES:
        response = client.get(ROOT + address)
        assert response.status_code == 200, address
        check(response.text)


@pytest.fixture
def book(host: Host, viewer: Client) -> Path:
    """The file of the book, in which there is something."""
    Author.objects.count()
    assert keeping.flush()
    book = keeping.book()
    assert book is not None
    return book.path


def test_a_store_that_is_down(
    host: Host, superuser: Client, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = FaultyStore(bucket.store)
    for kind in ("GET", "LIST"):
        down.on(kind, "", lost_before)
    monkeypatch.setattr(host.connection.replica, "store", down)
    host.pass_time(NEVER + 60.0)  # no longer ago than reads may do without it
    every_page(superuser)
    assert "The store of default does not answer" in superuser.get(ROOT).text
    assert "stale" in superuser.get(f"{ROOT}hosts/").text


@pytest.fixture
def unusable(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """A second database, whose storage there is not."""
    monkeypatch.setattr(conf, "bucket_aliases", cache(lambda: ("default", "broken")))
    monkeypatch.setitem(
        connections.settings,
        "broken",
        {
            **connections.settings["default"],
            "NAME": str(tmp_path / "broken.sqlite3"),
            "OPTIONS": {"storage": "nowhere"},
        },
    )
    yield
    del connections["broken"]


@pytest.mark.usefixtures("unusable")
def test_a_database_that_cannot_be_opened(superuser: Client) -> None:
    every_page(superuser)
    for address in ("", "hosts/", "?database=broken"):
        text = superuser.get(ROOT + address).text
        assert "The database broken cannot be read: ImproperlyConfigured." in text
    assert "ImproperlyConfigured" in superuser.get(f"{ROOT}commits/").text
    response = superuser.post(
        f"{ROOT}do/catch_up/", {"database": "broken"} | YES, follow=True
    )
    assert "Refresh: broken: ImproperlyConfigured" in response.text
    # A choice has appeared, since there are two now.
    assert "?database=default" in superuser.get(ROOT).text


def damage(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)


def garble(path: Path) -> None:
    """Leave what is no MessagePack in each bucket."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE buckets SET numbers = x'c1c1'")
    connection.close()


def of_another_release(path: Path) -> None:
    """Leave what this one has not yet heard of."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE pages SET content = x'81a36e657701'")
        connection.execute(
            "INSERT INTO pages VALUES ('host', 'new', strftime('%s'), x'81a1610a')"
        )
    connection.close()
    with Book(path).writing(0.0) as writer:
        for key in (
            ("read", "default", "library.author", "get", "", "guessed"),
            ("guess", "default", "library.author", "x"),
        ):
            writer.add("host", {key: 7.0})


@pytest.mark.parametrize("harm", [damage, garble, of_another_release])
def test_a_book_that_is_not_as_it_was(
    viewer: Client, book: Path, harm: Callable[[Path], None]
) -> None:
    harm(book)
    for address in PAGES:  # the first one may find it out
        assert viewer.get(ROOT + address).status_code == 200
    Author.objects.count()
    assert keeping.flush()
    assert "library.author" in viewer.get(f"{ROOT}models/").text


@pytest.fixture
def locked(book: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody has stopped while he wrote the book."""
    monkeypatch.setattr("s3cache.metrics.book._PATIENCE", 0.0)
    other = sqlite3.connect(book, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.usefixtures("locked")
def test_a_book_that_somebody_holds(viewer: Client) -> None:
    every_page(viewer)
    assert "library.author" in viewer.get(f"{ROOT}models/").text
    assert "library.author" in viewer.get(f"{ROOT}models/?scope=process").text


def test_a_cache_that_fails_when_a_button_is_pushed(
    superuser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def delete(self, key: str) -> None:
            raise RuntimeError("no <answer>")

    monkeypatch.setattr(inspector, "caches", {"default": Failing()})
    form = {"cache": "default", "key": "mine"} | YES
    response = superuser.post(f"{ROOT}do/delete/", form, follow=True)
    assert "Delete: mine: RuntimeError: no &lt;answer&gt;" in response.text


def test_nothing_is_done_that_cannot_be_logged(
    keeper: Client, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OperationalError("no store")

    monkeypatch.setattr(LogEntry.objects, "log_actions", fail, raising=False)
    monkeypatch.setattr(LogEntry.objects, "log_action", fail, raising=False)
    with bucket.requests() as seen:
        response = keeper.post(
            f"{ROOT}do/catch_up/", {"database": "default"} | YES, follow=True
        )
    assert seen == []
    assert "OperationalError: no store" in response.text
