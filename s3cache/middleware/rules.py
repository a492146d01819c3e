"""Which responses may be kept, and for how long."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from s3cache import conf
from s3cache.db.commits import Commits, watch_commits
from s3cache.db.elsewhere import watch_elsewhere
from s3cache.middleware.base import (
    has_credentials,
    is_of_one_time,
    is_settled,
    vary_of,
)
from s3cache.middleware.cookies import POSITION_COOKIE
from s3cache.results.watching import Read, Watch, Why, watch

__all__ = [
    "Asked",
    "Witness",
    "asked_of",
    "cache_response",
    "may_be_answered",
    "may_be_kept",
    "ttl_of",
    "witness",
]

#: Where a decorator leaves what it was told.
_ASKED: Final = "_s3cache_asked"

_COMMAS: Final = re.compile(r"\s*,\s*")

_View = TypeVar("_View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Asked:
    """What a view asks for; the defaults are those of other views."""

    ttl: float | None = None
    credentials: bool = False
    cookies: bool = False
    is_explicit: bool = False


_NOTHING_ASKED: Final = Asked()


def cache_response(
    *, ttl: float | None = None, credentials: bool = False, cookies: bool = False
) -> Callable[[_View], _View]:
    """
    Have `ResponseCacheMiddleware` keep what a view returns.

    It does so for other views, too, but only what depends on nothing but
    tables in buckets. With this, what a view takes from elsewhere may be as
    old as `ttl` (seconds; None: `S3CACHE["RESPONSE_TTL"]`).

    With `credentials`, responses to visitors that are logged in are kept, for
    each of them apart. With `cookies`, responses that set cookies are kept,
    and their cookies with them: whoever gets the response gets these, so that
    those of the session, of CSRF and of `ReadYourWritesMiddleware` are never
    kept. Raise `ValueError` unless `ttl` is None or above 0.
    """
    if ttl is not None and not (conf.is_number(ttl) and ttl > 0):
        raise ValueError(f"cache_response(ttl={ttl!r}): ttl must be above 0.")
    asked = Asked(ttl, credentials, cookies, is_explicit=True)

    def decorate(view: _View) -> _View:
        def mark(response: Any) -> Any:
            if response is not None:  # what a view may not return
                setattr(response, _ASKED, asked)
            return response

        if iscoroutinefunction(view):

            @wraps(view)
            async def marking(*args: Any, **kwargs: Any) -> Any:
                return mark(await view(*args, **kwargs))

        else:

            @wraps(view)
            def marking(*args: Any, **kwargs: Any) -> Any:
                return mark(view(*args, **kwargs))

        return cast("_View", marking)

    return decorate


def asked_of(response: HttpResponseBase) -> Asked:
    """What the view has asked for."""
    return cast("Asked", getattr(response, _ASKED, _NOTHING_ASKED))


@dataclass(frozen=True, slots=True)
class Witness:
    """What was done for a response: reads, commits, other databases used."""

    seen: Watch
    commits: Commits
    elsewhere: set[str]

    @property
    def reads(self) -> tuple[Read, ...]:
        """A copy: a task that outlives the request may go on reading."""
        return tuple(self.seen.reads)


@contextmanager
def witness() -> Iterator[Witness]:
    """See what is done inside."""
    with (
        watch(Watch()) as seen,
        watch_commits() as commits,
        watch_elsewhere() as elsewhere,
    ):
        yield Witness(seen, commits, elsewhere)


def may_be_answered(request: HttpRequest) -> bool:
    """Whether the cache may answer at all, by the request alone."""
    meta = request.META
    return (
        request.method in ("GET", "HEAD")
        and conf.settings().cache is not None
        # What is in a body is in no key.
        and meta.get("CONTENT_LENGTH") in (None, "", "0")
        and "HTTP_TRANSFER_ENCODING" not in meta
        and not _directives(meta.get("HTTP_CACHE_CONTROL", ""))
        & {"no-cache", "no-store"}
    )


def may_be_kept(
    request: HttpRequest,
    response: HttpResponseBase,
    witness: Witness,
    *,
    had_credentials: bool,
) -> bool:
    """Whether others may be given ``response``.

    ``had_credentials`` is what was known of the request before the view.
    """
    asked, reads = asked_of(response), witness.reads
    return (
        response.status_code == 200
        and not response.streaming
        and not witness.commits
        and (asked.is_explicit or (bool(reads) and not witness.elsewhere))
        and all(is_settled(read) or _is_asked_for(read, asked) for read in reads)
        # By what a tenant is told is in no key.
        and all(read.alias in conf.bucket_aliases() for read in reads)
        and not {"no-store", "private", "no-cache"}
        & _directives(response.headers.get("Cache-Control", ""))
        and "*" not in vary_of(response)
        and not is_of_one_time(request, response)
        and _may_keep_cookies(response, asked)
        # A view may find out who it is by other means than are known here.
        and has_credentials(request) is had_credentials
        and (asked.credentials or not had_credentials)
    )


def _is_asked_for(read: Read, asked: Asked) -> bool:
    """Whether it is settled for whoever has asked: excluded, as sessions are.

    Such models have versions as others have.
    """
    return asked.is_explicit and read.why is Why.EXCLUDED and bool(read.tables)


def ttl_of(response: HttpResponseBase) -> float:
    """Seconds; no more than the response itself allows."""
    asked = asked_of(response)
    ttl = conf.settings().response_ttl if asked.ttl is None else asked.ttl
    said = response.headers.get("Cache-Control", "")
    for name in ("s-maxage", "max-age"):
        for part in _COMMAS.split(said):
            key, _, value = part.partition("=")
            if key.strip().lower() == name:
                value = value.strip().strip('"')
                return min(ttl, int(value)) if value.isdecimal() else 0
    return ttl


def _may_keep_cookies(response: HttpResponseBase, asked: Asked) -> bool:
    if response.has_header("Set-Cookie"):
        return False
    cookies = {*response.cookies}
    own = {
        POSITION_COOKIE,
        settings.CSRF_COOKIE_NAME,
        settings.SESSION_COOKIE_NAME,
        *conf.settings().credentials,
    }
    return not cookies or (asked.cookies and not cookies & own)


def _directives(header: str) -> set[str]:
    """The names in a ``Cache-Control``, in lower case."""
    return {part.partition("=")[0].strip().lower() for part in _COMMAS.split(header)}
