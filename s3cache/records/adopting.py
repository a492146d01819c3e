"""Committing what somebody else has done to records."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.core.serializers import deserialize
from django.core.serializers.base import DeserializationError, DeserializedObject
from django.db import DatabaseError, transaction
from django.db.models import Model

from s3cache.db.base import DatabaseWrapper
from s3cache.records.check import Kind, RecordFinding
from s3cache.records.etags import ETags
from s3cache.records.keys import record_key
from s3cache.records.run import renderings_of

#: What ``adopt`` can make commits of.
ADOPTABLE = (Kind.CHANGED, Kind.ADDED, Kind.REMOVED)


class _DoesNotFit(Exception):
    """A record that cannot be the row that its key names."""


#: What says of a record that it cannot be committed.
_REFUSED = (
    _DoesNotFit,
    DatabaseError,
    DeserializationError,
    ValidationError,
    ArithmeticError,  # as for a number that SQLite has no room for
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
)


def adopt(
    connection: DatabaseWrapper,
    findings: Iterable[RecordFinding],
    kinds: Collection[Kind],
) -> tuple[list[str], dict[str, str]]:
    """Commit what records of these ``kinds`` say, each by itself.

    Returns the keys of those that are committed, and of the others why they
    do not fit. These stay as they are, and so do their rows. The next round
    of writing records makes those that are committed s3cache's own.
    """
    models = {
        table: rendering.model
        for table, rendering in renderings_of(connection.replica).items()
    }
    etags = ETags.beside(connection.replica.path)
    adopted: list[str] = []
    refused: dict[str, str] = {}
    for one in findings:
        if one.kind not in kinds:
            continue
        model = models[one.table.lower()]
        try:
            with transaction.atomic(using=connection.alias):
                if one.kind is Kind.REMOVED:
                    _delete(model, one, connection.alias)
                else:
                    _save(model, one, connection)
        except _REFUSED as error:
            refused[one.key] = str(error)
            continue
        adopted.append(one.key)
        if one.etag:
            etags.remember({one.key: one.etag})
    return adopted, refused


def _delete(model: type[Model], one: RecordFinding, alias: str) -> None:
    """Delete the row, and no other: one that is referred to stays."""
    rows = model._base_manager.using(alias).filter(pk=model._meta.pk.to_python(one.pk))
    rows._raw_delete(alias)


def _save(model: type[Model], one: RecordFinding, connection: DatabaseWrapper) -> None:
    found = list(deserialize("json", one.body, using=connection.alias))
    if len(found) != 1:
        raise _DoesNotFit(f"it has {len(found)} objects instead of one")
    record: DeserializedObject = found[0]
    said: Any = record.object
    if type(said) is not model:
        raise _DoesNotFit(
            f"it is a {said._meta.label}, and {one.table} has {model._meta.label}"
        )
    key = [
        field.get_db_prep_save(getattr(said, field.attname), connection)
        for field in model._meta.pk_fields
    ]
    if record_key(one.table, key) != one.key:
        raise _DoesNotFit(f"its pk, {said.pk!r}, is another one than its key says")
    record.save(using=connection.alias)
