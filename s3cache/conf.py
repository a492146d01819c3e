"""
The settings of s3cache: defaults, units, and what is refused.

``S3CACHE`` holds what concerns the result cache::

    CACHE        "default"  the CACHES alias that results are kept in; None:
                            nowhere
    TTL          300        seconds that a result is kept
    KEY_VERSION  1          the application's own part of every key
    INCLUDE      None       labels of the models to cache; None: all
    EXCLUDE      ()         labels of the models not to cache; wins
    OPEN_TENANTS 50         tenants whose files a process keeps open
    HOT_PATH     True       whether managers answer some reads by themselves
    NAMESPACES   {}         caches beside this one: by name, CACHE and TTL
    VERBOSE      False      whether each read and each change is logged
    RESPONSE_TTL 60         seconds that a response is kept
    CREDENTIALS  ()         names of further headers and cookies that say who
                            a visitor is
    WARM_AT_START  ()       labels of models, and names of queries, that are
                            warmed at a process's first request
    RECORD_TRAFFIC  False   whether it is noted what is read at which hour
    METRICS      True       whether processes keep what they count, in a file
                            beside the replica of the first bucket database
    METRICS_CACHE  None     the CACHES alias through which hosts tell each
                            other; None: CACHE, if it is a Redis or memcached
    HIT_RATE_WARNING  0.7   a model whose hit rate stays lower is logged; None:
                            none is
    SLOW_QUERY   0.1        seconds from which on a read is noted as slow
    PRICES       {}         dollars for requests and bytes; see `Prices`

``DATABASES[alias]["OPTIONS"]`` holds what concerns one bucket database; see
`DatabaseOptions`. How *long* a result is kept (``TTL``) and how *old* the data
may be (``max_age``) are two different things.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar, cast

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import connections
from django.dispatch import receiver
from django.utils.text import slugify

__all__ = [
    "ENGINE",
    "DatabaseOptions",
    "Namespace",
    "Settings",
    "bucket_aliases",
    "counted_as",
    "counted_databases",
    "lives_in_bucket",
    "namespace",
    "settings",
]

ENGINE: Final = "s3cache.db"

TENANT: Final = "TENANT"
"""What marks an entry of DATABASES that `s3cache.tenants` has made."""

TENANT_ROUTER: Final = "s3cache.tenants.TenantRouter"
"""Without it in DATABASE_ROUTERS, no tenant's database is used."""

#: Characters of a namespace, which is a part of keys.
_LONGEST_SLUG: Final = 24

_T = TypeVar("_T")
Reader: TypeAlias = Callable[[str, object], _T]


@dataclass(frozen=True, slots=True)
class Namespace:
    """
    One of ``S3CACHE["NAMESPACES"]``.

    `cache` is a ``CACHES`` alias, None: that of ``S3CACHE``; `ttl` is in
    seconds, None: as there.
    """

    cache: str | None = None
    ttl: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``S3CACHE``, checked: each setting by its name in lower case."""

    cache: str | None = "default"
    ttl: float = 300
    key_version: int | str = 1
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    hot_path: bool = True
    open_tenants: int = 50
    namespaces: Mapping[str, Namespace] = field(
        default_factory=lambda: MappingProxyType({})
    )
    verbose: bool = False
    response_ttl: float = 60
    credentials: tuple[str, ...] = ()
    warm_at_start: tuple[str, ...] = ()
    record_traffic: bool = False
    metrics: bool = True
    metrics_cache: str | None = None
    hit_rate_warning: float | None = 0.7
    slow_query: float = 0.1
    prices: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_settings(cls, values: object) -> Settings:
        """Raise `ImproperlyConfigured` unless `values` is a valid S3CACHE."""
        given = mapping("S3CACHE", values)
        readers: dict[str, Reader[object]] = {
            "CACHE": optional(text),
            "TTL": positive_seconds,
            "KEY_VERSION": _key_version,
            "INCLUDE": optional(labels),
            "EXCLUDE": labels,
            "HOT_PATH": boolean,
            "OPEN_TENANTS": _at_least_one,
            "NAMESPACES": _namespaces,
            "VERBOSE": boolean,
            "RESPONSE_TTL": positive_seconds,
            "CREDENTIALS": names,
            "WARM_AT_START": names,
            "RECORD_TRAFFIC": boolean,
            "METRICS": boolean,
            "METRICS_CACHE": optional(text),
            "HIT_RATE_WARNING": optional(_rate),
            "SLOW_QUERY": seconds,
            "PRICES": _prices,
        }
        read = _read("S3CACHE", given, readers)
        return cls(**{key.lower(): value for key, value in read.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """
    ``DATABASES[alias]["OPTIONS"]`` of a bucket database, checked.

    `storage`
        The ``STORAGES`` alias of the bucket, or of a directory. Required.
    `location`
        Where in that bucket, or which directory: another place than the
        storage's own `location`. None: the storage's.
    `max_age`
        Seconds: how old an answer from the replica may be before the log is
        asked for news. 0 asks on every read.
    `stale_if_error`
        Seconds that reads go on from the replica while the store is down.
    `records`
        Whether every row is also written as a readable JSON object.
    `commit_timeout`
        Seconds until a commit without a conclusive answer from the store
        raises `CommitOutcomeUnknown`.
    `load_at_once`
        Bytes: a database whose packs, before compression, are not larger in
        all is loaded whole by a new host. Of a larger one a host loads the
        tables, and the ranges of rows, that are used. None: any size.
    `redis`
        The ``CACHES`` alias of a Redis (django-redis) by which hosts tell
        each other of commits, and take turns. None: they ask the log alone.
    `signing_keys`
        Keys that entries are signed with: the first signs, all verify.
    """

    storage: str
    location: str | None = None
    max_age: float = 1.0
    stale_if_error: float = 3600.0
    records: bool = True
    commit_timeout: float = 20.0
    load_at_once: int | None = 16 * 1024 * 1024
    redis: str | None = None
    signing_keys: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def from_settings(cls, alias: str, options: object) -> DatabaseOptions:
        """
        Check the OPTIONS of the database `alias`.

        Raise `ImproperlyConfigured`, quoting the settings path, the value and
        what is allowed, if one is unknown, missing or of the wrong kind.
        """
        path = f"DATABASES[{alias!r}]['OPTIONS']"
        given = mapping(path, options)
        readers: dict[str, Reader[object]] = {
            "storage": text,
            "location": optional(text),
            "max_age": seconds,
            "stale_if_error": seconds,
            "records": boolean,
            "commit_timeout": positive_seconds,
            "load_at_once": optional(size),
            "redis": optional(text),
            "signing_keys": _signing_keys,
        }
        read = _read(path, given, readers)
        for option in fields(cls):
            if option.default is MISSING and option.name not in read:
                raise ImproperlyConfigured(
                    f"{path} lacks {option.name!r}: the STORAGES alias of the "
                    f"bucket. Defined are {listed(django_settings.STORAGES)}."
                )
        return cls(**read)


@cache
def settings() -> Settings:
    """Return ``settings.S3CACHE``, checked once and whenever it changes."""
    return Settings.from_settings(getattr(django_settings, "S3CACHE", {}))


def namespace(name: str) -> str:
    """
    Return the name of a namespace as it is in keys.

    Raise `LookupError`, naming those that there are, for one that is not.
    """
    known = settings().namespaces
    slug = slugify(name)
    if slug not in known:
        raise LookupError(
            f"S3CACHE['NAMESPACES'] has no {name!r}. Known are {listed(known)}."
        )
    return slug


@cache
def bucket_aliases() -> tuple[str, ...]:
    """
    Return the aliases of the databases that live in a bucket, in order.

    Not those of tenants, which come and go.
    """
    return tuple(
        alias
        for alias, database in django_settings.DATABASES.items()
        if database.get("ENGINE") == ENGINE and TENANT not in database
    )


def was_closed(alias: str, settings: dict[str, Any]) -> bool:
    """Whether these are a tenant's settings that ``alias`` has no more.

    Threads keep connections with them; see `s3cache.tenants`.
    """
    return TENANT in settings and connections.settings.get(alias) is not settings


def lives_in_bucket(alias: str | None) -> bool:
    """Tell whether the database `alias` is in a bucket; a tenant's, too."""
    return alias in bucket_aliases() or (
        alias in connections.settings and TENANT in connections.settings[alias]
    )


def counted_as(alias: str) -> str:
    """
    Return what statistics call the database `alias`.

    Those of all tenants that are like the same one are one there, called
    ``<like>:*``: tenants come and go, and there may be thousands.
    """
    if alias in connections.settings and TENANT in connections.settings[alias]:
        return f"{connections.settings[alias][TENANT]['like']}:*"
    return alias


def counted_databases() -> tuple[str, ...]:
    """Return all that `counted_as` returns, in order."""
    aliases = bucket_aliases()
    if TENANT_ROUTER in django_settings.DATABASE_ROUTERS:
        return (*aliases, *(f"{alias}:*" for alias in aliases))
    return aliases


@receiver(setting_changed, dispatch_uid="s3cache.conf")
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "S3CACHE":
        settings.cache_clear()
    elif setting == "DATABASES":
        bucket_aliases.cache_clear()


# Readers: each takes the path of a value (for people) and the value, returns
# it in its final form or raises ImproperlyConfigured. S3Meta uses them too.


def refuse(path: str, value: object, allowed: str) -> ImproperlyConfigured:
    """Return the error for a value that is not what is `allowed`."""
    return ImproperlyConfigured(f"{path} is {value!r}, but must be {allowed}.")


def refuse_unknown(path: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ImproperlyConfigured` if a name in `given` is not `known`."""
    if unknown := sorted(set(given) - set(known)):
        raise ImproperlyConfigured(
            f"{path} has unknown {listed(unknown)}. Known are {listed(known)}."
        )


def mapping(path: str, value: object) -> Mapping[str, object]:
    """Read a dict with string keys."""
    if not isinstance(value, Mapping) or any(not isinstance(key, str) for key in value):
        raise refuse(path, value, "a dict with strings as keys")
    return value


def optional(reader: Reader[_T]) -> Reader[_T | None]:
    """Return a reader that reads None as None and all else as `reader`."""
    return lambda path, value: None if value is None else reader(path, value)


def text(path: str, value: object) -> str:
    """Read a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise refuse(path, value, "a string that is not empty")
    return value


def boolean(path: str, value: object) -> bool:
    """Read True or False; what merely counts as such is refused."""
    if not isinstance(value, bool):
        raise refuse(path, value, "True or False")
    return value


def seconds(path: str, value: object) -> float:
    """Read a finite number of seconds, 0 or more."""
    if not is_number(value) or not 0 <= value < math.inf:
        raise refuse(path, value, "a number of seconds, 0 or more")
    return value


def dollars(path: str, value: object) -> float:
    """Read a finite number, 0 or more."""
    if not is_number(value) or not 0 <= value < math.inf:
        raise refuse(path, value, "a number of dollars, 0 or more")
    return value


def positive_seconds(path: str, value: object) -> float:
    """Read a finite number of seconds above 0."""
    if not is_number(value) or not 0 < value < math.inf:
        raise refuse(path, value, "a number of seconds above 0")
    return value


def size(path: str, value: object) -> int:
    """Read a number of bytes, 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise refuse(path, value, "a number of bytes, 0 or more, or None")
    return value


def _at_least_one(path: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise refuse(path, value, "a whole number above 0")
    return value


def labels(path: str, value: object) -> tuple[str, ...]:
    """Read labels of models ("shop.Product") or apps ("shop")."""
    if not _is_sequence(value) or not all(isinstance(label, str) for label in value):
        raise refuse(
            path, value, "a list of labels of models ('shop.Product') or apps ('shop')"
        )
    return tuple(cast("Sequence[str]", value))


def names(path: str, value: object) -> tuple[str, ...]:
    """Read a list of strings that are not empty."""
    if not _is_sequence(value) or not all(
        isinstance(name, str) and name for name in value
    ):
        raise refuse(path, value, "a list of names")
    return tuple(cast("Sequence[str]", value))


def _key_version(path: str, value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise refuse(path, value, "a number or a string")
    return value


def _slug_of(path: str, name: str) -> str:
    """Return the name of a namespace as it is in keys; `path` says whose."""
    slug = slugify(name)
    if not 0 < len(slug) <= _LONGEST_SLUG:
        raise refuse(
            path,
            name,
            f"a name of 1 to {_LONGEST_SLUG} letters, digits, '-' and '_'",
        )
    return slug


def _namespaces(path: str, value: object) -> Mapping[str, Namespace]:
    read: dict[str, Namespace] = {}
    names: dict[str, str] = {}
    readers: Mapping[str, Reader[object]] = {
        "CACHE": optional(text),
        "TTL": optional(positive_seconds),
    }
    for name, given in mapping(path, value).items():
        slug = _slug_of(f"A name in {path}", name)
        if slug in names:
            raise ImproperlyConfigured(
                f"{path} has {names[slug]!r} and {name!r}, which both are the "
                f"namespace {slug!r}."
            )
        names[slug] = name
        own = _read(f"{path}[{name!r}]", mapping(f"{path}[{name!r}]", given), readers)
        read[slug] = Namespace(own.get("CACHE"), own.get("TTL"))
    return MappingProxyType(read)


def _rate(path: str, value: object) -> float:
    if not is_number(value) or not 0 < value < 1:
        raise refuse(path, value, "a number between 0 and 1, or None")
    return value


#: What ``Prices`` has, but for the source.
_PRICED: Final = ("put", "list", "get", "delete", "storage")


def _prices(path: str, value: object) -> Mapping[str, Any]:
    given = mapping(path, value)
    refuse_unknown(path, given, [*_PRICED, "source"])
    read: dict[str, Any] = {"source": f"{path} of the project"} if given else {}
    for name, one in given.items():
        read[name] = (text if name == "source" else dollars)(f"{path}[{name!r}]", one)
    return MappingProxyType(read)


def _signing_keys(path: str, value: object) -> tuple[bytes, ...]:
    # The error does not quote the value: it is a secret.
    if not _is_sequence(value) or not all(
        isinstance(key, str | bytes) and key for key in value
    ):
        raise ImproperlyConfigured(
            f"{path} must be a list of keys, each a str or bytes and not empty."
        )
    keys = cast("Sequence[str | bytes]", value)
    return tuple(key.encode() if isinstance(key, str) else key for key in keys)


def _read(
    path: str,
    given: Mapping[str, object],
    readers: Mapping[str, Reader[object]],
) -> dict[str, Any]:
    refuse_unknown(path, given, readers)
    return {
        key: readers[key](f"{path}[{key!r}]", value) for key, value in given.items()
    }


def is_number(value: object) -> TypeGuard[float]:
    """Tell numbers from all else, and from booleans, which are ints."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def listed(names: Iterable[str]) -> str:
    """Return the quoted names for a message."""
    return ", ".join(repr(name) for name in names) or "none"
