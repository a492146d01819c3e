"""Whole responses, kept under the versions of the tables that they show."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from s3cache import conf
from s3cache.db.elsewhere import observe_all
from s3cache.db.moments import look
from s3cache.middleware.base import (
    GetResponse,
    Middleware,
    tables_of,
    vary_of,
    who_asks,
)
from s3cache.middleware.cache_control import CacheControlMiddleware
from s3cache.middleware.cookies import see_cookies
from s3cache.middleware.kept import (
    LABEL,
    Known,
    Stored,
    address_of,
    key_of,
    read,
    write,
)
from s3cache.middleware.read_your_writes import ReadYourWritesMiddleware
from s3cache.middleware.rules import (
    Witness,
    asked_of,
    may_be_answered,
    may_be_kept,
    ttl_of,
    witness,
)
from s3cache.middleware.status import CacheStatusMiddleware
from s3cache.replica.replica import Replica, positions
from s3cache.results.counters import counters
from s3cache.results.policy import keeps_elsewhere
from s3cache.results.watching import Why, read_of, watchers, watching

__all__ = ["ResponseCacheMiddleware"]

logger = logging.getLogger("s3cache.middleware")

#: What has to see the response before this does, for it may make it the
#: visitor's own, and say so in ``Vary``.
_INSIDE: Final = (
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.locale.LocaleMiddleware",
)

#: Seconds that it is known of an address what its response is made of.
_KNOWN_FOR: Final = 3600


@dataclass(slots=True)
class _Lookup:
    """What was found out about a request before its view is called."""

    #: None: nothing of it may be kept.
    address: str | None = None
    known: Known | None = None
    response: HttpResponse | None = None
    #: With credentials: whose request it is.
    who: Sequence[object] = ()
    #: Where the replicas were.
    before: Mapping[Replica, tuple[float, int]] = field(default_factory=dict)


class ResponseCacheMiddleware(Middleware):
    """
    Answer GET and HEAD with responses that were made before.

    A response with status 200 is kept for `S3CACHE["RESPONSE_TTL"]` seconds
    in the cache of `S3CACHE["CACHE"]`, under scheme, host, path, query, the
    headers that its `Vary` names and the cookies that were read for it, and
    under the versions of the tables that it was made of: after a write to one
    of them it is not found.

    Not kept are responses to requests with credentials or a body, those that
    set cookies, stream, say `private`, `no-store`, `no-cache` or `Vary: *`,
    have a CSP nonce, come from a request that has written, or have read what
    has no versions: another database, `fresh()`, `skip_cache()`, `random()`,
    models that are excluded from the cache or in a cache of their own, the
    database of a tenant. What a view reads in threads that it starts itself
    is not seen.

    See `cache_response` for what a view can ask for.

    Place it before the middleware for sessions, locale, CSRF, authentication
    and messages, and after the others of this package; raise
    `ImproperlyConfigured` if it is placed otherwise.
    """

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        _check_place(type(self))
        observe_all()

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer from the cache, or keep there what is answered."""
        if self.is_async:
            return self._acall(request)
        if not may_be_answered(request):
            response: HttpResponseBase = self.get_response(request)
            return response
        lookup = _look_up(request)
        if lookup.response is not None:
            return lookup.response
        with witness() as witnessed:
            response = self.get_response(request)
        if _is_to_be_kept(request, response, lookup, witnessed):
            _keep(request, cast("HttpResponse", response), lookup, witnessed)
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        if not may_be_answered(request):
            response: HttpResponseBase = await self.get_response(request)
            return response
        lookup = await sync_to_async(_look_up)(request)
        if lookup.response is not None:
            return lookup.response
        with witness() as witnessed:
            response = await self.get_response(request)
        if _is_to_be_kept(request, response, lookup, witnessed):
            made = cast("HttpResponse", response)
            await sync_to_async(_keep)(request, made, lookup, witnessed)
        return response


def _look_up(request: HttpRequest) -> _Lookup:
    """The response, if it is kept, or else what is needed to keep it."""
    lookup = _Lookup(before=positions())
    try:
        host = request.get_host()
    except DisallowedHost:
        return lookup  # the view will say so
    see_cookies(request)
    lookup.who = who_asks(request)
    method = cast("str", request.method)
    lookup.address = address_of(request, host, method)
    # A HEAD is answered by what a GET was, but not the other way round.
    for address in dict.fromkeys([address_of(request, host, "GET"), lookup.address]):
        known = read(address, Known)
        if address == lookup.address:
            lookup.known = known
        if known is None or (lookup.who and not known.credentials):
            continue
        lookup.response = _find(request, lookup, address, known)
        if lookup.response is not None:
            counters.count(LABEL, method.lower(), "hit")
            break
    return lookup


def _find(
    request: HttpRequest, lookup: _Lookup, address: str, known: Known
) -> HttpResponse | None:
    if not known.tables.keys() <= {*conf.bucket_aliases()}:
        return None  # the settings were others
    try:
        moment = look(known.tables)
    except DatabaseError:
        return None  # the view will say so
    if moment is None:
        return None
    key = key_of(request, address, known, moment, lookup.who)
    stored = read(key, Stored)
    if stored is None:
        return None
    if watchers:
        beside = frozenset(["stale"] if moment.is_stale else [])
        for alias, tables in known.tables.items():
            what = alias, LABEL, "get", "hit", Why.RESPONSE, tables
            watching().add(read_of(*what, beside))
    return stored.response_to(request)


def _is_to_be_kept(
    request: HttpRequest,
    response: HttpResponseBase,
    lookup: _Lookup,
    witnessed: Witness,
) -> bool:
    """Whether the response is one for the cache; waits for nothing."""
    if lookup.address is None or not (
        witnessed.seen.reads or asked_of(response).is_explicit
    ):
        return False
    is_one = may_be_kept(request, response, witnessed, had_credentials=bool(lookup.who))
    method = cast("str", request.method).lower()
    counters.count(LABEL, method, "miss" if is_one else "bypass")
    return is_one


def _keep(
    request: HttpRequest, response: HttpResponse, lookup: _Lookup, witnessed: Witness
) -> None:
    address = cast("str", lookup.address)
    before = lookup.known or Known({}, (), (), False)
    asked, ttl = asked_of(response), ttl_of(response)
    known = before.merged(
        tables_of(witnessed.reads),
        vary_of(response),
        see_cookies(request).asked,
        credentials=asked.credentials,
    )
    if ttl <= 0 or any(keeps_elsewhere(names) for names in known.tables.values()):
        return
    try:
        moment = look(known.tables, ask=False)
    except DatabaseError as error:
        logger.info("%s is not kept: %s", request.path, error)
        return
    # Had somebody written meanwhile, older content would get a newer key.
    if moment is None or not moment.is_as_at(lookup.before):
        return
    key = key_of(request, address, known, moment, lookup.who)
    write(key, Stored.of(response), ttl)
    if known != lookup.known:
        write(address, known, max(ttl, _KNOWN_FOR))


def _check_place(mine: type[Middleware]) -> None:
    """Raise unless all that this sees, or is seen by, is in its place."""
    placed = [import_string(path) for path in settings.MIDDLEWARE]
    if mine not in placed:
        return
    place = placed.index(mine)
    inside = tuple(import_string(path) for path in _INSIDE)
    around = (ReadYourWritesMiddleware, CacheStatusMiddleware, CacheControlMiddleware)
    for number, other in enumerate(placed):
        if not isinstance(other, type):
            continue
        if issubclass(other, inside) and number < place:
            wrong = "before"
        elif issubclass(other, around) and number > place:
            wrong = "after"
        else:
            continue
        raise ImproperlyConfigured(
            f"MIDDLEWARE has {settings.MIDDLEWARE[number]} {wrong} "
            f"{settings.MIDDLEWARE[place]}: the order must be "
            f"s3cache's other middleware, ResponseCacheMiddleware, and then those "
            f"for sessions, locale, CSRF, authentication and messages."
        )
