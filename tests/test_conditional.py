"""ETags from versions: right or not there, and 304 without a view."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncRequestFactory, RequestFactory
from django.utils import timezone, translation
from django.views.decorators.vary import vary_on_headers
from django.views.generic import DetailView, ListView

from s3cache.conditional import DependsOnMixin, depends_on
from s3cache.middleware import CacheStatusMiddleware
from tests.engine import (
    Bucket,
    Host,
    MakeHost,
    bucket,
    elsewhere,
    host,
    hosts,
    tables,
)
from tests.library.models import Author, Book, Patron, Tag
from tests.results.seen import directory, events
from tests.testapp.models import Product

__all__ = ["bucket", "elsewhere", "host", "hosts", "tables"]

pytestmark = directory


@pytest.fixture
def called() -> list[str]:
    """A word for each time that a view was called."""
    return []


def ask(view: Any, etag: str = "", method: str = "get", **extra: Any) -> HttpResponse:
    headers = {**extra.pop("headers", {})}
    if etag:
        headers["If-None-Match"] = etag
    cookies = extra.pop("cookies", {})
    request = getattr(RequestFactory(), method)("/", headers=headers, **extra)
    request.COOKIES.update(cookies)
    response: Any = view(request)
    if hasattr(response, "render"):
        response.render()
    assert isinstance(response, HttpResponse)
    return response


@pytest.fixture
def authors(host: Host, called: list[str]) -> Callable[..., HttpResponse]:
    """A view of all authors."""

    @depends_on(Author)
    def view(request: HttpRequest) -> HttpResponse:
        called.append("authors")
        return HttpResponse(str([author.name for author in Author.objects.all()]))

    return view


def test_304_calls_no_view_and_runs_no_query(
    authors: Any, called: list[str], bucket: Bucket
) -> None:
    first = ask(authors)
    assert first.status_code == 200
    with bucket.requests() as seen:
        assert events(lambda: called.append(str(ask(authors, first["ETag"])))) == {}
    assert len(called) == 2
    assert "304" in called[1]
    assert seen == []


def test_304_has_the_etag_and_no_body(authors: Any) -> None:
    etag = ask(authors)["ETag"]
    response = ask(authors, etag)
    assert (response.status_code, response.content) == (304, b"")
    assert response["ETag"] == etag
    assert etag.startswith('W/"')


def test_a_write_gives_another_etag(authors: Any) -> None:
    before = ask(authors)["ETag"]
    Tag.objects.create(name="of no interest")
    assert ask(authors, before).status_code == 304
    Author.objects.create(name="Ann")
    response = ask(authors, before)
    assert (response.status_code, response.content) == (200, b"['Ann']")
    assert response["ETag"] != before


def test_hosts_have_the_same_etags(hosts: MakeHost, authors: Any) -> None:
    with hosts("one") as one:
        one.catch_up()
        etag = ask(authors)["ETag"]
    with hosts("two") as two:
        two.catch_up()
        assert ask(authors, etag).status_code == 304


def test_a_host_that_is_behind_asks_first(
    hosts: MakeHost, authors: Any, bucket: Bucket
) -> None:
    here, there = hosts(max_age=0), hosts()
    there.catch_up()
    with here:
        etag = ask(authors)["ETag"]
        with there:
            Author.objects.create(name="Ann")
        assert ask(authors, etag).status_code == 200
        etag = ask(authors)["ETag"]
        with bucket.requests() as seen:
            assert ask(authors, etag).status_code == 304
        assert seen == ["GET log"]


def test_a_write_while_the_view_is_at_work(host: Host) -> None:
    """The tag is that of before: newer content is fetched once more."""

    @depends_on(Tag)
    def view(request: HttpRequest) -> HttpResponse:
        found = Tag.objects.count()
        if not found:
            Tag.objects.create(name="new")
        return HttpResponse(str(found))

    etag = ask(view)["ETag"]
    assert ask(view, etag).content == b"1"


@pytest.mark.parametrize("method", ["get", "head"])
def test_get_and_head(authors: Any, method: str) -> None:
    etag = ask(authors, method=method)["ETag"]
    assert ask(authors, etag, method).status_code == 304


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_other_methods_are_left_alone(authors: Any, method: str) -> None:
    etag = ask(authors)["ETag"]
    response = ask(authors, etag, method)
    assert response.status_code == 200
    assert "ETag" not in response.headers


def test_what_is_named_in_which_way(host: Host) -> None:
    for what in (
        (Author, Book, Tag),
        ("library.Author", "library.Book", "library.Tag"),
        (Book.objects.filter(tags__note="x").select_related("author"),),
        (Author.objects, Book.objects, Tag.objects.none()),
    ):

        @depends_on(*what)
        def view(request: HttpRequest) -> HttpResponse:
            list(Book.objects.filter(tags__note="x").select_related("author"))
            return HttpResponse()

        assert "ETag" in ask(view).headers, what


def test_tables_of_parents_count(host: Host) -> None:
    @depends_on(Patron)
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(list(Patron.objects.values_list("name"))))

    patron = Patron.objects.create(name="Ann")
    etag = ask(view)["ETag"]
    Patron.objects.filter(pk=patron.pk).update(name="Bob")
    assert ask(view, etag).status_code == 200


def test_what_is_not_named_is_logged_once_and_gives_no_etag(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    @depends_on(Author)
    def view(request: HttpRequest) -> HttpResponse:
        list(Author.objects.all())
        list(Tag.objects.all())
        return HttpResponse()

    with caplog.at_level(logging.WARNING, "s3cache.conditional"):
        for _ in range(2):
            assert "ETag" not in ask(view).headers
    said = [one for one in caplog.messages if "library_tag" in one]
    assert said == [
        "/ has no ETag, for it was made of library_tag, too: name that in depends_on()."
    ]


def test_what_cannot_be_known_gives_no_etag(host: Host) -> None:
    for read in (
        lambda: list(Product.objects.fresh()),
        lambda: list(Product.objects.order_by("?")),
    ):

        @depends_on(Product)
        def view(request: HttpRequest, read: Any = read) -> HttpResponse:
            read()
            return HttpResponse()

        assert "ETag" not in ask(view).headers


def test_only_a_response_that_has_come_about(host: Host) -> None:
    @depends_on(Author)
    def missing(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=404)

    @depends_on(Author)
    def own(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"ETag": '"own"'})

    @depends_on(Author)
    @vary_on_headers("*")
    def any_header(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    assert "ETag" not in ask(missing).headers
    assert ask(own)["ETag"] == '"own"'
    assert "ETag" not in ask(any_header).headers


def test_in_a_transaction_there_is_none(authors: Any) -> None:
    etag = ask(authors)["ETag"]
    response = ask(transaction.atomic(authors), etag)
    assert response.status_code == 200
    assert "ETag" not in response.headers


def test_what_a_template_reads_counts(host: Host) -> None:
    @depends_on(Author)
    def view(request: HttpRequest, model: Any = Author) -> TemplateResponse:
        source: Any = engines["django"].from_string(
            "{% for row in rows %}{{ row.name }}{% endfor %}"
        )
        return TemplateResponse(request, source, {"rows": model.objects.all()})

    etag = ask(view)["ETag"]
    assert ask(view, etag).status_code == 304
    assert "ETag" not in ask(lambda request: view(request, Tag)).headers


def test_class_based_views(host: Host) -> None:
    class Plain(DependsOnMixin):
        def render_to_response(self, context: Any, **kwargs: Any) -> HttpResponse:
            return HttpResponse(str(context))

    class Authors(Plain, ListView):  # type: ignore[type-arg]
        model = Author
        depends_on = (Author,)

    class OneAuthor(Plain, DetailView):  # type: ignore[type-arg]
        model = Author
        depends_on = ("library.Author",)

    ann = Author.objects.create(name="Ann")
    for view in (
        Authors.as_view(),
        lambda request: OneAuthor.as_view()(request, pk=ann.pk),
    ):
        etag = ask(view)["ETag"]
        assert ask(view, etag).status_code == 304
    assert Authors.as_view().view_class is Authors  # type: ignore[attr-defined]


def test_async_views(host: Host, called: list[str]) -> None:
    @depends_on(Author.objects.all())
    async def view(request: HttpRequest) -> HttpResponse:
        called.append("authors")
        return HttpResponse(str([one.name async for one in Author.objects.all()]))

    async def ask_it(**headers: str) -> HttpResponse:
        made: Any = view(AsyncRequestFactory().get("/", headers=headers))
        response: HttpResponse = await made
        return response

    etag = async_to_sync(ask_it)()["ETag"]
    assert async_to_sync(ask_it)(if_none_match=etag).status_code == 304
    assert called == ["authors"]


# For whom


def test_with_credentials_there_is_none(authors: Any) -> None:
    etag = ask(authors)["ETag"]
    some: list[dict[str, Any]] = [
        {"cookies": {"sessionid": "x"}},
        {"headers": {"Authorization": "Token x"}},
    ]
    for extra in some:
        response = ask(authors, etag, **extra)
        assert response.status_code == 200
        assert "ETag" not in response.headers


def test_asked_for_it_is_the_visitor_s_own(host: Host) -> None:
    @depends_on(Author, credentials=True)
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.COOKIES.get("sessionid", "nobody"))

    tags = {
        name: ask(view, cookies={"sessionid": name} if name else {})["ETag"]
        for name in ("ann", "bob", "")
    }
    assert len({*tags.values()}) == 3
    assert ask(view, tags["ann"], cookies={"sessionid": "bob"}).content == b"bob"
    response = ask(view, tags["ann"], cookies={"sessionid": "ann"})
    assert response.status_code == 304
    assert "ann" not in tags["ann"]


def test_what_a_response_varies_on_is_in_its_etag(host: Host) -> None:
    @depends_on(Author)
    @vary_on_headers("HX-Request")
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("part" if "HX-Request" in request.headers else "page")

    part = ask(view, headers={"HX-Request": "true"})["ETag"]
    assert ask(view, part).content == b"page"
    assert ask(view, part, headers={"HX-Request": "true"}).status_code == 304


def test_language_time_zone_and_versions_of_the_application(
    authors: Any, settings: Any
) -> None:
    def tag() -> str:
        return ask(authors)["ETag"]

    tags = {tag()}
    with translation.override("de"):
        tags.add(tag())
    with timezone.override("Asia/Tokyo"):
        tags.add(tag())
    settings.S3CACHE = {"KEY_VERSION": 2}
    tags.add(tag())
    settings.SECRET_KEY = "another"
    tags.add(tag())

    @depends_on(Author, version="2")
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    tags.add(ask(view)["ETag"])
    assert len(tags) == 6


def test_the_status_header_says_hit(authors: Any) -> None:
    etag = ask(authors)["ETag"]
    status: Any = CacheStatusMiddleware(authors)
    response = ask(status, etag)
    assert (response.status_code, response["X-Cache-Status"]) == (304, "HIT")


def test_the_cookies_that_a_view_reads_are_in_its_etag(host: Host) -> None:
    @depends_on(Author)
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.COOKIES.get("zone", "UTC"))

    tokyo = ask(view, cookies={"zone": "Tokyo"})["ETag"]
    assert ask(view, tokyo, cookies={"zone": "Lima"}).content == b"Lima"
    assert ask(view, tokyo).content == b"UTC"
    assert ask(view, tokyo, cookies={"zone": "Tokyo", "x": "1"}).status_code == 304


def test_two_certificates_are_two_visitors(host: Host) -> None:
    @depends_on(Author, credentials=True)
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.META["SSL_CLIENT_S_DN"])

    ann, bob = (
        {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": name}
        for name in ("ann", "bob")
    )
    etag = ask(view, **ann)["ETag"]
    assert ask(view, etag, **bob).content == b"bob"
    assert ask(view, etag, **ann).status_code == 304


@pytest.mark.parametrize("credentials", [False, True])
def test_a_visitor_who_is_found_out_by_the_view(host: Host, credentials: bool) -> None:
    @depends_on(Author, credentials=credentials)
    def view(request: HttpRequest) -> HttpResponse:
        request.user = User(pk=1)  # by what nobody here knows of
        return HttpResponse("for 1")

    assert "ETag" not in ask(view).headers


@pytest.mark.parametrize(
    "make",
    [
        lambda request: HttpResponse(get_token(request)),
        lambda request: HttpResponse(request.__dict__.setdefault("_csp_nonce", "x")),
        lambda request: HttpResponse(
            headers={"Content-Security-Policy": "script-src 'nonce-x'"}
        ),
        lambda request: set_cookie(HttpResponse()),
    ],
    ids=["csrf", "nonce", "policy", "cookie"],
)
def test_what_a_304_would_not_bring_gives_no_etag(host: Host, make: Any) -> None:
    assert "ETag" not in ask(depends_on(Author)(make)).headers


def set_cookie(response: HttpResponse) -> HttpResponse:
    response.set_cookie("seen", "1")
    return response


# Mistakes


def test_it_needs_a_model(bucket: Bucket) -> None:
    with pytest.raises(ValueError, match="needs a model"):
        depends_on()


def test_a_model_that_lives_in_no_bucket(host: Host, elsewhere: str) -> None:
    @depends_on(Author.objects.using(elsewhere))
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    with pytest.raises(ImproperlyConfigured, match="Author, which lives in no bucket"):
        ask(view)


def test_a_view_that_reads_another_database_has_no_etag(
    host: Host, elsewhere: str
) -> None:
    @depends_on(Author)
    def view(request: HttpRequest) -> HttpResponse:
        with connections[elsewhere].cursor() as cursor:
            cursor.execute("SELECT 1")
        return HttpResponse()

    assert "ETag" not in ask(view).headers
