"""`S3QuerySet` and `S3Manager`: a say in how fresh an answer must be."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import FieldError
from django.db import connections, models

from s3cache import conf
from s3cache.hints import hints_of, set_hints
from s3cache.remembered import remember_saved
from s3cache.results.hot import NOT_HOT, Hot

__all__ = ["S3Manager", "S3QuerySet"]

if TYPE_CHECKING:
    # With a default, which typing's has from Python 3.13, S3QuerySet[M] is
    # S3QuerySet[M, M].
    from typing_extensions import TypeVar

    _M = TypeVar("_M", bound=models.Model, covariant=True)
    _Row = TypeVar("_Row", covariant=True, default=_M)
else:
    from typing import TypeVar

    _M = TypeVar("_M", bound=models.Model, covariant=True)
    _Row = TypeVar("_Row", covariant=True)


class S3QuerySet(models.QuerySet[_M, _Row]):
    """
    A queryset that can be told how fresh its answer must be.

    `fresh`, `skip_cache` and `cached` hold for whatever is derived from the
    queryset. Where several are combined (``|``, ``union``, subqueries), those
    of the first or outer one hold.
    """

    def fresh(self) -> Self:
        """
        See every commit that has returned on any host.

        Whatever caches and replica hold: each time that this queryset
        fetches, the store is asked first, which costs one request and one
        more for each commit that this host did not have. Inside a
        transaction that holds a snapshot it changes nothing, and on other
        databases neither.
        """
        return self._with_hints(fresh=True)

    def skip_cache(self) -> Self:
        """Neither take the result from the result cache nor store it there."""
        return self._with_hints(skip_cache=True)

    def cached(self, ttl: float) -> Self:
        """
        Keep the result for `ttl` seconds, whatever the model says.

        A write makes the result unreachable at once, as ever. Raise
        `ValueError` unless `ttl` is a finite number above 0.
        """
        if not conf.is_number(ttl) or not 0 < ttl < math.inf:
            raise ValueError(
                f"cached(ttl={ttl!r}): ttl must be a number of seconds above 0."
            )
        return self._with_hints(ttl=ttl)

    def partition(self, name: str, /, **values: Any) -> Self:
        """
        Filter on all fields of the partition `name` of ``S3Meta.partitions``.

        Raise `FieldError` if the model has no such partition, or if `values`
        are not exactly those of its fields.
        """
        return self.filter(**_partition_filter(self.model, name, values))

    def _with_hints(self, **changes: Any) -> Self:
        clone = self.all()
        set_hints(clone.query, **changes)
        return clone

    # All that fetches passes one of the methods below: get(), in_bulk(),
    # first() and their kin evaluate a clone, contains() calls exists(), and
    # the async twins call the others.

    def _ask_if_fresh(self) -> None:
        if hints_of(self.query).fresh and not self.query.is_empty():
            catch_up = getattr(connections[self.db], "catch_up", None)
            if catch_up is not None:
                catch_up()

    def _fetch_all(self) -> None:
        if self._result_cache is None:
            self._ask_if_fresh()
        super()._fetch_all()

    def iterator(self, chunk_size: int | None = None) -> Iterator[_Row]:
        rows = super().iterator(chunk_size)  # checks its argument at once
        return self._asking_first(rows) if hints_of(self.query).fresh else rows

    def _asking_first(self, rows: Iterator[_Row]) -> Iterator[_Row]:
        self._ask_if_fresh()
        yield from rows

    async def aiterator(self, chunk_size: int = 2000) -> AsyncIterator[_Row]:
        if hints_of(self.query).fresh:
            await sync_to_async(self._ask_if_fresh)()
        async for row in super().aiterator(chunk_size):
            yield row

    def count(self) -> int:
        if self._result_cache is None:
            self._ask_if_fresh()
        return super().count()

    def exists(self) -> bool:
        if self._result_cache is None:
            self._ask_if_fresh()
        return super().exists()

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._ask_if_fresh()
        return super().aggregate(*args, **kwargs)

    def bulk_update(
        self, objs: Iterable[_M], fields: Iterable[str], batch_size: int | None = None
    ) -> int:
        objs, fields = tuple(objs), tuple(fields)
        updated = super().bulk_update(objs, fields, batch_size)
        for instance in objs:
            remember_saved(instance, fields)
        return updated


_ManagerFromS3QuerySet = models.Manager.from_queryset(S3QuerySet)


#: What a queryset class must have from here for its manager to be hot.
_OF_S3QUERYSET = (
    "__init__",
    "_chain",
    "_clone",
    "_fetch_all",
    "_filter_or_exclude",
    "all",
    "count",
    "filter",
    "get",
)


class S3Manager(_ManagerFromS3QuerySet[_M]):
    """
    The manager of an `S3Model`: all of `S3QuerySet`'s methods.

    Subclass it, or build one from a subclass of `S3QuerySet` with
    ``S3Manager.from_queryset(...)``.

    `get` by the value of one field and `count` are answered without a
    queryset where that is possible; see `s3cache.results.hot`. A manager with
    a ``get_queryset`` of its own, of another database (``using``) or of a
    relation makes querysets as in Django.
    """

    #: None: not decided yet. Of another model: a parent's, copied with it.
    _hot: Hot[_M] | Literal[False] | None = None

    def _hot_path(self) -> Hot[_M] | None:
        hot = self._hot
        if isinstance(hot, Hot):
            if hot.model is self.model:
                return hot
        elif hot is False:
            return None
        made = Hot(self.model) if _is_hot(type(self)) else None
        self._hot = made or False
        return made

    def db_manager(
        self, using: str | None = None, hints: dict[str, models.Model] | None = None
    ) -> Self:
        made = super().db_manager(using, hints)
        made._hot = False
        return made

    def get(self, *args: Any, **kwargs: Any) -> _M:
        hot = self._hot_path()
        if hot is None or args or len(kwargs) != 1:
            return self.get_queryset().get(*args, **kwargs)
        found = hot.get(kwargs)
        if found is NOT_HOT:
            return hot.get_and_keep(self.get_queryset(), kwargs)
        return cast("_M", found)

    async def aget(self, *args: Any, **kwargs: Any) -> _M:
        hot = self._hot_path()
        if hot is not None and not args and len(kwargs) == 1:
            found = hot.get(kwargs, may_wait=False)
            if found is not NOT_HOT:
                return cast("_M", found)
        return await sync_to_async(self.get)(*args, **kwargs)

    def count(self) -> int:
        hot = self._hot_path()
        if hot is None:
            return self.get_queryset().count()
        found = hot.count()
        if found is NOT_HOT:
            return hot.count_and_keep(self.get_queryset())
        return cast("int", found)

    async def acount(self) -> int:
        hot = self._hot_path()
        found = NOT_HOT if hot is None else hot.count(may_wait=False)
        if found is NOT_HOT:
            return await sync_to_async(self.count)()
        return cast("int", found)


def _is_hot(manager: type[S3Manager[Any]]) -> bool:
    queryset: type[models.QuerySet[Any]] = manager._queryset_class  # type: ignore[attr-defined]
    return manager.get_queryset is models.Manager.get_queryset and all(
        getattr(queryset, name) is getattr(S3QuerySet, name) for name in _OF_S3QUERYSET
    )


def _partition_filter(
    model: type[models.Model], name: str, values: Mapping[str, Any]
) -> Mapping[str, Any]:
    options = getattr(model, "_s3meta", None)
    partitions = options.partitions if options else {}
    label = model._meta.label
    if name not in partitions:
        raise FieldError(
            f"{label} has no partition {name!r}. Its partitions are "
            f"{conf.listed(partitions)}."
        )
    names = partitions[name]
    missing = [field for field in names if field not in values]
    unknown = [field for field in values if field not in names]
    if missing or unknown:
        raise FieldError(
            f"Partition {name!r} of {label} takes the fields {conf.listed(names)}; "
            f"missing are {conf.listed(missing)}, unknown {conf.listed(unknown)}."
        )
    return values
