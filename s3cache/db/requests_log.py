"""Store requests where developers look for queries."""

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
def shown_in(wrapper: DatabaseWrapper) -> Iterator[None]:
    """Show requests in ``connection.queries`` and Django's SQL logger.

    Like SQL they are shown only with DEBUG, or in tests that ask for them.
    """
    if not wrapper.queries_logged:
        yield
        return

    def show(request: Request) -> None:
        text = f"-- {request.kind} {request.key} -> {request.status}"
        wrapper.queries_log.append({"sql": text, "time": f"{request.seconds:.3f}"})
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

    with observe(show):
        yield
