"""What a process that answers requests begins with."""

from __future__ import annotations

import logging
import os
from typing import Any

from django.core.signals import request_started

__all__ = ["connect", "start"]

logger = logging.getLogger("s3cache.warming")

#: The process that has begun; a child of a fork has not.
_begun_in: list[int] = []


def connect() -> None:
    """Have the first request of this process `start`."""
    request_started.connect(_at_first_request, dispatch_uid="s3cache.warming")


def _at_first_request(**kwargs: Any) -> None:
    if _begun_in == [os.getpid()]:
        return
    try:
        start()
    except Exception:
        # Of the project's modules, too; the visitor has nothing to do with it.
        logger.exception("The queries that are to be warm could not be imported.")


def start() -> None:
    """
    Import the apps' queries, and warm what the settings name, in a thread.

    From then on queries are warmed again after changes, and traffic is
    recorded, if ``S3CACHE["RECORD_TRAFFIC"]`` says so. The first request of
    a process does it; a server may call it before (``post_fork`` of
    gunicorn, for example). Nothing happens at the second time.
    """
    from s3cache import conf
    from s3cache.signals import rows_changed
    from s3cache.warming import traffic
    from s3cache.warming.background import background, warm_after_changes
    from s3cache.warming.registry import queries

    if _begun_in == [os.getpid()]:
        return
    _begun_in[:] = [os.getpid()]
    settings = conf.settings()
    if any(one.after for one in queries()):
        rows_changed.connect(warm_after_changes, dispatch_uid="s3cache.warming")
    if settings.record_traffic:
        traffic.record()
    background.ask(settings.warm_at_start)
