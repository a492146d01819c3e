"""What a queryset asks of the result cache, carried by its query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from django.db.models.sql import Query

__all__ = [
    "FRESH",
    "NO_HINTS",
    "RENEW",
    "Hints",
    "drop_hints",
    "give_hints",
    "hints_of",
    "set_hints",
]

_ATTRIBUTE = "s3cache_hints"


@dataclass(frozen=True, slots=True)
class Hints:
    """
    `fresh`
        Ask the store for news first, and do not take a stored result.
    `skip_cache`
        Do not take a stored result, and store none.
    `renew`
        Do not take a stored result, and store the new one; that is no miss.
    `ttl`
        Seconds that the result is kept; None: as the model says.
    `namespace`
        Which of ``S3CACHE["NAMESPACES"]`` has the result; "": none of them.
    """

    fresh: bool = False
    skip_cache: bool = False
    renew: bool = False
    ttl: float | None = None
    namespace: str = ""


NO_HINTS = Hints()
FRESH = Hints(fresh=True)
RENEW = Hints(renew=True)


def hints_of(query: Query) -> Hints:
    """
    Return the hints of a query, `NO_HINTS` for one that has none.

    Django counts and aggregates some queries by wrapping them into another:
    then the wrapped one has the hints.
    """
    while True:
        if hints := getattr(query, _ATTRIBUTE, None):
            return hints  # type: ignore[no-any-return]
        inner = getattr(query, "inner_query", None)
        if inner is None:
            return NO_HINTS
        query = inner


def set_hints(query: Query, **changes: Any) -> None:
    """Change the hints of a query in place."""
    give_hints(query, replace(hints_of(query), **changes))


def drop_hints(query: Query) -> None:
    """Have a query ask for nothing that others do not."""
    vars(query).pop(_ATTRIBUTE, None)


def give_hints(query: Query, hints: Hints) -> None:
    """
    Replace the hints of a query.

    They are an attribute of the query, immutable as a whole: Django copies it
    with every clone, deep copy, pickle and change of the query's class.
    """
    setattr(query, _ATTRIBUTE, hints)
