"""Shapes of querysets: the calls that made them, without their values.

``filter(region="EU").order_by("name")[:25]`` has the shape of
``filter(region="US").order_by("name")[:50]``. A shape is known once Django has
made such a queryset; what is wrong with one Django has said by then, and
another one with values of the same types can be made later, or never.

Only calls that mean the same whenever they are made have a shape: of plain
columns, with values of exactly the types that are listed here, which nobody
can change and which are equal only if they are the same. Neither a time zone
nor a language has a say in them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import UUID

from django.db import models
from django.db.models import Aggregate, Avg, Count, Max, Min, Sum

if TYPE_CHECKING:
    from s3cache.results.hot import Hot, Recipe

__all__ = [
    "FIELDS",
    "Recorded",
    "Shape",
    "aggregates_fields",
    "aggregation",
    "field_of",
    "is_recordable",
    "is_sortable",
]

#: So many shapes are known of a model at most.
MOST_SHAPES: Final = 500

#: Fields and the type of their values. Exactly these: ``1 == True == 1.0``,
#: and a subclass may do anything.
FIELDS: Final[Mapping[type[models.Field[Any, Any]], type]] = {
    models.AutoField: int,
    models.BigAutoField: int,
    models.SmallAutoField: int,
    models.IntegerField: int,
    models.BigIntegerField: int,
    models.SmallIntegerField: int,
    models.PositiveIntegerField: int,
    models.PositiveBigIntegerField: int,
    models.PositiveSmallIntegerField: int,
    models.BooleanField: bool,
    models.CharField: str,
    models.SlugField: str,
    models.TextField: str,
    models.UUIDField: UUID,
    models.DateField: dt.date,
}

_ORDERED: Final = ("lt", "lte", "gt", "gte")

#: Lookups of plain columns, beside ``exact``, by the type of the value.
_LOOKUPS: Final[Mapping[type, Sequence[str]]] = {
    int: _ORDERED,
    dt.date: _ORDERED,
    str: (
        "iexact", "contains", "icontains", "startswith", "istartswith", "endswith",
        "iendswith",
    ),
}  # fmt: skip

_AGGREGATES: Final[frozenset[type[Aggregate]]] = frozenset([Avg, Count, Max, Min, Sum])

#: Marks the keys of ``exclude()`` among those of ``filter()``.
_NOT: Final = False

Call = Callable[[models.QuerySet[Any], Sequence[Any]], models.QuerySet[Any]]


class Recorded(NamedTuple):
    """A queryset that is not built: its shape, and the values in it."""

    shape: Shape
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Exactly:
    """A lookup that says what a column holds: where the value is."""

    column: str
    position: int


class Shape:
    """A chain of calls; ``find_*`` and ``learn_*`` go on from it.

    ``takes`` is how many values the last call has, ``exactly`` what a row
    must hold, and ``words`` the calls, for people.
    """

    __slots__ = (
        "_call",
        "_children",
        "_parent",
        "_takes",
        "exactly",
        "hot",
        "is_ordered",
        "is_sliced",
        "recipes",
        "words",
    )

    def __init__(
        self,
        hot: Hot[Any],
        parent: Shape | None = None,
        call: Call | None = None,
        takes: int = 0,
        words: str = "",
    ) -> None:
        self.hot = hot
        self.words = words
        self.exactly: tuple[Exactly, ...] = parent.exactly if parent else ()
        self.is_sliced: bool = parent is not None and parent.is_sliced
        #: None: not known yet.
        self.is_ordered: bool | None = None
        #: How what is asked of such a queryset is answered, by what it is.
        self.recipes: dict[object, Recipe] = {}
        self._parent = parent
        self._call = call
        self._takes = takes
        self._children: dict[object, Shape] = {}

    def build(self, values: tuple[Any, ...]) -> models.QuerySet[Any]:
        """The queryset of this shape with these values, made by Django."""
        if self._parent is None or self._call is None:
            return self.hot.new_queryset()
        split = len(values) - self._takes
        return self._call(self._parent.build(values[:split]), values[split:])

    # filter() and exclude()

    def find_filter(self, lookups: Mapping[str, Any]) -> Shape | None:
        """The shape after ``filter(**lookups)``, if it is known."""
        if len(lookups) == 1:  # mostly, and then in half the time
            ((name, value),) = lookups.items()
            return self._children.get((name, type(value)))
        return self._children.get((*lookups, *map(type, lookups.values())))

    def find_exclude(self, lookups: Mapping[str, Any]) -> Shape | None:
        """The shape after ``exclude(**lookups)``, if it is known."""
        return self._children.get((_NOT, *lookups, *map(type, lookups.values())))

    def learn_filter(self, lookups: Mapping[str, Any]) -> Shape | None:
        """Know that shape from now on, for Django has made one.

        None if it may not be recorded; so do the other ``learn_*``.
        """
        made = self._learn_lookups("filter", lookups)
        if made is not None:
            first = self._count_values()
            columns = [_column(self.hot.model, name) for name in lookups]
            # Another thread may have learned the same.
            made.exactly = self.exactly + tuple(
                Exactly(column, first + index)
                for index, column in enumerate(columns)
                if column
            )
        return made

    def learn_exclude(self, lookups: Mapping[str, Any]) -> Shape | None:
        """Know the shape after ``exclude(**lookups)``."""
        return self._learn_lookups("exclude", lookups)

    def _learn_lookups(
        self, method: Literal["filter", "exclude"], lookups: Mapping[str, Any]
    ) -> Shape | None:
        if not is_recordable(self.hot.model, lookups):
            return None
        names = tuple(lookups)

        def call(
            queryset: models.QuerySet[Any], values: Sequence[Any]
        ) -> models.QuerySet[Any]:
            lookups = dict(zip(names, values, strict=True))
            made: models.QuerySet[Any] = getattr(queryset, method)(**lookups)
            return made

        key: tuple[object, ...] = (*lookups, *map(type, lookups.values()))
        if method == "exclude":
            key = (_NOT, *key)
        return self._learn(key, call, names, f"{method}{names}")

    # order_by()

    def find_order_by(self, names: Sequence[Any]) -> Shape | None:
        """The shape after ``order_by(*names)``, if it is known."""
        if all(type(name) is str for name in names):
            return self._children.get(("order_by", *names))
        return None

    def learn_order_by(self, names: Sequence[Any]) -> Shape | None:
        """Know the shape after ``order_by(*names)``."""
        names = tuple(names)
        if not all(is_sortable(self.hot.model, name) for name in names):
            return None

        def call(
            queryset: models.QuerySet[Any], values: Sequence[Any]
        ) -> models.QuerySet[Any]:
            return queryset.order_by(*names)

        return self._learn(("order_by", *names), call, (), f"order_by{names}")

    # Slices

    def find_slice(self, start: Any, stop: Any) -> Shape | None:
        """The shape of ``[start:stop]``, if it is known."""
        found = self._children.get((type(start), type(stop)))
        if found is None or (start or 0) < 0 or (stop or 0) < 0:
            return None
        return found

    def learn_slice(self, start: Any, stop: Any) -> Shape | None:
        """Know the shape of ``[start:stop]``."""
        if not {type(start), type(stop)} <= {int, type(None)}:
            return None

        def call(
            queryset: models.QuerySet[Any], values: Sequence[Any]
        ) -> models.QuerySet[Any]:
            return queryset[values[0] : values[1]]

        made = self._learn((type(start), type(stop)), call, ("start", "stop"), "slice")
        if made is not None:
            made.is_sliced = True
        return made

    def _learn(
        self, key: object, call: Call, names: Sequence[str], words: str
    ) -> Shape | None:
        found = self._children.get(key)
        if found is None and self.hot.has_room():
            kinds = [repr(one) for one in key if isinstance(one, type)]  # type: ignore[attr-defined]
            words = ".".join(filter(None, [self.words, words, *kinds]))
            made = Shape(self.hot, self, call, len(names), words)
            found = self._children.setdefault(key, made)
            if found is made:
                self.hot.shapes.append(made)
        return found

    def _count_values(self) -> int:
        return self._takes + (self._parent._count_values() if self._parent else 0)


def is_recordable(model: type[models.Model], lookups: Mapping[str, Any]) -> bool:
    """Whether ``filter(**lookups)`` always means the same."""
    return all(_is_plain(model, name, value) for name, value in lookups.items())


def _is_plain(model: type[models.Model], name: str, value: Any) -> bool:
    name, _, lookup = name.partition("__")
    field = field_of(model, name)
    if field is None or getattr(field, "db_collation", None):
        return False
    target: Any = field
    while isinstance(target, models.ForeignKey):
        target = target.target_field
    expected = FIELDS.get(type(target))
    if expected is None or (type(field) is not type(target) and not _is_key(field)):
        return False
    if lookup == "isnull":
        fits = type(value) is bool
    elif lookup in ("", "exact"):
        fits = type(value) is expected or value is None
    else:
        is_own = type(field) is type(target)  # relations have lookups of their own
        fits = is_own and type(value) is expected
        fits = fits and lookup in _LOOKUPS.get(expected, ())
    # The project may have put another one in its place.
    found = field.get_lookup(lookup or "exact")
    return fits and found is not None and found.__module__.startswith("django.")


def _is_key(field: models.Field[Any, Any]) -> bool:
    return type(field) in (models.ForeignKey, models.OneToOneField)


def _column(model: type[models.Model], name: str) -> str:
    """The column that ``name`` says all about, or ""."""
    name, _, lookup = name.partition("__")
    field = field_of(model, name)
    if field is None or field.column is None or lookup not in ("", "exact"):
        return ""
    return field.column


def field_of(model: type[models.Model], name: str) -> models.Field[Any, Any] | None:
    """The field of the model with a column that is called so in lookups."""
    options = model._meta
    if name == "pk":
        name = getattr(options.pk, "name", "")
    for field in options.concrete_fields:
        if name in (field.name, field.attname):
            return field
    return None


def is_sortable(model: type[models.Model], name: Any) -> bool:
    """Whether ``name`` sorts by a field of the model, up or down."""
    return type(name) is str and field_of(model, name.removeprefix("-")) is not None


def aggregation(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[object, ...] | None:
    """What tells calls of ``aggregate()`` apart, or None."""
    found: list[object] = []
    for name, one in (*((None, one) for one in args), *kwargs.items()):
        if type(one) not in _AGGREGATES:
            return None
        of, options = one._constructor_args
        if options or len(of) != 1 or type(of[0]) is not str or one.filter is not None:
            return None
        # As Django calls it in the result.
        found.append((name or f"{of[0]}__{one.name.lower()}", type(one), of[0]))
    return tuple(found) or None


def aggregates_fields(shape: Shape, action: Sequence[Any]) -> bool:
    """Whether such an ``aggregation`` is of the model's fields, or of rows."""
    return all(
        kind is Count if of == "*" else field_of(shape.hot.model, of) is not None
        for _name, kind, of in action
    )
