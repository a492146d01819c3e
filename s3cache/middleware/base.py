"""What the middleware has in common: sync and async, and whose a page is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject, empty

from s3cache import conf
from s3cache.results.watching import Read, Why

__all__ = [
    "Middleware",
    "has_credentials",
    "is_settled",
    "meta_name",
    "tables_of",
    "vary_of",
]

GetResponse = Callable[[HttpRequest], Any]

#: Headers that say who asks, as WSGI has them; the last two come from a
#: server in front, for REMOTE_USER and certificates.
_HEADERS: Final = (
    "HTTP_AUTHORIZATION",
    "HTTP_PROXY_AUTHORIZATION",
    "REMOTE_USER",
    "SSL_CLIENT_VERIFY",
)


class Middleware:
    """Middleware for both kinds of handlers; ``is_async`` is that of this."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(cast(Any, self))


def has_credentials(request: HttpRequest) -> bool:
    """Whether a request says who the visitor is, as far as can be known.

    By a session, a header of HTTP's, one of ``S3CACHE["CREDENTIALS"]``, or a
    user that something has found out already. Does not load a session.
    """
    if any(request.META.get(name) for name in _HEADERS):
        return True
    cookies = request.COOKIES
    if settings.SESSION_COOKIE_NAME in cookies:
        return True
    for name in conf.settings().credentials:
        if name in cookies or meta_name(name) in request.META:
            return True
    user = request.__dict__.get("user")
    if isinstance(user, SimpleLazyObject) and user.__dict__["_wrapped"] is empty:
        return False  # nobody has asked, so nothing depends on it
    return bool(getattr(user, "is_authenticated", False))


def tables_of(reads: Iterable[Read]) -> dict[str, tuple[str, ...]]:
    """What was read, by alias."""
    found: dict[str, set[str]] = {}
    for read in reads:
        found.setdefault(read.alias, set()).update(read.tables)
    return {alias: tuple(sorted(names)) for alias, names in sorted(found.items())}


def vary_of(response: HttpResponseBase) -> tuple[str, ...]:
    """The headers that ``Vary`` names, in lower case and in order."""
    said = response.headers.get("Vary", "")
    return tuple(
        sorted({name.strip().lower() for name in said.split(",") if name.strip()})
    )


def meta_name(header: str) -> str:
    """Where ``request.META`` has a header."""
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


#: What the versions of tables do not say all about, or is not to be kept.
_UNSETTLED: Final = frozenset(
    [Why.EXCLUDED, Why.FRESH, Why.IMPURE, Why.REPLACED, Why.SKIPPED]
)


def is_settled(read: Read) -> bool:
    """Whether it would come to the same while its tables are the same."""
    return bool(read.tables) and read.why not in _UNSETTLED
