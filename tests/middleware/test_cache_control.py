"""``Cache-Control``: a response holds as long as a host would believe it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.utils.cache import patch_cache_control

from s3cache.db.base import max_ages
from s3cache.middleware import CacheControlMiddleware
from s3cache.middleware.cookies import POSITION_COOKIE
from tests.engine import Host, MakeHost
from tests.library.models import Author, Tag
from tests.middleware import site
from tests.results.seen import directory
from tests.testapp.models import Product

pytestmark = directory


def authors() -> None:
    list(Author.objects.all())


def said(
    *reads: Callable[[], Any],
    method: str = "get",
    change: Callable[[HttpResponse], object] = bool,
    **extra: Any,
) -> set[str]:
    def view(request: HttpRequest) -> HttpResponse:
        for read in reads:
            read()
        response = HttpResponse("done")
        change(response)
        return response

    request = getattr(RequestFactory(), method)("/", **extra)
    request.COOKIES.update(extra.get("cookies", {}))
    response: Any = CacheControlMiddleware(view)(request)
    return {*response.get("Cache-Control", "").split(", ")} - {""}


@pytest.fixture
def host(hosts: MakeHost) -> Any:
    made = hosts(max_age=60)
    made.catch_up()
    with made:
        authors()
        yield made


def test_max_age_is_what_is_left_of_it(host: Host) -> None:
    host.pass_time(20.01)
    assert said(authors) == {"max-age=39", "public"}


def test_nothing_is_left(hosts: MakeHost) -> None:
    with hosts(max_age=0):
        assert said(authors) == {"max-age=0", "public"}


def test_the_most_demanding_table_counts(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = {"library_tag": 30.0}
    monkeypatch.setattr("s3cache.db.base.max_ages", lambda: ages)
    host.pass_time(9.01)
    assert said(authors, lambda: list(Tag.objects.all())) == {"max-age=20", "public"}
    assert max_ages() == {}


@pytest.mark.parametrize(
    "extra",
    [
        {"headers": {"Authorization": "Token x"}},
        {"cookies": {"sessionid": "x"}},
        {"REMOTE_USER": "ann"},
    ],
)
def test_with_credentials_it_is_private(host: Host, extra: dict[str, Any]) -> None:
    assert "private" in said(authors, **extra)
    assert "public" not in said(authors, **extra)


def test_after_a_write_a_browser_asks_again(host: Host, settings: Any) -> None:
    """The cookie that it has got is in what its copy varies on."""
    settings.ROOT_URLCONF = "tests.middleware.site"
    settings.MIDDLEWARE = site.MIDDLEWARE
    visitor = Client()
    visitor.cookies["sessionid"] = "x"
    page = visitor.get("/authors/")
    assert "private" in page["Cache-Control"]
    assert "Cookie" in page["Vary"]
    visitor.get("/writes/")
    assert POSITION_COOKIE in visitor.cookies


def test_so_is_a_response_that_sets_a_cookie(host: Host) -> None:
    assert "private" in said(authors, change=lambda made: made.set_cookie("a", "b"))


def test_headers_and_cookies_that_the_settings_name(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"CREDENTIALS": ["X-Api-Key", "token"]}
    assert "private" in said(authors, headers={"X-Api-Key": "x"})
    assert "private" in said(authors, cookies={"token": "x"})


def test_what_a_view_says_itself_stays(host: Host) -> None:
    def change(response: HttpResponse) -> None:
        patch_cache_control(response, no_store=True)

    assert said(authors, change=change) == {"no-store"}


@pytest.mark.parametrize("method", ["post", "delete", "put"])
def test_only_get_and_head(host: Host, method: str) -> None:
    assert said(authors, method=method) == set()
    assert said(authors, method="head")


def test_nothing_is_said_of_what_cannot_be_known(host: Host) -> None:
    assert said() == set()
    assert said(authors, lambda: list(Author.objects.annotate(now=Now()))) == set()

    def change(response: HttpResponse) -> None:
        response.status_code = 404

    assert said(authors, change=change) == set()


def test_fresh_is_fresh_for_everybody(host: Host) -> None:
    assert said(authors, lambda: list(Product.objects.fresh())) == {
        "max-age=0",
        "public",
    }


@pytest.mark.parametrize(
    ("cookies", "whose"),
    [({}, "public"), ({"a": "1"}, "public"), ({"zone": "1"}, "private")],
)
def test_what_goes_by_a_cookie_is_of_who_has_it(
    host: Host, cookies: dict[str, str], whose: str
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        authors()
        return HttpResponse(request.COOKIES.get("zone"))

    request = RequestFactory().get("/")
    request.COOKIES.update(cookies)
    response: Any = CacheControlMiddleware(view)(request)
    assert response["Cache-Control"].endswith(whose)
    assert response["Vary"] == "Cookie"


def test_what_a_kept_response_goes_by_counts_too(host: Host, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.middleware.site"
    settings.MIDDLEWARE = site.MIDDLEWARE
    for _ in range(2):
        response: Any = Client().get("/zone/")
        assert "Cookie" in response["Vary"]
    assert response["X-Cache-Status"] == "HIT"


def test_of_another_database_nobody_knows_how_old_it_is(
    host: Host, elsewhere: str
) -> None:
    def other() -> None:
        with connections[elsewhere].cursor() as cursor:
            cursor.execute("SELECT 1")

    assert said(authors, other) == set()
