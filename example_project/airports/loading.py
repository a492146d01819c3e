"""
The published data, and how it gets into the database.

Each ``bulk_create()`` here is one commit, that is one request to the store, of
at most ``BATCH`` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import airportsdata
import iso3166
from django.db import models

from .models import Airport, Country, TimeZone

# So many airports make an entry of the log of about 1 MB. Above 4 MB a commit
# would need a second object.
BATCH = 5_000

Progress = Callable[[int], object]
ModelT = TypeVar("ModelT", bound=models.Model)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many rows were added, changed, and left as they were."""

    added: int
    changed: int
    kept: int


def country_names() -> dict[str, str]:
    """
    Return the names of countries by code, the way people say them.

    ISO's list puts the main word first: "Iran, Islamic Republic of". What
    follows it is dropped where the rest is unique, and put in front where it
    is not: "Republic of Korea".
    """
    listed = {entry.alpha2: entry.apolitical_name for entry in iso3166.countries}
    heads = [name.partition(", ")[0] for name in listed.values()]

    def said(name: str) -> str:
        head, _, tail = name.partition(", ")
        if not tail or " and " in tail:  # one name, or a list of several
            return name
        return head if heads.count(head) == 1 else f"{tail} {head}"

    return {code: said(name) for code, name in listed.items()}


def published() -> tuple[list[Country], list[TimeZone], list[Airport]]:
    """Return the rows of all three tables, none of them saved."""
    records = list(airportsdata.load("ICAO").values())
    names = country_names()
    return (
        [
            Country(code=code, name=names.get(code, code))
            for code in sorted({record["country"] for record in records})
        ],
        [
            TimeZone(name=name, region=name.partition("/")[0])
            for name in sorted({record["tz"] for record in records})
        ],
        [
            Airport(
                code=record["icao"],
                iata=record["iata"],
                name=record["name"],
                city=record["city"],
                subdivision=record["subd"],
                country_id=record["country"],
                timezone_id=record["tz"],
                elevation=record["elevation"],
                latitude=record["lat"],
                longitude=record["lon"],
            )
            for record in records
        ],
    )


def store(
    rows: Sequence[ModelT], *, update: bool = False, progress: Progress = lambda n: None
) -> Outcome:
    """
    Add the rows that are not there yet, and say what was done.

    Rows that are there stay as they are, edits on the site included, unless
    ``update`` is true: then those that differ are written again. ``progress``
    is called with the number of rows that are done since its last call.
    """
    model = type(rows[0])
    manager = model._default_manager
    fields = [f for f in model._meta.concrete_fields if not f.primary_key]
    facts = ["pk", *(f.attname for f in fields if f.editable and update)]
    there = {pk: values for pk, *values in manager.values_list(*facts)}
    missing = [row for row in rows if row.pk not in there]
    different = [
        row
        for row in rows
        if row.pk in there
        and there[row.pk] != [getattr(row, fact) for fact in facts[1:]]
    ]
    kept = len(rows) - len(missing) - len(different)
    progress(kept)
    for batch in batches([*different, *missing]):
        manager.bulk_create(
            batch,
            update_conflicts=update,
            unique_fields=["pk"] if update else None,
            update_fields=[f.name for f in fields] if update else None,
        )
        progress(len(batch))
    return Outcome(len(missing), len(different), kept)


def batches(rows: Sequence[ModelT]) -> Iterator[Sequence[ModelT]]:
    """Cut the rows into pieces of ``BATCH``."""
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
