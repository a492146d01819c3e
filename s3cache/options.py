"""What ``class S3Meta`` says about a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from s3cache import conf

__all__ = ["S3Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """
    The options of one model, as ``Model._s3meta``; None is "as the database".

    `partitions`
        Names of fields by name of partition, each a way to split the rows
        so that a write in one part leaves cached results of others valid.
    `partition_aware`
        False: a write to the table invalidates the results of every part.
    `ttl`
        Seconds that results are kept; None: ``S3CACHE["TTL"]``.
    `max_age`
        Seconds: how old the data may be; None: the database's.
    `cache`
        The ``CACHES`` alias for results; None: ``S3CACHE["CACHE"]``.
    `cached`
        Whether results are kept; None: as ``S3CACHE["INCLUDE"]`` says.
        ``S3CACHE["EXCLUDE"]`` wins.
    `records`
        Whether rows are written as JSON objects too; None: the database's.
    `write_behind`
        Whether a statement outside of a transaction returns when this host
        has it on its disk, and is sent a little later.
    `database`
        The ``DATABASES`` alias that `S3Router` takes; None: the only one
        that lives in a bucket, or "default" if there are several.
    """

    partitions: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    partition_aware: bool = True
    ttl: float | None = None
    max_age: float | None = None
    cache: str | None = None
    cached: bool | None = None
    records: bool | None = None
    write_behind: bool = False
    database: str | None = None

    @classmethod
    def of(cls, model_label: str, declared: object) -> S3Options:
        """
        Read the class ``S3Meta`` of a model, and those that it derives from.

        Raise `ImproperlyConfigured` for an unknown option or a value of the
        wrong kind. Whether the fields exist is for a system check to say:
        they are not known before all models are loaded.
        """
        path = f"{model_label}.S3Meta"
        if not isinstance(declared, type | None):
            raise conf.refuse(path, declared, "a class")
        given = {
            name: value
            for base in reversed(declared.__mro__ if declared else ())
            if base is not object
            for name, value in vars(base).items()
            if not name.startswith("_")
        }
        conf.refuse_unknown(path, given, _READERS)
        return cls(
            **{
                name: _READERS[name](f"{path}.{name}", value)
                for name, value in given.items()
            }
        )


def _partitions(path: str, value: object) -> Mapping[str, tuple[str, ...]]:
    read = {}
    for name, names in conf.mapping(path, value).items():
        if (
            not isinstance(names, list | tuple)
            or not all(isinstance(field_name, str) for field_name in names)
            or not 0 < len(set(names)) == len(names)
        ):
            raise conf.refuse(
                f"{path}[{name!r}]",
                names,
                "a list of one or more field names, each once",
            )
        read[name] = tuple(names)
    return MappingProxyType(read)


_READERS: Mapping[str, conf.Reader[Any]] = {
    "partitions": _partitions,
    "partition_aware": conf.boolean,
    "ttl": conf.optional(conf.positive_seconds),
    "max_age": conf.optional(conf.seconds),
    "cache": conf.optional(conf.text),
    "cached": conf.optional(conf.boolean),
    "records": conf.optional(conf.boolean),
    "write_behind": conf.boolean,
    "database": conf.optional(conf.text),
}
