"""Whatever way a cookie is read, it is seen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import RequestFactory

from s3cache.middleware.cookies import ALL, SeenCookies, see_cookies, values_of


@pytest.fixture
def request_() -> HttpRequest:
    request = RequestFactory().get("/", HTTP_COOKIE="a=1; b=2")
    see_cookies(request)
    return request


@pytest.mark.parametrize(
    "read",
    [
        lambda request: request.COOKIES["a"],
        lambda request: request.COOKIES.get("a"),
        lambda request: request.COOKIES.pop("a"),
        lambda request: request.COOKIES.setdefault("a", "1"),
        lambda request: "a" in request.COOKIES,
        lambda request: request.get_signed_cookie("a", None),
    ],
)
def test_one(request_: HttpRequest, read: Callable[[Any], object]) -> None:
    read(request_)
    assert see_cookies(request_).asked == {"a"}


@pytest.mark.parametrize(
    "read",
    [
        bool,
        copy.copy,
        copy.deepcopy,
        dict,
        len,
        list,
        lambda cookies: {**cookies},
        lambda cookies: cookies == {},
        lambda cookies: cookies != {},
        lambda cookies: cookies | {},
        lambda cookies: {} | cookies,
        lambda cookies: {}.update(cookies),
        lambda cookies: cookies.copy(),
        lambda cookies: cookies.items(),
        lambda cookies: cookies.keys(),
        lambda cookies: cookies.popitem(),
        lambda cookies: cookies.values(),
        repr,
        reversed,
        str,
    ],
)
def test_all(request_: HttpRequest, read: Callable[[Any], object]) -> None:
    read(request_.COOKIES)
    assert see_cookies(request_).asked == {ALL}


def test_one_that_is_not_there(request_: HttpRequest) -> None:
    with pytest.raises(KeyError):
        request_.COOKIES["c"]
    assert see_cookies(request_).asked == {"c"}


def test_those_that_are_recognised_otherwise(
    request_: HttpRequest, settings: Any
) -> None:
    settings.S3CACHE = {"CREDENTIALS": ["token"]}
    for name in ("sessionid", "csrftoken", "token", "s3cache_position"):
        request_.COOKIES.get(name)
    assert see_cookies(request_).asked == set()


def test_it_is_what_it_was(request_: HttpRequest) -> None:
    cookies = request_.COOKIES
    assert cookies == {"a": "1", "b": "2"}
    assert isinstance(cookies, SeenCookies)
    assert see_cookies(request_) is cookies
    assert (cookies.get("c"), cookies.get("c", "x"), cookies["a"]) == (None, "x", "1")
    assert (len(cookies), [*cookies], {**cookies}) == (2, ["a", "b"], cookies)
    assert repr(cookies) == "{'a': '1', 'b': '2'}"


def test_values(request_: HttpRequest) -> None:
    assert values_of(request_, {"b", "c"}) == [("b", "2"), ("c", None)]
    assert values_of(request_, {ALL}) == [(ALL, "a=1; b=2")]
    assert see_cookies(request_).asked == {"b", "c"}


def test_what_came_counts_and_not_what_a_view_makes_of_it(
    request_: HttpRequest,
) -> None:
    request_.COOKIES.pop("a")
    request_.COOKIES["b"] = "3"
    assert values_of(request_, {"a", "b"}) == [("a", "1"), ("b", "2")]
