"""A small site, for tests that need all of Django around a view."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.vary import vary_on_headers

from s3cache.middleware import cache_response
from tests.library.models import Author, Tag

MIDDLEWARE = [
    "s3cache.middleware.CacheStatusMiddleware",
    "s3cache.middleware.CacheControlMiddleware",
    "s3cache.middleware.ReadYourWritesMiddleware",
    "s3cache.middleware.ResponseCacheMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

#: What views were called, and with what.
called: list[str] = []


def names() -> str:
    return ",".join(author.name for author in Author.objects.order_by("name"))


def authors(request: HttpRequest) -> HttpResponse:
    called.append(request.get_full_path())
    return HttpResponse(f"{names()} for {request.GET.get('for', 'all')}")


async def aauthors(request: HttpRequest) -> HttpResponse:
    called.append(request.get_full_path())
    found = [author.name async for author in Author.objects.order_by("name")]
    return HttpResponse(",".join(found))


@vary_on_headers("X-Variant")
def variants(request: HttpRequest) -> HttpResponse:
    called.append("variants")
    return HttpResponse(f"{names()} as {request.headers.get('X-Variant', 'usual')}")


@vary_on_headers("*")
def any_header(request: HttpRequest) -> HttpResponse:
    return HttpResponse(names())


def person(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{names()} for {request.user}")


@cache_response(credentials=True)
def own_page(request: HttpRequest) -> HttpResponse:
    called.append("own")
    return HttpResponse(f"{names()} for {request.user}")


def cookie(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(names())
    response.set_cookie("seen", "1")
    return response


@cache_response(cookies=True)
def kept_cookie(request: HttpRequest) -> HttpResponse:
    called.append("cookie")
    response = HttpResponse(names())
    response.set_cookie("seen", "1", max_age=60, httponly=True, samesite="Lax")
    return response


@cache_response(cookies=True)
def new_session(request: HttpRequest) -> HttpResponse:
    request.session["a"] = 1
    return HttpResponse(names())


def zone(request: HttpRequest) -> HttpResponse:
    called.append("zone")
    return HttpResponse(f"{names()} in {request.COOKIES.get('zone', 'UTC')}")


def form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{names()} {get_token(request)}")


def message(request: HttpRequest) -> HttpResponse:
    said = [str(one) for one in messages.get_messages(request)]
    return HttpResponse(f"{names()} {said}")


def language(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{names()} {gettext('Yes')}")


@cache_response(cookies=True)
def kept_message(request: HttpRequest) -> HttpResponse:
    return message(request)


@never_cache
def never(request: HttpRequest) -> HttpResponse:
    return HttpResponse(names())


@cache_control(private=True)
def private(request: HttpRequest) -> HttpResponse:
    return HttpResponse(names())


@cache_control(max_age=0)
def no_age(request: HttpRequest) -> HttpResponse:
    return HttpResponse(names())


@cache_control(max_age=600)
def aged(request: HttpRequest) -> HttpResponse:
    return HttpResponse(names())


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def rows() -> Iterator[str]:
        for author in Author.objects.all():
            yield author.name

    return StreamingHttpResponse(iter([names(), *rows()]))


def nonce(request: HttpRequest) -> HttpResponse:
    policy = "script-src 'nonce-abc'"
    return HttpResponse(names(), headers={"Content-Security-Policy": policy})


def missing(request: HttpRequest) -> HttpResponse:
    return HttpResponse(names(), status=404)


def writes(request: HttpRequest) -> HttpResponse:
    Tag.objects.create(name=f"visit {uuid.uuid4()}")
    return HttpResponse(names())


def nothing(request: HttpRequest) -> HttpResponse:
    called.append("nothing")
    return HttpResponse("nothing")


@cache_response(ttl=30)
def asked(request: HttpRequest) -> HttpResponse:
    called.append("asked")
    return HttpResponse("asked")


def template(request: HttpRequest) -> TemplateResponse:
    source: Any = engines["django"].from_string(
        "{% for a in authors %}{{ a.name }}{% endfor %}"
    )
    return TemplateResponse(request, source, {"authors": Author.objects.all()})


def echo(request: HttpRequest, rest: str) -> HttpResponse:
    return HttpResponse(f"{names()} at {rest}")


urlpatterns = [
    *(
        path(f"{view.__name__}/", view)
        for view in (
            aauthors,
            aged,
            any_header,
            asked,
            authors,
            cookie,
            form,
            kept_cookie,
            kept_message,
            language,
            message,
            missing,
            never,
            new_session,
            no_age,
            nonce,
            nothing,
            own_page,
            person,
            private,
            stream,
            template,
            variants,
            writes,
            zone,
        )
    ),
    path("echo/<path:rest>", echo),
]
