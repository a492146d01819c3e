"""``Model.objects.cache``: one model's results, by hand."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import models

from s3cache import conf
from s3cache.facade.base import Params, Partition
from s3cache.facade.entries import Entries
from s3cache.facade.statistics import (
    FacadeStatistics,
    memory_statistics,
    statistics,
)
from s3cache.facade.twins import twin
from s3cache.facade.warms import Warms
from s3cache.replica import clock
from s3cache.results.policy import counted_label, is_kept

__all__ = ["Facade", "cache_of"]


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


class Facade(Warms, Entries):
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
        self._connection.replica.asking.expect_news(self._max_age)

    def refresh(self) -> int:
        """
        Ask the store now; return the position of the log that this is at.

        One request, and one for each commit that this host did not have.
        """
        connection = self._connection
        connection.catch_up()
        return connection.position

    akey_for = twin(key_for)
    astats = twin(stats)
    amemory_stats = twin(memory_stats)
    ais_fresh = twin(is_fresh)
    amark_stale = twin(mark_stale)
    arefresh = twin(refresh)
