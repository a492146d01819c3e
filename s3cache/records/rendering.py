"""Rows as the content of records: what ``dumpdata`` says of an object.

From raw values, without instances of models: their signals and descriptors
may do anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any

from django.apps import apps
from django.core.serializers.base import SerializationError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CompositePrimaryKey, Field, JSONField, Model
from django.utils.encoding import is_protected_type

from s3cache.log.entry import Value
from s3cache.records.form import plain

Content = dict[str, Any]


def models_with_records(*, default: bool) -> Iterator[type[Model]]:
    """The models whose rows are to have records, one for each table.

    ``default`` is what holds for models that say nothing, as all do that are
    not an ``S3Model``. The table of a ``ManyToManyField`` goes with the model
    that declares it.
    """
    seen: set[str] = set()
    for model in apps.get_models(include_auto_created=True):
        options = model._meta
        table = options.db_table.lower()
        if options.proxy or options.swapped or table in seen:
            continue
        seen.add(table)
        declarer: Any = options.auto_created  # django-stubs take it for a flag
        owner = declarer or model
        told = getattr(getattr(owner, "_s3meta", None), "records", None)
        if default if told is None else told:
            yield model


@cache
def has_models(*, default: bool) -> bool:
    """Whether any model's rows are to have records."""
    return any(models_with_records(default=default))


@dataclass(frozen=True)
class Rendering:
    """How rows of one model become the content of records.

    ``connection`` is asked how values are converted, and is not opened.
    """

    model: type[Model]
    connection: BaseDatabaseWrapper = field(repr=False)

    @cached_property
    def key_columns(self) -> tuple[str, ...]:
        """The columns of the primary key."""
        return tuple(str(f.column) for f in self.model._meta.pk_fields)

    @cached_property
    def _fields(self) -> dict[str, Field[Any, Any]]:
        """The fields that are in the table, by their columns."""
        return {
            str(f.column): f
            for f in self.model._meta.local_concrete_fields
            if not getattr(f, "generated", False)
        }

    @cached_property
    def _converters(self) -> dict[str, tuple[Any, list[Callable[..., Any]]]]:
        converters = {}
        for name, one in self._fields.items():
            column = one.get_col(self.model._meta.db_table)
            converters[name] = (
                column,
                self.connection.ops.get_db_converters(column)
                + column.get_db_converters(self.connection),
            )
        return converters

    def content(self, columns: Sequence[str], row: Sequence[Value]) -> Content:
        """The content of the record of a row of raw values.

        Raises ``SerializationError`` for a value that the model's field
        cannot take: SQLite takes any.
        """
        values = dict(zip(columns, row, strict=True))
        holder = SimpleNamespace()
        raw: Content = {}
        for name, value in values.items():
            one = self._fields.get(name)
            if one is None:
                raw[name] = _readable(value)
            else:
                converted = self._converted(name, one, value)
                setattr(holder, one.attname, converted)
                if converted is None and value is not None:
                    raw[name] = _readable(value)  # as a date that is none
        pk = self.model._meta.pk
        content: Content = {
            "model": self.model._meta.label_lower,
            "pk": self._dumped(holder, pk),
            "fields": {
                one.name: self._dumped(holder, one)
                for name, one in self._fields.items()
                if getattr(one, "serialize", True) and name in values
            },
        }
        if raw:
            content["columns"] = raw
        try:
            return plain(content)
        except (TypeError, ValueError) as error:
            raise SerializationError(str(error)) from error

    def _converted(self, name: str, one: Field[Any, Any], value: Value) -> Any:
        if isinstance(one, JSONField):
            # As it is stored: its decoder may make of it what it likes.
            try:
                return None if value is None else json.loads(str(value))
            except ValueError as error:
                raise SerializationError(f"{name}: {error}") from error
        column, converters = self._converters[name]
        converted: Any = value
        try:
            for converter in converters:
                converted = converter(converted, column, self.connection)
        except Exception as error:  # fields of projects raise what they like
            raise SerializationError(f"{name} is {value!r}: {error}") from error
        return converted

    def _dumped(self, holder: SimpleNamespace, one: Any) -> Any:
        if isinstance(one, CompositePrimaryKey):
            return [self._dumped(holder, part) for part in one]
        value = getattr(holder, one.attname)
        if isinstance(value, float) and not math.isfinite(value):
            return repr(value)  # JSON has no such numbers
        if isinstance(one, JSONField) or is_protected_type(value):
            return value
        try:
            return one.value_to_string(holder)
        except Exception as error:
            raise SerializationError(f"{one.name} is {value!r}: {error}") from error


def renderings(
    connection: BaseDatabaseWrapper, *, default: bool
) -> Mapping[str, Rendering]:
    """The renderings by lower-case table name."""
    return {
        model._meta.db_table.lower(): Rendering(model, connection)
        for model in models_with_records(default=default)
    }


def _readable(value: Value) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value
