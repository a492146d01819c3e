"""
From values to bytes and back, with nothing that could run code.

msgpack knows few types, and msgspec turns the others into those without
asking: a tuple into a list, a UUID into a string. Here a value is walked
first, and whatever msgpack does not keep is wrapped in an extension that says
what it was. The set of types is closed; anything else is refused when it is
written:

    None, bool, int, float, str, bytes, bytearray, list, tuple, dict, set,
    frozenset, Decimal, UUID, date, time, datetime, timedelta (with UTC, fixed
    offsets and ``zoneinfo`` zones), lazy translations (as the text that they
    are when they are stored), ``SafeString``, model instances, and responses

A value that is read back is equal and of the same type. Decoding what needs no
extension is done by msgspec alone, in C.
"""

from __future__ import annotations

import datetime
import pickle
import zoneinfo
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

import msgspec
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models.fields.files import FieldFile
from django.http import HttpResponse
from django.template.response import SimpleTemplateResponse
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.safestring import SafeString
from msgspec.msgpack import Ext

from s3cache.caches.errors import NotSerializable, Undecodable

__all__ = ["MsgpackSerializer", "PickleSerializer", "Serializer", "serializer_for"]


class Serializer(Protocol):
    """What ``OPTIONS["serializer"]`` names: a class made without arguments."""

    def dumps(self, value: Any) -> bytes:
        """Return `value` as bytes, or raise: nothing is stored then."""
        ...

    def loads(self, data: bytes) -> Any:
        """Return the value of `data`; any exception makes it a miss."""
        ...


class MsgpackSerializer:
    """The default: a closed set of types, and no code from the outside."""

    def dumps(self, value: Any) -> bytes:
        """Raise `NotSerializable` for a type that is not in the set."""
        try:
            return _encode(_packed(value))
        except RecursionError as error:
            raise NotSerializable(
                f"A {_name(type(value))} is nested too deeply, or contains itself"
            ) from error
        except UnicodeEncodeError as error:
            raise NotSerializable(f"A string is not valid Unicode: {error}") from error

    def loads(self, data: bytes) -> Any:
        """Raise `Undecodable` for anything that ``dumps`` cannot have made."""
        try:
            return _decode(data)
        except Undecodable:
            raise
        except Exception as error:
            # The data may say anything; each constructor refuses in its way.
            raise Undecodable("corrupt", f"not a value: {error!r}") from error


class PickleSerializer:
    """
    Any picklable object, for those who ask for it.

    Unpickling runs code that the bytes name. A backend whose entries others
    can write therefore checks their MAC first, always.
    """

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)  # noqa: S301 - asked for, and authenticated


_BY_NAME: Final[dict[str, Callable[[], Serializer]]] = {
    "msgpack": MsgpackSerializer,
    "pickle": PickleSerializer,
}


def serializer_for(path: str, value: object) -> Serializer:
    """Read the option: "msgpack", "pickle", or the dotted path of a class."""
    if not isinstance(value, str):
        raise ImproperlyConfigured(
            f"{path} is {value!r}, but must be 'msgpack', 'pickle', or the dotted "
            "path of a class with dumps() and loads()."
        )
    if value in _BY_NAME:
        return _BY_NAME[value]()
    try:
        made: Serializer = import_string(value)()
    except ImportError as error:
        raise ImproperlyConfigured(
            f"{path} is {value!r}, which cannot be imported: {error}"
        ) from error
    return made


class _Tag:
    """msgpack extension types. A number is never used for something else."""

    INT: Final = 1
    TUPLE: Final = 2
    SET: Final = 3
    FROZENSET: Final = 4
    PAIRS: Final = 5
    BYTEARRAY: Final = 6
    DECIMAL: Final = 7
    UUID: Final = 8
    DATE: Final = 9
    TIME: Final = 10
    DATETIME: Final = 11
    TIMEDELTA: Final = 12
    SAFE: Final = 13
    MODEL: Final = 14
    RESPONSE: Final = 15


_encode = msgspec.msgpack.Encoder().encode

_Packer: TypeAlias = Callable[[Any], Any]
_Unpacker: TypeAlias = Callable[[bytes], Any]

_AS_IS: Final = frozenset({type(None), bool, float, str, bytes})
_KEYS_AS_IS: Final = frozenset({type(None), bool, float, str, bytes})
_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1


def _packed(value: Any) -> Any:
    """Return `value` as something that msgpack keeps as it is."""
    kind = type(value)
    if kind in _AS_IS:
        return value
    packer = _PACKERS.get(kind)
    if packer is not None:
        return packer(value)
    # Classes that projects derive from, or that Django makes at run time.
    for base, packer in _BASES:
        if isinstance(value, base):
            return packer(value)
    raise NotSerializable(
        f"A {_name(kind)} cannot be cached: it is not among the types that the "
        "'msgpack' serializer keeps. Cache what it is made of, or choose another "
        "OPTIONS['serializer']."
    )


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _ext(tag: int, content: Any) -> Ext:
    return Ext(tag, _encode(content))


def _pack_int(value: int) -> Any:
    if _MIN_INT <= value <= _MAX_INT:
        return value
    length = value.bit_length() // 8 + 1
    return Ext(_Tag.INT, value.to_bytes(length, "big", signed=True))


def _pack_list(value: list[Any]) -> Any:
    return [_packed(item) for item in value]


def _pack_dict(value: dict[Any, Any]) -> Any:
    for key in value:
        if type(key) not in _KEYS_AS_IS and not (
            type(key) is int and _MIN_INT <= key <= _MAX_INT
        ):
            return _ext(
                _Tag.PAIRS,
                [[_packed(key), _packed(item)] for key, item in value.items()],
            )
    return {key: _packed(item) for key, item in value.items()}


def _pack_items(tag: int) -> _Packer:
    return lambda value: _ext(tag, [_packed(item) for item in value])


def _zone(zone: datetime.tzinfo | None) -> Any:
    """None, the offset in microseconds, or the name of a zone."""
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        return zone.utcoffset(None) // datetime.timedelta(microseconds=1)
    if isinstance(zone, zoneinfo.ZoneInfo) and zone.key:
        return zone.key
    raise NotSerializable(
        f"A time zone of type {_name(type(zone))} cannot be cached: only UTC, fixed "
        "offsets and zoneinfo.ZoneInfo can."
    )


def _pack_time(value: datetime.time) -> Any:
    text = value.replace(tzinfo=None).isoformat()
    return _ext(_Tag.TIME, [text, value.fold, _zone(value.tzinfo)])


def _pack_datetime(value: datetime.datetime) -> Any:
    text = value.replace(tzinfo=None).isoformat()
    return _ext(_Tag.DATETIME, [text, value.fold, _zone(value.tzinfo)])


def _pack_timedelta(value: datetime.timedelta) -> Any:
    return _ext(_Tag.TIMEDELTA, [value.days, value.seconds, value.microseconds])


def _pack_model(value: models.Model) -> Any:
    """
    A row: its columns, and the related rows that came with it.

    Attributes that a query added (annotations) are kept, prefetched lists are
    not: they are asked for again.
    """
    meta = value._meta
    state = value._state
    fields: dict[str, Any] = {}
    others: dict[str, Any] = {}
    names = {field.attname for field in meta.concrete_fields}
    for name, item in value.__dict__.items():
        if name in names:
            fields[name] = _packed(item.name if isinstance(item, FieldFile) else item)
        elif not name.startswith("_"):
            others[name] = _packed(item)
    related = {
        name: _packed(item)
        for name, item in getattr(state, "fields_cache", {}).items()
        if meta.get_field(name).concrete
    }
    label = type(value)._meta.label_lower
    if _model(label) is not type(value):
        raise NotSerializable(
            f"A {_name(type(value))} cannot be cached: it is not the model that is "
            f"installed as {label!r}."
        )
    return _ext(
        _Tag.MODEL,
        [label, state.db, state.adding, list(names), fields, others, related],
    )


def _pack_response(value: HttpResponse) -> Any:
    if isinstance(value, SimpleTemplateResponse) and not value.is_rendered:
        raise NotSerializable("A response must be rendered before it is cached")
    cookies = [
        [name, morsel.value, {key: str(item) for key, item in morsel.items() if item}]
        for name, morsel in value.cookies.items()
    ]
    return _ext(
        _Tag.RESPONSE,
        [
            value.content,
            value.status_code,
            value.reason_phrase,
            list(value.headers.items()),
            cookies,
        ],
    )


_PACKERS: Final[dict[type, _Packer]] = {
    int: _pack_int,
    list: _pack_list,
    dict: _pack_dict,
    tuple: _pack_items(_Tag.TUPLE),
    set: _pack_items(_Tag.SET),
    frozenset: _pack_items(_Tag.FROZENSET),
    bytearray: lambda value: Ext(_Tag.BYTEARRAY, bytes(value)),
    Decimal: lambda value: Ext(_Tag.DECIMAL, str(value).encode()),
    UUID: lambda value: Ext(_Tag.UUID, value.bytes),
    datetime.date: lambda value: Ext(_Tag.DATE, value.isoformat().encode()),
    datetime.time: _pack_time,
    datetime.datetime: _pack_datetime,
    datetime.timedelta: _pack_timedelta,
    SafeString: lambda value: Ext(_Tag.SAFE, str.encode(value)),
}

_BASES: Final[tuple[tuple[type, _Packer], ...]] = (
    (Promise, lambda value: _packed(str(value))),
    (models.Model, _pack_model),
    (HttpResponse, _pack_response),
)


def _model(label: str) -> type[models.Model]:
    return apps.get_model(label)


def _unpack_zone(zone: Any) -> datetime.tzinfo | None:
    if zone is None:
        return None
    if zone == 0:
        return datetime.UTC
    if isinstance(zone, int):
        return datetime.timezone(datetime.timedelta(microseconds=zone))
    return zoneinfo.ZoneInfo(zone)


def _unpack_time(data: bytes) -> datetime.time:
    text, fold, zone = _decode(data)
    return datetime.time.fromisoformat(text).replace(
        fold=fold, tzinfo=_unpack_zone(zone)
    )


def _unpack_datetime(data: bytes) -> datetime.datetime:
    text, fold, zone = _decode(data)
    return datetime.datetime.fromisoformat(text).replace(
        fold=fold, tzinfo=_unpack_zone(zone)
    )


def _unpack_model(data: bytes) -> models.Model:
    label, using, adding, names, fields, others, related = _decode(data)
    model = _model(label)
    columns = [field.attname for field in model._meta.concrete_fields]
    if set(names) != set(columns):
        raise Undecodable("corrupt", f"{label} had other columns then")
    kept = [name for name in columns if name in fields]
    instance = model.from_db(using, kept, [fields[name] for name in kept])
    instance._state.adding = adding
    instance.__dict__.update(others)
    instance._state.fields_cache.update(related)
    return instance


def _unpack_response(data: bytes) -> HttpResponse:
    content, status, reason, headers, cookies = _decode(data)
    response = HttpResponse(content, status=status, reason=reason)
    del response["Content-Type"]
    for name, value in headers:
        response[name] = value
    for name, value, attributes in cookies:
        response.cookies[name] = value
        response.cookies[name].update(attributes)
    return response


_UNPACKERS: Final[Mapping[int, _Unpacker]] = {
    _Tag.INT: lambda data: int.from_bytes(data, "big", signed=True),
    _Tag.TUPLE: lambda data: tuple(_decode(data)),
    _Tag.SET: lambda data: set(_decode(data)),
    _Tag.FROZENSET: lambda data: frozenset(_decode(data)),
    _Tag.PAIRS: lambda data: dict(_decode(data)),
    _Tag.BYTEARRAY: bytearray,
    _Tag.DECIMAL: lambda data: Decimal(data.decode()),
    _Tag.UUID: lambda data: UUID(bytes=data),
    _Tag.DATE: lambda data: datetime.date.fromisoformat(data.decode()),
    _Tag.TIME: _unpack_time,
    _Tag.DATETIME: _unpack_datetime,
    _Tag.TIMEDELTA: lambda data: datetime.timedelta(*_decode(data)),
    _Tag.SAFE: lambda data: SafeString(data.decode()),
    _Tag.MODEL: _unpack_model,
    _Tag.RESPONSE: _unpack_response,
}


def _unpacked(tag: int, data: memoryview) -> Any:
    unpacker = _UNPACKERS.get(tag)
    if unpacker is None:
        raise Undecodable("foreign", f"extension {tag} is of a newer release")
    return unpacker(bytes(data))


_decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(ext_hook=_unpacked).decode
