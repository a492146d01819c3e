"""SELECTs, answered from the cache or from the replica."""

from __future__ import annotations

import logging
import sqlite3
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.cache import BaseCache, caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError

from s3cache.caches import MemoryCache
from s3cache.hints import NO_HINTS
from s3cache.replica import meta
from s3cache.replica.file import transaction
from s3cache.replica.results import Result
from s3cache.replica.tables import Schema
from s3cache.results.codec import Undecodable, decode, encode
from s3cache.results.counters import counters
from s3cache.results.flights import PATIENCE, Flights
from s3cache.results.keys import key_of
from s3cache.results.narrowing import narrowed, partition_of
from s3cache.results.plans import Plan, Plans, plan_of
from s3cache.results.policy import Policy, policy_for
from s3cache.results.queries import queries
from s3cache.results.reading import Reading, Taken, action_of, label_and_action
from s3cache.results.repeats import Asked
from s3cache.results.versions import At, PartScope, Scope, Versions
from s3cache.results.watching import Why, tell, watchers

if TYPE_CHECKING:
    from s3cache.replica.reader import Reader
    from s3cache.replica.replica import Replica

__all__ = ["MOST_ROWS", "UNSUITABLE", "Place", "Statements", "statements_of"]

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

    def redefine(self, function: str) -> None:
        """The project has a function of its own that is called so."""
        if function.lower() not in self._redefined:
            self._redefined |= {function.lower()}
            self.versions.plans = Plans()

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
        action = action_of(reading.query) if reading is not None else "query"
        call = _Call(self, reader, sql, params, plan, policy, action, stale=stale)
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
        by_chunks = reading is not None and reading.by_chunks
        if not (is_wanted or self._is_worth_it(plan, sql, params, by_chunks)):
            if reading is None or isinstance(cache, _OF_ONE_PROCESS):
                return call.pass_by()
            call.narrow(reading)
            return call.find_or_pass_by(cache)
        if reading is not None:
            call.narrow(reading)
        ttl = policy.ttl if hints.ttl is None else hints.ttl
        if (hints.renew or hints.fresh) and call.taken is not None:
            call.taken.replaces = True
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
        action = action_of(reading.query)
        call = _Call(self, reader, sql, params, plan, policy, action)
        call.narrow(reading)
        key = call.key()
        return None if key is None else Place(policy.cache, key)

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
        if any(view in sql.lower() for view in self.versions.views):
            return tables, ""
        found = narrowed(reading.query, sql, self._schema(reader), reading.connection)
        if found is None or found[0] not in tables:
            return tables, ""
        table, scope = found
        if isinstance(scope, PartScope):
            try:
                self._know(reader, scope)
            except (OperationalError, sqlite3.OperationalError) as error:
                # Somebody holds the file, for a migration perhaps. It is only
                # a matter of how long the result stays valid.
                logger.info("Parts of %s are not known yet: %s", table, error)
                return tables, ""
        scopes: tuple[Scope, ...] = tuple(
            scope if one == table else one for one in tables
        )
        return scopes, str(scope)

    def _schema(self, reader: Reader) -> Schema:
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
        with replica.writer.held():
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
        with reader.held() as connection:
            connection.execute("BEGIN")
            try:
                at = versions.at(connection, scopes)
                result = reader.run(sql, params)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        # With another schema the statement may read other tables.
        return result, at if versions.plans.get(sql) is plan else None


class _Call:
    """One execution of one statement."""

    __slots__ = (
        "_action",
        "_known_key",
        "_params",
        "_part",
        "_partition",
        "_plan",
        "_policy",
        "_reader",
        "_reading",
        "_scopes",
        "_sql",
        "_stale",
        "_started",
        "_statements",
        "taken",
    )

    def __init__(
        self,
        statements: Statements,
        reader: Reader,
        sql: str,
        params: Any,
        plan: Plan,
        policy: Policy,
        action: str,
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
        self._policy = policy
        self._action = action
        self._partition = ""
        self._stale = stale
        self._reading: Reading | None = None
        self._started = time.perf_counter()

    def count(self, event: str, why: Why = Why.ABSENT) -> None:
        """Count that this happened, and say why."""
        label = self._policy.counted
        counters.count(
            label,
            self._action,
            event,
            database=self._statements.database,
            partition=self._partition,
        )
        if watchers:
            tell(label, self._action, event, why, self._plan.tables)

    def _end(self, event: str, why: Why, result: Result) -> None:
        """Count how it was answered: once, when it was."""
        self.count(event, why)
        if self._stale:
            self.count("stale")
        queries.note(
            self._statements.database,
            self._policy.counted,
            self._action,
            self._sql,
            self._plan.tables,
            event,
            time.perf_counter() - self._started,
            len(result.rows),
        )

    def bypass(self, why: Why) -> Result:
        """The result, past the cache."""
        result = self._reader.execute(self._sql, self._params)
        self._end("bypass", why, result)
        return result

    def pass_by(self) -> Result:
        """The result, which probably nobody asks for again: not stored."""
        result = self._reader.execute(self._sql, self._params)
        self._end("miss", Why.FIRST, result)
        return result

    def find_or_pass_by(self, cache: BaseCache) -> Result:
        """The same, unless somebody else has stored it: warmed it, perhaps.

        Not by this process, which would know of it.
        """
        at = self._at_now()
        key = self._key(at)
        found = None if key is None else self._look_up(cache, key)
        return self.pass_by() if found is None else self._hit(found, at)

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
            taken.connection, taken.scopes = reading.connection, self._scopes
            taken.sql, taken.repeats = self._sql, self._plan.repeats

    def answer(self, cache: BaseCache, ttl: float) -> Result:
        """The result, from the cache if it is there."""
        at = self._at_now()
        key = self._key(at)
        if key is None:
            return self.bypass(Why.NO_KEY)
        found = self._look_up(cache, key)
        if found is not None:
            return self._hit(found, at)
        flight, is_mine = self._statements._flights.join(key)
        if not is_mine:
            outcome = flight.wait()
            if outcome is not None:
                self._end("wait", Why.WAITED, outcome)
                self._plan.repeats.in_vain = 0
                return outcome.again()
            return self.compute_and_count(cache, ttl)
        try:
            # Those who wait have the same key: at the time of their call the
            # versions were those of this one's, or older.
            flight.outcome = result = self._lead(cache, key, ttl)
            return result.again()
        finally:
            self._statements._flights.leave(key, flight)

    def _lead(self, cache: BaseCache, key: str, ttl: float) -> Result:
        """The result, computed by one process of those that share a cache."""
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
                self._end("wait", Why.WAITED, found)
                self._plan.repeats.in_vain = 0
                return found
            return self.compute_and_count(cache, ttl)
        finally:
            if turn is not None:
                side.end_flight(turn)

    def key(self) -> str | None:
        """Where the result is kept, if it is."""
        return self._key(self._at_now())

    def _at_now(self) -> At:
        versions = self._statements.versions
        return At(versions.schema, versions.of(self._scopes))

    def _key(self, at: At) -> str | None:
        # Mostly, what is read is at the versions that were looked up.
        if self._known_key is None or self._known_key[0] != at:
            key = key_of(
                self._policy, self._action, at, self._sql, self._params, self._part
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
            logger.warning("The cache %r failed: %s", self._policy.cache, error)
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
            logger.warning("The cache %r failed: %s", self._policy.cache, error)


_statements: weakref.WeakKeyDictionary[Replica, Statements] = (
    weakref.WeakKeyDictionary()
)


def statements_of(replica: Replica) -> Statements:
    """The statements of ``replica``; the same object for all threads."""
    found = _statements.get(replica)
    if found is None:
        found = _statements.setdefault(replica, Statements(replica))
    return found
