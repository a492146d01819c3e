"""``Model.objects.cache``: one model's results, by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from s3cache import conf
from s3cache.caches.base import Timeout
from s3cache.facade.keys import own_key, own_prefix
from s3cache.facade.reads import PAGE_SIZE, Read, parts_of
from s3cache.facade.removing import keys_of, remove
from s3cache.facade.statistics import (
    FacadeStatistics,
    memory_statistics,
    statistics,
)
from s3cache.facade.twins import twin
from s3cache.facade.warmer import Warmed, warm
from s3cache.replica import clock
from s3cache.results.elsewhere import hot_prefix
from s3cache.results.hot import drop_hot
from s3cache.results.keys import label_in_key, prefix_of
from s3cache.results.policy import counted_label, is_kept, kept_in
from s3cache.results.statements import MOST_ROWS

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache

    from s3cache.db.base import DatabaseWrapper

__all__ = ["SAMPLE_SIZE", "Facade", "cache_of", "clear_everything"]

#: Rows, and values of a partition, that `Facade.warm` warms one by one.
SAMPLE_SIZE: Final = 1000

#: Namespace, model, action, part, versions, hash.
_WORDS_WITH_PART: Final = 6

Partition = Mapping[str, Any]
Params = Mapping[str, Any]


def cache_of(model: type[models.Model] | str, namespace: str = "") -> Facade:
    """
    The facade of any model in a bucket, also of one that is no `S3Model`.

    `model` may be a label, "auth.User"; `LookupError`, naming those that
    there are, if it is none. `namespace` is as for `Facade.namespace`.
    """
    if isinstance(model, str):
        found = {one._meta.label_lower: one for one in apps.get_models()}
        if model.lower() not in found:
            labels = conf.listed(sorted(one._meta.label for one in found.values()))
            raise LookupError(f"There is no model {model!r}. Models are {labels}.")
        model = found[model.lower()]
    facade = Facade(model._default_manager)
    return facade.namespace(namespace) if namespace else facade


def clear_everything(*, dry_run: bool = False) -> dict[str, int]:
    """
    Remove all results, and all that was set by hand, of all models.

    In each cache that the settings or a model names; returns how many entries
    there were, by ``CACHES`` alias. What other processes have in memory of
    their own they keep. Raise `NotImplementedError` for a cache that cannot
    list its keys.
    """
    namespaces = ("", *conf.settings().namespaces)
    aliases = {
        kept_in(model, namespace).cache
        for model in (None, *apps.get_models())
        for namespace in namespaces
    }
    found = {
        alias: [
            key
            for namespace in namespaces
            for key in keys_of(caches[alias], f"{prefix_of(namespace)}:")
        ]
        for alias in sorted(filter(None, aliases))
    }
    if not dry_run:
        for alias, keys in found.items():
            remove(caches[alias], keys)
        for model in apps.get_models():
            drop_hot(model)
    return {alias: len(keys) for alias, keys in found.items()}


class Facade:
    """
    The results of what a manager reads, and entries of the caller's own.

    Reads are named by an action (`get`, `list`, `page`, `query`, `count`,
    `exists`, `aggregate`) with its params: lookups as ``filter()`` takes
    them, ``order_by`` for lists, ``offset`` and ``size`` for pages, and
    ``aggregates``. Lookups that are called like one of these go into
    ``filter``, a mapping. A ``partition`` is written as
    ``{"by_region": {"region": "EU"}}``.

    What warms leaves alone what is in the cache, unless ``force_refresh`` is
    True, and returns how many results were put there; with ``return_data``
    it returns what was read. ``ttl`` is in seconds, None: as the model says.
    Inside a transaction no results are kept, and nothing is warmed.

    Each method has an async twin, with an ``a`` before its name. What is not
    here is passed on to the `driver`.
    """

    def __init__(self, manager: models.Manager[Any], namespace: str = "") -> None:
        self._manager = manager
        self._namespace = namespace

    def __repr__(self) -> str:
        name = f" namespace={self._namespace!r}" if self._namespace else ""
        return f"<{type(self).__name__} of {self.model._meta.label}{name}>"

    def __getattr__(self, name: str) -> Any:
        # A property that fails leads here too.
        if name.startswith("_") or name == "driver":
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}",
                name=name,
                obj=self,
            )
        return getattr(self.driver, name)

    # What it is about

    @property
    def model(self) -> type[models.Model]:
        """The model of the manager."""
        return self._manager.model

    @property
    def driver(self) -> BaseCache:
        """The Django cache that has the results, whatever backend it is."""
        return caches[self._alias]

    def namespace(self, name: str) -> Facade:
        """
        Another cache of the same model, of ``S3CACHE["NAMESPACES"]``.

        It has a driver, a TTL, statistics and keys of its own, and shares no
        entry with this one. `name` is slugified. Raise `LookupError`, naming
        those that are configured, for one that is not.
        """
        return type(self)(self._manager, conf.namespace(name))

    def key_for(
        self,
        action: str,
        params: Params | None = None,
        partition: Partition | None = None,
    ) -> str | None:
        """
        The key under which the driver has the result of a read, now.

        A write makes it another one. The driver's `get` of it gives what is
        kept: bytes, that `s3cache.results.codec.decode` makes rows of. None:
        the result of such a read is not kept. Costs what being fresh does: a
        request to the store, if it was not asked for ``max_age``.
        """
        place = self._read(action, params, partition).asking(**self._hints).place()
        return None if place is None else place.key

    # Warming

    def warm_item(
        self,
        pk: Any,
        *,
        force_refresh: bool = False,
        return_data: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """``get(pk=pk)``. The data is the object, None if there is none."""
        reads = [self._read("get", {"pk": pk})]
        return self._warm(reads, force_refresh, return_data, ttl, _only)

    def warm_many(
        self,
        pks: Iterable[Any],
        *,
        force_refresh: bool = False,
        return_data: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """``get(pk=...)`` of each. The data is a list, as of `warm_item`."""
        reads = [self._read("get", {"pk": pk}) for pk in pks]
        return self._warm(reads, force_refresh, return_data, ttl, list)

    def warm_page(
        self,
        offset: int = 0,
        size: int = PAGE_SIZE,
        *,
        order_by: str | Sequence[str] = (),
        params: Params | None = None,
        partition: Partition | None = None,
        force_refresh: bool = False,
        return_data: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """``all()[offset:offset + size]``, in some order."""
        lookups = {"filter": dict(params or {})}
        page = {**lookups, "order_by": order_by, "offset": offset, "size": size}
        reads = [self._read("page", page, partition)]
        return self._warm(reads, force_refresh, return_data, ttl, _only)

    def warm_top(
        self,
        size: int,
        order_by: str | Sequence[str],
        *,
        force_refresh: bool = False,
        return_data: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """The first page in some order, and ``get(pk=...)`` of its rows."""
        page = self._read("page", {"order_by": order_by, "size": size})
        found = self._warm_one(page, force_refresh, True, ttl)
        reads = [self._read("get", {"pk": row.pk}) for row in found.data]
        stored = self._warm(reads, force_refresh, False, ttl, list)
        return found.data if return_data else found.stored + stored

    def warm_list(
        self,
        params: Params | None = None,
        partition: Partition | None = None,
        *,
        force_refresh: bool = False,
        return_data: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """All rows, or those of a partition; up to 10,000 are kept."""
        reads = [self._read("list", params, partition)]
        return self._warm(reads, force_refresh, return_data, ttl, _only)

    def warm_query(
        self,
        query: models.QuerySet[Any] | Read | Params,
        partition: Partition | None = None,
        *,
        force_refresh: bool = False,
        return_data: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """A queryset as it is, a `Read`, or the rows that lookups match."""
        if isinstance(query, Read):
            read = query
        elif isinstance(query, models.QuerySet):
            read = Read(query)
        else:
            read = self._read("query", query, partition)
        return self._warm([read], force_refresh, return_data, ttl, _only)

    def warm_count(
        self,
        params: Params | None = None,
        partition: Partition | None = None,
        *,
        force_refresh: bool = False,
        return_data: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """``count()``."""
        reads = [self._read("count", params, partition)]
        return self._warm(reads, force_refresh, return_data, ttl, _only)

    def warm_partition(
        self,
        partition: Partition,
        *,
        force_refresh: bool = False,
        return_data: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """
        The number, the first page and the list of the rows of one part.

        ``{"by_region": [{"region": "EU"}, {"region": "US"}]}``: of several.
        The data is a list of the rows of all of them.
        """
        stored = 0
        rows: list[Any] = []
        for part in parts_of(self.model, partition):
            count, page, whole = self._reads_of_part(part)
            number = self._warm_one(count, force_refresh, True, ttl)
            stored += number.stored
            stored += self._warm_one(page, force_refresh, False, ttl).stored
            if return_data or number.data <= MOST_ROWS:
                found = self._warm_one(whole, force_refresh, return_data, ttl)
                stored += found.stored
                rows += found.data or ()
        return rows if return_data else stored

    def warm(
        self,
        include_partitions: bool = True,
        sample_size: int = SAMPLE_SIZE,
        *,
        force_refresh: bool = False,
        ttl: float | None = None,
        each: Callable[[list[Read]], Iterable[Read]] = iter,
    ) -> int:
        """
        What `reads` names; returns how many results were stored.

        `each` gets the reads before they are made, and passes them on: for
        a progress bar.
        """
        reads = each(self.reads(include_partitions, sample_size))
        return sum(
            self._warm_one(read, force_refresh, False, ttl).stored for read in reads
        )

    def reads(
        self, include_partitions: bool = True, sample_size: int = SAMPLE_SIZE
    ) -> list[Read]:
        """
        What is worth having of a model: what `warm` warms.

        The number of rows, the first page, and ``get(pk=...)`` of the first
        `sample_size` rows; the whole list, if it has no more. The same
        without single rows of each part of each partition, of as many parts
        as `sample_size`, the largest first.
        """
        if not conf.is_number(sample_size) or sample_size < 0:
            raise ValueError(f"sample_size is {sample_size!r}, but must be 0 or more.")
        # Planning asks what is there, and stores none of it.
        rows = Read(self._rows).asking(skip_cache=True).queryset
        pks = rows.order_by("pk").values_list("pk", flat=True)[:sample_size]
        reads = [
            *self._reads_of_part({})[: 3 if rows.count() <= sample_size else 2],
            *(self._read("get", {"pk": pk}) for pk in pks),
        ]
        if include_partitions:
            for names in self._partitions.values():
                parts = rows.order_by().values(*names)
                parts = parts.annotate(s3cache_rows=models.Count("*"))
                for part in parts.order_by("-s3cache_rows", *names)[:sample_size]:
                    number = part.pop("s3cache_rows")
                    found = self._reads_of_part(part)
                    reads += found[: 3 if number <= sample_size else 2]
        return reads

    # Removing

    def invalidate(self, pk: Any = None, partition: Partition | None = None) -> int:
        """
        Remove results, so that the next reads compute them; how many.

        With `pk` those of that row and all that may contain it, as if it were
        written; with `partition` those of one part, or several; without
        either, all of the model. The caller's own entries stay.

        Results that a write has changed need none of this: nobody finds
        them. What other processes have in their own memory they keep.
        """
        removed = remove(self.driver, self.keys(pk, partition))
        self._drop_hot()
        return removed

    def clear(
        self, partition: Partition | None = None, *, dry_run: bool = False
    ) -> int:
        """
        Remove all entries of the model, the caller's own too; how many.

        With `partition` only results of that part, as `invalidate` does. With
        `dry_run` only count them.
        """
        found = self.keys(partition=partition)
        if partition is None:
            own = own_prefix(self._label, self._namespace)
            found += keys_of(self.driver, own)
        if not dry_run:
            remove(self.driver, found)
            self._drop_hot()
        return len(found)

    def keys(self, pk: Any = None, partition: Partition | None = None) -> list[str]:
        """
        The keys of the results that `invalidate` would remove, as they are.

        Also of results that are not asked for any more, since a write has
        changed them.
        """
        if pk is not None and partition is not None:
            raise TypeError("Results are of a pk or of a partition, not of both.")
        begin = f"{prefix_of(self._namespace)}:{label_in_key(self._label)}:"
        found = keys_of(self.driver, begin)
        if pk is not None:
            parts = self._parts_of_row(pk)
        elif partition is not None:
            parts = frozenset(
                self._part_of({"filter": part})
                for part in parts_of(self.model, partition)
            )
        else:
            return found
        if None in parts:
            return found  # nothing tells them apart
        return [key for key in found if _part(key) in parts]

    # Entries of the caller's own

    def get(self, key: str, default: Any = None) -> Any:
        """An entry that `set` has made; not one of a read, see `key_for`."""
        return self.driver.get(self._own(key), default)

    def set(self, key: str, value: Any, ttl: Timeout = None) -> None:
        """
        Keep an entry for `ttl` seconds, None: as long as a result.

        Writes to the model do not remove it; `clear` does.
        """
        self.driver.set(self._own(key), value, self._ttl if ttl is None else ttl)

    def delete(self, key: str) -> bool:
        """Remove an entry that `set` has made; whether there was one."""
        return bool(self.driver.delete(self._own(key)))

    async def aget(self, key: str, default: Any = None) -> Any:
        """As `get`; on the event loop, if the driver can."""
        return await self.driver.aget(self._own(key), default)

    async def aset(self, key: str, value: Any, ttl: Timeout = None) -> None:
        """As `set`."""
        ttl = self._ttl if ttl is None else ttl
        await self.driver.aset(self._own(key), value, ttl)

    async def adelete(self, key: str) -> bool:
        """As `delete`."""
        return bool(await self.driver.adelete(self._own(key)))

    # Statistics

    def stats(self) -> FacadeStatistics:
        """How the model's reads fared in this process, and its driver."""
        return statistics(
            self.model._meta.label,
            self._namespace,
            counted_label(self._label, self._namespace),
            self.driver,
            enabled=is_kept(self.model),
            ttl=self._ttl,
        )

    def memory_stats(self) -> dict[str, Any]:
        """What the driver's entries weigh; None for what it does not say."""
        return memory_statistics(self.driver)

    # Freshness

    def is_fresh(self) -> bool:
        """
        Whether a read now would do without asking the store.

        Costs no request.
        """
        asked_at = self._connection.replica.side.asked_at
        return bool(asked_at) and clock.now() - asked_at < self._max_age

    def mark_stale(self) -> None:
        """Have the next read of the model ask the store, in all processes."""
        self._connection.replica.expect_news(self._max_age)

    def refresh(self) -> int:
        """
        Ask the store now; return the position of the log that this is at.

        One request, and one for each commit that this host did not have.
        """
        connection = self._connection
        connection.catch_up()
        return connection.position

    # Async twins

    akey_for = twin(key_for)
    awarm_item = twin(warm_item)
    awarm_many = twin(warm_many)
    awarm_page = twin(warm_page)
    awarm_top = twin(warm_top)
    awarm_list = twin(warm_list)
    awarm_query = twin(warm_query)
    awarm_count = twin(warm_count)
    awarm_partition = twin(warm_partition)
    awarm = twin(warm)
    areads = twin(reads)
    akeys = twin(keys)
    ainvalidate = twin(invalidate)
    aclear = twin(clear)
    astats = twin(stats)
    amemory_stats = twin(memory_stats)
    ais_fresh = twin(is_fresh)
    amark_stale = twin(mark_stale)
    arefresh = twin(refresh)

    # Parts

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

    def _own(self, key: str) -> str:
        return own_key(self._label, self._namespace, str(key))

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

    def _reads_of_part(self, part: Params) -> list[Read]:
        """The number, the first page and the list of the rows of a part."""
        lookups = {"filter": part}
        return [self._read(action, lookups) for action in ("count", "page", "list")]

    def _warm_one(
        self, read: Read, force_refresh: bool, return_data: bool, ttl: float | None
    ) -> Warmed:
        """One read, in the cache of the namespace."""
        return warm(
            read.asking(**self._hints),
            force_refresh=force_refresh,
            return_data=return_data,
            ttl=ttl,
        )

    def _warm(
        self,
        reads: Iterable[Read],
        force_refresh: bool,
        return_data: bool,
        ttl: float | None,
        form: Callable[[list[Any]], Any],
    ) -> Any:
        """How many were stored, or their data in some form."""
        found = [self._warm_one(one, force_refresh, return_data, ttl) for one in reads]
        if return_data:
            return form([one.data for one in found])
        return sum(one.stored for one in found)

    def _part_of(self, params: Params, action: str = "count") -> str | None:
        """The word in keys for what such reads depend on; None: unknown."""
        place = Read.of(self._all, action, params).asking(**self._hints).place()
        return None if place is None else _part(place.key)

    def _parts_of_row(self, pk: Any) -> frozenset[str | None]:
        """The words in keys of reads that may contain a row."""
        parts = [self._part_of({"pk": pk}, "get"), ""]
        names = sorted({name for one in self._partitions.values() for name in one})
        if names:
            rows = Read(self._all).asking(skip_cache=True).queryset
            for row in rows.filter(pk=pk).values(*names):
                parts += [
                    self._part_of({"filter": {name: row[name] for name in part}})
                    for part in self._partitions.values()
                ]
        return frozenset(parts)

    def _drop_hot(self) -> None:
        """Have the hot path let go of its copies."""
        if not self._namespace:
            remove(self.driver, keys_of(self.driver, hot_prefix(self._label)))
            drop_hot(self.model)


def _only(data: list[Any]) -> Any:
    return data[0]


def _part(key: str) -> str:
    """What a key says of the part of the table, "": nothing."""
    words = key.split(":")
    return words[3] if len(words) == _WORDS_WITH_PART else ""
