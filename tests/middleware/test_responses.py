"""Responses that are kept: the right ones, for whom they are meant."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.cache import caches
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.utils.decorators import method_decorator
from django.views.generic import ListView

from s3cache.conditional import depends_on
from s3cache.middleware import (
    ReadYourWritesMiddleware,
    ResponseCacheMiddleware,
    cache_response,
)
from tests.db.test_reads import store_down
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Tag
from tests.middleware import site
from tests.results.seen import BYPASS, HIT, MISS, directory, totals
from tests.testapp.models import Product

pytestmark = directory


@pytest.fixture(autouse=True)
def whole_site(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.middleware.site"
    settings.MIDDLEWARE = site.MIDDLEWARE
    settings.ALLOWED_HOSTS = ["testserver", "other.example"]
    settings.LANGUAGES = [("en", "English"), ("de", "German")]
    site.called.clear()


@pytest.fixture
def ann(host: Host) -> Author:
    return Author.objects.create(name="Ann")


def get(path: str, client: Client | None = None, **extra: Any) -> str:
    response: Any = (client or Client()).get(path, **extra)
    return str(response.getvalue().decode())


def kept(path: str, client: Client | None = None, **extra: Any) -> bool:
    """Whether the second of two requests is answered by the cache."""
    get(path, client, **extra)
    before = totals("response").get("hit", 0)
    get(path, client, **extra)
    return totals("response").get("hit", 0) > before


# What is kept, and for how long


def test_the_second_request_calls_no_view(ann: Author, bucket: Bucket) -> None:
    first: Any = Client().get("/authors/")
    with bucket.requests() as seen:
        second: Any = Client().get("/authors/")
    assert site.called == ["/authors/"]
    assert seen == []
    assert second.content == first.content == b"Ann for all"
    assert (first["X-Cache-Status"], second["X-Cache-Status"]) == ("MISS", "HIT")
    for header in ("Content-Type", "Content-Length", "Vary"):
        assert second.get(header) == first.get(header)
    assert totals("response") == {"miss": 1, "hit": 1}


@pytest.mark.parametrize(
    "write",
    [
        lambda: Author.objects.create(name="Bob"),
        lambda: Author.objects.update(name="Bob"),
        lambda: Author.objects.all().delete(),
    ],
)
def test_a_write_makes_it_miss(ann: Author, write: Any) -> None:
    before = get("/authors/")
    write()
    assert get("/authors/") != before
    assert kept("/authors/")


def test_a_write_to_another_table_does_not(ann: Author) -> None:
    get("/authors/")
    Tag.objects.create(name="a")
    get("/authors/")
    assert len(site.called) == 1


def test_what_another_host_wrote_makes_it_miss(hosts: MakeHost, bucket: Bucket) -> None:
    here, there = hosts("here", max_age=0), hosts("there")
    there.catch_up()
    with here:
        here.catch_up()
        assert kept("/authors/")
        with there:
            Author.objects.create(name="Bob")
        assert get("/authors/") == "Bob for all"
        # Asked as any read would: not at all, or with one GET.
        get("/authors/")
        with bucket.requests() as seen:
            get("/authors/")
        assert seen == ["GET log"]


def test_hosts_share_it(hosts: MakeHost) -> None:
    here, there = hosts("here"), hosts("there")
    with here:
        here.catch_up()
        get("/authors/")
    with there:
        there.catch_up()
        get("/authors/")
    assert len(site.called) == 1


def test_it_is_kept_for_a_minute(ann: Author, settings: Any) -> None:
    ttls: list[float] = []
    cache = caches["default"]
    original = cache.set

    def spied(key: str, value: Any, timeout: float) -> None:
        ttls.append(timeout)
        original(key, value, timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "set", spied)
        get("/nothing/")
        ttls.clear()
        get("/authors/")
        assert 60 in ttls
        settings.S3CACHE = {"RESPONSE_TTL": 5}
        caches["default"].clear()
        get("/authors/?again")
        assert 5 in ttls
        get("/asked/")
        assert 30 in ttls


def test_while_the_store_is_down_it_is_stale(hosts: MakeHost) -> None:
    with hosts(max_age=0.0) as host:
        host.catch_up()
        assert kept("/authors/")
        host.pass_time(10)
        with store_down():
            response: Any = Client().get("/authors/")
        assert response["X-Cache-Status"] == "STALE"
    assert len(site.called) == 1


def test_a_view_that_reads_no_database_has_to_ask(ann: Author) -> None:
    assert not kept("/nothing/")
    assert kept("/asked/")


def test_the_settings_turn_it_off(ann: Author, settings: Any) -> None:
    settings.S3CACHE = {"CACHE": None}
    assert not kept("/authors/")
    assert len(site.called) == 2


def test_async_views(ann: Author) -> None:
    async def ask() -> tuple[bytes, str]:
        response = await AsyncClient().get("/aauthors/")
        return response.content, response["X-Cache-Status"]

    assert async_to_sync(ask)() == (b"Ann", "MISS")
    assert async_to_sync(ask)() == (b"Ann", "HIT")
    assert len(site.called) == 1


def test_what_a_template_reads_counts(ann: Author) -> None:
    assert kept("/template/")
    Author.objects.create(name="Bob")
    assert get("/template/") == "AnnBob"


# For whom


def test_path_query_scheme_and_host_are_told_apart(ann: Author) -> None:
    assert get("/authors/?for=a&x=1") == "Ann for a"
    assert get("/authors/?x=1&for=a") == "Ann for a"
    assert get("/authors/?for=b") == "Ann for b"
    assert get("/authors/") == "Ann for all"
    assert get("/authors/", headers={"Host": "other.example"})
    assert get("/authors/", secure=True)
    assert len(site.called) == 6
    for path in ("/authors/?for=b", "/authors/?for=a&x=1", "/authors/"):
        get(path)
    assert len(site.called) == 6


def test_no_path_stands_for_another_one(ann: Author) -> None:
    paths = ["/echo/a/../b", "/echo/b", "/echo//b", "/echo/./b", "/echo/a%2F..%2Fb"]
    for _ in range(2):
        found = [get(path) for path in paths]
        assert [text.partition(" at ")[2] for text in found] == [
            "a/../b",
            "b",
            "/b",
            "./b",
            "a/../b",
        ]


def test_a_forged_host_is_refused_as_ever(ann: Author) -> None:
    get("/authors/")
    response: Any = Client(raise_request_exception=False).get(
        "/authors/", headers={"Host": "evil.example"}
    )
    assert response.status_code == 400
    forwarded = get("/authors/", headers={"X-Forwarded-Host": "evil.example"})
    assert forwarded == "Ann for all"


def test_vary_is_respected(ann: Author) -> None:
    for _ in range(2):
        assert get("/variants/") == "Ann as usual"
        assert get("/variants/", headers={"X-Variant": "b"}) == "Ann as b"
    assert site.called == ["variants", "variants"]
    assert not kept("/any_header/")


def test_a_header_that_one_response_varies_on_counts_for_all(host: Host) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        list(Tag.objects.all())
        response = HttpResponse(request.headers.get("X-Who", "nobody"))
        if "X-Who" in request.headers:
            response["Vary"] = "X-Who"
        return response

    middleware: Any = ResponseCacheMiddleware(view)

    def ask(**headers: str) -> bytes:
        response: HttpResponse = middleware(RequestFactory().get("/", headers=headers))
        return response.content

    assert ask(X_Who="ann") == b"ann"
    assert ask() == b"nobody"
    assert ask(X_Who="bob") == b"bob"


def test_languages_are_told_apart(ann: Author) -> None:
    for _ in range(2):
        assert get("/language/", headers={"Accept-Language": "en"}) == "Ann Yes"
        assert get("/language/", headers={"Accept-Language": "de"}) == "Ann Ja"
        # LocaleMiddleware goes by this cookie, and does not say so.
        german = Client()
        german.cookies["django_language"] = "de"
        assert get("/language/", german, headers={"Accept-Language": "en"}) == "Ann Ja"


def test_head_is_answered_by_what_get_was_and_not_the_other_way(ann: Author) -> None:
    first: Any = Client().head("/authors/")
    assert get("/authors/") == "Ann for all"
    assert len(site.called) == 2
    second: Any = Client().head("/authors/")
    assert len(site.called) == 2
    assert second.content == b""
    assert second["Content-Length"] == first["Content-Length"] == "11"
    assert get("/authors/") == "Ann for all"


@pytest.mark.parametrize("method", ["post", "put", "delete", "options", "patch"])
def test_other_methods_are_neither_answered_nor_kept(ann: Author, method: str) -> None:
    get("/authors/")
    getattr(Client(), method)("/authors/")
    getattr(Client(), method)("/authors/")
    assert len(site.called) == 3


def test_a_request_with_a_body_is_neither_answered_nor_kept(ann: Author) -> None:
    body: dict[str, Any] = {"content_type": "text/plain", "data": "for=evil"}
    Client().generic("GET", "/authors/", **body)
    get("/authors/")
    Client().generic("GET", "/authors/", **body)
    get("/authors/", headers={"Transfer-Encoding": "chunked"})
    assert len(site.called) == 4


def test_a_client_can_have_it_made_anew(ann: Author) -> None:
    assert kept("/authors/")
    get("/authors/", headers={"Cache-Control": "no-cache"})
    assert len(site.called) == 2


# Credentials and cookies


def log_in(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.create(username=name))
    return client


def test_who_is_logged_in_gets_nothing_of_the_cache_and_leaves_nothing(
    ann: Author,
) -> None:
    editor = log_in("editor")
    assert get("/person/", editor) == "Ann for editor"
    assert get("/person/") == "Ann for AnonymousUser"
    assert get("/person/", editor) == "Ann for editor"
    assert totals("response").get("hit") is None


@pytest.mark.parametrize(
    "extra",
    [
        {"headers": {"Authorization": "Bearer x"}},
        {"headers": {"X-Api-Key": "x"}},
        {"REMOTE_USER": "x"},
    ],
)
def test_credentials_in_headers(
    ann: Author, extra: dict[str, Any], settings: Any
) -> None:
    settings.S3CACHE = {"CREDENTIALS": ["X-Api-Key"]}
    get("/authors/")
    assert not kept("/authors/", **extra)
    assert len(site.called) == 3
    get("/authors/")
    assert len(site.called) == 3


def test_a_user_that_is_found_out_by_other_means(host: Host) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        list(Tag.objects.all())
        request.user = User(pk=1)  # by a token that nobody here knows of
        return HttpResponse("for 1")

    middleware: Any = ResponseCacheMiddleware(view)
    for _ in range(2):
        middleware(RequestFactory().get("/"))
    assert totals("response") == {"bypass": 2}


@pytest.mark.parametrize(
    "extra", [{}, {"headers": {"Authorization": "Bearer x"}}], ids=["session", "header"]
)
def test_what_is_made_for_a_visitor_never_gets_into_the_cache(
    ann: Author, extra: dict[str, Any]
) -> None:
    """Not under a key of its own, either."""
    client = Client() if extra else log_in("editor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3cache.middleware.responses.write", pytest.fail)
        assert get("/authors/", client, **extra) == "Ann for all"


def test_what_a_view_asked_for_once_holds_until_it_does_not(host: Host) -> None:
    """What was kept for a visitor is given only while the view asks for it."""
    asks = [True, False, True]

    def view(request: HttpRequest) -> HttpResponse:
        list(Tag.objects.all())
        who = request.headers.get("Authorization", "nobody")
        response = HttpResponse(f"{who} {len(asks)}")
        if not asks.pop(0):
            return response
        asking = cache_response(credentials=True)(lambda request: response)
        return asking(request)

    middleware: Any = ResponseCacheMiddleware(view)

    def ask(**headers: str) -> bytes:
        response: HttpResponse = middleware(RequestFactory().get("/", headers=headers))
        return response.content

    assert [ask(Authorization="ann") for _ in range(2)] == [b"ann 3", b"ann 3"]
    assert ask() == b"nobody 2"
    assert ask(Authorization="ann") == b"ann 1"


@pytest.mark.parametrize(
    ("ann_s", "bob_s"),
    [
        (
            {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": "CN=ann"},
            {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": "CN=bob"},
        ),
        ({"HTTP_PROXY_AUTHORIZATION": "ann"}, {"HTTP_PROXY_AUTHORIZATION": "bob"}),
        ({"HTTP_AUTHORIZATION": "ann"}, {"HTTP_AUTHORIZATION": "bob"}),
        ({"HTTP_X_API_KEY": "ann"}, {"HTTP_X_API_KEY": "bob"}),
        ({"HTTP_COOKIE": "token=ann"}, {"HTTP_COOKIE": "token=bob"}),
        ({"REMOTE_USER": "ann"}, {"REMOTE_USER": "bob"}),
        ({"user": User(pk=1)}, {"user": User(pk=2)}),
    ],
    ids=lambda extra: [*extra][-1],
)
def test_asked_for_visitors_are_told_apart_by_whatever_says_who_they_are(
    host: Host, settings: Any, ann_s: dict[str, Any], bob_s: dict[str, Any]
) -> None:
    settings.S3CACHE = {"CREDENTIALS": ["X-Api-Key", "token"]}
    made: list[dict[str, Any]] = []

    @cache_response(credentials=True)
    def view(request: HttpRequest) -> HttpResponse:
        list(Tag.objects.all())
        made.append(extra)
        return HttpResponse(str(extra))

    middleware: Any = ResponseCacheMiddleware(view)
    for extra in (ann_s, bob_s, ann_s, bob_s):
        request = RequestFactory().get("/")
        request.META.update({n: one for n, one in extra.items() if n != "user"})
        vars(request).update({n: one for n, one in extra.items() if n == "user"})
        assert middleware(request).content.decode() == str(extra)
    assert made == [ann_s, bob_s]


def test_who_shows_no_certificate_has_no_credentials(ann: Author) -> None:
    assert kept("/authors/", SSL_CLIENT_VERIFY="NONE")


def test_asked_for_it_is_kept_for_each_visitor(ann: Author) -> None:
    clients = {name: log_in(name) for name in ("one", "two")}
    for _ in range(2):
        for name, client in clients.items():
            assert get("/own_page/", client) == f"Ann for {name}"
        assert get("/own_page/") == "Ann for AnonymousUser"
    assert len(site.called) == 3


def test_a_response_that_sets_a_cookie_is_not_kept(ann: Author) -> None:
    assert not kept("/cookie/")
    assert not kept("/form/")  # CSRF's
    assert not kept("/new_session/")  # though it has asked


def test_asked_for_it_is_kept_with_its_cookies(ann: Author) -> None:
    first, second = Client(), Client()
    get("/kept_cookie/", first)
    get("/kept_cookie/", second)
    assert site.called == ["cookie"]
    assert second.cookies["seen"].OutputString() == (
        first.cookies["seen"].OutputString()
    )


def test_visitors_are_told_apart_by_the_cookies_that_a_view_reads(ann: Author) -> None:
    """Though it says nothing of that in ``Vary``, as for a time zone."""
    for _ in range(2):
        for zone, seen in (("Tokyo", "1"), ("Tokyo", "2"), ("Lima", "1"), ("", "3")):
            client = Client()
            client.cookies["seen"] = seen  # which it does not read
            if zone:
                client.cookies["zone"] = zone
            assert get("/zone/", client) == f"Ann in {zone or 'UTC'}"
    assert site.called == ["zone"] * 3


@pytest.mark.parametrize("path", ["message", "kept_message"])
def test_a_message_is_shown_once_and_to_nobody_else(ann: Author, path: str) -> None:
    from django.contrib.messages.storage.base import Message
    from django.contrib.messages.storage.cookie import CookieStorage

    reader = Client()
    storage: Any = CookieStorage(RequestFactory().get("/"))
    reader.cookies["messages"] = storage._encode([Message(20, "Saved")])
    assert get(f"/{path}/") == "Ann []"
    assert get(f"/{path}/", reader) == "Ann ['Saved']"
    assert get(f"/{path}/") == "Ann []"
    assert get(f"/{path}/", reader) == "Ann []"
    reader.cookies["messages"] = storage._encode([Message(20, "Saved")])
    assert get(f"/{path}/", reader) == "Ann ['Saved']"


# What is not kept


@pytest.mark.parametrize(
    "path", ["missing", "never", "no_age", "nonce", "private", "stream", "writes"]
)
def test_not_for_others(ann: Author, path: str) -> None:
    assert not kept(f"/{path}/")


@pytest.mark.parametrize(
    "read",
    [
        lambda: list(Product.objects.fresh()),
        lambda: list(Product.objects.skip_cache()),
        lambda: list(Author.objects.order_by("?")),
        lambda: list(Author.objects.raw("SELECT *, random() FROM library_author")),
    ],
    ids=["fresh", "skip_cache", "random", "raw"],
)
def test_reads_that_want_to_be_made_each_time(host: Host, read: Any) -> None:
    assert run(read) == run(read) == BYPASS


def run(read: Any) -> dict[str, int]:
    """What a request whose view does ``read`` counts."""
    from tests.results.seen import totals as count

    def view(request: HttpRequest) -> HttpResponse:
        read()
        return HttpResponse("done")

    before = count("response")
    middleware: Any = ResponseCacheMiddleware(view)
    middleware(RequestFactory().get(f"/{id(read)}"))
    return {
        event: number - before.get(event, 0)
        for event, number in count("response").items()
        if number > before.get(event, 0)
    }


def test_excluded_models_are_excluded_here_too(host: Host, settings: Any) -> None:
    settings.S3CACHE = {"EXCLUDE": ["library.Tag"]}

    def tags() -> None:
        list(Tag.objects.all())

    def authors() -> None:
        list(Author.objects.all())

    assert [run(tags), run(tags)] == [BYPASS, BYPASS]
    assert [run(authors), run(authors)] == [MISS, HIT]


def test_a_model_with_a_cache_of_its_own_stays_there(
    host: Host, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    settings.CACHES = {
        **settings.CACHES,
        "own": {"BACKEND": "s3cache.caches.MemoryCache", "LOCATION": "own"},
    }
    options = dataclasses.replace(Product._s3meta, cache="own")
    monkeypatch.setattr(Product, "_s3meta", options)
    settings.S3CACHE = {}  # forgets what was known of models

    def products() -> None:
        list(Product.objects.all())

    assert [run(products), run(products)] == [MISS, MISS]


def test_what_comes_from_another_database_too_has_to_ask(
    host: Host, elsewhere: str
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        list(Tag.objects.all())
        with connections[elsewhere].cursor() as cursor:
            cursor.execute("SELECT 1")
        return HttpResponse("done")

    asked = cache_response()(view)
    for one, expected in ((view, {"bypass": 2}), (asked, {"miss": 1, "hit": 1})):
        middleware: Any = ResponseCacheMiddleware(one)
        before = totals("response")
        for _ in range(2):
            middleware(RequestFactory().get(f"/{expected}"))
        counted = {
            event: number - before.get(event, 0)
            for event, number in totals("response").items()
        }
        assert {event: n for event, n in counted.items() if n} == expected


def test_a_write_between_computing_and_storing(host: Host) -> None:
    """What was read before a write is not kept as what is there after it."""
    texts: list[bytes] = []

    def view(request: HttpRequest) -> HttpResponse:
        found = [tag.name for tag in Tag.objects.all()]
        if not found:
            writer = threading.Thread(target=write)
            writer.start()
            writer.join()
        return HttpResponse(str(found))

    def write() -> None:
        Tag.objects.create(name="new")
        connection.close()

    middleware: Any = ResponseCacheMiddleware(view)
    for _ in range(3):
        texts.append(middleware(RequestFactory().get("/")).content)
    assert texts == [b"[]", b"['new']", b"['new']"]
    assert totals("response")["hit"] == 1


def test_readers_that_race_with_a_writer_see_what_was_committed(host: Host) -> None:
    """With the response cache and, behind it, with ETags."""
    Tag.objects.create(name="number", note="0")
    committed, older, failed = [0], list[tuple[int, int]](), list[Exception]()
    is_over = threading.Event()

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(Tag.objects.get(name="number").note)

    def read(middleware: Any) -> None:
        headers: dict[str, str] = {}
        found = -1
        while not is_over.is_set():
            least = committed[0]
            response = middleware(RequestFactory().get("/", headers=headers))
            if response.status_code == 200:
                found = int(response.content)
                headers = {"If-None-Match": response.get("ETag", "")}
            if found < least:
                older.append((least, found))

    def write() -> None:
        for number in range(1, 40):
            Tag.objects.update(note=str(number))
            committed[0] = number

    def run(do: Any, *args: Any) -> None:
        try:
            do(*args)
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    readers = [
        threading.Thread(target=run, args=(read, ResponseCacheMiddleware(one)))
        for one in (view, view, depends_on(Tag)(view))
    ]
    writer = threading.Thread(target=run, args=(write,))
    for thread in (*readers, writer):
        thread.start()
    writer.join()
    is_over.set()
    for thread in readers:
        thread.join()
    assert (older, failed) == ([], [])


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Accept", "application/xml"),
        ("Forwarded", "host=evil.example"),
        ("If-Modified-Since", "Mon, 01 Jan 2035 00:00:00 GMT"),
        ("If-None-Match", '"x"'),
        ("Range", "bytes=0-1"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Original-URL", "/never/"),
    ],
)
def test_no_header_of_one_visitor_is_in_another_one_s_response(
    ann: Author, header: str, value: str
) -> None:
    get("/authors/", headers={header: value})
    response: Any = Client().get("/authors/")
    assert response["X-Cache-Status"] == "HIT"
    assert (response.status_code, response.content) == (200, b"Ann for all")
    assert "evil" not in str(response.headers)


def test_a_replica_that_was_made_anew_meanwhile(host: Host) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        list(Tag.objects.all())
        if rebuild:
            rebuild.pop()
            host.connection.rebuild_replica()
        return HttpResponse("done")

    rebuild = [True]
    middleware: Any = ResponseCacheMiddleware(view)
    for _ in range(3):
        middleware(RequestFactory().get("/"))
    assert totals("response") == {"miss": 2, "hit": 1}


# With others


def test_read_your_writes_comes_first(hosts: MakeHost) -> None:
    one, other = hosts("one"), hosts("other")
    with other:
        other.catch_up()
        assert kept("/authors/")
    visitor = Client()
    with one:
        one.catch_up()
        Author.objects.create(name="Ann")

        def write(request: HttpRequest) -> HttpResponse:
            Author.objects.create(name="Bob")
            return HttpResponse()

        inner = ResponseCacheMiddleware(write)
        response: Any = ReadYourWritesMiddleware(inner)(RequestFactory().get("/"))
        # What was written within it is known to the one around it.
        visitor.cookies["s3cache_position"] = response.cookies["s3cache_position"].value
    with other:
        assert get("/authors/", visitor) == "Ann,Bob for all"


def test_what_a_response_says_of_its_age(ann: Author) -> None:
    first: Any = Client().get("/aged/")
    second: Any = Client().get("/aged/")
    assert first["Cache-Control"] == second["Cache-Control"] == "max-age=600"
    assert "Age" not in first.headers
    assert int(second["Age"]) < 60


def test_the_client_may_have_it_already(host: Host) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        list(Tag.objects.all())
        return HttpResponse("done", headers={"ETag": '"a"'})

    middleware: Any = ResponseCacheMiddleware(view)
    request = RequestFactory().get("/")
    assert middleware(request).status_code == 200
    request = RequestFactory().get("/", headers={"If-None-Match": '"a"'})
    response: HttpResponse = middleware(request)
    assert (response.status_code, response.content) == (304, b"")


def test_class_based_views(host: Host) -> None:
    @method_decorator(cache_response(ttl=5), name="dispatch")
    class Tags(ListView):  # type: ignore[type-arg]
        model = Tag

        def render_to_response(self, context: Any, **kwargs: Any) -> HttpResponse:
            return HttpResponse(str(list(context["object_list"])))

    middleware: Any = ResponseCacheMiddleware(Tags.as_view())
    for _ in range(2):
        assert middleware(RequestFactory().get("/")).content == b"[]"
    assert totals("response") == {"miss": 1, "hit": 1}


def test_a_damaged_entry_and_a_cache_that_fails(
    ann: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    get("/authors/")
    cache: Any = caches["default"]
    for key in [*cache._cache]:
        if ":response:" in key:
            plain = key.split(":", 2)[2]
            cache.set(plain, b"\xc1 not a response")
    assert get("/authors/") == "Ann for all"
    assert len(site.called) == 2

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("down")

    monkeypatch.setattr(type(cache), "get", fail)
    monkeypatch.setattr(type(cache), "set", fail)
    assert get("/authors/") == "Ann for all"
    assert len(site.called) == 3
