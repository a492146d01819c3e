"""Rows by their primary keys, which the hot path keeps one by one.

``in_bulk(keys)``, and a list of ``filter(pk__in=keys)``, take what is kept of
each row, where ``get(pk=...)`` keeps it, too, and read the others by one
statement: where one of 200 rows has changed, that one. They return rows of one
position of the replica: those that are kept are believed only if their
versions are those of one position, and, if something has to be read, of the
one that it is read at.

A row is kept when it is read for the second time, so that what nobody repeats
costs nothing here, and drives nothing out of the cache.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

from django.db import connections, models

from s3cache import conf
from s3cache.caches import MemoryCache
from s3cache.caches.immutables import weigh
from s3cache.db.cursor import prepared
from s3cache.replica.meta import Version
from s3cache.results import statements
from s3cache.results.compiled import LARGEST, Compiled, stored
from s3cache.results.hot import ABSENT, NOT_HOT, Hot, Kept, Narrowed, Recipe
from s3cache.results.narrowing import narrowed
from s3cache.results.reading import OfRows, QuerySQL, Reading, Taken, bare
from s3cache.results.shapes import FIELDS, field_of, is_recordable
from s3cache.results.versions import RowScope
from s3cache.results.watching import watchers, watching

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper
    from s3cache.replica.tables import Schema

__all__ = [
    "MOST_KEYS",
    "ByKey",
    "forget_rows",
    "in_bulk",
    "kept_keys",
    "learn_in_bulk",
]

_M = TypeVar("_M", bound=models.Model)

#: So many rows at most: parameters that any SQLite takes in a statement.
MOST_KEYS: Final = 999

#: Of what a cache has room for, one call may have this part.
_SHARE: Final = 4

#: Each other collection may do anything when it is looked at.
_COLLECTIONS: Final = frozenset(
    [list, tuple, set, frozenset, dict, range, type({}.keys()), type({}.values())]
)

#: Fields that rows are sorted by in Python as SQLite does it, and the type of
#: their values.
_SORTABLE: Final = {**FIELDS, models.DateTimeField: dt.datetime}

_BYTES_OF_ABSENT: Final = weigh(ABSENT) or 0

#: Looks at the versions of rows; more of them if they change meanwhile.
_TRIES: Final = 3


class _By(NamedTuple):
    """Something that objects are sorted by, up or down."""

    attribute: str
    kind: type
    is_down: bool


@dataclass(frozen=True, slots=True)
class ByKey(Generic[_M]):
    """How rows of a model are found by their primary keys.

    ``recipe`` is that of ``get(pk=...)``, but counted as a list is, and
    ``compiled`` one ``pk__in``: ``head`` and ``tail`` are what its statement
    has around the keys. ``order`` is what the objects are sorted by; nothing
    is the key.
    """

    recipe: Recipe
    cache: MemoryCache
    compiled: Compiled[_M]
    table: str
    kind: type
    attribute: str
    head: str
    tail: str
    order: tuple[_By, ...]
    #: So many keys at most.
    most: int

    def versions(self, scopes: Sequence[tuple[Any, ...]]) -> list[Version] | None:
        """The versions of rows at one position; None: they change too fast."""
        versions = self.recipe.source.versions
        for _ in range(_TRIES):
            found = versions.of_rows(self.table, scopes)
            if found is not None:
                return found
        return None

    def sql(self, number: int) -> str:
        """The statement for so many keys."""
        return f"{self.head}{_placeholders(number)}{self.tail}"

    def in_order(self, objects: list[_M]) -> Any:
        """What ``in_bulk()`` makes of objects that are in the keys' order.

        Or ``NOT_HOT``: SQLite also sorts what is of another type.
        """
        for name, kind, is_down in reversed(self.order):
            values = [one.__dict__[name] for one in objects]
            if not {kind, NoneType}.issuperset(map(type, values)):
                return NOT_HOT
            # NULL comes first in SQLite. What is equal stays as it is.
            objects.sort(
                key=lambda one: ((value := one.__dict__[name]) is not None, value),
                reverse=is_down,
            )
        return {one.__dict__[self.attribute]: one for one in objects}


def in_bulk(hot: Hot[_M], id_list: object, *, may_wait: bool = True) -> Any:
    """What ``in_bulk(id_list)`` of all objects returns, or ``NOT_HOT``."""
    by_key = hot.by_key
    if by_key is None:
        return NOT_HOT
    wanted = _wanted(id_list)
    if wanted is None or wanted.kind is not by_key.kind:
        return NOT_HOT
    recipe, (_kind, keys, params) = by_key.recipe, wanted
    if (
        len(keys) > by_key.most
        or not hot.is_current(recipe, may_wait)
        or hot.has_listeners()
    ):
        return NOT_HOT
    versions = by_key.versions([(param,) for param in params])
    if versions is None:
        return NOT_HOT
    prefix, peek = recipe.prefix, by_key.cache.peek
    kept = [
        peek((prefix, (key,), version))
        for key, version in zip(keys, versions, strict=True)
    ]
    if None in kept:
        if not may_wait:
            return NOT_HOT
        call = _Call(hot, by_key, keys, params)
        return call.read(versions, kept, list(cast("Any", id_list)))
    make = hot.make_object
    found = by_key.in_order(
        [
            make(one.attributes.copy(), one.state.copy())
            for one in kept
            if one is not ABSENT
        ]
    )
    if found is not NOT_HOT:
        recipe.hit()
        if watchers:
            watching().add(recipe.read)
    return found


class _Call(Generic[_M]):
    """One call of ``in_bulk()``, some of whose rows are not kept."""

    def __init__(
        self,
        hot: Hot[_M],
        by_key: ByKey[_M],
        keys: Sequence[Any],
        params: Sequence[int | str],
    ) -> None:
        self._hot = hot
        self._by_key = by_key
        self._keys = keys
        self._params = params
        self._scopes = tuple([RowScope(by_key.table, (param,)) for param in params])

    def read(
        self, versions: Sequence[Version], kept: Sequence[Any], given: list[Any]
    ) -> Any:
        """What the call returns, of which ``kept`` has something already.

        ``given`` are its keys, as they were given.
        """
        by_key = self._by_key
        wrapper = cast("DatabaseWrapper", connections[by_key.recipe.source.alias])
        # Who wants to know which query it is would like to make it again.
        is_told = bool(statements.computed)
        wanted = [index for index, one in enumerate(kept) if one is None or is_told]
        while True:
            taken, rows = self._rows(wrapper, wanted)
            if taken.at is None:
                return NOT_HOT  # it cannot be told what they belong to
            now = taken.at.versions
            is_read = frozenset(wanted)
            if all(
                index in is_read or version == now[index]
                for index, version in enumerate(versions)
            ):
                break
            # Somebody has committed. What one statement reads is of one
            # position.
            wanted = list(range(len(kept)))
        if is_told:
            self._tell(wrapper, given)
        found = {
            stored(one.__dict__[by_key.attribute]): one
            for one in by_key.compiled.make_all(wrapper, rows)
        }
        self._keep(wanted, found, now)
        make = self._hot.make_object
        objects: list[_M | None] = [
            found.get(param)
            if index in is_read
            else None
            if one is ABSENT
            else make(one.attributes.copy(), one.state.copy())
            for index, (param, one) in enumerate(zip(self._params, kept, strict=True))
        ]
        return by_key.in_order([one for one in objects if one is not None])

    def _rows(
        self, wrapper: DatabaseWrapper, wanted: Sequence[int]
    ) -> tuple[Taken, list[Any]]:
        """Read those rows, with the versions of all."""
        by_key = self._by_key
        params = tuple([self._params[index] for index in wanted])
        sql = by_key.sql(len(params))
        reading = OfRows(by_key.compiled.query, wrapper, sql, params, self._scopes)
        with wrapper.cursor() as cursor:
            cursor.execute(QuerySQL(reading), params)
            return reading.taken, cursor.fetchall()

    def _keep(
        self, wanted: Sequence[int], found: dict[Any, _M], at: Sequence[Version]
    ) -> None:
        """Keep what was read, of rows that were read before."""
        hot, by_key = self._hot, self._by_key
        hashes = {index: hash(self._params[index]) for index in wanted}
        before = hot.asked.those_before(frozenset(hashes.values()))
        made: dict[int, Any] = {}
        for index in wanted:
            if hashes[index] in before:
                one = found.get(self._params[index])
                made[index] = ABSENT if one is None else hot.keep_object(one)
        weights = {
            index: one.weight if type(one) is Kept else _BYTES_OF_ABSENT
            for index, one in made.items()
            if one is not None
        }
        most = by_key.cache.shelf.limits.bytes
        if most is not None and _SHARE * sum(weights.values()) > most:
            return
        for index, weight in weights.items():
            hot.store(
                by_key.recipe,
                by_key.cache,
                (self._keys[index],),
                at[index],
                made[index],
                weight,
            )

    def _tell(self, wrapper: DatabaseWrapper, given: list[Any]) -> None:
        """Say which query was computed, as if Django had made it."""
        query = bare(self._hot.new_queryset().filter(pk__in=given).query)
        sql, params = query.get_compiler(connection=wrapper).as_sql()
        reading = Reading(query, wrapper, sql, params)
        for tell_of in statements.computed:
            tell_of(reading, *prepared(sql, params))


def kept_keys(
    hot: Hot[Any], by_key: ByKey[Any] | None, keys: object
) -> tuple[Any, ...] | None:
    """``keys`` as nobody changes them, if such rows are kept one by one.

    With ``by_key``, Django finds nothing wrong with them. Without it the rows
    may be kept once that is known.
    """
    wanted = _wanted(keys)
    if wanted is None:
        return None
    if by_key is None:
        return None if hot.not_by_key is not None else tuple(cast("Any", keys))
    if wanted.kind is not by_key.kind or len(wanted.keys) > by_key.most:
        return None
    return tuple(cast("Any", keys))


def forget_rows(hot: Hot[Any], id_list: object) -> None:
    """Keep nothing of these rows: somebody has asked for them past it."""
    by_key, wanted = hot.by_key, _wanted(id_list)
    if by_key is None or wanted is None:
        return
    versions = by_key.recipe.source.versions
    for key, param in zip(wanted.keys, wanted.params, strict=True):
        version = versions.of_row(by_key.table, (param,))
        by_key.cache.drop((by_key.recipe.prefix, (key,), version))


def learn_in_bulk(hot: Hot[_M], id_list: object, taken: Taken) -> None:
    """Know how such rows are found, for ``in_bulk(id_list)`` has read some."""
    reading = taken.reading
    if taken.at is None or reading is None or not conf.settings().hot_path:
        return
    plans = reading.connection.statements.versions.plans
    known = hot.by_key
    if hot.not_by_key is plans or (
        known is not None and known.recipe.source.plans is plans
    ):
        return
    wanted = _wanted(id_list)
    if wanted is None:
        return
    hot.by_key = _by_key(hot, list(cast("Any", id_list)), taken, reading)
    if hot.by_key is None and len(wanted.keys) > 1:
        # Of a single key Django may make another statement.
        hot.not_by_key = plans


def _by_key(
    hot: Hot[_M], given: list[Any], taken: Taken, reading: Reading
) -> ByKey[_M] | None:
    """How rows are found of which these were; None: not by their keys."""
    model, wrapper = hot.model, reading.connection
    schema = wrapper.statements.schema(wrapper.reader)
    order = _order(model, schema)
    if (
        order is None
        or not hot.can_build()
        or taken.scopes != (model._meta.db_table.lower(),)
        or not _has_plain_key(hot, given[0], wrapper, schema)
    ):
        return None
    compiled = Compiled.of(model, taken, tuple(dict.fromkeys(given)))
    shape = hot.root.learn_filter({"pk": given[0]})
    around = _around_keys(model, reading, order, wrapper)
    if compiled is None or shape is None or around is None:
        return None
    scopes = (Narrowed(taken.scopes[0], (), (0,)),)
    recipe = hot.make_recipe(shape, "get", "list", taken, scopes, compiled)
    if recipe is None or recipe.cache is None:
        return None
    room = recipe.cache.shelf.limits.entries
    pk = model._meta.pk
    return ByKey(
        recipe=recipe,
        cache=recipe.cache,
        compiled=compiled,
        table=taken.scopes[0],
        kind=type(given[0]),
        attribute=pk.attname,
        head=around[0],
        tail=around[1],
        order=tuple(
            _By(field.attname, _SORTABLE[type(field)], is_down)
            for field, is_down in order
        ),
        most=MOST_KEYS if room is None else min(MOST_KEYS, room // _SHARE),
    )


def _has_plain_key(
    hot: Hot[Any], key: Any, wrapper: DatabaseWrapper, schema: Schema
) -> bool:
    """Whether a key says which row it is, and a version is of that row."""
    pk = hot.model._meta.pk
    lookup = pk.get_lookup("in")
    if (
        pk.is_relation
        or not is_recordable(hot.model, {"pk": key})
        or lookup is None
        or not lookup.__module__.startswith("django.")
    ):
        return False
    query = hot.new_queryset().filter(pk=key).query
    sql, _params = query.get_compiler(connection=wrapper).as_sql()
    table = hot.model._meta.db_table.lower()
    return narrowed(query, sql, schema, wrapper) == RowScope(table, (stored(key),))


_Order = list[tuple["models.Field[Any, Any]", bool]]


def _order(model: type[models.Model], schema: Schema) -> _Order | None:
    """What rows are sorted by, and whether downwards; None: not known."""
    table = schema.get(model._meta.db_table)
    order: _Order = []
    for name in model._meta.ordering or ():
        field = field_of(model, name.lstrip("-")) if type(name) is str else None
        if (
            table is None
            or field is None
            or type(field) not in _SORTABLE
            or getattr(field, "db_collation", None)
            or not table.affinities.get(field.column or "")
        ):
            return None
        order.append((field, str(name).startswith("-")))
    return order


def _around_keys(
    model: type[models.Model],
    reading: Reading,
    order: _Order,
    wrapper: DatabaseWrapper,
) -> tuple[str, str] | None:
    """What is before the keys in the statement, and behind; None: more."""
    quote = wrapper.ops.quote_name
    table = quote(model._meta.db_table)
    head, keys, tail = reading.sql.partition(_placeholders(len(reading.params)))
    terms = [
        f"{table}.{quote(field.column or '')} {'DESC' if is_down else 'ASC'}"
        for field, is_down in order
    ]
    by = f" ORDER BY {', '.join(terms)}" if terms else ""
    pk = quote(model._meta.pk.column or "")
    is_all = (
        head.endswith(f" FROM {table} WHERE {table}.{pk} IN (") and tail == f"){by}"
    )
    return (head, tail) if keys and is_all else None


def _placeholders(number: int) -> str:
    return ", ".join(["%s"] * number)


class _Wanted(NamedTuple):
    """Keys of one type in order, each once, and as they are stored."""

    kind: type
    keys: Sequence[Any]
    params: Sequence[int | str]


def _wanted(id_list: Any) -> _Wanted | None:
    """The keys; None: others, or perhaps others at another look."""
    if type(id_list) not in _COLLECTIONS or not 0 < len(id_list) <= MOST_KEYS:
        return None
    given = list(id_list)
    kinds = {*map(type, given)}
    if kinds == {UUID}:
        # As text they have the same order.
        by_text = {one.hex: one for one in given}
        params = sorted(by_text)
        return _Wanted(UUID, [by_text[one] for one in params], params)
    if kinds not in ({int}, {str}):
        return None
    keys = sorted({*given})
    if kinds == {int} and not 0 <= keys[0] <= keys[-1] <= LARGEST:
        return None
    return _Wanted(kinds.pop(), keys, keys)
