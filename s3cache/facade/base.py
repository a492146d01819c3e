"""What a facade is about: a manager, a namespace, and their cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from s3cache.facade.reads import Read, parts_of
from s3cache.results.policy import kept_in

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache

    from s3cache.db.base import DatabaseWrapper

__all__ = ["Base", "Params", "Partition"]

#: ``{"by_region": {"region": "EU"}}``
Partition: TypeAlias = Mapping[str, Any]

#: What describes a read beside its action; see `Read.of`.
Params: TypeAlias = Mapping[str, Any]


class Base:
    """The rows of a manager, and the cache that has their results."""

    def __init__(self, manager: models.Manager[Any], namespace: str = "") -> None:
        self._manager = manager
        self._namespace = namespace

    @property
    def model(self) -> type[models.Model]:
        """The model of the manager."""
        return self._manager.model

    @property
    def driver(self) -> BaseCache:
        """The Django cache that has the results, whatever backend it is."""
        return caches[self._alias]

    @property
    def _rows(self) -> models.QuerySet[Any]:
        return self._manager.get_queryset()

    @property
    def _all(self) -> models.QuerySet[Any]:
        """All rows, also where the manager is of a relation."""
        return self.model._base_manager.using(self._rows.db)

    @property
    def _label(self) -> str:
        return self.model._meta.label_lower

    @property
    def _hints(self) -> dict[str, Any]:
        return {"namespace": self._namespace} if self._namespace else {}

    @property
    def _partitions(self) -> Mapping[str, tuple[str, ...]]:
        options = getattr(self.model, "_s3meta", None)
        return options.partitions if options is not None else {}

    @property
    def _connection(self) -> DatabaseWrapper:
        return Read(self._rows).connection

    @property
    def _max_age(self) -> float:
        return self._connection.max_age_of([self.model._meta.db_table.lower()])

    @property
    def _alias(self) -> str:
        alias = kept_in(self.model, self._namespace).cache
        if alias is None:
            raise ImproperlyConfigured(
                f"S3CACHE['CACHE'] is None: there is no cache for "
                f"{self.model._meta.label}."
            )
        return alias

    @property
    def _ttl(self) -> float:
        return kept_in(self.model, self._namespace).ttl

    def _read(
        self,
        action: str,
        params: Params | None = None,
        partition: Partition | None = None,
    ) -> Read:
        rows = self._rows
        if partition is not None:
            parts = parts_of(self.model, partition)
            if len(parts) != 1:
                raise ValueError(f"A read is of one part, not of {len(parts)}.")
            rows = rows.filter(**parts[0])
        return Read.of(rows, action, params)
