"""Which cookies a response goes by, beside those that are credentials.

A view that goes by a cookie, or a middleware that does so for it (for a time
zone, or a cart), seldom says so in ``Vary``. So it is seen which are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest

from s3cache import conf

__all__ = ["ALL", "POSITION_COOKIE", "SeenCookies", "see_cookies", "values_of"]

#: Where `ReadYourWritesMiddleware` keeps the positions of a visitor's writes.
POSITION_COOKIE: Final = "s3cache_position"

#: Stands for all cookies; none can be called so.
ALL: Final = "="


def _noting_name(method: Callable[..., Any]) -> Any:
    @wraps(method)
    def call(self: SeenCookies, name: str, *args: Any) -> Any:
        self._asked.add(name)
        return method(self, name, *args)

    return call


def _noting_all(method: Callable[..., Any]) -> Any:
    @wraps(method)
    def call(self: SeenCookies, *args: Any) -> Any:
        self._asked.add(ALL)
        return method(self, *args)

    return call


class SeenCookies(dict[str, str]):
    """The cookies of a request; notes the names that are asked for."""

    def __init__(self, cookies: dict[str, str]) -> None:
        super().__init__(cookies)
        self._asked: set[str] = set()
        #: As they came, whatever a view makes of them.
        self._given = dict(cookies)

    @property
    def asked(self) -> frozenset[str]:
        """
        The names that were asked for until now; `ALL`, if all were.

        Without the session's, CSRF's and those that are credentials: Django
        reads them at every request, and who goes by them is found out
        otherwise.
        """
        if ALL in self._asked:
            return frozenset([ALL])
        return frozenset(self._asked) - {
            POSITION_COOKIE,
            settings.CSRF_COOKIE_NAME,
            settings.SESSION_COOKIE_NAME,
            *conf.settings().credentials,
        }

    def given(self, name: str) -> str | None:
        """The value that came with the request."""
        self._asked.add(name)
        return self._given.get(name)

    __contains__ = _noting_name(dict.__contains__)
    __getitem__ = _noting_name(dict.__getitem__)
    get = _noting_name(dict.get)
    pop = _noting_name(dict.pop)
    setdefault = _noting_name(dict.setdefault)

    __eq__ = _noting_all(dict.__eq__)
    __iter__ = _noting_all(dict.__iter__)
    __len__ = _noting_all(dict.__len__)
    __ne__ = _noting_all(dict.__ne__)
    __or__ = _noting_all(dict.__or__)
    __repr__ = _noting_all(dict.__repr__)
    __reversed__ = _noting_all(dict.__reversed__)
    __ror__ = _noting_all(dict.__ror__)
    copy = _noting_all(dict.copy)
    items = _noting_all(dict.items)
    keys = _noting_all(dict.keys)
    popitem = _noting_all(dict.popitem)
    values = _noting_all(dict.values)


def see_cookies(request: HttpRequest) -> SeenCookies:
    """The cookies of ``request``, from now on seen; the same each time."""
    cookies = request.COOKIES
    if not isinstance(cookies, SeenCookies):
        cookies = request.COOKIES = SeenCookies(cookies)
    return cookies


def values_of(
    request: HttpRequest, names: Iterable[str]
) -> list[tuple[str, str | None]]:
    """What came with ``request`` of some cookies, which are noted as asked."""
    cookies = see_cookies(request)
    return [
        (name, request.META.get("HTTP_COOKIE") if name == ALL else cookies.given(name))
        for name in sorted(names)
    ]
