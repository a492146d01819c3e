"""Notices what is read from databases that are not in a bucket.

Nothing is known of their versions, so what depends on them cannot be kept
under versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

__all__ = ["observe_all", "watch_elsewhere"]

#: The aliases that were used in this context.
_used: ContextVar[set[str] | None] = ContextVar("s3cache_elsewhere", default=None)

_ID: Final = "s3cache.db.elsewhere"


@contextmanager
def watch_elsewhere() -> Iterator[set[str]]:
    """Gather the aliases of such databases that are used inside."""
    outer = _used.get()
    used: set[str] = set()
    token = _used.set(used)
    try:
        yield used
    finally:
        _used.reset(token)
        if outer is not None:
            outer |= used


def observe_all() -> None:
    """Look at the statements of all such connections, from now on."""
    connection_created.connect(_observe, dispatch_uid=_ID)
    for connection in connections.all(initialized_only=True):
        _observe(connection=connection)


def _observe(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    wrappers = connection.execute_wrappers
    if not getattr(connection, "is_s3cache", False) and _note not in wrappers:
        wrappers.append(_note)


def _note(
    execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
) -> Any:
    used = _used.get()
    if used is not None:
        used.add(context["connection"].alias)
    return execute(sql, params, many, context)
