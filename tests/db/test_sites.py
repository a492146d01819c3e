"""Two hosts that serve one site: the same rows, at the same moment.

Where doing it again on the newer state comes to the same, nobody notices.
Where it does not, ``TransactionConflict``, and nothing is left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from s3cache.exceptions import TransactionConflict
from tests.db.hosts import on, outcomes, together
from tests.engine import Host, MakeHost
from tests.library.models import Author, Tag
from tests.library.urls import urlpatterns as library_urls

#: What happens in the middle of a view, once.
interfere: list[Callable[[], object]] = []


def _something_happens() -> None:
    if interfere:
        interfere.pop()()


def count(request: HttpRequest) -> HttpResponse:
    """A view that decides nothing by what it reads."""
    Author.objects.filter(name="counter").update(born=F("born") + 1)
    Tag.objects.create(name=request.GET["name"])
    _something_happens()
    return HttpResponse("counted")


def count_in_python(request: HttpRequest) -> HttpResponse:
    author = Author.objects.get(name="counter")
    _something_happens()
    Tag.objects.create(name=request.GET["name"])
    author.born += 1
    author.save()
    return HttpResponse("counted")


def find_or_make(request: HttpRequest) -> HttpResponse:
    tag, created = Tag.objects.get_or_create(name="shared")
    _something_happens()
    Author.objects.filter(name="counter").update(born=F("born") + 1)
    return HttpResponse("made" if created else "found")


def visit(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    _something_happens()
    return HttpResponse(str(request.session["visits"]))


urlpatterns = [
    *library_urls,
    path("count/", count),
    path("count-in-python/", count_in_python),
    path("find-or-make/", find_or_make),
    path("visit/", visit),
]


@pytest.fixture
def other(hosts: MakeHost, host: Host, settings: Any) -> Iterator[Host]:
    """The other host: it does not know of what happens from here on."""
    settings.ROOT_URLCONF = __name__
    Author.objects.create(name="counter", born=0)
    User.objects.create_superuser("admin", password="admin")
    made = hosts()
    made.catch_up()
    del interfere[:]
    yield made
    del interfere[:]


@pytest.fixture
def atomic(host: Host, other: Host) -> None:
    """Each request is a transaction."""
    for one in (host, other):
        one.settings["ATOMIC_REQUESTS"] = True


class ThreadsClient(Client):
    """Raises what its own request raised.

    Django's takes any exception in the process for its own, by a signal.
    """

    def store_exc_info(self, **kwargs: Any) -> None:
        if threading.get_ident() == self._thread:
            super().store_exc_info(**kwargs)

    def request(self, **request: Any) -> Any:
        self._thread = threading.get_ident()
        return super().request(**request)


def get(host: Host, url: str) -> str:
    with on(host):
        response = ThreadsClient().get(url)
        assert response.status_code == 200
        return response.content.decode()


def value() -> int:
    connection.catch_up()  # type: ignore[attr-defined]
    return Author.objects.get(name="counter").born


def names() -> set[str]:
    return set(Tag.objects.values_list("name", flat=True))


# ATOMIC_REQUESTS


@pytest.mark.usefixtures("atomic")
def test_a_view_that_decides_nothing_meets_no_conflict(host: Host, other: Host) -> None:
    interfere.append(lambda: together([lambda: get(other, "/count/?name=other")]))
    assert get(host, "/count/?name=one") == "counted"
    assert value() == 2
    assert names() == {"one", "other"}


@pytest.mark.usefixtures("atomic")
def test_many_requests_of_both_hosts_at_once(host: Host, other: Host) -> None:
    jobs = [
        lambda n=n, at=at: get(at, f"/count/?name={n}")
        for n, at in enumerate([host, other] * 6)
    ]
    assert together(jobs) == ["counted"] * 12
    assert value() == len(names()) == 12


@pytest.mark.usefixtures("atomic")
@pytest.mark.parametrize("who", ["the other host", "a thread of this host"])
def test_a_view_that_decided_by_what_has_changed_is_a_conflict(
    host: Host, other: Host, who: str
) -> None:
    at = other if who == "the other host" else host
    interfere.append(lambda: together([lambda: get(at, "/count/?name=first")]))
    with pytest.raises(TransactionConflict):
        get(host, "/count-in-python/?name=second")
    assert value() == 1
    assert names() == {"first"}
    assert get(host, "/count-in-python/?name=again") == "counted"
    assert value() == 2


@pytest.mark.usefixtures("atomic")
def test_a_conflict_is_a_500_for_the_visitor(host: Host, other: Host) -> None:
    interfere.append(lambda: together([lambda: get(other, "/count/?name=first")]))
    with on(host):
        client = Client(raise_request_exception=False)
        response = client.get("/count-in-python/?name=second")
    assert response.status_code == 500
    assert value() == 1


@pytest.mark.usefixtures("atomic")
def test_get_or_create_in_requests_of_both_hosts(host: Host, other: Host) -> None:
    found = outcomes(
        [lambda at=at: get(at, "/find-or-make/") for at in [host, other] * 3]  # type: ignore[misc]
    )
    # Who had made it, and learns at the end that another one was first, has
    # told nobody: the request fails.
    answers = [one for one in found if isinstance(one, str)]
    errors = {type(one) for one in found if not isinstance(one, str)}
    assert errors <= {TransactionConflict}
    assert answers.count("made") == 1
    assert names() == {"shared"}
    assert value() == len(answers)


# Sessions


def test_two_hosts_save_one_session(host: Host, other: Host) -> None:
    session = SessionStore()
    session["cart"] = ["apple"]
    session.save()
    key = session.session_key

    def change(at: Host, fruit: str) -> None:
        with on(at):
            mine = SessionStore(key)
            mine["cart"] = [*mine.get("cart", []), fruit]
            mine.save()

    other.catch_up()
    together([lambda: change(host, "pear"), lambda: change(other, "fig")] * 3)
    for one in (host, other):
        one.catch_up()
        with one:
            assert Session.objects.count() == 1
            assert SessionStore(key)["cart"][-1] in ("pear", "fig")


def test_two_hosts_serve_one_visitor_at_once(host: Host, other: Host) -> None:
    with on(host):
        client = Client()
        assert client.get("/visit/").content == b"1"
        cookies = client.cookies

    def visit_at(at: Host) -> bytes:
        with on(at):
            mine = Client()
            mine.cookies = cookies
            return mine.get("/visit/").content

    other.catch_up()
    interfere.append(lambda: together([lambda: visit_at(other)]))
    assert visit_at(host) == b"2"
    found = together([lambda: visit_at(host), lambda: visit_at(other)] * 2)
    assert all(int(one) >= 2 for one in found)
    host.catch_up()
    assert Session.objects.count() == 1


def test_a_session_that_another_host_ended_is_not_brought_back(
    host: Host, other: Host
) -> None:
    session = SessionStore()
    session["user"] = 1
    session.save()
    other.catch_up()
    session.delete()
    with on(other):
        mine = SessionStore(session.session_key)
        assert mine["user"] == 1  # it does not know yet
        mine["user"] = 2
        with pytest.raises(UpdateError):
            mine.save()
    host.catch_up()
    assert not Session.objects.exists()


def test_one_user_logs_in_on_both_hosts_at_once(host: Host, other: Host) -> None:
    def login(at: Host) -> bool:
        with on(at):
            return Client().login(username="admin", password="admin")

    assert together([lambda: login(host), lambda: login(other)] * 3) == [True] * 6
    host.catch_up()
    assert Session.objects.count() == 6


# The admin


class Admin:
    """Somebody who is logged in to the admin of a host."""

    def __init__(self, at: Host) -> None:
        self._at = at
        with on(at):
            client = Client()
            client.force_login(User.objects.get(username="admin"))
            self._cookies = client.cookies

    def change(self, author: Author, name: str) -> int:
        """Change an author, as the form does."""
        data = {
            "name": name,
            "born": 1,
            "books-TOTAL_FORMS": 0,
            "books-INITIAL_FORMS": 0,
        }
        with on(self._at):
            client = Client()
            client.cookies = self._cookies
            url = f"/admin/library/author/{author.pk}/change/"
            return client.post(url, data).status_code


@pytest.fixture
def authors(host: Host, other: Host) -> Iterator[list[Author]]:
    ContentType.objects.clear_cache()
    ContentType.objects.get_for_model(Author)  # as migrate does
    yield [Author.objects.create(name=name) for name in "ab"]
    ContentType.objects.clear_cache()


@pytest.fixture
def admins(host: Host, other: Host, authors: list[Author]) -> tuple[Admin, Admin]:
    """One on each host, which both know the same."""
    made = Admin(host), Admin(other)
    host.catch_up()
    other.catch_up()
    return made


def test_one_object_is_changed_in_both_admins(
    host: Host, other: Host, authors: list[Author], admins: tuple[Admin, Admin]
) -> None:
    here, there = admins
    assert here.change(authors[0], "first") == 302
    with pytest.raises(TransactionConflict):
        there.change(authors[0], "second")
    with other:
        connection.catch_up()  # type: ignore[attr-defined]
        assert Author.objects.get(pk=authors[0].pk).name == "first"
        assert LogEntry.objects.count() == 1
    assert there.change(authors[0], "third") == 302
    host.catch_up()
    assert Author.objects.get(pk=authors[0].pk).name == "third"
    assert LogEntry.objects.count() == 2


def test_two_objects_are_changed_in_both_admins_at_once(
    host: Host, authors: list[Author], admins: tuple[Admin, Admin]
) -> None:
    jobs = [
        lambda: admins[0].change(authors[0], "changed here"),
        lambda: admins[1].change(authors[1], "changed there"),
    ]
    assert together(jobs) == [302, 302]
    host.catch_up()
    assert {"changed here", "changed there"} < set(
        Author.objects.values_list("name", flat=True)
    )
    assert LogEntry.objects.count() == 2


def test_one_name_is_given_in_both_admins(
    host: Host, authors: list[Author], admins: tuple[Admin, Admin]
) -> None:
    """The form found it free, and it was not."""
    assert admins[0].change(authors[0], "wanted") == 302
    with pytest.raises(TransactionConflict):
        admins[1].change(authors[1], "wanted")
    host.catch_up()
    assert Author.objects.filter(name="wanted").count() == 1
    assert LogEntry.objects.count() == 1


# What a block costs


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_the_cost_of_a_block_does_not_grow_with_the_table(host: Host) -> None:
    """Steps of SQLite's machine, on all connections that do the work."""

    def steps_of_a_block() -> int:
        replica = host.connection.replica
        opened = replica._opened()
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        watched = [opened.writer.connection, opened.file.connection]
        for one in watched:
            one.set_progress_handler(step, 10)
        try:
            with transaction.atomic():
                author = Author.objects.get(pk=middle)
                author.born += 1
                author.save()
                Author.objects.create(name="new").delete()
                Author.objects.filter(pk=middle).update(born=F("born") + 1)
        finally:
            for one in watched:
                one.set_progress_handler(None, 0)
        return steps

    Author.objects.bulk_create([Author(name=f"{n}") for n in range(1000)])
    middle = Author.objects.get(name="500").pk
    steps_of_a_block()  # prepares
    small = steps_of_a_block()
    Author.objects.bulk_create([Author(name=f"{n}") for n in range(1000, 50_000)])
    steps_of_a_block()
    large = steps_of_a_block()
    assert small > 0
    assert large < 1.5 * small
