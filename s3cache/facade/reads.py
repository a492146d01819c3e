"""A read, before it is made: what of which rows."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from django.core.exceptions import (
    FieldError,
    ImproperlyConfigured,
    ObjectDoesNotExist,
)
from django.db import connections, models

from s3cache import conf
from s3cache.hints import set_hints
from s3cache.results.reading import QuerySQL

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper
    from s3cache.results.statements import Place

__all__ = ["ACTIONS", "PAGE_SIZE", "Read", "parts_of", "require_bucket"]

Rows = models.QuerySet[Any]

#: Rows of a page, if nobody says how many.
PAGE_SIZE: Final = 25

#: What can be asked for, with the names that its ``params`` may have beside
#: lookups.
ACTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "get": frozenset(),
        "list": frozenset({"order_by"}),
        "page": frozenset({"order_by", "offset", "size"}),
        "query": frozenset({"order_by"}),
        "count": frozenset(),
        "exists": frozenset(),
        "aggregate": frozenset({"aggregates"}),
    }
)


class _Stop(Exception):
    """Ends a read before its statement is executed."""


@dataclass(frozen=True)
class Read:
    """
    What of which rows: an action of `ACTIONS`, and a queryset.

    ``get`` takes `lookups`, and ``aggregate`` takes `aggregates`, as the
    queryset's methods do.
    """

    queryset: Rows
    action: str = "list"
    lookups: Mapping[str, Any] = field(default_factory=dict)
    aggregates: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(
                f"{self.action!r} is no action. Actions are {conf.listed(ACTIONS)}."
            )
        if self.action == "get" and not self.lookups:
            raise TypeError("'get' takes a lookup, such as {'pk': 1}.")
        if self.action == "aggregate" and not self.aggregates:
            raise TypeError("'aggregate' takes {'aggregates': {'name': Max('price')}}.")

    @classmethod
    def of(cls, rows: Rows, action: str, params: Mapping[str, Any] | None) -> Read:
        """
        The read of `rows` that `params` describe.

        These are lookups, as ``filter()`` takes them, and what `ACTIONS` has
        for the action. Lookups that are called like one of those go into a
        mapping of their own, ``filter``.
        """
        if action not in ACTIONS:
            raise ValueError(
                f"{action!r} is no action. Actions are {conf.listed(ACTIONS)}."
            )
        given = {**_mapping("params", params or {})}
        own = {name: given.pop(name) for name in ACTIONS[action] if name in given}
        lookups = {**_mapping("filter", given.pop("filter", {})), **given}
        if action == "get":
            return cls(rows, action, lookups=lookups)
        if lookups:
            rows = rows.filter(**lookups)
        if own.get("order_by"):
            order_by = own["order_by"]
            rows = rows.order_by(
                *([order_by] if isinstance(order_by, str) else order_by)
            )
        if action == "page":
            offset, size = own.get("offset", 0), own.get("size", PAGE_SIZE)
            if not all(type(one) is int and one >= 0 for one in (offset, size)):
                raise ValueError(
                    f"A page has an offset and a size of 0 or more, not {offset!r} "
                    f"and {size!r}."
                )
            rows = rows[offset : offset + size]
        return cls(rows, action, aggregates=own.get("aggregates", {}))

    @property
    def model(self) -> type[models.Model]:
        """The model of the rows."""
        return self.queryset.model

    @property
    def connection(self) -> DatabaseWrapper:
        """The database that is read; `ImproperlyConfigured`: in no bucket."""
        # Of a copy: a recorded queryset that is asked for this is built.
        alias = self.queryset.all().db
        require_bucket(self.model, alias)
        return cast("DatabaseWrapper", connections[alias])

    @property
    def is_one(self) -> bool:
        """Whether it is one statement, or others need the rows of that."""
        return not getattr(self.queryset, "_prefetch_related_lookups", ())

    def asking(self, **hints: Any) -> Read:
        """
        The same, with hints for the result cache; see `s3cache.hints`.

        Also with none it goes past the hot path: what looks at the query of a
        recorded queryset makes it one that is built. One that has hints may
        stay recorded, so that the hot path learns what it finds.
        """
        rows = self.queryset.all()
        ask = getattr(rows, "_with_hints", None) if hints else None
        if ask is not None:
            rows = ask(**hints)
        else:
            set_hints(rows.query, **hints)
        return replace(self, queryset=rows)

    def perform(self) -> Any:
        """
        Make the read, and return what it comes to.

        That is an object, a list of objects (or what else the queryset is of),
        a number, a boolean or a dictionary. None: there is no such object.
        """
        rows = self.queryset.all()
        if self.action == "get":
            try:
                return rows.get(**self.lookups)
            except ObjectDoesNotExist:
                return None
        if self.action == "count":
            return rows.count()
        if self.action == "exists":
            return rows.exists()
        if self.action == "aggregate":
            return rows.aggregate(**self.aggregates)
        return list(rows)

    def place(self) -> Place | None:
        """
        Where the read's result is, now; None: it is not kept.

        Of a read of several statements (one with ``prefetch_related()``) it
        is that of the first.
        """
        found: list[Place | None] = []

        def stop(
            execute: object, sql: str, params: Any, many: bool, context: object
        ) -> None:
            if isinstance(sql, QuerySQL):
                found.append(connection.place_of_result(sql, params, sql.reading))
            raise _Stop

        connection = self.connection
        with connection.execute_wrapper(stop), suppress(_Stop):
            self.asking().perform()
        return found[0] if found else None


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dictionary, not {value!r}.")
    return value


def require_bucket(model: type[models.Model], alias: str) -> None:
    """Raise `ImproperlyConfigured` if results from a database are not kept."""
    if not conf.lives_in_bucket(alias):
        raise ImproperlyConfigured(
            f"{model._meta.label} is read from the database {alias!r}, "
            f"which lives in no bucket: its results are not kept. Those that do "
            f"are {conf.listed(conf.bucket_aliases())}."
        )


def parts_of(model: type[models.Model], partition: object) -> list[dict[str, Any]]:
    """
    The lookups of the parts that ``{"by_region": {"region": "EU"}}`` names.

    Values may be a list of such dictionaries: several parts. Raise
    `FieldError`, naming those that are defined, for a partition that is not.
    """
    known = getattr(getattr(model, "_s3meta", None), "partitions", {})
    label = model._meta.label
    if not isinstance(partition, Mapping) or not partition:
        raise TypeError(
            f"A partition is written as {{'by_region': {{'region': 'EU'}}}}, not as "
            f"{partition!r}. Those of {label} are {conf.listed(known)}."
        )
    parts = []
    for name, values in partition.items():
        if name not in known:
            raise FieldError(
                f"{label} has no partition {name!r}. Its partitions are "
                f"{conf.listed(known)}."
            )
        several = isinstance(values, list | tuple)
        for one in values if several else [values]:
            if not isinstance(one, Mapping) or set(one) != set(known[name]):
                raise FieldError(
                    f"Partition {name!r} of {label} takes the fields "
                    f"{conf.listed(known[name])}, not {one!r}."
                )
            # In the order of the fields, or it would be another statement.
            parts.append({field: one[field] for field in known[name]})
    return parts
