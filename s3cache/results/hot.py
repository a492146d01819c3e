"""The hot path: reads that were made before, answered in microseconds.

A hit builds no queryset and compiles no SQL: some numbers in shared memory are
compared, the version of a row, a part or some tables is looked up in a dict,
and what is kept under it in a ``MemoryCache``, or in any other cache
(`s3cache.results.elsewhere`). Everything else goes the usual way, which
is always right; what is not known to be safe here is not hot.

What is kept is learned from the usual way: a query that carries a ``Taken``
is told which versions its result belongs to. A list is kept when it is asked
for a second time, so that one that nobody repeats costs nothing here.
"""

from __future__ import annotations

import itertools
import logging
import re
import weakref
from asyncio.events import _get_running_loop
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

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
from s3cache.counting import Tick
from s3cache.remembered import IMMUTABLE, remembered_values
from s3cache.replica import clock
from s3cache.replica.asking import AHEAD
from s3cache.replica.outbox import bits_of
from s3cache.results.compiled import Compiled, stored
from s3cache.results.counters import Key, counters
from s3cache.results.elsewhere import Elsewhere, Rows
from s3cache.results.flights import Flights
from s3cache.results.narrowing import partition_of
from s3cache.results.open_blocks import are_open, somewhere_open
from s3cache.results.policy import policy_for
from s3cache.results.reading import Taken, take
from s3cache.results.repeats import Asked, Repeats
from s3cache.results.shapes import MOST_SHAPES, Shape
from s3cache.results.statements import computed
from s3cache.results.versions import At, PartScope, RowScope, Scope
from s3cache.results.watching import (
    Read,
    Why,
    read_of,
    statement,
    tell,
    watchers,
    watching,
)
from s3cache.routers import S3Router

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper
    from s3cache.replica.side_file import SideFile
    from s3cache.results.by_key import ByKey
    from s3cache.results.plans import Plans
    from s3cache.results.versions import Versions

__all__ = [
    "ABSENT",
    "NOT_HOT",
    "Hot",
    "Kept",
    "Narrowed",
    "Recipe",
    "drop_hot",
    "why_not_built",
]

logger = logging.getLogger("s3cache.results")

_M = TypeVar("_M", bound=models.Model)

#: What a method returns that leaves the answer to the usual way.
NOT_HOT: Final = object()

#: What is kept of a row that is not there.
ABSENT: Final = "absent"

#: The action of whatever returns objects.
_OBJECTS: Final = "list"

#: Lists of more objects are not kept.
_MOST_OBJECTS: Final = 1_000

#: What SQL has of slices.
_LIMITS: Final = re.compile(r"LIMIT -?\d+(?: OFFSET \d+)?")

#: The types of values that SQLite has in its rows, too.
_AS_STORED: Final = frozenset([int, str])

#: Those of each thread. ``connections[alias]`` goes through a context manager
#: of asgiref's, which takes as long as all the rest of a hit.
_wrappers: Final[Any] = getattr(
    connections._connections,  # type: ignore[attr-defined]
    "_storage",
    connections._connections,  # type: ignore[attr-defined]
)

#: What a class without a ``__new__`` of its own has.
_new: Final[Any] = object.__new__

#: Whether what a state knows of related objects is cleared, and made for that,
#: when it goes (since Django 6.1).
_CLEARS: Final = hasattr(ModelState, "__del__")

#: Told apart from each other, and from what they were before a change of
#: settings.
_serials = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Source:
    """The database that a model is in, as long as it stays where it is."""

    alias: str
    settings: object
    cache_settings: object
    versions: Versions
    side: SideFile
    #: The plans of the schema for which all this was learned.
    plans: Plans


@dataclass(frozen=True, slots=True)
class Narrowed:
    """A scope with values that come from the queryset's, at ``positions``.

    Without ``columns`` it is a row, else a part.
    """

    table: str
    columns: tuple[str, ...]
    positions: tuple[int, ...]

    def stored(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """What rows hold that belong to it."""
        return tuple([stored(values[position]) for position in self.positions])

    def scope(self, values: tuple[Any, ...]) -> RowScope | PartScope:
        """Those rows, for ``Versions``."""
        stored = self.stored(values)
        if self.columns:
            return PartScope(self.table, self.columns, stored)
        return RowScope(self.table, stored)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one kind of read is answered; learned when it was made twice.

    ``prefix`` stands for all that tells it from other reads but the values.
    """

    prefix: str
    #: Counts a hit of its model, action and partition.
    hit: Tick
    #: The same, of a miss, and of who waited for another one's.
    miss: Tick
    wait: Tick
    #: For what happens more rarely.
    counted: Key
    #: A hit, for who watches.
    read: Read
    source: _Source
    scopes: tuple[str | Narrowed, ...]
    #: Its tables, as ``SideFile.pending`` has them.
    bits: int
    #: What ``depends_on`` is at, in short.
    version: Callable[[tuple[Any, ...]], object]
    #: Where objects themselves are kept, or where else.
    cache: MemoryCache | None
    elsewhere: Elsewhere
    ttl: float
    #: Seconds: a replica that was asked so long ago is asked again.
    fresh_for: float
    #: Of the statement that such a read is, and that a hit is not.
    repeats: Repeats
    #: How what is gone is read again, if not by Django's compiler.
    compiled: Compiled[Any] | None

    def depends_on(self, values: tuple[Any, ...]) -> tuple[Scope, ...]:
        """What the answer with these values belongs to."""
        return tuple(
            [one if isinstance(one, str) else one.scope(values) for one in self.scopes]
        )

    def version_of(self, at: At) -> object:
        """As ``version``, of what was read at those of ``at``."""
        return at.versions if len(self.scopes) > 1 else at.versions[0]

    def tell(self, event: str, why: Why) -> None:
        """Tell who watches what became of such a read, as of a statement."""
        if watchers:
            tell(self.read.label, self.read.action, event, why, self.read.tables)

    def part(self, values: tuple[Any, ...]) -> RowScope | PartScope | None:
        """What is less than a table of it."""
        for one in self.scopes:
            if not isinstance(one, str):
                return one.scope(values)
        return None


# Frozen would take as long as the rest of making it.
@dataclass(slots=True, eq=False)
class Kept:
    """An object that is kept: of immutable values, so that copies share them.

    ``weight`` is in bytes. Nobody changes any of it.
    """

    attributes: dict[str, Any]
    state: dict[str, Any]
    weight: int


class Hot(Generic[_M]):
    """The hot reads of one model, by one manager, for all threads."""

    def __init__(
        self,
        model: type[_M],
        queryset: type[models.QuerySet[_M]] = models.QuerySet,
    ) -> None:
        self.model = self._model = model
        self.queryset = queryset
        self._absent: type[Exception] = cast("Any", model).DoesNotExist
        self._names: tuple[str, ...] = ()
        self._attributes: tuple[str, ...] = ()
        self._builds: bool | None = None
        self._remembers = False
        self._serial = next(_serials)
        #: By where what comes of them is kept.
        self._flights: Flights[Any] = Flights()
        #: All objects, and with it all shapes that go on from there.
        self.root = Shape(self)
        self.shapes = [self.root]
        #: Those with certain primary keys; nothing goes on from there.
        self.of_keys = Shape(self, self.root, _of_keys, 1, "filter('pk__in',)")
        #: How ``filter()`` is told of such keys.
        self.names_of_keys = frozenset(["pk__in", f"{model._meta.pk.name}__in"])
        #: How rows are found by their primary keys; None: it is not known.
        self.by_key: ByKey[_M] | None = None
        #: The plans of the schema for which they are not found so.
        self.not_by_key: Plans | None = None
        #: The keys of rows that were asked for so, and read.
        self.asked = Asked()
        _all.add(self)

    def forget(self) -> None:
        """Learn everything anew, for something has changed."""
        self._serial = next(_serials)
        for shape in list(self.shapes):
            # Querysets that were made before go on from them.
            shape.recipes.clear()
        self.by_key = self.not_by_key = None
        self._builds = None

    def drop(self) -> None:
        """Let go of all that is kept in memory, and learn it anew."""
        recipes = [
            recipe for one in list(self.shapes) for recipe in [*one.recipes.values()]
        ]
        if (by_key := self.by_key) is not None:
            recipes.append(by_key.recipe)
        prefixes = {recipe.prefix for recipe in recipes}
        for cache in {id(one.cache): one.cache for one in recipes}.values():
            if cache is not None:
                cache.drop_all(lambda key: type(key) is tuple and key[0] in prefixes)
        self.forget()

    def new_queryset(self) -> models.QuerySet[_M]:
        """All objects, as the manager's ``get_queryset()``."""
        return self.queryset(model=self.model)

    def has_room(self) -> bool:
        """Whether another shape may be learned."""
        return len(self.shapes) < MOST_SHAPES

    # What is kept

    def find(
        self,
        shape: Shape,
        action: object,
        values: tuple[Any, ...],
        *,
        may_wait: bool = True,
    ) -> Any:
        """What is kept of a read, or None.

        On an event loop nobody ``may_wait``, not even for the replica.
        """
        recipe = shape.recipes.get(action)
        if recipe is None or not self.is_current(recipe, may_wait):
            return None
        if recipe.cache is not None:
            key = (recipe.prefix, values, recipe.version(values))
            kept = recipe.cache.peek(key)
        else:
            kept = self._find_elsewhere(recipe, action, values, may_wait=may_wait)
        if kept is not None:
            recipe.hit()
            recipe.repeats.in_vain = 0
            if watchers:
                watching().add(recipe.read)
        return kept

    def is_current(self, recipe: Recipe, may_wait: bool) -> bool:
        """Whether what it finds now is what a read would find.

        On an event loop nobody ``may_wait``, not even for the replica.
        """
        if may_wait and _get_running_loop() is not None:
            # The usual way says that such a call is not for event loops.
            return False
        source = recipe.source
        if not _is_here(source):
            return False
        versions = source.versions
        try:
            seen, asked_at = versions.seen
            pending = source.side.pending
            if pending and int(pending) & recipe.bits:
                return False  # this host has written what is to be seen first
            if (
                source.side.seen() != seen or clock.now() - asked_at >= recipe.fresh_for
            ) and not (may_wait and _refresh(source, recipe.fresh_for)):
                return False
        except ValueError:  # the side file is closed: it is another replica
            return False
        if versions.plans is not source.plans:
            self.forget()
            return False
        return True

    def _find_elsewhere(
        self,
        recipe: Recipe,
        action: object,
        values: tuple[Any, ...],
        *,
        may_wait: bool,
    ) -> Any:
        elsewhere = recipe.elsewhere
        if elsewhere.cache is None and not may_wait:
            return None

        def make(rows: Rows) -> Any:
            """What is kept; objects are the caller's own already."""
            alias = recipe.source.alias
            if action == _OBJECTS:
                return [self.make_object(*self._dicts(row, alias)) for row in rows]
            if action == "get" and not rows:
                return ABSENT
            if action == "get":
                return self.make_object(*self._dicts(rows[0], alias))
            if isinstance(action, str):
                return rows[0][0]
            return dict(zip(*rows, strict=True))

        return elsewhere.find(values, recipe.version(values), make)

    def learn(
        self,
        shape: Shape,
        action: object,
        values: tuple[Any, ...],
        taken: Taken,
        found: Any,
    ) -> None:
        """Keep what was read, if it may be kept; nobody ever changes it."""
        self._keep(shape, action, values, taken, found)

    def _keep(
        self,
        shape: Shape,
        action: object,
        values: tuple[Any, ...],
        taken: Taken,
        kept: Any,
    ) -> None:
        is_repeated = _is_repeated(shape, action, taken)
        recipe = self._learn(shape, action, values, taken)
        if recipe is None or taken.at is None:
            return
        if recipe.cache is not None:
            self._put(recipe, recipe.cache, values, taken.at, kept)
        elif is_repeated and _weigh(kept) is not None:
            # At the first time the statement's result was stored just now.
            recipe.elsewhere.keep(
                values, recipe.version_of(taken.at), self._rows(kept), recipe.ttl
            )

    def _put(
        self,
        recipe: Recipe,
        cache: MemoryCache,
        values: tuple[Any, ...],
        at: At,
        kept: Any,
    ) -> None:
        """Have it in memory, at a version in ``at``, unless it can change."""
        weight = _weigh(kept)
        if weight is None:
            return
        self.store(recipe, cache, values, recipe.version_of(at), kept, weight)

    def store(
        self,
        recipe: Recipe,
        cache: MemoryCache,
        values: tuple[Any, ...],
        version: object,
        kept: Any,
        weight: int,
    ) -> None:
        """Have it in memory at that version, if it can be kept."""
        key = (recipe.prefix, values, version)
        try:
            cache.keep(key, kept, recipe.ttl, weight=weight)
        except Exception as error:
            # The answer is there; that it could not be kept is no reason
            # to withhold it.
            counters.ticker(recipe.counted, "failed")()
            logger.warning("A hot result could not be kept: %s", error)

    def _learn(
        self, shape: Shape, action: object, values: tuple[Any, ...], taken: Taken
    ) -> Recipe | None:
        """The recipe of a read that was made; None: it is not for here."""
        reading = taken.reading
        if taken.at is None or reading is None or not conf.settings().hot_path:
            return None
        wrapper = reading.connection
        known = shape.recipes.get(action)
        plans = wrapper.statements.versions.plans
        if (
            known is not None
            and known.source.plans is plans
            and known.depends_on(values) == taken.scopes
        ):
            return known
        scopes = self._narrowed(shape, values, taken.scopes)
        if scopes is None:
            return None
        compiled = Compiled.of(self._model, taken, values) if action == "get" else None
        counted = _action(shape, action)
        recipe = self.make_recipe(shape, action, counted, taken, scopes, compiled)
        if recipe is not None:
            shape.recipes[action] = recipe
        return recipe

    def make_recipe(
        self,
        shape: Shape,
        action: object,
        counted_as: str,
        taken: Taken,
        scopes: tuple[str | Narrowed, ...],
        compiled: Compiled[_M] | None,
    ) -> Recipe | None:
        """The recipe of a read, of which one was ``taken``; None: as above."""
        reading = taken.reading
        if reading is None or not _routes_by_model(
            self._model, reading.connection.alias
        ):
            return None
        wrapper = reading.connection
        tables = tuple(one if isinstance(one, str) else one.table for one in scopes)
        policy = policy_for(self._model, tables)
        if policy is None:
            return None
        cache = caches[policy.cache]
        source = _Source(
            alias=wrapper.alias,
            settings=wrapper.settings_dict,
            cache_settings=caches.settings,
            versions=wrapper.statements.versions,
            side=wrapper.replica.side,
            plans=wrapper.statements.versions.plans,
        )
        words = [
            wrapper.statements.versions.schema.hex(),
            f"{self._model._meta.label}-{self._serial}",
            wrapper.alias,
            shape.words,
            repr(action),
            repr(policy.key_version),
        ]
        counted = (
            wrapper.alias,
            policy.label,
            counted_as,
            self._partition(scopes),
        )
        return Recipe(
            prefix=":".join(words),
            hit=counters.ticker(counted, "hit"),
            miss=counters.ticker(counted, "miss"),
            wait=counters.ticker(counted, "wait"),
            counted=counted,
            read=read_of(*counted[:3], "hit", Why.HOT, tables),
            source=source,
            scopes=scopes,
            bits=bits_of(tables),
            version=_version_of(source.versions, scopes),
            cache=cache if isinstance(cache, MemoryCache) else None,
            elsewhere=Elsewhere.of(
                policy.cache,
                counted,
                [
                    wrapper.statements.versions.schema,
                    self._description(wrapper),
                    # What the calls mean to the code that makes them: in
                    # which order, for example. Limits are among the values.
                    _LIMITS.sub("LIMIT", taken.sql),
                    shape.words,
                    action,
                    policy.key_version,
                ],
            ),
            ttl=policy.ttl,
            fresh_for=wrapper.max_age_of(tables) * AHEAD,
            repeats=taken.repeats,
            compiled=compiled,
        )

    def _narrowed(
        self, shape: Shape, values: tuple[Any, ...], scopes: Iterable[Scope]
    ) -> tuple[str | Narrowed, ...] | None:
        """``scopes`` without their values, which are among ``values``."""
        where = {one.column: one.position for one in shape.exactly}
        found: list[str | Narrowed] = []
        for scope in scopes:
            if isinstance(scope, str):
                found.append(scope)
                continue
            kept = scope.columns if isinstance(scope, PartScope) else ()
            columns = kept or (self._model._meta.pk.column or "",)
            if not where.keys() >= set(columns):
                return None
            positions = tuple(where[column] for column in columns)
            narrowed = Narrowed(scope.table, kept, positions)
            if narrowed.scope(values) != scope:
                return None
            found.append(narrowed)
        return tuple(found)

    def _partition(self, scopes: Iterable[str | Narrowed]) -> str:
        """The partition of one of them, for statistics."""
        columns = [one.columns for one in scopes if isinstance(one, Narrowed)]
        return next((partition_of(self._model, some) for some in columns if some), "")

    # get()

    def get(
        self,
        shape: Shape,
        values: tuple[Any, ...],
        lookups: Mapping[str, Any],
        *,
        may_wait: bool = True,
    ) -> Any:
        """What a queryset's ``get(**lookups)`` returns, or ``NOT_HOT``.

        Raises the model's ``DoesNotExist`` if that is known.
        """
        if lookups:
            found = shape.find_filter(lookups)
            if found is None or not found.recipes:
                return NOT_HOT
            shape, values = found, (*values, *lookups.values())
        kept = self.find(shape, "get", values, may_wait=may_wait)
        if kept is None:
            return self._get_again(shape, values) if may_wait else NOT_HOT
        if (pre_init.receivers or post_init.receivers) and self.has_listeners():
            return NOT_HOT
        if kept is ABSENT:
            raise self._does_not_exist()
        if type(kept) is not Kept:
            return kept
        return self.make_object(kept.attributes.copy(), kept.state.copy())

    def _does_not_exist(self) -> Exception:
        return self._absent(
            f"{self._model._meta.object_name} matching query does not exist."
        )

    def _get_again(self, shape: Shape, values: tuple[Any, ...]) -> Any:
        """As ``get``, of what is not kept, by a statement that is known."""
        recipe = shape.recipes.get("get")
        if (
            recipe is None
            or recipe.compiled is None
            or computed  # they want to know which query it is
            or not _is_here(recipe.source)
        ):
            return NOT_HOT
        wrapper = cast("DatabaseWrapper", connections[recipe.source.alias])
        with statement(wrapper.alias) if watchers else nullcontext():
            found = self._get_at_once(recipe, recipe.compiled, wrapper, values)
        if found is not None:
            return found
        read = recipe.compiled.rows(wrapper, values, recipe.part(values))
        if read is None:
            return NOT_HOT
        taken, rows = read
        if len(rows) > 1:
            return NOT_HOT  # Django says so
        found = recipe.compiled.make(wrapper, rows[0]) if rows else None
        self._learn_found(shape, values, taken, found)
        if found is None:
            raise self._does_not_exist()
        return found

    def _own(self, kept: Any) -> _M:
        """An object for the caller alone, of what is kept in memory."""
        if kept is ABSENT:
            raise self._does_not_exist()
        return self.make_object(kept.attributes.copy(), kept.state.copy())

    def _get_at_once(
        self,
        recipe: Recipe,
        compiled: Compiled[_M],
        wrapper: DatabaseWrapper,
        values: tuple[Any, ...],
    ) -> _M | None:
        """The same, by one call of SQLite, if it can be kept in memory.

        Of threads that come at once one asks. None: it is not so simple.
        """
        cache = recipe.cache
        if (
            cache is None
            or compiled.known is None
            or recipe.repeats.are_rare()
            or self.has_listeners()
            or wrapper.needs_cursor()
            or not _is_followed(recipe, wrapper)
        ):
            return None
        key = (recipe.prefix, values, recipe.version(values))
        flight, is_mine = self._flights.join(key)
        if not is_mine:
            kept = self._flights.wait(key, flight)
            if kept is None:
                return None
            recipe.wait()
            recipe.repeats.in_vain = 0
            recipe.tell("wait", Why.WAITED)
            return self._own(kept)
        try:
            kept = cache.peek(key)
            if kept is not None:  # somebody was faster
                recipe.hit()
                recipe.repeats.in_vain = 0
                recipe.tell("hit", Why.HOT)
                flight.outcome = kept
                return self._own(kept)
            read = compiled.row(wrapper, values, recipe.depends_on(values))
            if read is None:
                return None
            at, row = read
            found = None if row is None else compiled.make(wrapper, row)
            kept = ABSENT if found is None else self.keep_object(found)
            recipe.miss()
            recipe.tell("miss", Why.ABSENT)
            if kept is not None:
                recipe.repeats.in_vain += 1
                self._put(recipe, cache, values, at, kept)
                flight.outcome = kept
            if found is None:
                raise self._does_not_exist()
            return found
        finally:
            self._flights.leave(key, flight)

    def get_and_learn(
        self,
        queryset: models.QuerySet[_M],
        shape: Shape,
        values: tuple[Any, ...],
        lookups: Mapping[str, Any],
    ) -> _M:
        """What ``queryset.get(**lookups)`` returns, to be kept for ``get``.

        The queryset is built, of that shape with these values.
        """
        with take(queryset.query) as taken:
            try:
                found = queryset.get(**lookups)
            except self._absent:
                self._learn_get(shape, values, lookups, taken, None)
                raise
        self._learn_get(shape, values, lookups, taken, found)
        return found

    def _learn_get(
        self,
        shape: Shape,
        values: tuple[Any, ...],
        lookups: Mapping[str, Any],
        taken: Taken,
        found: _M | None,
    ) -> None:
        of: Shape | None = shape
        if lookups:
            of = shape.find_filter(lookups) or shape.learn_filter(lookups)
        if of is not None:
            self._learn_found(of, (*values, *lookups.values()), taken, found)

    def _learn_found(
        self, shape: Shape, values: tuple[Any, ...], taken: Taken, found: _M | None
    ) -> None:
        if taken.at is not None and self.can_build():
            kept = ABSENT if found is None else self.keep_object(found)
            if kept is not None:
                self._keep(shape, "get", values, taken, kept)

    # Lists

    def objects(
        self, shape: Shape, values: tuple[Any, ...], *, may_wait: bool = True
    ) -> list[_M] | None:
        """The objects of a queryset, or None."""
        kept = self.find(shape, _OBJECTS, values, may_wait=may_wait)
        if kept is None or self.has_listeners():
            return None
        if type(kept) is list:
            return kept
        make = self.make_object
        return [make(one.attributes.copy(), one.state.copy()) for one in kept]

    def learn_objects(
        self,
        shape: Shape,
        values: tuple[Any, ...],
        taken: Taken,
        found: Sequence[_M],
    ) -> None:
        """Keep what a queryset returned, if it was asked for before."""
        if (
            len(found) > _MOST_OBJECTS
            or not _is_repeated(shape, _OBJECTS, taken)
            or not self.can_build()
        ):
            return
        kept = tuple([self.keep_object(one) for one in found])
        if None not in kept:
            self._keep(shape, _OBJECTS, values, taken, kept)

    # Objects

    def keep_object(self, found: _M) -> Kept | None:
        """What ``make_object`` takes, of an object as it was read.

        None if another object must not share its values.
        """
        values = tuple([found.__dict__.get(name) for name in self._names])
        weight = weigh(values)
        if weight is None or not IMMUTABLE.issuperset(map(type, values)):
            return None
        attributes, state = self._dicts(values, found._state.db)
        return Kept(attributes, state, weight + 800)

    def _dicts(
        self, values: tuple[Any, ...], alias: str | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The attributes of an object, and of its state."""
        attributes = dict(zip(self._attributes, (None, *values), strict=True))
        state: dict[str, Any] = {"adding": False, "db": alias}
        if self._remembers:
            state.update(remembered_values(values))
        return attributes, state

    def _rows(self, kept: Any) -> Rows:
        """What ``_find_elsewhere`` makes ``kept`` of."""
        if kept is ABSENT:
            return ()
        if type(kept) is Kept:
            kept = (kept,)
        if type(kept) is tuple:
            return [
                tuple([one.attributes[name] for name in self._names]) for one in kept
            ]
        if type(kept) is dict:
            return [tuple(kept), tuple(kept.values())]
        return [(kept,)]

    def _description(self, wrapper: DatabaseWrapper) -> list[object]:
        """What says which values an object has, of the same rows."""
        return [
            self._model._meta.label,
            [
                (
                    field.attname,
                    f"{type(field).__module__}.{type(field).__qualname__}",
                    getattr(field, "decimal_places", None),
                )
                for field in self._model._meta.concrete_fields
            ],
            str(wrapper.timezone),
        ]

    def make_object(self, attributes: dict[str, Any], known: dict[str, Any]) -> _M:
        """An object of the caller's own, as ``Model.from_db()`` makes it.

        It has these ``attributes``, and its state has what is ``known``.
        """
        made: _M = _new(self._model)
        state = _new(ModelState)
        if _CLEARS:
            known["fields_cache"] = {}
        state.__dict__ = known
        attributes["_state"] = state
        made.__dict__ = attributes
        return made

    def has_listeners(self) -> bool:
        """Whether somebody wants to see each object that is made."""
        return pre_init.has_listeners(self._model) or post_init.has_listeners(
            self._model
        )

    def can_build(self) -> bool:
        """Whether objects can be made without their class's own code."""
        if self._builds is None:
            model = self._model
            fields = model._meta.concrete_fields
            self._names = tuple(field.attname for field in fields)
            self._attributes = ("_state", *self._names)
            self._remembers = issubclass(model, _s3model())
            self._builds = not why_not_built(model)
        return self._builds and not self.has_listeners()


def _of_keys(
    queryset: models.QuerySet[_M], values: Sequence[Any]
) -> models.QuerySet[_M]:
    return queryset.filter(pk__in=values[0])


def _is_repeated(shape: Shape, action: object, taken: Taken) -> bool:
    """Whether the read was made before, or something may be kept of it.

    Elsewhere something may be of which this process knows nothing.
    """
    return (
        taken.was_kept
        or taken.is_wanted
        or (taken.replaces and action in shape.recipes)
    )


def _action(shape: Shape, action: object) -> str:
    """What was asked for, as ``reading.action_of`` says it."""
    if action == _OBJECTS and shape.is_sliced:
        return "page"
    return action if isinstance(action, str) else "aggregate"


def _weigh(kept: Any) -> int | None:
    """The bytes of what is kept, or None if it could be changed."""
    if type(kept) is Kept:
        return kept.weight
    if type(kept) is tuple:
        weights: list[int] = [one.weight for one in kept]
        return sum(weights, 8 * len(kept))
    if type(kept) is dict:
        return weigh((*kept, *kept.values()))
    return weigh(kept)


def _version_of(
    versions: Versions, scopes: tuple[str | Narrowed, ...]
) -> Callable[[tuple[Any, ...]], object]:
    """What tells the version of what a recipe depends on."""
    first = scopes[0]
    if len(scopes) > 1:
        return lambda values: versions.of(
            [one if isinstance(one, str) else one.scope(values) for one in scopes]
        )
    if isinstance(first, str):
        return lambda values: versions.of_table(first)
    if first.columns:
        return lambda values: versions.of_part(
            first.table, first.columns, first.stored(values)
        )
    table, (position,) = first.table, first.positions

    def version(values: tuple[Any, ...]) -> object:
        value = values[position]
        return versions.of_row(
            table, (value if type(value) in _AS_STORED else stored(value),)
        )

    return version


def _is_here(source: _Source) -> bool:
    """Whether the alias still means that database, for who calls this.

    Somebody may have put another connection in its place, for a thread; and
    a thread that is in the middle of a block reads something else.
    """
    if (
        somewhere_open and are_open(source.alias)
    ) or caches.settings is not source.cache_settings:
        return False
    wrapper = getattr(_wrappers, source.alias, None)
    if wrapper is None:
        return connections.settings.get(source.alias) is source.settings
    connection = wrapper.connection
    return wrapper.settings_dict is source.settings and (
        connection is None or connection.statements.versions is source.versions
    )


def _refresh(source: _Source, fresh_for: float) -> bool:
    """Do what a read does before it looks; False: let it do so itself."""
    wrapper = cast("DatabaseWrapper", connections[source.alias])
    return wrapper.refresh_results(fresh_for / AHEAD)


def _is_followed(recipe: Recipe, wrapper: DatabaseWrapper) -> bool:
    """Whether the versions of the recipe are those of what is read now."""
    source = recipe.source
    try:
        # This host's own commits come first: what is kept is older.
        if source.side.pending:
            return False
    except ValueError:  # the side file is closed: it is another replica
        return False
    return (
        wrapper.refresh_results(recipe.fresh_for / AHEAD)
        # The connection may be a new one, and its replica another.
        and wrapper.statements.versions is source.versions
    )


def _routes_by_model(model: type[models.Model], alias: str) -> bool:
    """Whether reads of the model go to ``alias``, today and tomorrow."""
    return (
        all(type(one) is S3Router for one in router.routers)
        and router.db_for_read(model) == alias
    )


def _s3model() -> type[models.Model]:
    from s3cache.models import S3Model

    return S3Model


def why_not_built(model: type[models.Model]) -> str:
    """What keeps objects of a model from being kept and copied, or ""."""
    if not _is_plain(model):
        return "its class has code of its own that makes objects"
    fields = [
        field.name
        for field in model._meta.concrete_fields
        if not _is_plain_field(model, field)
    ]
    return f"objects make something else of {conf.listed(fields)}" if fields else ""


def _is_plain(model: type[models.Model]) -> bool:
    """Whether Django's own code, or ours, is all that makes an object."""
    plain: Any = models.Model
    of_both = [vars(one)["from_db"].__func__ for one in (plain, _s3model())]
    return (
        model.__init__ is plain.__init__
        and model.__new__ is plain.__new__
        and model.__setattr__ is plain.__setattr__
        and model.__getattribute__ is plain.__getattribute__
        and getattr(model.from_db, "__func__", None) in of_both
    )


def _is_plain_field(model: type[models.Model], field: models.Field[Any, Any]) -> bool:
    """Whether an object simply has, as an attribute, what the row has.

    A field of the project may say something else to each who asks, in
    ``from_db_value()``.
    """
    found = next(
        (
            vars(one)[field.attname]
            for one in model.__mro__
            if field.attname in vars(one)
        ),
        None,
    )
    plain: Any = models.Field
    return (
        isinstance(found, DeferredAttribute)
        and type(found).__module__.startswith("django.db.models")
        and (
            type(field).__module__.startswith("django.")
            or (
                not hasattr(field, "from_db_value")
                and type(field).get_db_converters is plain.get_db_converters
            )
        )
    )


_all: weakref.WeakSet[Hot[Any]] = weakref.WeakSet()


def drop_hot(model: type[models.Model]) -> None:
    """Drop what is kept of a model in this process's memory."""
    for hot in list(_all):
        if hot.model is model:
            hot.drop()


@receiver(setting_changed, dispatch_uid="s3cache.results.hot")
def _forget(**kwargs: Any) -> None:
    # Any of them may matter: caches, databases, routers, time zones.
    for hot in list(_all):
        hot.forget()
