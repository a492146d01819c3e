"""Which rows of its table a query can depend on.

A query whose WHERE says, among other things that must hold too, that a column
has a certain value, depends on no row where it has another one: neither on
what such a row held nor on what it holds now. So a change of those rows
leaves its result valid.

Narrowed is the table that the query is of, if the SQL names it but once. All
else counts as a whole: what is joined, subqueries, SQL by hand. What is not
understood here makes a result depend on more, never on less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Col
from django.db.models.lookups import Exact, IsNull
from django.db.models.sql import AggregateQuery, Query
from django.db.models.sql.where import AND, WhereNode

from s3cache.replica.tables import Schema, Table
from s3cache.results.versions import PartScope, RowScope

__all__ = ["narrowed", "partition_of"]

#: Fields whose values SQLite stores as what the query compares with: text as
#: text, numbers as integers. Decimals and dates have several forms.
_TEXT: Final = (
    models.CharField,
    models.TextField,
    models.UUIDField,
)
_WHOLE: Final = (models.IntegerField, models.BooleanField)


def narrowed(
    query: Query, sql: str, schema: Schema, connection: BaseDatabaseWrapper
) -> RowScope | PartScope | None:
    """The part of the table of ``query`` that counts.

    ``sql`` is the query's, ``schema`` that of the replica, without views in
    it. None: all of the table.
    """
    if isinstance(query, AggregateQuery):
        query = query.inner_query
    if query.model is None or query.combinator or not query.where.children:
        return None
    model, alias = query.model, query.base_table
    table = schema.get(model._meta.db_table)
    if table is None or alias != model._meta.db_table:
        return None
    values = dict(_required(query.where, alias, table, connection))
    if not values or not _is_named_once(alias, sql):
        return None
    name = alias.lower()
    if len(table.key) == 1 and table.key[0] in values:
        key = values[table.key[0]]
        return None if key is None else RowScope(name, (key,))
    columns = _partition(model, frozenset(values))
    if columns is None:
        return None
    return PartScope(name, columns, tuple(values[one] for one in columns))


def _required(
    where: WhereNode, alias: str, table: Table, connection: BaseDatabaseWrapper
) -> Iterator[tuple[str, Any]]:
    """The columns that must have a certain value, which is plain."""
    if where.connector != AND or where.negated:
        return
    for child in where.children:
        if isinstance(child, WhereNode):
            yield from _required(child, alias, table, connection)
            continue
        lhs = getattr(child, "lhs", None)
        if type(lhs) is not Col or lhs.alias != alias:
            continue
        if not type(child).__module__.startswith("django.db.models."):
            continue  # one of the project's own, which may compare as it likes
        column = lhs.target.column
        if column is None:
            continue
        if isinstance(child, IsNull):
            if child.rhs is True:
                yield column, None
        elif isinstance(child, Exact) and not hasattr(child.rhs, "as_sql"):
            affinity = table.affinities.get(column, "")
            value = _stored(lhs.target, child.rhs, affinity, connection)
            if value is not None:
                yield column, value


def _stored(
    field: models.Field[Any, Any],
    value: object,
    affinity: str,
    connection: BaseDatabaseWrapper,
) -> int | str | None:
    """``value`` as SQLite has it in a row; None if that cannot be told.

    The table need not be one that Django has made: its columns tell whether
    other values are equal to this one, and in which form they are stored.
    """
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    if hasattr(value, "resolve_expression"):
        return None
    stored = field.get_db_prep_value(value, connection, prepared=True)
    if isinstance(field, _TEXT) and isinstance(stored, str):
        # Not str(), which is the name of some members of an Enum.
        return str.__str__(stored) if affinity == "TEXT" else None
    if isinstance(field, _WHOLE) and isinstance(stored, int):
        return int(stored) if affinity in ("INTEGER", "NUMERIC") else None
    return None


@lru_cache(maxsize=4096)
def _is_named_once(table: str, sql: str) -> bool:
    """Whether ``sql`` reads ``table`` in one place, for sure.

    Django writes names in quotes, and a column with its table before it.
    """
    name = re.escape(table)
    named = len(re.findall(name, sql, re.IGNORECASE))
    of_columns = len(re.findall(f'"{name}"\\.', sql))
    return named - of_columns == 1 and f'FROM "{table}" ' in f"{sql} "


@lru_cache(maxsize=4096)
def _partition(
    model: type[models.Model], columns: frozenset[str]
) -> tuple[str, ...] | None:
    """The partition of the most columns, all of which are in ``columns``."""
    found: tuple[str, ...] | None = None
    for own in _partitions(model):
        fits = columns.issuperset(own)
        if fits and (found is None or len(own) > len(found)):
            found = own
    return found


@lru_cache(maxsize=4096)
def partition_of(model: type[models.Model] | None, columns: tuple[str, ...]) -> str:
    """The name of the partition by ``columns``, "" if there is none."""
    return "" if model is None else _partitions(model).get(columns, "")


def _partitions(model: type[models.Model]) -> Mapping[tuple[str, ...], str]:
    """The names of the partitions by their columns, which are sorted."""
    options = getattr(model, "_s3meta", None)
    if options is None or not options.partition_aware:
        return {}
    partitions: Mapping[str, tuple[str, ...]] = options.partitions
    found: dict[tuple[str, ...], str] = {}
    for name, names in partitions.items():
        fields = [model._meta.get_field(one) for one in names]
        own = tuple(
            sorted(
                field.column
                for field in fields
                if isinstance(field, models.Field)
                and field.column
                and field.model._meta.db_table == model._meta.db_table
            )
        )
        if len(own) == len(names):
            found.setdefault(own, name)
    return found
