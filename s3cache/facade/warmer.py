"""A read is made, and its result is put into the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from django.core.cache import caches

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
    as the model says. What is stored counts neither as a hit nor as a miss.
    Inside a transaction nothing is stored.
    """
    connection = read.connection
    stored = 0

    def store(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        nonlocal stored
        if not isinstance(sql, QuerySQL):
            return execute(sql, params, many, context)
        if not force_refresh:
            place = connection.place_of_result(sql, params, sql.reading)
            if place is not None and place.key in caches[place.cache]:
                if read.is_one and not return_data:
                    raise _IsThere
                return execute(sql, params, many, context)
        query = sql.reading.query
        set_hints(query, renew=True, ttl=ttl)
        with take(query) as taken:
            result = execute(sql, params, many, context)
        stored += taken.was_stored
        return result

    with connection.execute_wrapper(store):
        try:
            data = read.asking().perform()
        except _IsThere:
            return Warmed(0)
    return Warmed(stored, data)
