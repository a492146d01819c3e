"""Store requests where developers look for queries.

A statement's entry in ``connection.queries`` names the requests that it took
in a comment behind its SQL, so that Django's ``assertNumQueries`` counts what
it counts on any database. The logger ``django.db.backends`` gets a record of
each request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from s3cache.stores.base import Request, observe

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper

logger = logging.getLogger("django.db.backends")


@contextmanager
def noted_by(wrapper: DatabaseWrapper) -> Iterator[None]:
    """Note the requests of the context, if queries are logged at all."""
    if not wrapper.queries_logged:
        yield
        return

    def note(request: Request) -> None:
        text = f"{request.kind} {request.key} {request.status}"
        wrapper.noted_requests.append(f"{text} ({request.seconds:.3f} s)")
        logger.debug(
            "(%.3f) %s; alias=%s",
            request.seconds,
            text,
            wrapper.alias,
            extra={
                "duration": request.seconds,
                "sql": text,
                "params": (),
                "alias": wrapper.alias,
            },
        )

    with observe(note):
        yield


def comment(wrapper: DatabaseWrapper) -> str:
    """The requests noted since the last call, as an SQL comment, or ""."""
    noted, wrapper.noted_requests = wrapper.noted_requests, []
    return f" -- store: {', '.join(noted)}" if noted else ""


def amend_last(wrapper: DatabaseWrapper) -> None:
    """Put the noted requests behind the last statement that was logged."""
    text = comment(wrapper)
    if text and wrapper.queries_log:
        wrapper.queries_log[-1]["sql"] += text


def add(wrapper: DatabaseWrapper) -> None:
    """Log the noted requests as an entry of their own."""
    text = comment(wrapper)
    if text:
        wrapper.queries_log.append({"sql": text.strip(), "time": "0.000"})
