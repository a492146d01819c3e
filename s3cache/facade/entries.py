"""Entries of a model: results are removed, and the caller keeps his own."""

from __future__ import annotations

from typing import Any, Final

from django.apps import apps
from django.core.cache import caches

from s3cache import conf
from s3cache.caches.base import Timeout
from s3cache.facade.base import Base, Params, Partition
from s3cache.facade.keys import own_key, own_prefix
from s3cache.facade.reads import Read, parts_of
from s3cache.facade.removing import keys_of, remove
from s3cache.facade.twins import twin
from s3cache.results.elsewhere import hot_prefix
from s3cache.results.hot import drop_hot
from s3cache.results.keys import label_in_key, prefix_of
from s3cache.results.policy import kept_in

__all__ = ["Entries", "clear_everything"]

#: Namespace, model, action, part, versions, hash.
_WORDS_WITH_PART: Final = 6


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


class Entries(Base):
    """What is kept of a model, by its keys."""

    # Results

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

    akeys = twin(keys)
    ainvalidate = twin(invalidate)
    aclear = twin(clear)

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

    # Parts

    def _own(self, key: str) -> str:
        return own_key(self._label, self._namespace, str(key))

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


def _part(key: str) -> str:
    """What a key says of the part of the table, "": nothing."""
    words = key.split(":")
    return words[3] if len(words) == _WORDS_WITH_PART else ""
