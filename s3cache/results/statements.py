"""SELECTs, answered from the cache or from the replica."""

from __future__ import annotations

import logging
import sqlite3
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.cache import BaseCache, caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError
from django.db.models import Model

from s3cache.caches import MemoryCache
from s3cache.counting import Tick
from s3cache.hints import NO_HINTS
from s3cache.replica import meta
from s3cache.replica.file import transaction
from s3cache.replica.results import Result
from s3cache.replica.tables import Schema
from s3cache.results.codec import Undecodable, decode, encode
from s3cache.results.counters import counters
from s3cache.results.flights import PATIENCE, Flights
from s3cache.results.keys import key_of
from s3cache.results.narrowing import partition_of
from s3cache.results.plans import Plan, Plans, plan_of
from s3cache.results.policy import Policy, policy_for
from s3cache.results.queries import queries
from s3cache.results.reading import (
    OfRows,
    Reading,
    Taken,
    action_of,
    label_and_action,
)
from s3cache.results.repeats import Asked
from s3cache.results.versions import (
    POSITION_COLUMNS,
    At,
    PartScope,
    Scope,
    Versions,
    beside_position,
)
from s3cache.results.watching import Why, tell, watchers

if TYPE_CHECKING:
    from s3cache.replica.reader import Reader
    from s3cache.replica.replica import Replica

__all__ = ["MOST_ROWS", "UNSUITABLE", "Known", "Place", "Statements", "statements_of"]

logger = logging.getLogger("s3cache.results")

#: Results with more rows are not kept.
MOST_ROWS = 10_000

#: Caches that cannot keep a result: one keeps nothing, the other asks a
#: database, perhaps this one.
UNSUITABLE = (DummyCache, BaseDatabaseCache)

#: Caches that other processes do not share: waiting for those is in vain.
_OF_ONE_PROCESS = (LocMemCache, MemoryCache)

#: Seconds between two looks at whether another process has computed it.
_POLL = 0.002


#: Who wants to know of each result that is computed and missed: the query,
#: the statement and its parameters. An error of theirs reaches the reader.
computed: list[Callable[[Reading, str, Any], None]] = []


class Place(NamedTuple):
    """Where a result is kept: the CACHES alias, and the key."""

    cache: str
    key: str


@dataclass(frozen=True, slots=True)
class Known:
    """A SELECT of ``model`` that was made before, with other parameters.

    ``beside`` is ``beside_position`` of it; ``plans`` are those of the schema
    that it was compiled for.
    """

    sql: str
    beside: str
    model: type[Model] | None
    plans: Plans

    @classmethod
    def of(cls, reading: Reading, sql: str) -> Known | None:
        """That of ``reading``, which is ``sql`` for SQLite.

        None: it may read a view, whose values SQLite converts to each other's
        types where it has them beside something else.
        """
        versions = reading.connection.statements.versions
        plans = versions.plans  # before the views: those are never older
        if versions.may_read_view(sql):
            return None
        return cls(sql, beside_position(sql), reading.model, plans)


class Statements:
    """The SELECTs of one replica in this process, for all its threads."""

    def __init__(self, replica: Replica) -> None:
        # Not the replica itself: it is the key under which this is found.
        self._replica = weakref.proxy(replica)
        self._redefined: frozenset[str] = frozenset()
        self._asked = Asked()
        self._flights: Flights[Result] = Flights()
        self._described: tuple[object, Schema | None] = (None, None)
        self.versions = Versions()

    @property
    def database(self) -> str:
        """The alias, for statistics."""
        alias: str = self._replica.alias
        return alias

    def redefine(self, name: str) -> None:
        """The project has a function or a collation of its own called so."""
        if name.lower() not in self._redefined:
            self._redefined |= {name.lower()}
            self.versions.plans = Plans()

    def heed_pragma(self, sql: str) -> None:
        """Keep nothing that depends on what ``sql`` changes, if it does.

        That is what LIKE means, to one connection.
        """
        if "case_sensitive_like" in sql.lower():
            self.redefine("like")

    def plan(self, sql: str, params: Any) -> Plan:
        """The tables of ``sql``, and whether its result may be kept."""
        plans = self.versions.plans
        plan = plans.get(sql)
        if plan is None:
            access = self._replica.analyser.access(sql, params)
            plan = plan_of(access, self._redefined)
            if access.reads:
                # Of the schema that it was made for.
                plan = plans.add(sql, plan)
        return plan

    def read(
        self,
        reader: Reader,
        sql: str,
        params: Any,
        *,
        reading: Reading | None,
        stale: bool = False,
    ) -> Result:
        """The result of a SELECT, on a replica that is fresh enough.

        ``reading`` is None for SQL that was written by hand. ``stale`` says
        that the replica is older than it should be, for the statistics.
        """
        is_known = self.follow(reader)
        # Not before: a change of the schema may have come.
        plan = self.plan(sql, params)
        model = reading.model if reading is not None else None
        hints = reading.hints if reading is not None else NO_HINTS
        policy = policy_for(model, plan.tables, hints.namespace)
        if policy is None:
            if watchers:
                tell(*label_and_action(reading), "bypass", Why.EXCLUDED, plan.tables)
            return reader.execute(sql, params)
        use = self._use(plan, policy, reading, model)
        if isinstance(reading, OfRows) and is_known and plan.cacheable:
            call = _Call(self, reader, sql, params, plan, use, stale=stale)
            return call.compute_rows(reading)
        by_chunks = reading is not None and reading.by_chunks
        is_usual = (
            use.is_alone
            and hints is NO_HINTS
            and is_known
            and (reading is None or reading.keep)
        )
        if is_usual and not self._is_worth_it(plan, sql, params, by_chunks):
            return self._pass_by(reader, sql, params, plan, use, stale=stale)
        call = _Call(self, reader, sql, params, plan, use, stale=stale)
        if hints.skip_cache:
            return call.bypass(Why.SKIPPED)
        if not plan.cacheable:
            return call.bypass(Why.IMPURE)
        if reading is not None and not reading.keep:
            return call.bypass(Why.NOT_KEPT)
        if not is_known:
            return call.bypass(Why.REPLACED)
        cache = caches[policy.cache]
        if isinstance(cache, UNSUITABLE):
            return call.bypass(Why.NO_CACHE)
        is_wanted = hints.fresh or hints.renew or hints.ttl is not None
        if not (
            is_usual or is_wanted or self._is_worth_it(plan, sql, params, by_chunks)
        ):
            if reading is None or isinstance(cache, _OF_ONE_PROCESS):
                return self._pass_by(reader, sql, params, plan, use, stale=stale)
            call.narrow(reading)
            return call.find_or_pass_by(cache)
        if reading is not None:
            call.narrow(reading)
        ttl = policy.ttl if hints.ttl is None else hints.ttl
        if (hints.renew or hints.fresh) and call.taken is not None:
            call.taken.replaces = True
            call.taken.is_wanted = hints.renew
        if hints.renew:
            return call.compute(cache, ttl)
        if hints.fresh:
            return call.compute_and_count(cache, ttl, Why.FRESH)
        return call.answer(cache, ttl)

    def place(
        self, reader: Reader, sql: str, params: Any, reading: Reading
    ) -> Place | None:
        """Where ``read`` looks for a result now; None: nowhere."""
        is_known = self.follow(reader)
        plan = self.plan(sql, params)
        policy = policy_for(reading.model, plan.tables, reading.hints.namespace)
        if policy is None or isinstance(caches[policy.cache], UNSUITABLE):
            return None
        if not (is_known and plan.cacheable and reading.keep):
            return None
        use = self._use(plan, policy, reading, reading.model)
        call = _Call(self, reader, sql, params, plan, use)
        call.narrow(reading)
        key = call.key()
        return None if key is None else Place(policy.cache, key)

    def read_at_once(
        self, reader: Reader, known: Known, params: Any, scopes: Sequence[Scope]
    ) -> tuple[At, list[Any]] | None:
        """The rows of ``known.beside``, which belong to ``scopes``.

        By one call of SQLite. Not stored, and not counted: for who does that
        himself, and has looked where the replica is. None: only ``read`` can
        do it.
        """
        plan = known.plans.get(known.sql)
        use: _Use | None = None if plan is None else plan.uses.get(known.model)
        if plan is None or use is None or not plan.cacheable:
            return None
        started = time.perf_counter()
        rows = reader.fetch(known.beside, params)
        if rows is None:
            return None
        at = self.versions.at_position(rows[0][:POSITION_COLUMNS], scopes)
        # With another schema, or in another replica, it means another thing.
        if at is None or self.versions.plans is not known.plans:
            return None
        seconds = time.perf_counter() - started
        found = 0 if rows[0][POSITION_COLUMNS] is None else len(rows)
        use.note(known.sql, plan.tables, "miss", seconds, found)
        return at, rows

    def _use(
        self,
        plan: Plan,
        policy: Policy,
        reading: Reading | None,
        model: type[Model] | None,
    ) -> _Use:
        """How results of the plan are kept, as long as the settings say so.

        Found once: what a statement is asked for does not change with its
        values.
        """
        found: _Use | None = plan.uses.get(model)
        if (
            found is None
            or found.policy is not policy
            or found.cache_settings is not caches.settings
        ):
            action = action_of(reading.query) if reading is not None else "query"
            found = plan.uses[model] = _Use(
                database=self.database,
                policy=policy,
                label=policy.counted,
                action=action,
                cache_settings=caches.settings,
                is_alone=plan.cacheable
                and isinstance(caches[policy.cache], _OF_ONE_PROCESS),
            )
        return found

    def _pass_by(
        self,
        reader: Reader,
        sql: str,
        params: Any,
        plan: Plan,
        use: _Use,
        *,
        stale: bool,
    ) -> Result:
        """The result, which probably nobody asks for again: not stored.

        What most reads take that gain nothing by the cache, so it is short.
        """
        started = time.perf_counter()
        result = reader.execute(sql, params)
        use.count(("miss", ""))
        if stale:
            use.count(("stale", ""))
        if watchers:
            use.tell("miss", Why.FIRST, plan.tables, is_stale=stale)
        seconds = time.perf_counter() - started
        use.note(sql, plan.tables, "miss", seconds, len(result.rows))
        return result

    def _is_worth_it(self, plan: Plan, sql: str, params: Any, by_chunks: bool) -> bool:
        """Whether somebody may ask for the result again."""
        may_be_rare = by_chunks or plan.repeats.are_rare()
        return not may_be_rare or self._asked.before(sql, params)

    def note_asked(self, sql: str, params: Any) -> None:
        """What is stored is looked for, whatever becomes of later ones."""
        self._asked.before(sql, params)

    def follow(self, reader: Reader) -> bool:
        """Look where the replica is now; False if it is being replaced."""
        side = self._replica.side
        if self.versions.is_current(side):
            return True
        with reader.held() as connection:
            return self.versions.follow(connection, side)

    def narrow(
        self, reader: Reader, tables: tuple[str, ...], reading: Reading, sql: str
    ) -> tuple[tuple[Scope, ...], str]:
        """What the query depends on, and for people, which part of it."""
        if self.versions.may_read_view(sql):
            return tables, ""
        scope = reading.part(sql, self.schema(reader))
        if scope is None or scope.table not in tables:
            return tables, ""
        if isinstance(scope, PartScope):
            try:
                self._know(reader, scope)
            except (OperationalError, sqlite3.OperationalError) as error:
                # Somebody holds the file, for a migration perhaps. It is only
                # a matter of how long the result stays valid.
                logger.info("Parts of %s are not known yet: %s", scope.table, error)
                return tables, ""
        scopes: tuple[Scope, ...] = tuple(
            scope if one == scope.table else one for one in tables
        )
        return scopes, str(scope)

    def schema(self, reader: Reader) -> Schema:
        """The replica's tables as the reader sees them."""
        plans, schema = self._described
        if plans is not self.versions.plans or schema is None:
            plans = self.versions.plans
            with reader.held() as connection:
                schema = self._replica.describe(connection)
            self._described = plans, schema
        return schema

    def _know(self, reader: Reader, scope: PartScope) -> None:
        """Have the replica keep versions of such parts, from now on."""
        if (scope.table, scope.columns) in self.versions.partitions:
            return
        replica = self._replica
        with replica.writing():
            file = replica.file
            with file.lock, transaction(file.connection):
                meta.add_partition(file.connection, scope.table, scope.columns)
        self.versions.look_at_partitions()
        self.follow(reader)

    def compute(
        self,
        reader: Reader,
        sql: str,
        params: Any,
        plan: Plan,
        scopes: tuple[Scope, ...],
    ) -> tuple[Result, At | None]:
        """The result with the versions that it belongs to.

        Both are read in one transaction: between two of them somebody might
        commit, and a newer result would get an older key.
        """
        versions = self.versions
        with reader.lock:
            connection = reader.connection
            connection.execute("BEGIN")
            try:
                at = versions.at(connection, scopes)
                result = reader.run(sql, params)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        reader.after_read()
        # With another schema the statement may read other tables.
        return result, at if versions.plans.get(sql) is plan else None


@dataclass(frozen=True, slots=True)
class _Use:
    """How the results of a statement are kept, and what is counted of them.

    ``label`` is what they are counted under. ``is_alone``: they may be kept,
    in a cache that no other process has.
    """

    database: str
    policy: Policy
    label: str
    action: str
    cache_settings: object
    is_alone: bool
    _ticks: dict[tuple[str, str], Tick] = field(default_factory=dict)

    def count(self, what: tuple[str, str]) -> None:
        """Count an event, of results in a partition or in none."""
        tick = self._ticks.get(what)
        if tick is None:
            event, partition = what
            key = self.database, self.label, self.action, partition
            tick = self._ticks[what] = counters.ticker(key, event)
        tick()

    def tell(
        self, event: str, why: Why, tables: tuple[str, ...], *, is_stale: bool = False
    ) -> None:
        """Say what became of a read to who watches."""
        tell(self.label, self.action, event, why, tables)
        if is_stale:
            tell(self.label, self.action, "stale", why, tables)

    def note(
        self,
        sql: str,
        tables: tuple[str, ...],
        event: str,
        seconds: float,
        rows: int,
    ) -> None:
        """Have it among the statements that are read."""
        queries.note(
            self.database, self.label, self.action, sql, tables, event, seconds, rows
        )


class _Call:
    """One execution of one statement."""

    __slots__ = (
        "_known_key",
        "_params",
        "_part",
        "_partition",
        "_plan",
        "_reader",
        "_reading",
        "_scopes",
        "_sql",
        "_stale",
        "_started",
        "_statements",
        "_use",
        "taken",
    )

    def __init__(
        self,
        statements: Statements,
        reader: Reader,
        sql: str,
        params: Any,
        plan: Plan,
        use: _Use,
        *,
        stale: bool = False,
    ) -> None:
        self._scopes: tuple[Scope, ...] = plan.tables
        #: Whoever keeps the result himself, if the cache is in memory.
        self.taken: Taken | None = None
        self._part = ""
        self._known_key: tuple[At, str | None] | None = None
        self._statements = statements
        self._reader = reader
        self._sql = sql
        self._params = params
        self._plan = plan
        self._use = use
        self._partition = ""
        self._stale = stale
        self._reading: Reading | None = None
        self._started = time.perf_counter()

    def count(self, event: str, why: Why = Why.ABSENT) -> None:
        """Count that this happened, and say why."""
        self._use.count((event, self._partition))
        if watchers:
            self._use.tell(event, why, self._plan.tables)

    def _end(self, event: str, why: Why, result: Result) -> None:
        """Count how it was answered: once, when it was."""
        self.count(event, why)
        if self._stale:
            self.count("stale")
        seconds = time.perf_counter() - self._started
        rows = len(result.rows)
        self._use.note(self._sql, self._plan.tables, event, seconds, rows)

    def bypass(self, why: Why) -> Result:
        """The result, past the cache."""
        result = self._reader.execute(self._sql, self._params)
        self._end("bypass", why, result)
        return result

    def find_or_pass_by(self, cache: BaseCache) -> Result:
        """The result, which nobody asks for again, or has stored: warmed it.

        Not by this process, which would know of it.
        """
        at = self._at_now()
        key = self._key(at)
        found = None if key is None else self._look_up(cache, key)
        if found is not None:
            return self._hit(found, at)
        result = self._reader.execute(self._sql, self._params)
        self._end("miss", Why.FIRST, result)
        return result

    def _hit(self, found: Result, at: At) -> Result:
        self._end("hit", Why.KEPT, found)
        self._plan.repeats.in_vain = 0
        if self.taken is not None:
            self.taken.at, self.taken.was_kept = at, True
        return found

    def narrow(self, reading: Reading) -> None:
        """Find out what the result depends on, and tell who wants to know."""
        self._reading = reading
        self._scopes, self._part = self._statements.narrow(
            self._reader, self._plan.tables, reading, self._sql
        )
        self._partition = next(
            (
                partition_of(reading.model, scope.columns)
                for scope in self._scopes
                if isinstance(scope, PartScope)
            ),
            "",
        )
        taken = self.taken = reading.taken
        if taken is not None:
            taken.reading, taken.scopes = reading, self._scopes
            taken.sql, taken.repeats = self._sql, self._plan.repeats

    def answer(self, cache: BaseCache, ttl: float) -> Result:
        """The result, from the cache if it is there."""
        at = self._at_now()
        key = self._key(at)
        if key is None:
            return self.bypass(Why.NO_KEY)
        flights = self._statements._flights
        landed = flights.landed
        found = self._look_up(cache, key)
        if found is not None:
            return self._hit(found, at)
        flight, is_mine = flights.join(key)
        if not is_mine:
            outcome = flights.wait(key, flight)
            if outcome is not None:
                self._wait_is_over(outcome)
                return outcome.again()
            return self.compute_and_count(cache, ttl)
        try:
            # Those who wait have the same key: at the time of their call the
            # versions were those of this one's, or older.
            flight.outcome = result = self._lead(
                cache, key, ttl, look_again=flights.landed != landed
            )
            return result.again()
        finally:
            flights.leave(key, flight)

    def _lead(
        self, cache: BaseCache, key: str, ttl: float, *, look_again: bool
    ) -> Result:
        """The result, computed by one process of those that share a cache.

        ``look_again``: another thread may have stored it since it was not
        found.
        """
        found = self._look_up(cache, key) if look_again else None
        if found is not None:
            self._wait_is_over(found)
            return found
        if isinstance(cache, _OF_ONE_PROCESS):
            return self.compute_and_count(cache, ttl)
        side = self._statements._replica.side
        until = time.monotonic() + PATIENCE
        has_waited = False
        while (turn := side.try_flight(key)) is None and time.monotonic() < until:
            time.sleep(_POLL)
            has_waited = True
        try:
            found = self._look_up(cache, key) if has_waited else None
            if found is not None:
                self._wait_is_over(found)
                return found
            return self.compute_and_count(cache, ttl)
        finally:
            if turn is not None:
                side.end_flight(turn)

    def _wait_is_over(self, found: Result) -> None:
        self._end("wait", Why.WAITED, found)
        self._plan.repeats.in_vain = 0

    def key(self) -> str | None:
        """Where the result is kept, if it is."""
        return self._key(self._at_now())

    def _at_now(self) -> At:
        versions = self._statements.versions
        return At(versions.schema, versions.of(self._scopes))

    def _key(self, at: At) -> str | None:
        # Mostly, what is read is at the versions that were looked up.
        if self._known_key is None or self._known_key[0] != at:
            use = self._use
            key = key_of(
                use.policy, use.action, at, self._sql, self._params, self._part
            )
            self._known_key = at, key
        return self._known_key[1]

    def _look_up(self, cache: BaseCache, key: str) -> Result | None:
        try:
            data = cache.get(key)
            return None if data is None else decode(data)
        except Undecodable as error:
            self.count("broken")
            logger.warning("The result %s cannot be read: %s", key, error)
        except Exception as error:
            # Any cache serves, so any error is possible. The replica has
            # the answer.
            self.count("failed")
            logger.warning("The cache %r failed: %s", self._use.policy.cache, error)
        return None

    def compute_and_count(
        self, cache: BaseCache, ttl: float, why: Why = Why.ABSENT
    ) -> Result:
        """The result from the replica, which is stored, and was missed."""
        result = self.compute(cache, ttl)
        self._end("miss", why, result)
        if computed and self._reading is not None:
            for tell_of in computed:
                tell_of(self._reading, self._sql, self._params)
        return result

    def compute_rows(self, reading: OfRows) -> Result:
        """The result from the replica; who asks for it keeps its rows."""
        taken = reading.taken
        result, taken.at = self._statements.compute(
            self._reader, self._sql, self._params, self._plan, reading.scopes
        )
        self._end("miss", Why.ABSENT, result)
        return result

    def compute(self, cache: BaseCache, ttl: float) -> Result:
        """The result from the replica, which is stored."""
        statements = self._statements
        result, at = statements.compute(
            self._reader, self._sql, self._params, self._plan, self._scopes
        )
        if self.taken is not None:
            self.taken.at = at
        if at is not None and len(result.rows) <= MOST_ROWS:
            key, data = self._key(at), encode(result)
            if key is not None and data is not None:
                self._store(cache, key, data, ttl)
        return result

    def _store(self, cache: BaseCache, key: str, data: bytes, ttl: float) -> None:
        self._plan.repeats.in_vain += 1
        self._statements.note_asked(self._sql, self._params)
        try:
            cache.set(key, data, ttl)
            if self.taken is not None:
                self.taken.was_stored = True
        except Exception as error:  # as above
            self.count("failed")
            logger.warning("The cache %r failed: %s", self._use.policy.cache, error)


_statements: weakref.WeakKeyDictionary[Replica, Statements] = (
    weakref.WeakKeyDictionary()
)


def statements_of(replica: Replica) -> Statements:
    """The statements of ``replica``; the same object for all threads."""
    found = _statements.get(replica)
    if found is None:
        found = _statements.setdefault(replica, Statements(replica))
    return found
