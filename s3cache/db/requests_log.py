"""Store requests where developers look for queries.

A statement's entry in ``connection.queries`` has the requests that it took
under the key "store". They are no entries of their own, nor part of the SQL:
Django's ``assertNumQueries`` counts what it counts on any database. The logger
``django.db.backends`` gets a record of each request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import CursorDebugWrapper

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


def show(wrapper: DatabaseWrapper) -> None:
    """Put the noted requests beside the last statement that was logged."""
    if wrapper.noted_requests and wrapper.queries_log:
        entry = wrapper.queries_log[-1]
        before = [entry["store"]] if "store" in entry else []
        entry["store"] = ", ".join(before + wrapper.noted_requests)
        wrapper.noted_requests.clear()


class DebugCursor(CursorDebugWrapper):
    """Logs statements as Django does, and their store requests with them."""

    db: DatabaseWrapper

    @contextmanager
    def debug_sql(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Log the statement of the context."""
        with super().debug_sql(*args, **kwargs):
            yield
        show(self.db)
