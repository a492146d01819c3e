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
    "is_of_one_time",
    "is_settled",
    "meta_name",
    "tables_of",
    "vary_of",
    "who_asks",
]

GetResponse = Callable[[HttpRequest], Any]

#: Headers that say who asks, as WSGI has them; the last one comes from a
#: server in front.
_HEADERS: Final = ("HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "REMOTE_USER")

#: What a server in front says of the client's certificate begins like this.
_CERTIFICATE: Final = "SSL_CLIENT_"

#: Where Django has the user of a request, once somebody has asked for it.
_USERS: Final = ("user", "_cached_user", "_acached_user")


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

    By a session, a header of HTTP's, a certificate, one of
    ``S3CACHE["CREDENTIALS"]``, or a user that something has found out already.
    Does not load a session.
    """
    meta, cookies = request.META, request.COOKIES
    return (
        any(meta.get(name) for name in _HEADERS)
        or meta.get(f"{_CERTIFICATE}VERIFY", "NONE") not in ("", "NONE")
        or settings.SESSION_COOKIE_NAME in cookies
        or any(
            name in cookies or meta_name(name) in meta
            for name in conf.settings().credentials
        )
        or bool(_users(request))
    )


def who_asks(request: HttpRequest) -> list[object]:
    """What tells the visitor of a request from others; [] without credentials.

    What `has_credentials` goes by, with its values: two visitors never come to
    the same. Ask before the view is called: it may find out more.
    """
    if not has_credentials(request):
        return []
    meta, cookies = request.META, request.COOKIES
    names = conf.settings().credentials
    certificate = sorted(name for name in meta if name.startswith(_CERTIFICATE))
    return [
        cookies.get(settings.SESSION_COOKIE_NAME),
        [(name, meta.get(name)) for name in (*_HEADERS, *certificate)],
        [(name, cookies.get(name), meta.get(meta_name(name))) for name in names],
        [
            (type(user).__qualname__, str(getattr(user, "pk", user)))
            for user in _users(request)
        ],
    ]


def _users(request: HttpRequest) -> list[Any]:
    """Who is known to be logged in; nobody who is yet to be found out."""
    found = []
    for name in _USERS:
        user = request.__dict__.get(name)
        if isinstance(user, SimpleLazyObject) and user.__dict__["_wrapped"] is empty:
            continue  # nobody has asked, so nothing depends on it
        if getattr(user, "is_authenticated", False):
            found.append(user)
    return found


def is_of_one_time(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Whether it holds a secret of its own: a CSRF token, or a CSP's nonce."""
    return (
        bool(request.META.get("CSRF_COOKIE_NEEDS_UPDATE"))
        or bool(getattr(request, "_csp_nonce", None))
        or any(
            "'nonce-" in response.headers.get(name, "")
            for name in (
                "Content-Security-Policy",
                "Content-Security-Policy-Report-Only",
            )
        )
    )


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
