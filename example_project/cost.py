"""
What a page cost: store requests, queries and time, shown in its footer.

And what the caches did, which the middleware inside of this one has found out.

The footer must count what happens after the template was rendered too (a
session that is saved, for instance). So templates only leave a mark, and the
middleware, which is the outermost, puts the sum there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from s3cache.middleware.status import STATUS_HEADER
from s3cache.stores import observe

MARK = b"<!-- cost -->"

Tick = Callable[[], None]
Meter = Callable[[Tick], AbstractContextManager[None]]


@contextmanager
def store_requests(tick: Tick) -> Iterator[None]:
    """Tick once per request to a store on behalf of this context."""
    with observe(lambda request: tick()):
        yield


@contextmanager
def queries(tick: Tick) -> Iterator[None]:
    """Tick once per SQL statement of this thread, on any database."""

    def execute(
        proceed: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        tick()
        return proceed(sql, params, many, context)

    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(execute))
        yield


# Name (in the singular) and meter of each figure, in the order shown. Another
# figure, such as cache hits, is another line.
METERS: dict[str, Meter] = {
    "store request": store_requests,
    "query": queries,
}


def plural(count: int, noun: str) -> str:
    """Return count and noun, "1 query" or "2 queries"."""
    if count != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun}"


class CostMiddleware:
    """
    Count what each request costs and write it where the page has its mark.

    Every response that is not streamed also carries a ``Server-Timing`` header
    with the same figures, for browsers' developer tools and for pages without
    a footer, such as redirects.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        counts: Counter[str] = Counter()
        started = time.perf_counter()
        with ExitStack() as stack:
            for name, meter in METERS.items():
                stack.enter_context(meter(partial(counts.update, (name,))))
            response = self.get_response(request)
        milliseconds = (time.perf_counter() - started) * 1000
        if isinstance(response, HttpResponse):
            self.report(response, counts, milliseconds)
        return response

    def report(
        self, response: HttpResponse, counts: Counter[str], milliseconds: float
    ) -> None:
        """Write the figures into the page and its headers."""
        figures = [plural(counts[name], name) for name in METERS]
        figures.append(f"{milliseconds:.0f} ms")
        if status := response.headers.get(STATUS_HEADER):
            figures.append(f"cache: {status.lower()}")
        response.headers["Server-Timing"] = (
            f'total;dur={milliseconds:.1f};desc="{", ".join(figures)}"'
        )
        if MARK in response.content:
            response.content = response.content.replace(
                MARK, ", ".join(figures).encode()
            )
            response.headers["Content-Length"] = str(len(response.content))
