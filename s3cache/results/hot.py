"""The hot path: ``get(field=value)`` and ``count()`` in microseconds.

A hit builds no queryset and compiles no SQL: it compares three numbers in
shared memory, takes the version of the row or table from a dict, and what is
kept under it from a ``MemoryCache``. Everything else goes the usual way, which
is always right; what is not known to be safe here is not hot.

What is kept is learned from the usual way: a query that carries a ``Taken``
is told which versions its result belongs to.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast
from uuid import UUID

from django.core.cache import caches
from django.core.signals import setting_changed
from django.db import connections, models, router
from django.db.models.base import ModelState
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init
from django.dispatch import receiver

from s3cache import conf
from s3cache.caches import MemoryCache
from s3cache.caches.immutables import weigh
from s3cache.remembered import IMMUTABLE, remember_values, remembered_values
from s3cache.replica import clock
from s3cache.replica.replica import AHEAD
from s3cache.results.counters import counters
from s3cache.results.open_blocks import are_open
from s3cache.results.plans import Plan
from s3cache.results.policy import policy_for
from s3cache.results.reading import Taken, take
from s3cache.results.versions import RowScope, Scope
from s3cache.routers import S3Router

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper
    from s3cache.replica.side_file import SideFile
    from s3cache.results.versions import Versions

__all__ = ["NOT_HOT", "Hot"]

logger = logging.getLogger("s3cache.results")

_M = TypeVar("_M", bound=models.Model)

#: What a method returns that leaves the answer to the usual way.
NOT_HOT: Final = object()

#: What is kept of a row that is not there.
_ABSENT: Final = "absent"

#: The types of values that are looked up, and how a row has them. Exactly
#: these: ``1 == True == 1.0``, and a subclass may do anything.
_LOOKED_UP: Final[Mapping[type[models.Field[Any, Any]], type]] = {
    models.AutoField: int,
    models.BigAutoField: int,
    models.SmallAutoField: int,
    models.IntegerField: int,
    models.BigIntegerField: int,
    models.SmallIntegerField: int,
    models.PositiveIntegerField: int,
    models.PositiveBigIntegerField: int,
    models.PositiveSmallIntegerField: int,
    models.CharField: str,
    models.SlugField: str,
    models.UUIDField: UUID,
}


@dataclass(slots=True)
class _Recipe:
    """How one kind of read is answered; learned when it is made first.

    ``prefix`` stands for all that tells it from other reads but the value.
    With ``table`` it depends on one row of it, else on ``tables``.
    """

    prefix: str
    action: str
    label: str
    source: _Source
    tables: tuple[str, ...]
    table: str
    cache: MemoryCache
    ttl: float
    #: Seconds: a replica that was asked so long ago is asked again.
    fresh_for: float


@dataclass(frozen=True, slots=True)
class _Source:
    """The database that a model is in, as long as it stays where it is."""

    alias: str
    settings: object
    cache_settings: object
    versions: Versions
    side: SideFile
    #: The plans of the schema for which all this was learned.
    plans: Mapping[str, Plan]


class Hot(Generic[_M]):
    """The hot reads of one model, by one manager, for all threads."""

    def __init__(self, model: type[_M]) -> None:
        self.model = self._model = model
        self._absent: type[Exception] = cast("Any", model).DoesNotExist
        self._names: tuple[str, ...] = ()
        self._recipes: dict[object, _Recipe] = {}
        self._builds: bool | None = None
        _all.add(self)

    def forget(self) -> None:
        """Learn everything anew, for something has changed."""
        self._recipes = {}
        self._builds = None

    # get()

    def get(self, lookup: Mapping[str, Any], *, may_wait: bool = True) -> Any:
        """The object with one field of a certain value, or ``NOT_HOT``.

        Raises the model's ``DoesNotExist`` if that is known. On an event loop
        nobody ``may_wait``, not even for the replica.
        """
        ((name, value),) = lookup.items()
        recipe = self._recipes.get((name, type(value)))
        if recipe is None:
            return NOT_HOT
        version = self._version(recipe, value, may_wait)
        if version is None:
            return NOT_HOT
        row = recipe.cache.peek((recipe.prefix, value, version))
        if row is None or pre_init.receivers or post_init.receivers:
            return NOT_HOT
        counters.count(recipe.label, "get", "hit")
        if row is _ABSENT:
            raise self._absent(
                f"{self._model._meta.object_name} matching query does not exist."
            )
        # As Model.from_db() does, without calling __init__() with each value.
        made = self._model.__new__(self._model)
        state = ModelState()
        state.adding = False
        state.db = recipe.source.alias
        attributes = made.__dict__
        attributes["_state"] = state
        attributes.update(zip(self._names, row.values, strict=True))
        remember_values(state, row)
        return made

    def get_and_keep(
        self, queryset: models.QuerySet[_M], lookup: Mapping[str, Any]
    ) -> _M:
        """What ``queryset.get(**lookup)`` returns, and keep it for ``get``."""
        ((name, value),) = lookup.items()
        field = self._field(name, value)
        if field is None or not self._can_build():
            return queryset.get(**lookup)
        with take(queryset.query) as taken:
            try:
                found = queryset.get(**lookup)
            except self._absent:
                self._keep((name, type(value)), taken, field, value, None)
                raise
        self._keep((name, type(value)), taken, field, value, found)
        return found

    def _field(self, name: str, value: object) -> models.Field[Any, Any] | None:
        """The field that ``name`` means, if such a value may be looked up."""
        options = self._model._meta
        if name == "pk":
            name = getattr(options.pk, "name", "")
        for field in options.concrete_fields:
            if field.name == name and _LOOKED_UP.get(type(field)) is type(value):
                if getattr(field, "db_collation", None):
                    return None
                return field
        return None

    def _keep(
        self,
        shape: object,
        taken: Taken,
        field: models.Field[Any, Any] | None,
        value: object,
        found: _M | int | None,
    ) -> None:
        recipe = self._learn(shape, taken, field)
        if recipe is None or taken.at is None:
            return
        kept: Any = found
        if isinstance(found, models.Model):
            values = tuple([found.__dict__.get(name) for name in self._names])
            if not IMMUTABLE.issuperset(map(type, values)):
                return  # another instance must not share it
            kept = remembered_values(values)
        elif found is None:
            values, kept = (), _ABSENT
        else:
            values = (found,)
        weight = weigh(values)
        if weight is not None:
            version = taken.at.versions[0] if recipe.table else taken.at.versions
            key = (recipe.prefix, value, version)
            try:
                recipe.cache.keep(key, kept, recipe.ttl, weight=weight + 200)
            except Exception as error:
                # The answer is there; that it could not be kept is no reason
                # to withhold it.
                counters.count(recipe.label, recipe.action, "failed")
                logger.warning("A hot result could not be kept: %s", error)

    # count()

    def count(self, *, may_wait: bool = True) -> Any:
        """How many objects there are, or ``NOT_HOT``."""
        recipe = self._recipes.get("count")
        version = None if recipe is None else self._version(recipe, None, may_wait)
        if recipe is None or version is None:
            return NOT_HOT
        number = recipe.cache.peek((recipe.prefix, None, version))
        if number is None:
            return NOT_HOT
        counters.count(recipe.label, "count", "hit")
        return number

    def count_and_keep(self, queryset: models.QuerySet[_M]) -> int:
        """What ``queryset.count()`` returns, and keep it for ``count``."""
        with take(queryset.query) as taken:
            number = queryset.count()
        self._keep("count", taken, None, None, number)
        return number

    # What both stand on

    def _version(self, recipe: _Recipe, value: object, may_wait: bool) -> object:
        """The version that the answer has to be of; None: not to be told."""
        source = recipe.source
        alias = source.alias
        if (
            are_open(alias)
            or not _is_here(source)
            or caches.settings is not source.cache_settings
        ):
            return None
        versions = source.versions
        try:
            if (
                not versions.is_current(source.side)
                or clock.now() - source.side.asked_at >= recipe.fresh_for
            ) and not (may_wait and _refresh(source, recipe.fresh_for)):
                return None
        except ValueError:  # the side file is closed: it is another replica
            return None
        if versions.plans is not source.plans:
            self._recipes = {}
            return None
        if recipe.table:
            stored = value.hex if type(value) is UUID else value
            return versions.of_row(recipe.table, (stored,))
        return versions.of(recipe.tables)

    def _learn(
        self, shape: object, taken: Taken, field: models.Field[Any, Any] | None
    ) -> _Recipe | None:
        """The recipe of a read that was made; None: it is not for here."""
        wrapper = taken.connection
        if taken.at is None or wrapper is None or not conf.settings().hot_path:
            return None
        known = self._recipes.get(shape)
        plans = wrapper.statements.versions.plans
        if known is not None and known.source.plans is plans:
            return known
        if not _routes_by_model(self._model, wrapper.alias):
            return None
        tables = tuple(
            scope if isinstance(scope, str) else scope.table for scope in taken.scopes
        )
        policy = policy_for(self._model, tables)
        cache = None if policy is None else caches[policy.cache]
        if policy is None or not isinstance(cache, MemoryCache):
            return None
        of_rows = [scope for scope in taken.scopes if not isinstance(scope, str)]
        table = _one_row(taken.scopes)
        if of_rows and not table:
            return None
        source = _Source(
            alias=wrapper.alias,
            settings=wrapper.settings_dict,
            cache_settings=caches.settings,
            versions=wrapper.statements.versions,
            side=wrapper.replica.side,
            plans=plans,
        )
        words = [
            wrapper.statements.versions.schema.hex(),
            self._model._meta.label,
            "count" if field is None else f"get:{field.attname}",
            repr(policy.key_version),
        ]
        recipe = _Recipe(
            prefix=":".join(words),
            action="count" if field is None else "get",
            label=policy.label,
            source=source,
            tables=tables,
            table=table,
            cache=cache,
            ttl=policy.ttl,
            fresh_for=wrapper.max_age_of(tables) * AHEAD,
        )
        self._recipes[shape] = recipe
        return recipe

    def _can_build(self) -> bool:
        """Whether instances can be made without their class's own code."""
        if self._builds is None:
            model = self._model
            options = model._meta
            self._names = tuple(field.attname for field in options.concrete_fields)
            self._builds = _is_plain(model) and all(
                isinstance(found := model.__dict__.get(name, _inherited(model, name)),
                           DeferredAttribute)
                and type(found).__module__.startswith("django.db.models")
                for name in self._names
            )  # fmt: skip
        return self._builds and not (
            pre_init.has_listeners(self._model) or post_init.has_listeners(self._model)
        )


def _is_here(source: _Source) -> bool:
    """Whether the alias still means that database, for who calls this.

    Somebody may have put another connection in its place, for a thread.
    """
    wrapper = getattr(_wrappers(), source.alias, None)
    if wrapper is None:
        return connections.settings.get(source.alias) is source.settings
    connection = wrapper.connection
    return wrapper.settings_dict is source.settings and (
        connection is None or connection.statements.versions is source.versions
    )


def _wrappers() -> object:
    """What holds the connections of the calling thread, as attributes.

    ``connections[alias]`` goes through a context manager of asgiref's, which
    takes as long as all the rest of a hit.
    """
    holder: Any = connections._connections  # type: ignore[attr-defined]
    return getattr(holder, "_storage", holder)


def _refresh(source: _Source, fresh_for: float) -> bool:
    """Do what a read does before it looks; False: let it do so itself."""
    wrapper = cast("DatabaseWrapper", connections[source.alias])
    return wrapper.refresh_results(fresh_for / AHEAD)


def _one_row(scopes: Sequence[Scope]) -> str:
    """The table of which one row is all that counts, or ""."""
    if len(scopes) == 1 and isinstance(scopes[0], RowScope):
        return scopes[0].table
    return ""


def _routes_by_model(model: type[models.Model], alias: str) -> bool:
    """Whether reads of the model go to ``alias``, today and tomorrow."""
    return (
        all(type(one) is S3Router for one in router.routers)
        and router.db_for_read(model) == alias
    )


def _inherited(model: type[models.Model], name: str) -> object:
    return next((vars(one)[name] for one in model.__mro__ if name in vars(one)), None)


def _is_plain(model: type[models.Model]) -> bool:
    """Whether Django's own code, or ours, is all that makes an instance."""
    from s3cache.models import S3Model

    plain: Any = models.Model
    from_db = getattr(model.from_db, "__func__", None)
    return (
        model.__init__ is plain.__init__
        and model.__new__ is plain.__new__
        and model.__setattr__ is plain.__setattr__
        and model.__getattribute__ is plain.__getattribute__
        and from_db is vars(S3Model)["from_db"].__func__
    )


_all: weakref.WeakSet[Hot[Any]] = weakref.WeakSet()


@receiver(setting_changed, dispatch_uid="s3cache.results.hot")
def _forget(**kwargs: Any) -> None:
    # Any of them may matter: caches, databases, routers, time zones.
    for hot in list(_all):
        hot.forget()
