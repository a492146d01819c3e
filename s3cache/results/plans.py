"""What the result of a statement depends on, and whether it may be kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from django.db.backends.sqlite3._functions import register
from django.db.models import Model

from s3cache.replica.analysis import Access
from s3cache.replica.tables import OWN_PREFIX
from s3cache.results.repeats import Repeats

__all__ = ["MOST_PLANS", "PURE_FUNCTIONS", "Plan", "Plans", "plan_of"]

#: Statements whose plans are remembered at least.
MOST_PLANS = 1024

#: SQLite's functions whose result depends on nothing but their arguments and
#: the rows. Those for dates are not among them: each takes 'now'.
_OF_SQLITE: Final = """
    abs char coalesce concat concat_ws format glob hex ifnull iif instr length
    like likelihood likely lower ltrim max min nullif octet_length printf quote
    replace round rtrim sign soundex substr substring trim typeof unhex unicode
    unlikely upper zeroblob
    avg count group_concat string_agg sum total
    row_number rank dense_rank percent_rank cume_dist ntile lag lead
    first_value last_value nth_value
    acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp
    floor ln log log10 log2 mod pi pow power radians sin sinh sqrt tan tanh trunc
    json json_array json_array_length json_error_position json_extract -> ->>
    json_insert json_object json_patch json_quote json_remove json_replace
    json_set json_type json_valid json_group_array json_group_object
"""


class _Names:
    """Takes what Django registers on a connection, and notes what is pure."""

    def __init__(self) -> None:
        self.pure: set[str] = set()

    def create_function(
        self,
        name: str,
        narg: int,
        function: Callable[..., Any],
        *,
        deterministic: bool = False,
    ) -> None:
        if deterministic:
            self.pure.add(name.lower())

    def create_aggregate(self, name: str, *args: object) -> None:
        self.pure.add(name.lower())  # statistics over the rows

    def execute(self, sql: str) -> _Names:
        return self

    def fetchone(self) -> tuple[int]:
        return (0,)  # as if SQLite had no mathematics, so that all are named


def _pure_functions() -> frozenset[str]:
    names = _Names()
    register(names)
    return frozenset(names.pure).union(_OF_SQLITE.split())


#: The lower-case names of the functions that a kept result may depend on.
PURE_FUNCTIONS: Final = _pure_functions()

#: Tables that change without a commit of rows; but for ``sqlite_master``,
#: which a connection reads for itself, and which DDL alone changes.
_INTERNAL = ("sqlite_", OWN_PREFIX)
_SCHEMA = frozenset(["sqlite_master", "sqlite_schema"])


@dataclass(frozen=True, slots=True)
class Plan:
    """The tables that a statement reads, sorted, in lower case.

    ``cacheable`` is whether the same rows always give the same result;
    ``repeats`` is what became of its results, as long as the plan is kept, and
    ``uses`` what `Statements` knows of the reads that it is for, by model.
    """

    tables: tuple[str, ...]
    cacheable: bool
    repeats: Repeats = field(default_factory=Repeats, compare=False, repr=False)
    uses: dict[type[Model] | None, Any] = field(
        default_factory=dict, compare=False, repr=False
    )


class Plans:
    """Plans by their SQL, for one schema: those that were used last.

    At most twice as many as ``MOST_PLANS``, in two generations: the older one
    is forgotten when the newer one is full. Without a lock; a plan that is
    lost to a race is made again.
    """

    __slots__ = ("_newer", "_older")

    def __init__(self) -> None:
        self._newer: dict[str, Plan] = {}
        self._older: dict[str, Plan] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def get(self, sql: str) -> Plan | None:
        """The plan of a statement, if it is remembered."""
        found = self._newer.get(sql)
        if found is None and (found := self._older.get(sql)) is not None:
            self.add(sql, found)
        return found

    def add(self, sql: str, plan: Plan) -> Plan:
        """Remember a plan, from now on; returns that of who came first.

        One object for all threads: a result is stored only if the plan that
        it was computed by is still the one that is remembered.
        """
        newer = self._newer
        plan = newer.setdefault(sql, plan)
        if len(newer) >= MOST_PLANS:
            self._older, self._newer = newer, {}
        return plan


def plan_of(access: Access, redefined: frozenset[str] = frozenset()) -> Plan:
    """What to do with a statement of which SQLite says ``access``.

    ``redefined`` are functions and collations that the project has
    registered, whatever they are called.
    """
    tables = tuple(sorted(access.reads - _SCHEMA))
    cacheable = (
        bool(tables)
        and not access.virtual
        and not access.writes
        and access.functions <= PURE_FUNCTIONS
        and redefined.isdisjoint(access.functions | access.collations)
        and not any(table.startswith(_INTERNAL) for table in tables)
    )
    return Plan(tables, cacheable)
