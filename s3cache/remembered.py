"""
What the row of an instance held when the instance last saw it.

``save(if_unchanged=True)`` compares it with what the row holds now, both in
the form that the database gets: ``Decimal("1.50")`` from a row and ``"1.50"``
that was assigned and saved are the same.

An instance that was loaded with deferred fields remembers the others, and
those it loads by itself later (not what Django 6.1's ``FETCH_PEERS`` loads).
One that has neither been loaded nor saved as a whole remembers nothing.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import pickle
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from django.db import connections
from django.db.models import BinaryField, Field, JSONField, Model

__all__ = [
    "IMMUTABLE",
    "changed_fields",
    "name_of",
    "remember_loaded",
    "remember_saved",
    "remembered_fields",
    "remembered_values",
]

# Values of exactly these types cannot change under us, and are kept as they
# are. All others have to be frozen while they are what the row holds: lists
# and dicts (JSON) as a pickle, which costs every row that is read a fraction
# of what JSON would; what else custom fields load, in the form that the
# database gets.
IMMUTABLE: Final = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        str,
        bytes,
        decimal.Decimal,
        dt.date,
        dt.datetime,
        dt.time,
        dt.timedelta,
        uuid.UUID,
    }
)

_ATTRIBUTE = "s3cache_row"  # of the instance's ModelState: copied and pickled

_Concrete: TypeAlias = "Field[Any, Any]"


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A value in the form that the database gets."""

    form: object


@dataclass(frozen=True, slots=True)
class _Pickled:
    """A list or a dict, to be compared later if at all."""

    pickle: bytes


@dataclass(frozen=True, slots=True)
class _Unknown:
    """A value that only the database knows, such as that of ``F("n") + 1``."""


@dataclass(slots=True)  # frozen takes as long as all else that it does
class _Row:
    """
    The values of all concrete fields, or of those in `attnames`.

    Nobody changes it: copies of an instance share it.
    """

    values: tuple[object, ...]
    attnames: tuple[str, ...] | None = None


def remember_loaded(
    instance: Model, field_names: Collection[str], values: Sequence[object]
) -> None:
    """Remember the row that `Model.from_db` made the instance from."""
    fields: Sequence[_Concrete] = instance._meta.concrete_fields
    attnames = None
    if len(values) != len(fields):
        fields = [field for field in fields if field.attname in field_names]
        attnames = tuple(field.attname for field in fields)
    if not IMMUTABLE.issuperset(map(type, values)):
        alias = instance._state.db
        values = [
            value if type(value) in IMMUTABLE else _frozen(field, value, alias)
            for field, value in zip(fields, values, strict=True)
        ]
    setattr(instance._state, _ATTRIBUTE, _Row(tuple(values), attnames))


def remembered_values(values: tuple[object, ...]) -> dict[str, object]:
    """Return what the state of an instance has of such a row.

    `values` are those of all fields, of immutable types.
    """
    return {_ATTRIBUTE: _Row(values)}


def remember_saved(instance: Model, only: Collection[str] | None = None) -> None:
    """
    Remember that the row holds what the instance does, in all its fields.

    `only`: in the fields of these names, and otherwise what was remembered.
    """
    known = _remembered(instance)
    if only is not None and not known:
        return
    alias = instance._state.db
    for field in instance._meta.concrete_fields:
        if only is not None and field.name not in only and field.attname not in only:
            continue
        if field.attname in instance.__dict__:
            value = instance.__dict__[field.attname]
            known[field.attname] = (
                value if type(value) in IMMUTABLE else _frozen(field, value, alias)
            )
        else:  # deferred, or not returned by the database
            known.pop(field.attname, None)
    row = _Row(tuple(known.values()), tuple(known))
    setattr(instance._state, _ATTRIBUTE, row)


def remembered_fields(instance: Model) -> list[str]:
    """
    Return the attribute names of the fields that can be compared.

    Raise `ValueError` if there are none, or if the value of one is unknown.
    """
    known = _remembered(instance)
    if unknown := [name for name, value in known.items() if value == _Unknown()]:
        raise ValueError(
            f"Whether the row of {name_of(instance)} changed cannot be told: what it "
            f"holds in {', '.join(unknown)} is known to the database alone. Call "
            f"refresh_from_db() first."
        )
    if not known:
        raise ValueError(
            f"Whether the row of {name_of(instance)} changed cannot be told: the "
            f"instance was not loaded from it. Call refresh_from_db() first."
        )
    return [
        field.attname
        for field in instance._meta.concrete_fields
        # What the database computes follows from the other fields; Django
        # does not always load it again after a save.
        if field.attname in known and not field.generated
    ]


def changed_fields(instance: Model, row: Mapping[str, object], alias: str) -> list[str]:
    """Return the names of the fields in which `row` is not as remembered."""
    known = _remembered(instance)
    return [
        field.name
        for field in instance._meta.concrete_fields
        if field.attname in row
        and _comparable(field, row[field.attname], alias)
        != _comparable(field, known[field.attname], alias)
    ]


def name_of(instance: Model) -> str:
    """Name an instance in a message; its own ``str()`` may need a query."""
    return f"{instance._meta.label} {instance.pk}"


def _remembered(instance: Model) -> dict[str, object]:
    row: _Row | None = getattr(instance._state, _ATTRIBUTE, None)
    if row is None:
        return {}
    attnames: Iterable[str] = row.attnames or (
        field.attname for field in instance._meta.concrete_fields
    )
    return dict(zip(attnames, row.values, strict=True))


def _frozen(field: _Concrete, value: object, alias: str | None) -> object:
    if hasattr(value, "resolve_expression") or alias is None:
        return _Unknown()
    try:
        if type(value) in (list, dict):
            return _Pickled(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
        return _Prepared(_prepared(field, value, alias))
    except Exception:
        # A field may load what it cannot save, such as JSON with a decoder
        # and no encoder. That must not keep anybody from reading the row.
        return _Unknown()


def _prepared(field: _Concrete, value: object, alias: str) -> object:
    # Drivers wrap the values of these two in objects that equal nothing else.
    if isinstance(field, JSONField):
        return None if value is None else json.dumps(value, cls=field.encoder)
    if isinstance(field, BinaryField):
        return None if value is None else bytes(value)  # type: ignore[call-overload]
    return field.get_db_prep_save(value, connection=connections[alias])


def _comparable(field: _Concrete, value: object, alias: str) -> object:
    if isinstance(value, _Pickled):
        # Made above, or in the pickle of the instance, trusted as a whole.
        value = pickle.loads(value.pickle)  # noqa: S301
    form = (
        value.form if isinstance(value, _Prepared) else _prepared(field, value, alias)
    )
    if isinstance(field, JSONField) and isinstance(form, str):
        # Not by value, since 1 == True there; and databases that store JSON
        # in a form of their own do not keep the order of keys.
        return json.dumps(json.loads(form), sort_keys=True)
    return form
