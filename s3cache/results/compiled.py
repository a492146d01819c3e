"""What Django has compiled a ``get()`` to, for one with other values.

A hot read whose result is gone is mostly one of a row that was just written.
To build its queryset and to compile it takes a third of what such a read
takes, and comes to the same statement every time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast
from uuid import UUID

from django.db import models
from django.db.models.expressions import Col
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler

from s3cache.results.reading import Again, QuerySQL, Taken, bare
from s3cache.results.statements import Known
from s3cache.results.versions import (
    POSITION_COLUMNS,
    At,
    PartScope,
    RowScope,
    Scope,
)

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper

__all__ = ["LARGEST", "Compiled", "stored"]

_M = TypeVar("_M", bound=models.Model)

#: Django finds nothing by what does not fit, and does not ask for it.
LARGEST: Final = 2**63 - 1


def stored(value: object) -> Any:
    """A value of a plain column as SQLite has it in a row."""
    if type(value) is UUID:
        return value.hex
    return int(value) if type(value) is bool else value


@dataclass(frozen=True, slots=True)
class Compiled(Generic[_M]):
    """A SELECT of objects of ``model``, whose parameters are its values.

    ``query`` is the one that it was compiled of, with its own values. It
    selects the fields that are called ``names``; of ``columns`` there are
    those whose values Django converts, and None in the place of the others.
    ``known`` is for ``row``; None: only ``rows`` may read it.
    """

    model: type[_M]
    query: Query
    sql: str
    known: Known | None
    names: tuple[str, ...]
    columns: tuple[Col | None, ...]

    @classmethod
    def of(
        cls, model: type[_M], taken: Taken, values: tuple[Any, ...]
    ) -> Compiled[_M] | None:
        """What was compiled for the read that ``taken`` was told of.

        None: it may come to something else with other values.
        """
        reading = taken.reading
        if reading is None or not _are_the_same(reading.params, values):
            return None
        query = bare(reading.query)
        compiler = cast(
            "SQLCompiler", query.get_compiler(connection=reading.connection)
        )
        compiler.setup_query()
        columns = tuple(one[0] for one in compiler.select)
        if (
            compiler.annotation_col_map
            or compiler.klass_info is None
            or compiler.klass_info["model"] is not model
            or compiler.klass_info.get("related_klass_infos")
            or not all(type(one) is Col for one in columns)
        ):
            return None
        names = tuple(one.target.attname for one in columns)
        if names != tuple(field.attname for field in model._meta.concrete_fields):
            return None
        converted = compiler.get_converters(list(columns))
        return cls(
            model,
            query,
            reading.sql,
            Known.of(reading, taken.sql),
            names,
            tuple(one if i in converted else None for i, one in enumerate(columns)),
        )

    def params(self, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The parameters for these values; None: Django has to compile it."""
        params = tuple([stored(value) for value in values])
        if not all(type(one) is str or 0 <= one <= LARGEST for one in params):
            return None
        return params

    def rows(
        self,
        wrapper: DatabaseWrapper,
        values: tuple[Any, ...],
        part: RowScope | PartScope | None,
    ) -> tuple[Taken, list[Any]] | None:
        """Read the rows with these values, which are all in ``part``.

        None: Django has to compile it.
        """
        params = self.params(values)
        if params is None:
            return None
        reading = Again(self.query, wrapper, self.sql, params, part)
        with wrapper.cursor() as cursor:
            cursor.execute(QuerySQL(reading), params)
            return reading.taken, cursor.fetchall()

    def row(
        self,
        wrapper: DatabaseWrapper,
        values: tuple[Any, ...],
        scopes: tuple[Scope, ...],
    ) -> tuple[At, tuple[Any, ...] | None] | None:
        """The row with these values, if there is one, by one call of SQLite.

        It belongs to ``scopes``. None: ``rows`` has to do it.
        """
        params = self.params(values)
        if params is None or self.known is None:
            return None
        read = wrapper.read_at_once(self.known, params, scopes)
        if read is None or len(read[1]) > 1:
            return None
        at, (row,) = read
        is_there = row[POSITION_COLUMNS] is not None
        return at, row[POSITION_COLUMNS + 1 :] if is_there else None

    def make(self, wrapper: DatabaseWrapper, row: Any) -> _M:
        """The object of a row, as Django makes it."""
        return self.make_all(wrapper, [row])[0]

    def make_all(self, wrapper: DatabaseWrapper, rows: Iterable[Any]) -> list[_M]:
        """The objects of rows, as Django makes them."""
        compiler: Any = self.query.get_compiler(connection=wrapper)
        converters = compiler.get_converters(self.columns)
        if converters:
            rows = compiler.apply_converters(rows, converters)
        return [self.model.from_db(wrapper.alias, self.names, row) for row in rows]


def _are_the_same(params: Any, values: tuple[Any, ...]) -> bool:
    """Whether a statement takes nothing but these values, as they are."""
    expected = [stored(value) for value in values]
    return list(params) == expected and all(
        type(one) in (int, str) and type(param) is type(one)
        for param, one in zip(params, expected, strict=True)
    )
