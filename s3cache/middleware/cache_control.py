"""``Cache-Control``: for how long browsers and proxies may keep a response."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Iterable

from asgiref.sync import sync_to_async
from django.db import DatabaseError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers

from s3cache.db.elsewhere import observe_all, watch_elsewhere
from s3cache.db.moments import look
from s3cache.middleware.base import (
    GetResponse,
    Middleware,
    has_credentials,
    tables_of,
)
from s3cache.middleware.cookies import see_cookies, values_of
from s3cache.results.watching import Read, Watch, Why, watch

__all__ = ["CacheControlMiddleware"]

logger = logging.getLogger("s3cache.middleware")


class CacheControlMiddleware(Middleware):
    """
    Let browsers and proxies keep a response as long as a host would.

    `max-age` is what is left of the `max_age` of the tables that were read:
    until then this host would not ask the store either. `public` only if the
    request has no credentials and the response sets no cookie, else
    `private`, and with `Vary: Cookie`, so that a browser asks again after a
    write that `ReadYourWritesMiddleware` has seen. `Vary: Cookie`, too, if a
    cookie was read for it: then it is `private` if the request has that.

    Only for GET and HEAD with status 200 or 304, and only where nothing else
    has set `Cache-Control` and all that was read is in buckets' tables.
    """

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        observe_all()

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer, and say for how long that holds."""
        if self.is_async:
            return self._acall(request)
        see_cookies(request)
        with watch(Watch()) as seen, watch_elsewhere() as elsewhere:
            response: HttpResponseBase = self.get_response(request)
        if not elsewhere and _is_eligible(request, response, seen.reads):
            _control(request, response, seen.reads)
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        see_cookies(request)
        with watch(Watch()) as seen, watch_elsewhere() as elsewhere:
            response: HttpResponseBase = await self.get_response(request)
        if not elsewhere and _is_eligible(request, response, seen.reads):
            await sync_to_async(_control)(request, response, seen.reads)
        return response


def _is_eligible(
    request: HttpRequest, response: HttpResponseBase, reads: Iterable[Read]
) -> bool:
    return (
        request.method in ("GET", "HEAD")
        and response.status_code in (200, 304)
        and not response.streaming
        and not response.has_header("Cache-Control")
        and any(True for _ in reads)
    )


def _control(
    request: HttpRequest, response: HttpResponseBase, reads: Iterable[Read]
) -> None:
    reads = tuple(reads)
    asks_always = any(read.why is Why.FRESH for read in reads)
    if not asks_always and not all(map(_has_age, reads)):
        return
    left = 0.0
    if not asks_always:
        try:
            moment = look(tables_of(reads), ask=False)
        except DatabaseError as error:
            logger.warning("How old a response is cannot be told: %s", error)
            return
        if moment is None:
            return
        left = moment.left
    asked = see_cookies(request).asked
    is_private = (
        has_credentials(request)
        or any(value for name, value in values_of(request, asked))
        or bool(response.cookies)
        or response.has_header("Set-Cookie")
    )
    patch_cache_control(
        response,
        max_age=max(0, math.floor(left)),
        **{"private" if is_private else "public": True},
    )
    if is_private or asked:
        # So a browser asks again after the visitor has written something:
        # ReadYourWritesMiddleware has set a cookie then.
        patch_vary_headers(response, ["Cookie"])


def _has_age(read: Read) -> bool:
    """Whether ``max_age`` is all that there is to say about it."""
    return bool(read.tables) and read.why not in (Why.IMPURE, Why.REPLACED)
