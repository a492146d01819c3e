"""What the result cache is told of a query: which one it is.

The compiler returns SQL that carries its query. Whatever is executed
meanwhile on the same connection, by an execute wrapper for example, has SQL
of its own; and SQL that a wrapper has changed is a plain string.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from django.db.models import Model
from django.db.models.sql import AggregateQuery, Query

from s3cache.conf import counted_as
from s3cache.hints import Hints, drop_hints, hints_of
from s3cache.results.counters import counters
from s3cache.results.narrowing import narrowed
from s3cache.results.repeats import Repeats
from s3cache.results.versions import At, PartScope, RowScope, Scope

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper
    from s3cache.replica.tables import Schema

__all__ = [
    "Again",
    "OfRows",
    "QuerySQL",
    "Reading",
    "Taken",
    "action_of",
    "bare",
    "label_and_action",
    "take",
]

#: The alias under which ``QuerySet.count()`` counts.
_COUNT: Final = "__count"

#: What ``QuerySet.get()`` limits itself to, to notice that there are several.
_GET_LIMIT: Final = 21

#: An attribute of a query, which its clones have too.
_TAKEN: Final = "s3cache_taken"


class Taken:
    """What a query was told of its result: where it belongs.

    ``at`` is None unless the result may be kept; ``scopes`` are what it
    depends on, in the order of the versions; ``sql`` is the statement, of
    ``reading``.
    ``was_kept``: it came from the cache, so somebody had asked for it before;
    ``was_stored``: it was put there; ``replaces``: whatever else is kept of it
    is not to be believed, and ``is_wanted``: also by other processes.
    ``repeats`` knows of whoever asks for it again.

    ``thread`` is whose query it is: others may execute the same object at the
    same time, and what they are told is of their results.
    """

    __slots__ = (
        "at",
        "is_wanted",
        "reading",
        "repeats",
        "replaces",
        "scopes",
        "sql",
        "thread",
        "was_kept",
        "was_stored",
    )

    def __init__(self) -> None:
        self.thread = get_ident()
        self.at: At | None = None
        self.was_kept = self.was_stored = self.replaces = self.is_wanted = False
        self.scopes: tuple[Scope, ...] = ()
        self.reading: Reading | None = None
        self.sql = ""
        self.repeats = Repeats()


@contextmanager
def take(query: Query) -> Iterator[Taken]:
    """Have ``query``, and what is derived from it now, tell of its result.

    Of threads that do so at once at most one is told.
    """
    taken = Taken()
    attributes = vars(query)
    attributes[_TAKEN] = taken
    try:
        yield taken
    finally:
        attributes.pop(_TAKEN, None)


def bare(query: Query) -> Query:
    """A copy of ``query`` without what whoever made it wanted of the cache."""
    query = query.clone()
    drop_hints(query)
    vars(query).pop(_TAKEN, None)
    return query


class Reading:
    """A query that is being executed; ``keep``: its result may be kept.

    ``sql`` and ``params`` are what Django compiled, the same object.
    ``by_chunks``: for ``iterator()``, which is how forms read their choices,
    but also how whoever reads whole tables once does.
    """

    __slots__ = ("by_chunks", "connection", "keep", "params", "query", "sql")

    def __init__(
        self,
        query: Query,
        connection: DatabaseWrapper,
        sql: str = "",
        params: Any = (),
        *,
        by_chunks: bool = False,
    ) -> None:
        self.query = query
        self.connection = connection
        self.sql = sql
        self.params = params
        self.by_chunks = by_chunks
        self.keep = not query.select_for_update

    @property
    def model(self) -> type[Model] | None:
        """The model of the queryset."""
        query = self.query
        return query.model or getattr(
            getattr(query, "inner_query", None), "model", None
        )

    @property
    def hints(self) -> Hints:
        """What the queryset asked of the cache."""
        return hints_of(self.query)

    @property
    def taken(self) -> Taken | None:
        """Who wants to know where the result belongs."""
        query: Query | None = self.query
        while query is not None:
            taken: Taken | None = getattr(query, _TAKEN, None)
            if taken is not None:
                return taken if taken.thread == get_ident() else None
            # What counts or aggregates may be wrapped around it.
            query = getattr(query, "inner_query", None)
        return None

    def part(self, sql: str, schema: Schema) -> RowScope | PartScope | None:
        """The part of its table that counts; None: all of it.

        ``sql`` is what it has become for SQLite, ``schema`` the replica's.
        """
        return narrowed(self.query, sql, schema, self.connection)

    def bypass(self) -> None:
        """Count that the query was not answered from the cache."""
        model = self.model
        if model is not None:
            counters.count(
                model._meta.label_lower,
                action_of(self.query),
                "bypass",
                database=counted_as(self.connection.alias),
            )


class Again(Reading):
    """A query that is another one with other values.

    ``query`` is the other one: what that looks for does not count.
    """

    __slots__ = ("_part", "_taken")

    def __init__(
        self,
        query: Query,
        connection: DatabaseWrapper,
        sql: str,
        params: Any,
        part: RowScope | PartScope | None,
    ) -> None:
        super().__init__(query, connection, sql, params)
        self._part = part
        self._taken = Taken()

    @property
    def taken(self) -> Taken:
        """Who makes it wants to know where the result belongs."""
        return self._taken

    def part(self, sql: str, schema: Schema) -> RowScope | PartScope | None:
        """The part that it was made for."""
        return self._part


class OfRows(Again):
    """A query of rows by their keys, whose result is kept row by row.

    It is told the versions of ``scopes``: of these rows, and of whatever else
    has to be of the same position.
    """

    __slots__ = ("scopes",)

    def __init__(
        self,
        query: Query,
        connection: DatabaseWrapper,
        sql: str,
        params: Any,
        scopes: tuple[RowScope, ...],
    ) -> None:
        super().__init__(query, connection, sql, params, None)
        self.scopes = scopes


class QuerySQL(str):
    """The SQL of ``reading``."""

    reading: Reading

    __slots__ = ("reading",)

    def __new__(cls, reading: Reading) -> QuerySQL:
        made = super().__new__(cls, reading.sql)
        made.reading = reading
        return made


def action_of(query: Query) -> str:
    """What was asked for, in a word that keys and statistics have."""
    if isinstance(query, AggregateQuery) or not query.default_cols:
        annotations = query.annotation_select
        if _COUNT in annotations:
            return "count"
        if isinstance(query, AggregateQuery):
            return "aggregate"
        if set(annotations) == {"a"} and query.high_mark == 1:
            return "exists"
        if annotations and query.group_by is None and not query.select:
            return "aggregate"
    if not query.is_sliced:
        return "list"
    if query.low_mark == 0 and query.high_mark == _GET_LIMIT:
        return "get"
    return "page"


def label_and_action(reading: Reading | None) -> tuple[str, str]:
    """What a read is counted under; None is SQL that was written by hand."""
    if reading is None or reading.model is None:
        return "sql", "query"
    return reading.model._meta.label_lower, action_of(reading.query)
