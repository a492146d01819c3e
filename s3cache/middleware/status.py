"""``X-Cache-Status``: what the caches did for this response."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Final
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from s3cache.middleware.base import Middleware, tables_of
from s3cache.results.watching import Read, Watch, watch

__all__ = ["STATUS_HEADER", "TABLES_HEADER", "CacheStatusMiddleware", "status_of"]

STATUS_HEADER: Final = "X-Cache-Status"
TABLES_HEADER: Final = "X-Cache-Table"

#: The request header that asks for the tables.
_DEBUG: Final = "HTTP_X_CACHE_DEBUG"


class CacheStatusMiddleware(Middleware):
    """
    Say in `X-Cache-Status` what became of the reads of a request.

    `HIT`: all came from caches; `BYPASS`: one could not, or should not;
    `MISS`: one was computed; `STALE`: one is older than `max_age`, since the
    store is down. Of several the worst is said: STALE, MISS, BYPASS, HIT. A
    response for which no database in a bucket was read has no such header.

    With DEBUG, or for requests with an `X-Cache-Debug` header from one of
    INTERNAL_IPS, `X-Cache-Table` names the tables.

    Place it first: what is read outside of it, it does not see. Neither does
    it see what a streaming response reads after its headers have gone.
    """

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer, and say where the answer came from."""
        if self.is_async:
            return self._acall(request)
        with watch(Watch()) as seen:
            response: HttpResponseBase = self.get_response(request)
        return _marked(request, response, seen.reads)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        with watch(Watch()) as seen:
            response: HttpResponseBase = await self.get_response(request)
        return _marked(request, response, seen.reads)


def status_of(reads: Iterable[Read]) -> str | None:
    """The worst that became of ``reads``; None if there are none.

    What reads no table does not count: constraints are checked like that.
    """
    reads = [read for read in reads if read.tables]
    events = {read.event for read in reads}
    if not events:
        return None
    if any("stale" in read.beside for read in reads):
        return "STALE"
    if "miss" in events:
        return "MISS"
    return "BYPASS" if "bypass" in events else "HIT"


def _marked(
    request: HttpRequest, response: HttpResponseBase, reads: Iterable[Read]
) -> HttpResponseBase:
    # A copy: a task that outlives the request may go on reading.
    reads = tuple(reads)
    status = status_of(reads)
    if status is not None:
        response.headers[STATUS_HEADER] = status
        if settings.DEBUG or _wants_tables(request):
            response.headers[TABLES_HEADER] = ", ".join(
                quote(table, safe=" ")
                for table in sorted(
                    {one for some in tables_of(reads).values() for one in some}
                )
            )
    return response


def _wants_tables(request: HttpRequest) -> bool:
    return (
        _DEBUG in request.META
        and request.META.get("REMOTE_ADDR") in settings.INTERNAL_IPS
    )
