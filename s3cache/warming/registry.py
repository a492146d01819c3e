"""Named queries: what a project wants warm, beside whole models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from django.apps import apps
from django.db.models import Model, QuerySet
from django.utils.module_loading import autodiscover_modules

from s3cache import conf
from s3cache.facade import Read

__all__ = ["Make", "Query", "queries", "query", "query_named"]

#: The module of an app that is imported for its queries.
_MODULE: Final = "warming"

Wanted = QuerySet[Any] | Read | Iterable[QuerySet[Any] | Read]
Make = Callable[[], Wanted]


@dataclass(frozen=True, slots=True)
class Query:
    """
    A named query.

    `make` returns the queryset, or yields several, or `Read`s of other
    actions; `ttl` is in seconds, None: as the models say. After a change of
    a model of `after`, lower-case labels, it is warmed again.
    """

    name: str
    make: Make
    ttl: float | None = None
    after: frozenset[str] = frozenset()

    def reads(self) -> list[Read]:
        """What is read, as of now."""
        made = self.make()
        if isinstance(made, QuerySet | Read):
            made = [made]
        return [one if isinstance(one, Read) else Read(one) for one in made]


_queries: Final[dict[str, Query]] = {}


def query(
    name: str,
    *,
    ttl: float | None = None,
    after: Sequence[type[Model] | str] = (),
) -> Callable[[Make], Make]:
    """
    Declare a named query, in a module ``warming`` of an app.

    The decorated function takes nothing, and returns a queryset, or yields
    several, or `Read`s: ``Read(Product.objects.all(), "count")``. It is
    called each time that the query is warmed.

    `after` names models, ``"shop.Product"``: each time that rows of one of
    them have changed, on whatever host, the query is warmed again in the
    background. Raise `ValueError` for a name that is taken, or has a dot: that
    is what models have.
    """
    if not name or "." in name:
        raise ValueError(
            f"{name!r} is no name for a query: it needs one, without dots."
        )
    labels = frozenset(
        (one if isinstance(one, str) else one._meta.label).lower() for one in after
    )

    def declare(make: Make) -> Make:
        known = _queries.get(name)
        # A module may be imported again, by a reloading server for example.
        if known is not None and _place(known.make) != _place(make):
            raise ValueError(
                f"There are two queries {name!r}: {_place(known.make)} and "
                f"{_place(make)}."
            )
        _queries[name] = Query(name, make, ttl, labels)
        return make

    return declare


def queries() -> list[Query]:
    """
    All named queries, of all apps.

    Raise `LookupError` if one is to be warmed after a model that there is not.
    """
    _discover()
    for one in _queries.values():
        for label in one.after:
            apps.get_model(label)  # what is wrong would never be heard of
    return list(_queries.values())


@cache
def _discover() -> None:
    """Import the apps' modules, once: to look for them takes a while."""
    apps.check_models_ready()
    autodiscover_modules(_MODULE)


def query_named(name: str) -> Query:
    """The query of that name; `LookupError`, naming those that there are."""
    known = {one.name: one for one in queries()}
    if name not in known:
        raise LookupError(
            f"There is no query {name!r}. Queries are {conf.listed(known)}."
        )
    return known[name]


def _place(make: Make) -> str:
    return f"{make.__module__}.{make.__qualname__}"
