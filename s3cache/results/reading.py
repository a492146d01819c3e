"""What the result cache is told of a query: which one it is.

The compiler returns SQL that carries its query. Whatever is executed
meanwhile on the same connection, by an execute wrapper for example, has SQL
of its own; and SQL that a wrapper has changed is a plain string.
"""

from __future__ import annotations

from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.sql import AggregateQuery, Query

from s3cache.hints import Hints, hints_of
from s3cache.results.counters import counters

__all__ = ["QuerySQL", "Reading", "action_of"]

#: The alias under which ``QuerySet.count()`` counts.
_COUNT: Final = "__count"

#: What ``QuerySet.get()`` limits itself to, to notice that there are several.
_GET_LIMIT: Final = 21


class Reading:
    """A query that is being executed; ``keep``: its result may be kept."""

    __slots__ = ("connection", "keep", "query")

    def __init__(
        self, query: Query, connection: BaseDatabaseWrapper, *, keep: bool = True
    ) -> None:
        self.query = query
        self.connection = connection
        self.keep = keep and not query.select_for_update

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

    def bypass(self) -> None:
        """Count that the query was not answered from the cache."""
        model = self.model
        if model is not None:
            counters.count(model._meta.label_lower, action_of(self.query), "bypass")


class QuerySQL(str):
    """The SQL of ``reading``."""

    reading: Reading

    __slots__ = ("reading",)

    def __new__(cls, sql: str, reading: Reading) -> QuerySQL:
        made = super().__new__(cls, sql)
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
