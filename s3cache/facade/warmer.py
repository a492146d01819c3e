"""A read is made, and its result is put into the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from django.core.cache import caches

from s3cache.conf import is_number
from s3cache.hints import set_hints
from s3cache.results.reading import QuerySQL, take

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper

__all__ = ["Readable", "Warmed", "warm"]


class _IsThere(Exception):
    """The result is in the cache already."""


class Readable(Protocol):
    """What can be read; see `s3cache.facade.reads.Read`."""

    @property
    def connection(self) -> DatabaseWrapper: ...

    @property
    def is_one(self) -> bool:
        """Whether it is one statement, or others need the rows of that."""

    def asking(self, **hints: Any) -> Readable: ...

    def perform(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Warmed:
    """`stored`: how many results were put into the cache; `data`: theirs."""

    stored: int
    data: Any = None


def warm(
    read: Readable,
    *,
    force_refresh: bool = False,
    return_data: bool = False,
    ttl: float | None = None,
) -> Warmed:
    """
    Have the result of a read in the cache.

    One that is there already is left alone, and not even read unless
    `force_refresh` or `return_data` asks for it. `ttl` is in seconds, None:
    as the model says; `ValueError` unless it is a number above 0. What is
    stored counts neither as a hit nor as a miss. Inside a transaction nothing
    is stored.
    """
    if ttl is not None and not (is_number(ttl) and 0 < ttl < math.inf):
        raise ValueError(f"ttl is {ttl!r}, but must be a number of seconds above 0.")
    connection = read.connection
    stored = 0
    is_first = True

    def store(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        nonlocal stored, is_first
        if not isinstance(sql, QuerySQL):
            return execute(sql, params, many, context)
        # Others come from code that sees the objects: it needs an answer.
        may_end, is_first = is_first and read.is_one and not return_data, False
        if not force_refresh:
            place = connection.place_of_result(sql, params, sql.reading)
            if place is not None and place.key in caches[place.cache]:
                if may_end:
                    raise _IsThere
                return execute(sql, params, many, context)
        query = sql.reading.query
        # A queryset may have said for how long itself.
        set_hints(query, renew=True, **({} if ttl is None else {"ttl": ttl}))
        if (taken := sql.reading.taken) is not None:  # the hot path's
            result = execute(sql, params, many, context)
        else:
            with take(query) as taken:
                result = execute(sql, params, many, context)
        stored += taken.was_stored
        return result

    with connection.execute_wrapper(store):
        try:
            # What the hot path has is computed anew, too.
            asking = read.asking(renew=True) if force_refresh else read.asking()
            data = asking.perform()
        except _IsThere:
            return Warmed(0)
    return Warmed(stored, data)
