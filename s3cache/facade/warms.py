"""Results of a model are put into the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypedDict, Unpack

from django.db import models

from s3cache import conf
from s3cache.facade.base import Base, Params, Partition
from s3cache.facade.reads import PAGE_SIZE, Read, parts_of
from s3cache.facade.twins import twin
from s3cache.facade.warmer import Warmed, warm
from s3cache.results.statements import MOST_ROWS

__all__ = ["SAMPLE_SIZE", "How", "Warms"]

#: Rows, and values of a partition, that `Warms.warm` warms one by one.
SAMPLE_SIZE: Final = 1000


class How(TypedDict, total=False):
    """How something is warmed."""

    force_refresh: bool
    """Compute what is there already, too. It is left alone otherwise."""
    return_data: bool
    """Return what was read; otherwise, how many results were stored."""
    ttl: float | None
    """Seconds that results are kept; None: as the model says."""


class Warms(Base):
    """
    Methods that warm; `How` says what all of them take.

    Inside a transaction no results are kept, and nothing is warmed.
    """

    def warm_item(self, pk: Any, **how: Unpack[How]) -> Any:
        """``get(pk=pk)``. The data is the object, None if there is none."""
        reads = [self._read("get", {"pk": pk})]
        return self._warm(reads, _only, **how)

    def warm_many(self, pks: Iterable[Any], **how: Unpack[How]) -> Any:
        """``get(pk=...)`` of each. The data is a list, as of `warm_item`."""
        reads = [self._read("get", {"pk": pk}) for pk in pks]
        return self._warm(reads, list, **how)

    def warm_page(
        self,
        offset: int = 0,
        size: int = PAGE_SIZE,
        *,
        order_by: str | Sequence[str] = (),
        params: Params | None = None,
        partition: Partition | None = None,
        **how: Unpack[How],
    ) -> Any:
        """``all()[offset:offset + size]``, in some order."""
        lookups = {"filter": dict(params or {})}
        page = {**lookups, "order_by": order_by, "offset": offset, "size": size}
        reads = [self._read("page", page, partition)]
        return self._warm(reads, _only, **how)

    def warm_top(
        self,
        size: int,
        order_by: str | Sequence[str],
        **how: Unpack[How],
    ) -> Any:
        """The first page in some order, and ``get(pk=...)`` of its rows."""
        page = self._read("page", {"order_by": order_by, "size": size})
        with_data: How = {**how, "return_data": True}
        found = self._warm_one(page, **with_data)
        rows = [self._read("get", {"pk": row.pk}) for row in found.data]
        if how.get("return_data"):
            self._warm(rows, list, **how)
            return found.data
        return found.stored + self._warm(rows, list, **how)

    def warm_list(
        self,
        params: Params | None = None,
        partition: Partition | None = None,
        **how: Unpack[How],
    ) -> Any:
        """All rows, or those of a partition; up to 10,000 are kept."""
        reads = [self._read("list", params, partition)]
        return self._warm(reads, _only, **how)

    def warm_query(
        self,
        query: models.QuerySet[Any] | Read | Params,
        partition: Partition | None = None,
        **how: Unpack[How],
    ) -> Any:
        """A queryset as it is, a `Read`, or the rows that lookups match."""
        if isinstance(query, Read):
            read = query
        elif isinstance(query, models.QuerySet):
            read = Read(query)
        else:
            read = self._read("query", query, partition)
        return self._warm([read], _only, **how)

    def warm_count(
        self,
        params: Params | None = None,
        partition: Partition | None = None,
        **how: Unpack[How],
    ) -> Any:
        """``count()``."""
        reads = [self._read("count", params, partition)]
        return self._warm(reads, _only, **how)

    def warm_partition(self, partition: Partition, **how: Unpack[How]) -> Any:
        """
        The number, the first page and the list of the rows of one part.

        ``{"by_region": [{"region": "EU"}, {"region": "US"}]}``: of several.
        The data is a list of the rows of all of them.
        """
        with_data: How = {**how, "return_data": True}
        wants_data = how.get("return_data", False)
        stored = 0
        rows: list[Any] = []
        for part in parts_of(self.model, partition):
            count, page, whole = self._reads_of_part(part)
            number = self._warm_one(count, **with_data)
            stored += number.stored + self._warm_one(page, **how).stored
            if wants_data or number.data <= MOST_ROWS:
                found = self._warm_one(whole, **how)
                stored += found.stored
                rows += found.data if wants_data else ()
        return rows if wants_data else stored

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
            self._warm_one(read, force_refresh=force_refresh, ttl=ttl).stored
            for read in reads
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

    # Parts

    def _reads_of_part(self, part: Params) -> list[Read]:
        """The number, the first page and the list of the rows of a part."""
        lookups = {"filter": part}
        return [self._read(action, lookups) for action in ("count", "page", "list")]

    def _warm_one(self, read: Read, **how: Unpack[How]) -> Warmed:
        """One read, in the cache of the namespace."""
        return warm(read.asking(**self._hints) if self._hints else read, **how)

    def _warm(
        self,
        reads: Iterable[Read],
        form: Callable[[list[Any]], Any],
        **how: Unpack[How],
    ) -> Any:
        """How many were stored, or their data in some form."""
        found = [self._warm_one(one, **how) for one in reads]
        if how.get("return_data"):
            return form([one.data for one in found])
        return sum(one.stored for one in found)


def _only(data: list[Any]) -> Any:
    return data[0]
