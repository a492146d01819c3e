"""`S3QuerySet` and `S3Manager`: a say in how fresh an answer must be."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import FieldError
from django.db import connections, models

from s3cache import conf
from s3cache.hints import FRESH, NO_HINTS, RENEW, Hints, give_hints, hints_of, set_hints
from s3cache.remembered import remember_saved
from s3cache.results.by_key import (
    forget_rows,
    in_bulk,
    kept_keys,
    learn_in_bulk,
)
from s3cache.results.hot import NOT_HOT, Hot
from s3cache.results.reading import take
from s3cache.results.shapes import Recorded, Shape, aggregates_fields, aggregation

__all__ = ["S3Manager", "S3QuerySet", "why_not_hot"]

if TYPE_CHECKING:
    # With a default, which typing's has from Python 3.13, S3QuerySet[M] is
    # S3QuerySet[M, M].
    from typing_extensions import TypeVar

    from s3cache.facade import Facade

    _M = TypeVar("_M", bound=models.Model, covariant=True)
    _Row = TypeVar("_Row", covariant=True, default=_M)
    _Model = TypeVar("_Model", bound=models.Model)
else:
    from typing import TypeVar

    _M = TypeVar("_M", bound=models.Model, covariant=True)
    _Row = TypeVar("_Row", covariant=True)
    _Model = TypeVar("_Model", bound=models.Model)


_django_query: Any = models.QuerySet.query
_object_class: Any = vars(object)["__class__"]


class S3QuerySet(models.QuerySet[_M, _Row]):
    """
    A queryset that can be told how fresh its answer must be.

    `fresh`, `skip_cache` and `cached` hold for whatever is derived from the
    queryset. Where several are combined (``|``, ``union``, subqueries), those
    of the first or outer one hold.

    One that `S3Manager` returns may be recorded instead of built: it knows
    the calls that made it, answers from the hot path (`s3cache.results.hot`)
    where that has the answer, and becomes what Django makes of these calls as
    soon as anything else of it is looked at.
    """

    #: The calls, as long as this is nothing but them.
    _recorded: Recorded | None = None

    #: The calls, once the rows are there and nothing else is.
    _fetched: Recorded | None = None

    #: The call, if this is built, and nothing but ``filter(pk__in=keys)``.
    _of_keys: Recorded | None = None

    #: What was asked of the cache among these calls. Then the hot path does
    #: not answer; what is computed anew takes the place of what it knows.
    _asked: Hints = NO_HINTS

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there: all that Django sets, until it is
        # built.
        if name == "model" and (recorded := self._recorded) is not None:
            return recorded.shape.hot.model
        if not name.startswith("__"):
            self._build()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}",
            name=name,
            obj=self,
        )

    def _build(self) -> None:
        """Become what Django makes of the calls.

        Threads may share a queryset that none of them changes: until the last
        attribute is there it goes on being recorded.
        """
        recorded = self._recorded or self._fetched
        if recorded is None:
            return
        attributes = self.__dict__
        built = recorded.shape.build(recorded.values)
        if self._asked is not NO_HINTS:
            give_hints(built.query, self._asked)
        for name, value in vars(built).items():
            attributes.setdefault(name, value)
        self._recorded = self._fetched = None

    def _set_query(self, query: models.sql.Query) -> None:
        self._build()
        _django_query.fset(self, query)

    # Whoever has the query may change it, but not that of the calls.
    query = _django_query.setter(_set_query)

    def _set_class(self, kind: type[Any]) -> None:
        self._build()
        _object_class.__set__(self, kind)

    # So does what is made another class.
    __class__ = property(_object_class.__get__, _set_class)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        self._build()
        self._of_keys = None
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[str, Any]:
        self._build()
        self._of_keys = None
        return super().__getstate__()

    def _next_is_sticky(self) -> Self:
        self._build()
        return super()._next_is_sticky()  # type: ignore[misc,no-any-return]

    # What is recorded.

    def _like(self, shape: Shape, values: tuple[Any, ...]) -> Self:
        """One that is nothing but the calls that made it."""
        made = self.__new__(type(self))
        made._recorded = Recorded(shape, values)
        if self._asked is not NO_HINTS:
            made._asked = self._asked
        return made

    def all(self) -> Self:
        if (recorded := self._recorded) is None:
            return super().all()
        return self._like(*recorded)

    def filter(self, *args: Any, **kwargs: Any) -> Self:
        if args or (recorded := self._recorded) is None:
            return super().filter(*args, **kwargs)
        shape, values = recorded
        found = shape.find_filter(kwargs)
        if found is None:
            if len(kwargs) == 1 and shape is shape.hot.root:
                (name,) = kwargs
                if name in shape.hot.names_of_keys:
                    return self._filter_keys(shape.hot, name, kwargs[name])
            built = super().filter(**kwargs)  # raises what is wrong
            if (found := shape.learn_filter(kwargs)) is None:
                return built
        return self._like(found, (*values, *kwargs.values()))

    def _filter_keys(self, hot: Hot[Any], name: str, keys: Any) -> Self:
        """``filter(pk__in=keys)``, of rows that may be kept one by one.

        It is built when it is asked for anything but its rows.
        """
        by_key = hot.by_key
        kept = kept_keys(hot, by_key, keys)
        if kept is None or by_key is None or self._asked is not NO_HINTS:
            built = super().filter(**{name: keys})  # raises what is wrong
            if kept is not None:
                built._of_keys = Recorded(hot.of_keys, (kept,))
            return built
        made = self.__new__(type(self))
        made._fetched = Recorded(hot.of_keys, (kept,))
        return made

    def exclude(self, *args: Any, **kwargs: Any) -> Self:
        if args or (recorded := self._recorded) is None:
            return super().exclude(*args, **kwargs)
        shape, values = recorded
        found = shape.find_exclude(kwargs)
        if found is None:
            built = super().exclude(**kwargs)
            if (found := shape.learn_exclude(kwargs)) is None:
                return built
        return self._like(found, (*values, *kwargs.values()))

    def order_by(self, *field_names: Any) -> Self:
        if (recorded := self._recorded) is None:
            return super().order_by(*field_names)
        shape, values = recorded
        found = shape.find_order_by(field_names)
        if found is None:
            built = super().order_by(*field_names)
            if (found := shape.learn_order_by(field_names)) is None:
                return built
        return self._like(found, values)

    def __getitem__(self, k: Any) -> Any:
        recorded = self._recorded
        if recorded is None or type(k) is not slice or k.step is not None:
            return super().__getitem__(k)
        shape, values = recorded
        found = shape.find_slice(k.start, k.stop)
        if found is None:
            built = super().__getitem__(k)
            if (found := shape.learn_slice(k.start, k.stop)) is None:
                return built
        return self._like(found, (*values, k.start, k.stop))

    # What is answered at once, if it is known.

    def _fetch_hot(self, *, may_wait: bool = True) -> bool:
        """Have the rows, if they are known; whether they are there."""
        recorded = self._recorded
        if recorded is None or self._asked is not NO_HINTS:
            return False
        shape, values = recorded
        found = shape.hot.objects(shape, values, may_wait=may_wait)
        if found is None:
            return False
        self._result_cache = found
        # In this order: another thread may be about to build it.
        self._fetched = recorded
        self._recorded = None
        return True

    def _hot_value(self, action: object, *, may_wait: bool = True) -> Any:
        """A number, or what else is no object, if it is known, or None."""
        recorded = self._recorded
        if recorded is None or self._asked is not NO_HINTS:
            return None
        shape, values = recorded
        return shape.hot.find(shape, action, values, may_wait=may_wait)

    @contextmanager
    def _learning(self, action: object) -> Iterator[list[Any]]:
        """Have the hot path learn what is put into the list.

        Within it this is built, if it was recorded.
        """
        recorded = self._recorded
        results: list[Any] = []
        if recorded is None:
            yield results
            return
        self._build()
        with take(self.query) as taken:
            yield results
        if results and self._is_for_all():
            shape, values = recorded
            shape.hot.learn(shape, action, values, taken, results[0])

    def _is_for_all(self) -> bool:
        """Whether the hot path may know what this has found."""
        return self._asked in (NO_HINTS, FRESH, RENEW)

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

    def cached(self, ttl: float | None = None, *, namespace: str = "") -> Self:
        """
        Keep the result for `ttl` seconds, whatever the model says.

        `namespace`: in the cache of that name, of ``S3CACHE["NAMESPACES"]``;
        `LookupError`, naming those, if there is none. A write makes the
        result unreachable at once, as ever. Raise `ValueError` unless `ttl`
        is a finite number above 0.
        """
        hints: dict[str, Any] = {}
        if namespace:
            hints["namespace"] = conf.namespace(namespace)
        if ttl is not None or not namespace:
            if not conf.is_number(ttl) or not 0 < ttl < math.inf:
                raise ValueError(
                    f"cached(ttl={ttl!r}): ttl must be a number of seconds above 0."
                )
            hints["ttl"] = ttl
        return self._with_hints(**hints)

    def partition(self, name: str, /, **values: Any) -> Self:
        """
        Filter on all fields of the partition `name` of ``S3Meta.partitions``.

        Raise `FieldError` if the model has no such partition, or if `values`
        are not exactly those of its fields.
        """
        return self.filter(**_partition_filter(self.model, name, values))

    def _with_hints(self, **changes: Any) -> Self:
        of_keys = self._of_keys or self._fetched
        clone = self.all()
        if clone._recorded is None:
            set_hints(clone.query, **changes)
            if of_keys is not None and of_keys.shape is of_keys.shape.hot.of_keys:
                clone._of_keys = of_keys
        else:
            clone._asked = replace(clone._asked, **changes)
        return clone

    # All that fetches passes one of the methods below: in_bulk(), first() and
    # their kin evaluate a clone, contains() calls exists(), and the async
    # twins call the others.

    def _ask_if_fresh(self) -> None:
        if hints_of(self.query).fresh and not self.query.is_empty():
            catch_up = getattr(connections[self.db], "catch_up", None)
            if catch_up is not None:
                catch_up()

    def _fetch_all(self) -> None:
        recorded = self._recorded
        if recorded is not None:
            if self._fetch_hot():
                return
            self._build()
            self._ask_if_fresh()
            with take(self.query) as taken:
                found = list(cast("Any", self)._iterable_class(self))
            if self._is_for_all():
                shape, values = recorded
                shape.hot.learn_objects(shape, values, taken, found)
            # Not before: a thread that shares this may change the objects.
            self._result_cache = found
            return
        if (fetched := self._fetched) is not None:
            if self.__dict__.get("_result_cache") is not None:
                return  # it has its rows, and nothing else
            (keys,) = fetched.values
            found = in_bulk(fetched.shape.hot, keys)
            if found is not NOT_HOT:
                self._result_cache = list(found.values())
                return
            self._build()
            self._of_keys = fetched
        if self._result_cache is None:
            self._ask_if_fresh()
            if (of_keys := self._of_keys) is not None:
                self._fetch_keys(of_keys)
                return
        super()._fetch_all()

    def _fetch_keys(self, call: Recorded) -> None:
        """Fetch what this is built of, which has to do with rows by key."""
        hot, (keys,) = call.shape.hot, call.values
        with take(self.query) as taken:
            super()._fetch_all()
        if hints_of(self.query) is NO_HINTS:
            learn_in_bulk(hot, keys, taken)
        else:
            forget_rows(hot, keys)

    def __aiter__(self) -> AsyncIterator[_Row]:
        if self._recorded is None:
            return super().__aiter__()
        return self._aiter_recorded()

    async def _aiter_recorded(self) -> AsyncIterator[_Row]:
        if not self._fetch_hot(may_wait=False):
            await sync_to_async(self._fetch_all)()
        for row in cast("list[_Row]", self._result_cache):
            yield row

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

    def get(self, *args: Any, **kwargs: Any) -> _Row:
        recorded = self._recorded
        if args or recorded is None or recorded.shape.is_sliced:
            return super().get(*args, **kwargs)
        shape, values = recorded
        if self._asked is NO_HINTS:
            found = shape.hot.get(shape, values, kwargs)
            if found is not NOT_HOT:
                return cast("_Row", found)
        self._build()
        if not self._is_for_all():
            return super().get(**kwargs)
        return cast("_Row", shape.hot.get_and_learn(self, shape, values, kwargs))

    async def aget(self, *args: Any, **kwargs: Any) -> _Row:
        recorded = self._recorded
        is_plain = self._asked is NO_HINTS and not args
        if recorded is not None and is_plain and not recorded.shape.is_sliced:
            shape, values = recorded
            found = shape.hot.get(shape, values, kwargs, may_wait=False)
            if found is not NOT_HOT:
                return cast("_Row", found)
        return await sync_to_async(self.get)(*args, **kwargs)

    def in_bulk(
        self, id_list: Iterable[Any] | None = None, *, field_name: str = "pk"
    ) -> dict[Any, _M]:
        hot = self._hot_rows(field_name)
        if hot is None or id_list is None:
            return super().in_bulk(id_list, field_name=field_name)
        if self._asked is NO_HINTS:
            found = in_bulk(hot, id_list)
            if found is not NOT_HOT:
                return cast("dict[Any, _M]", found)
        self._build()
        with take(self.query) as taken:
            made = super().in_bulk(id_list)
        if self._asked is NO_HINTS:
            learn_in_bulk(hot, id_list, taken)
        elif self._is_for_all():
            forget_rows(hot, id_list)
        return made

    async def ain_bulk(
        self, id_list: Iterable[Any] | None = None, *, field_name: str = "pk"
    ) -> dict[Any, _M]:
        hot = self._hot_rows(field_name)
        is_plain = self._asked is NO_HINTS and type(self).in_bulk is S3QuerySet.in_bulk
        if hot is not None and is_plain:
            found = in_bulk(hot, id_list, may_wait=False)
            if found is not NOT_HOT:
                return cast("dict[Any, _M]", found)
        return await sync_to_async(self.in_bulk)(id_list, field_name=field_name)

    def _hot_rows(self, field_name: str) -> Hot[Any] | None:
        """The hot path, if these are all objects, by their primary key."""
        recorded = self._recorded
        if recorded is None or field_name != "pk":
            return None
        hot = recorded.shape.hot
        return hot if recorded.shape is hot.root else None

    def count(self) -> int:
        if (found := self._hot_value("count")) is not None:
            return cast("int", found)
        with self._learning("count") as learned:
            if self._result_cache is None:
                self._ask_if_fresh()
            number = super().count()
            learned.append(number)
        return number

    async def acount(self) -> int:
        found = self._hot_value("count", may_wait=False)
        if found is None:
            return await sync_to_async(self.count)()
        return cast("int", found)

    def exists(self) -> bool:
        if (found := self._hot_value("exists")) is not None:
            return cast("bool", found)
        with self._learning("exists") as learned:
            if self._result_cache is None:
                self._ask_if_fresh()
            is_there = super().exists()
            learned.append(is_there)
        return is_there

    async def aexists(self) -> bool:
        found = self._hot_value("exists", may_wait=False)
        if found is None:
            return await sync_to_async(self.exists)()
        return cast("bool", found)

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if (recorded := self._recorded) is None:
            self._ask_if_fresh()
            return super().aggregate(*args, **kwargs)
        action = aggregation(args, kwargs)
        if action is not None and (found := self._hot_value(action)) is not None:
            return cast("dict[str, Any]", found.copy())
        with self._learning(action) as learned:
            self._ask_if_fresh()
            made = super().aggregate(*args, **kwargs)
            if action is not None and aggregates_fields(recorded.shape, action):
                learned.append(made.copy())
        return made

    async def aaggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        action = None if self._recorded is None else aggregation(args, kwargs)
        if action is not None:
            found = self._hot_value(action, may_wait=False)
            if found is not None:
                return cast("dict[str, Any]", found.copy())
        return await sync_to_async(self.aggregate)(*args, **kwargs)

    def first(self) -> _Row | None:
        if (recorded := self._recorded) is None or recorded.shape.is_sliced:
            return super().first()
        is_ordered = recorded.shape.is_ordered
        if is_ordered is None:
            is_ordered = recorded.shape.build(recorded.values).ordered
            recorded.shape.is_ordered = is_ordered
        rows = self if is_ordered else self.order_by("pk")
        return next(iter(rows[:1]), None)

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
    "__getattr__",
    "__getattribute__",
    "__getitem__",
    "__init__",
    "__iter__",
    "__new__",
    "__setattr__",
    "_chain",
    "_clone",
    "_fetch_all",
    "_filter_or_exclude",
    "_filter_or_exclude_inplace",
    "aggregate",
    "all",
    "count",
    "db",
    "exclude",
    "exists",
    "filter",
    "first",
    "get",
    "order_by",
)


class S3Manager(_ManagerFromS3QuerySet[_M]):
    """
    The manager of an `S3Model`: all of `S3QuerySet`'s methods.

    Subclass it, or build one from a subclass of `S3QuerySet` with
    ``S3Manager.from_queryset(...)``.

    Plain reads that were made before are answered without a queryset; see
    `s3cache.results.hot`. A manager with a ``get_queryset`` of its own, of
    another database (``using``) or of a relation makes querysets as in
    Django.
    """

    #: None: not decided yet. Of another model: a parent's, copied with it.
    _hot: Hot[_M] | Literal[False] | None = None

    def _hot_path(self) -> Hot[_M] | None:
        hot = self._hot
        if type(hot) is Hot:
            if hot.model is self.model:
                return hot
        elif hot is False:
            return None
        made: Hot[_M] | None = None
        is_bound = self._db is not None or self._hints  # type: ignore[attr-defined]
        if not is_bound and not why_not_hot(type(self)):
            made = Hot(self.model, _queryset_class(type(self)))
        self._hot = made or False
        return made

    @property
    def cache(self) -> Facade:
        """The results of what this manager reads; see `s3cache.facade`."""
        from s3cache.facade import Facade  # which makes querysets

        return Facade(self)

    def db_manager(
        self, using: str | None = None, hints: dict[str, models.Model] | None = None
    ) -> Self:
        made = super().db_manager(using, hints)
        made._hot = False
        return made

    def all(self) -> S3QuerySet[_M]:
        return self._rows()

    def filter(self, *args: Any, **kwargs: Any) -> S3QuerySet[_M]:
        hot = self._hot_path()
        if hot is not None and not args:
            shape = hot.root.find_filter(kwargs)
            if shape is not None:
                return _recorded(hot, shape, tuple(kwargs.values()))
        return self.all().filter(*args, **kwargs)

    def exclude(self, *args: Any, **kwargs: Any) -> S3QuerySet[_M]:
        return self.all().exclude(*args, **kwargs)

    def order_by(self, *field_names: Any) -> S3QuerySet[_M]:
        return self.all().order_by(*field_names)

    def partition(self, name: str, /, **values: Any) -> S3QuerySet[_M]:
        return self.all().partition(name, **values)

    def fresh(self) -> S3QuerySet[_M]:
        return self.all().fresh()

    def first(self) -> _M | None:
        return self.all().first()

    def exists(self) -> bool:
        return self.all().exists()

    async def aexists(self) -> bool:
        return await self.all().aexists()

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.all().aggregate(*args, **kwargs)

    async def aaggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return await self.all().aaggregate(*args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> _M:
        hot = self._hot
        if type(hot) is not Hot or hot.model is not self.model:
            hot = self._hot_path()
        if hot is None or args or not kwargs:
            return self.get_queryset().get(*args, **kwargs)
        found = hot.get(hot.root, (), kwargs)
        if found is NOT_HOT:
            return hot.get_and_learn(self.get_queryset(), hot.root, (), kwargs)
        return cast("_M", found)

    async def aget(self, *args: Any, **kwargs: Any) -> _M:
        hot = self._hot_path()
        if hot is not None and not args and kwargs:
            found = hot.get(hot.root, (), kwargs, may_wait=False)
            if found is not NOT_HOT:
                return cast("_M", found)
        return await sync_to_async(self.get)(*args, **kwargs)

    def in_bulk(
        self, id_list: Iterable[Any] | None = None, *, field_name: str = "pk"
    ) -> dict[Any, _M]:
        return self._rows().in_bulk(id_list, field_name=field_name)

    async def ain_bulk(
        self, id_list: Iterable[Any] | None = None, *, field_name: str = "pk"
    ) -> dict[Any, _M]:
        return await self._rows().ain_bulk(id_list, field_name=field_name)

    def _rows(self) -> S3QuerySet[_M]:
        """What ``get_queryset()`` returns, recorded if it is hot."""
        hot = self._hot_path()
        if hot is None:
            return cast("S3QuerySet[_M]", self.get_queryset())
        return _recorded(hot, hot.root, ())

    def count(self) -> int:
        hot = self._hot_path()
        if hot is not None:
            found = hot.find(hot.root, "count", ())
            if found is not None:
                return cast("int", found)
        return self.all().count()

    async def acount(self) -> int:
        return await self.all().acount()


def _document(kind: type, like: type) -> None:
    """Give methods that have no docstring those of Django's."""
    for name, method in vars(kind).items():
        if isinstance(method, FunctionType) and method.__doc__ is None:
            method.__doc__ = getattr(getattr(like, name, None), "__doc__", None)


_document(S3QuerySet, models.QuerySet)
_document(S3Manager, S3QuerySet)


def _recorded(
    hot: Hot[_Model], shape: Shape, values: tuple[Any, ...]
) -> S3QuerySet[_Model]:
    kind = cast("type[S3QuerySet[_Model]]", hot.queryset)
    made = kind.__new__(kind)
    made._recorded = Recorded(shape, values)
    return made


def _queryset_class(manager: type[S3Manager[Any]]) -> type[models.QuerySet[Any]]:
    return manager._queryset_class  # type: ignore[attr-defined,no-any-return]


def why_not_hot(manager: type[models.Manager[Any]]) -> str:
    """What keeps the hot path from answering for a manager, or ""."""
    if not issubclass(manager, S3Manager):
        return "it is no S3Manager"
    if manager.get_queryset is not models.Manager.get_queryset:
        return "it has a get_queryset() of its own"
    queryset = _queryset_class(manager)
    own = [
        name
        for name in _OF_S3QUERYSET
        if getattr(queryset, name, None) is not getattr(S3QuerySet, name)
    ]
    return f"its querysets have {conf.listed(own)} of their own" if own else ""


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
    # In any order of the arguments it is the same statement.
    return {field: values[field] for field in names}
