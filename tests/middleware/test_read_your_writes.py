"""Visitors see what they have written, on every host."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from s3cache.exceptions import StoreUnavailable
from s3cache.middleware import ReadYourWritesMiddleware
from s3cache.middleware.cookies import POSITION_COOKIE
from s3cache.middleware.read_your_writes import SALT
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author


def write(request: HttpRequest) -> HttpResponse:
    Author.objects.create(name=f"author {Author.objects.count()}")
    return HttpResponse("written")


def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Author.objects.count()))


async def awrite(request: HttpRequest) -> HttpResponse:
    await Author.objects.acreate(name="Ann")
    return HttpResponse("written")


async def aread(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await Author.objects.acount()))


def answer(view: Any, cookies: dict[str, str] | None = None) -> HttpResponse:
    request = RequestFactory().get("/")
    request.COOKIES.update(cookies or {})
    response = ReadYourWritesMiddleware(view)(request)
    assert isinstance(response, HttpResponse)
    return response


def cookies_of(response: HttpResponse) -> dict[str, str]:
    return {name: morsel.value for name, morsel in response.cookies.items()}


def test_a_visitor_sees_on_another_host_what_was_written_on_one(
    hosts: MakeHost, bucket: Bucket
) -> None:
    one, other = hosts("one"), hosts("other")
    with other:
        assert answer(read).content == b"0"
    with one:
        cookies = cookies_of(answer(write))
    with other:
        assert answer(read).content == b"0"
        with bucket.requests() as seen:
            assert answer(read, cookies).content == b"1"
        assert seen == ["GET log", "GET log"]
        # It has come so far: nothing is asked again.
        with bucket.requests() as seen:
            assert answer(read, cookies).content == b"1"
        assert seen == []


def test_async_views(hosts: MakeHost) -> None:
    one, other = hosts("one"), hosts("other")

    async def ask(view: Any, cookies: dict[str, str]) -> HttpResponse:
        request = AsyncRequestFactory().get("/")
        request.COOKIES.update(cookies)
        made: Any = ReadYourWritesMiddleware(view)(request)
        response: HttpResponse = await made
        return response

    with other:
        answer(read)
    with one:
        cookies = cookies_of(async_to_sync(ask)(awrite, {}))
    with other:
        assert async_to_sync(ask)(aread, {}).content == b"0"
        assert async_to_sync(ask)(aread, cookies).content == b"1"


def test_no_cookie_without_a_write(host: Host) -> None:
    assert not answer(read).cookies
    assert not answer(transaction.atomic(read)).cookies


@pytest.mark.parametrize("view", [write, transaction.atomic(write)])
def test_the_cookie_is_the_sessions_sister(
    host: Host, view: Any, settings: Any
) -> None:
    settings.SESSION_COOKIE_DOMAIN = "example.com"
    settings.SESSION_COOKIE_SECURE = True
    cookie = answer(view).cookies[POSITION_COOKIE]
    assert cookie["domain"] == "example.com"
    assert cookie["secure"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["path"] == "/"


def test_it_is_kept_until_every_host_has_asked_by_itself(hosts: MakeHost) -> None:
    with hosts("slow", max_age=20.5):
        assert answer(write).cookies[POSITION_COOKIE]["max-age"] == 31
    with hosts("careful", max_age=0.0):
        assert not answer(write).cookies


def test_a_write_that_was_undone_is_none(host: Host) -> None:
    def undone(request: HttpRequest) -> HttpResponse:
        with transaction.atomic():
            write(request)
            transaction.set_rollback(True)
        return HttpResponse()

    assert not answer(undone).cookies


@pytest.mark.parametrize(
    "value",
    ["", "default", "default:x:99", "default:x:99:1xUg3C:RjL3lo9Xweb3W6D2Z2_wkRVwBCG"],
)
def test_forged_cookies_ask_nothing(host: Host, bucket: Bucket, value: str) -> None:
    answer(read)
    with bucket.requests() as seen:
        answer(read, {POSITION_COOKIE: value})
    assert seen == []


@pytest.mark.parametrize("position", ["default:another:99", "gone:{database}:99"])
def test_a_cookie_of_another_database_asks_nothing(
    host: Host, bucket: Bucket, position: str
) -> None:
    database = host.connection.replica.position().database
    response = HttpResponse()
    response.set_signed_cookie(
        POSITION_COOKIE, position.format(database=database), salt=SALT
    )
    with bucket.requests() as seen:
        answer(read, cookies_of(response))
    assert seen == []
    # It is one that would be believed.
    response.set_signed_cookie(POSITION_COOKIE, f"default:{database}:99", salt=SALT)
    with bucket.requests() as seen:
        answer(read, cookies_of(response))
    assert seen == ["GET log"]


def test_what_was_written_before_stays_in_the_cookie(hosts: MakeHost) -> None:
    with hosts("one"):
        first = cookies_of(answer(write))
        second = cookies_of(answer(write, first))
    with hosts("other"):
        assert answer(read, second).content == b"2"


def test_the_request_is_answered_while_the_store_is_down(
    hosts: MakeHost,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = hosts("one"), hosts("other")
    with other:
        answer(read)
    with one:
        cookies = cookies_of(answer(write))

    def down(self: object, *args: object, **kwargs: object) -> None:
        raise StoreUnavailable("down")

    with other, caplog.at_level(logging.WARNING, "s3cache.middleware"):
        monkeypatch.setattr(type(other.connection.replica), "catch_up", down)
        assert answer(read, cookies).content == b"0"
    assert "could not ask for entry" in caplog.text
