"""Hosts, their processes, and how they perform the effects of a protocol.

What the protocol is told here is what the operating system and SQLite would
do for it: a replica is one value for all processes of a host, a lock of a
process that dies is free at once, a stopped process finds its answers when it
wakes. A generator of a process that died is never resumed, and closing it
changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from django.db import OperationalError

from s3cache.exceptions import S3CacheError
from s3cache.keeper import beginning
from s3cache.keeper import effects as k
from s3cache.log import effects as e
from s3cache.log import outbox as o
from s3cache.log.entry import Statement
from s3cache.stores.base import Answer

from . import outbox
from .bus import BusFaults, Turns
from .database import State, apply, run_batch, tables_of
from .oracle import Oracle
from .packs import (
    Part,
    build_pack,
    cut,
    keys_in,
    load_pack,
    load_parts,
    packs_of,
    parts_of,
    schema_of,
    split,
    state_of,
    touched_by,
)
from .records import RecordPerformers
from .store import NO_FAULTS, Network, Request, Store
from .workload import Write
from .world import Violation, World, clock

if TYPE_CHECKING:
    from s3cache.log.catalog import Catalog, Pack
    from s3cache.log.effects import Effect, Position, Steps
    from s3cache.log.entry import Entry

    from .outbox import Outbox


@dataclass(frozen=True, slots=True)
class Hazards:
    """How often a process meets its fate, for each effect it asks for.

    ``pauses`` are the lengths to choose from, in seconds; ``long`` pauses end
    at moments that the scenario chooses.
    """

    switch: float = 0.1
    kill: float = 0.0
    kill_host: float = 0.0
    pause: float = 0.0
    pauses: tuple[float, ...] = (0.05, 0.5, 5.0, 30.0)
    long: float = 0.0
    disk_full: float = 0.0
    lose_replica: float = 0.2


NO_HAZARDS = Hazards()

SHARED = tuple(one.name for one in fields(e.Remember))

#: Seconds that who sends an outbox waits for another process that does.
OUTBOX_PATIENCE = 5.0

#: The most keys of a table that are noted while its packs are absent.
MOST_TOUCHED = 4

_WAITING = object()


class Lock:
    """An ``flock``: one holder, and no fairness beyond the queue."""

    def __init__(self) -> None:
        self.holder: Task | None = None
        self.waiting: deque[Task] = deque()

    def release(self, task: Task) -> None:
        """Give the lock to whoever waits, as the operating system does."""
        if self.holder is not task:
            return
        self.holder = None
        while self.waiting:
            chosen = self.waiting.popleft()
            if chosen.process.alive:
                self.holder = chosen
                chosen.wake(Held(self, chosen))
                return


class Held:
    """What the protocol holds; worth nothing once its process is dead."""

    def __init__(self, lock: Lock, task: Task) -> None:
        self._lock = lock
        self._task = task

    def __repr__(self) -> str:
        return "held"

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task.process.alive:
            self._lock.release(self._task)


@dataclass(slots=True)
class Replica:
    """A replica file: its position, its rows, and what it waits to learn."""

    position: Position
    state: State
    pending: dict[tuple[int, str], Write] = field(default_factory=dict)
    recent: tuple[Entry, ...] = ()
    """The entries that it has applied since it was made."""
    etags: dict[int, str] = field(default_factory=dict)
    """Their ETags, by number."""
    absent: tuple[Part, ...] = ()
    """The rows that it lacks, unless they are touched."""
    touched: frozenset[tuple[str, int]] = frozenset()
    """What entries have changed since it lacks packs."""

    def lacks(self, table: str, key: int) -> bool:
        return (table, key) not in self.touched and any(
            part.has(table, key) for part in self.absent
        )


class Host:
    """One machine with one replica, which survives its processes."""

    def __init__(self, run: Run, name: str, start: State, latency: float) -> None:
        self.run = run
        self.world = run.world
        self.name = name
        self.start = start
        self.latency = latency
        #: Whether it loads packs when they are needed.
        self.on_demand = False
        self.replica = self._no_replica()
        self.checkpoint = self.replica
        self.aside: list[Replica] = []
        self.commit_lock = Lock()
        self.rebuild_lock = Lock()
        #: What it writes behind; None: nothing.
        self.outbox: Outbox | None = None
        self.shared = e.HostState(host=name)
        self.processes: list[Process] = []
        self.record_etags: dict[str, str] = {}
        self.boots = 0
        self.seen = 0
        self._booted_at = -self.world.random.uniform(0.0, 5e6)

    def __str__(self) -> str:
        return self.name

    def locks(self) -> list[Lock]:
        """What its processes exclude each other by."""
        outbox = [self.outbox.lock] if self.outbox else []
        return [self.commit_lock, self.rebuild_lock, *outbox]

    def clock(self) -> float:
        """A clock that counts sleep, and begins anew with every boot."""
        return self.world.now - self._booted_at

    def crash(self) -> None:
        """Lose power. What was not checkpointed may be lost as well."""
        random = self.world.random
        for process in list(self.processes):
            process.kill()
        self.boots += 1
        self._booted_at = self.world.now - random.uniform(1.0, 60.0)
        self.shared = e.HostState(host=self.name)
        fate = random.random()
        if fate < self.run.hazards.lose_replica:
            self.world.note(self, "the host crashes and loses its replica")
            self.replica = self._no_replica()
        elif fate < 0.6:
            self.world.note(self, "the host crashes, its replica falls back")
            self.replica = replace(
                self.checkpoint, pending=dict(self.checkpoint.pending)
            )
        else:
            self.world.note(self, "the host crashes and keeps its replica")
        self.checkpoint = self.replica
        self.seen = 0

    def changed(self) -> None:
        """Check a replica in use after each of its changes."""
        position = self.replica.position
        self.run.oracle.check_replica(self, self.replica)
        if position.number < self.seen:
            raise Violation(f"{self} went back from {self.seen} to {position.number}")
        self.seen = position.number

    def _no_replica(self) -> Replica:
        return Replica(e.Position(""), self.start)


class Process:
    """A process of a host; ``tasks`` are its threads at work."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = f"{host.name}{name}"
        self.alive = True
        self.paused_until = 0.0
        #: Of one that drops the database: whether it knows which one.
        self.has_looked = False
        self.tasks: list[Task] = []
        host.processes.append(self)

    def __str__(self) -> str:
        return self.name

    def kill(self) -> None:
        """``kill -9``: nothing of it runs any more, its locks are free."""
        self.alive = False
        self.host.processes.remove(self)
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            for lock in self.host.locks():
                lock.release(task)
            task.abandon()

    def pause(self, seconds: float) -> None:
        """``kill -STOP``, or the lid of a laptop; until it wakes again."""
        self.world_note(f"sleeps until {clock(self.host.world.now + seconds)}")
        self.paused_until = max(self.paused_until, self.host.world.now + seconds)

    def world_note(self, text: str) -> None:
        self.host.world.note(self, text)


class Task:
    """One thread of a process that runs one protocol."""

    def __init__(
        self,
        process: Process,
        name: str,
        steps: Steps[Any],
        ended: Callable[[Any, Exception | None], None],
        abandoned: Callable[[], None],
        write: Write | None = None,
    ) -> None:
        self.process = process
        self.host = process.host
        self.run = process.host.run
        self.world = self.run.world
        self.name = f"{process.name}.{name}"
        self.write = write
        self.results: list[Any] = []
        self.building: Replica | None = None
        self.surveyed: Replica | None = None
        self.told: e.StartOver | None = None
        self._steps = steps
        self._ended = ended
        self._abandoned = abandoned
        self._asked: Effect | None = None
        process.tasks.append(self)

    def __str__(self) -> str:
        return self.name

    def begin(self) -> None:
        self._go(None, None)

    def abandon(self) -> None:
        """The process died; the protocol must not notice."""
        self._abandoned()

    def answer(self, result: Any) -> None:
        """Give the protocol an answer that arrives just now."""
        self._resume(result, None)

    def wake(self, result: Any) -> None:
        """Give the protocol what it waited for, as soon as it may run."""
        self.world.after(0.0, self._resume, result, None)

    def fail(self, error: Exception) -> None:
        """Raise ``error`` where the protocol waits."""
        self.world.after(0.0, self._resume, None, error)

    def _resume(self, result: Any, error: Exception | None) -> None:
        process = self.process
        if not process.alive:
            return
        if self.world.now < process.paused_until:
            asleep = process.paused_until - self.world.now
            if isinstance(result, Answer) and asleep > 60.0:
                # The connection may not survive so long a silence.
                result = self.world.random.choice([result, Answer(0)])
            self.world.at(process.paused_until, self._resume, result, error)
            return
        if self._meets_its_fate(result, error):
            return
        self._go(result, error)

    def _go(self, result: Any, error: Exception | None) -> None:
        run, world, steps = self.run, self.world, self._steps
        while True:
            if world.tracing and self._asked is not None:
                told = describe(result) if error is None else repr(error)
                world.note(self, f"{describe(self._asked)} -> {told}")
            try:
                effect = steps.throw(error) if error else steps.send(result)
            except StopIteration as stop:
                self._end(stop.value, None)
                return
            except (S3CacheError, OperationalError) as failed:
                self._end(None, failed)
                return
            self._asked = effect
            error = None
            run.effects += 1
            try:
                result = run.perform(self, effect)
            except OperationalError as failed:
                result, error = None, failed
                continue
            if result is _WAITING:
                if world.tracing:
                    world.note(self, describe(effect))
                    self._asked = effect
                return
            if world.random.random() < run.hazards.switch:
                delay = world.random.expovariate(100.0)
                world.after(delay, self._resume, result, None)
                return

    def _meets_its_fate(self, result: Any, error: Exception | None) -> bool:
        hazards = self.run.hazards
        if hazards is NO_HAZARDS:
            return False
        random = self.world.random
        fate = random.random()
        if fate < hazards.kill:
            self.world.note(self.process, "is killed")
            self.run.restart(self.process)
            return True
        fate -= hazards.kill
        if fate < hazards.kill_host:
            self.run.reboot(self.host)
            return True
        fate -= hazards.kill_host
        if fate < hazards.pause:
            seconds = random.choice(hazards.pauses) * (0.5 + random.random())
        elif fate < hazards.pause + hazards.long:
            seconds = self.run.long_pause()
        else:
            return False
        asleep = [self.process]
        if random.random() < 0.3:
            asleep = self.host.processes
        for process in asleep:
            process.pause(seconds)
        self.world.at(self.process.paused_until, self._resume, result, error)
        return True

    def _end(self, result: Any, error: Exception | None) -> None:
        self.process.tasks.remove(self)
        if self.world.tracing:
            told = describe(result) if error is None else repr(error)
            self.world.note(self, f"ends: {told}")
        self._ended(result, error)


class Run:
    """One world with its hosts: performs what their protocols ask for."""

    def __init__(self, world: World, store: Store, oracle: Oracle) -> None:
        self.world = world
        self.store = store
        self.oracle = oracle
        self.network = Network(world, store, NO_FAULTS)
        self.hazards = NO_HAZARDS
        self.bus_faults = BusFaults()
        self.turns = Turns(world, lambda: self.bus_faults)
        self.hosts: list[Host] = []
        self.effects = 0
        self._tokens = 0
        self._performers: dict[type, Callable[[Task, Any], Any]] = {
            e.Get: self._get,
            e.GetMany: self._get_many,
            e.Create: self._create,
            e.ListPage: self._list_page,
            e.Where: self._where,
            e.Apply: self._apply,
            e.Proved: self._proved,
            e.Stage: self._stage,
            e.KeepPending: self._keep_pending,
            e.StartOver: self._start_over,
            e.TakeOver: self._take_over,
            e.Now: self._now,
            e.Sleep: self._sleep,
            e.Token: self._token,
            e.Recall: self._recall,
            e.Remember: self._remember,
            e.HoldCommitLock: self._hold_commit_lock,
            e.HoldRebuildLock: self._hold_rebuild_lock,
            e.TakeTurn: self._take_turn,
            e.Load: self._load,
            e.Loaded: self._loaded,
            e.Absent: self._absent,
            e.Repack: self._repack,
            k.Replace: self._replace,
            k.Delete: self._delete,
            k.Survey: self._survey,
            k.Build: self._build,
            beginning.Describe: lambda task, effect: effect.head,
            o.HoldOutbox: self._hold_outbox,
            **outbox.PERFORMERS,
            **RecordPerformers(self).by_effect,
        }

    def perform(self, task: Task, effect: Effect) -> Any:
        """The result of ``effect``, or ``_WAITING`` if it comes later."""
        return self._performers[type(effect)](task, effect)

    def restart(self, process: Process) -> None:
        raise NotImplementedError

    def reboot(self, host: Host) -> None:
        raise NotImplementedError

    def long_pause(self) -> float:
        raise NotImplementedError

    # The store

    def _send(
        self, task: Task, request: Request, reply: Callable[..., None] | None = None
    ) -> Any:
        self.network.send(task, request, task.host.latency, reply or task.answer)
        return _WAITING

    def _get(self, task: Task, effect: e.Get) -> Any:
        return self._send(task, Request("GET", effect.key))

    def _get_many(self, task: Task, effect: e.GetMany) -> Any:
        if not effect.keys:
            return []
        answers: dict[str, Answer] = {}

        def reply_for(key: str) -> Callable[[Answer], None]:
            def reply(answer: Answer) -> None:
                answers[key] = answer
                if len(answers) == len(effect.keys):
                    task.wake([answers[key] for key in effect.keys])

            return reply

        for key in effect.keys:
            self._send(task, Request("GET", key), reply_for(key))
        return _WAITING

    def _create(self, task: Task, effect: e.Create) -> Any:
        request = Request("CREATE", effect.key, effect.body, origin=task.write)
        return self._send(task, request)

    def _list_page(self, task: Task, effect: e.ListPage) -> Any:
        return self._send(task, Request("LIST", effect.prefix, etag=effect.start_after))

    # The replica

    def _replica(self, task: Task) -> Replica:
        return task.building or task.host.replica

    def _where(self, task: Task, effect: e.Where) -> Position:
        return self._replica(task).position

    def _apply(self, task: Task, effect: e.Apply) -> Position | e.Lacking:
        replica, entry = self._replica(task), effect.entry
        position = replica.position
        if not entry.follows(position.database, position.number, position.token):
            return position
        if entry.previous != position.token:
            raise Violation(f"{task} applies {entry.number} to another log")
        if self.world.chance(self.hazards.disk_full):
            raise OperationalError("database or disk is full")
        if replica.absent:
            if needed := self.needed_for(replica, entry):
                return e.Lacking(needed)
            replica.touched |= keys_in(entry.changes)
        replica.state = apply(replica.state, entry.changes)
        replica.recent += (entry,)
        replica.etags = {**replica.etags, entry.number: effect.etag}
        replica.position = e.Position(
            entry.database, entry.number, entry.token, effect.etag, effect.modified
        )
        for number, token in list(replica.pending):
            if number == entry.number:
                del replica.pending[number, token]
                happened = self.settles(entry, token)
                self.oracle.check_settled(number, token, happened)
        if replica is task.host.replica:
            task.host.changed()
            if self.world.random.random() < 0.1:
                task.host.checkpoint = replace(replica, pending=dict(replica.pending))
        return replica.position

    def needed_for(self, replica: Replica, entry: Entry) -> list[Pack]:
        """The packs without which ``entry`` cannot be applied."""
        if any(isinstance(change, Statement) for change in entry.changes):
            return packs_of(replica.absent)
        touched = replica.touched | keys_in(entry.changes)
        crowded = {
            table
            for table, _key in touched
            if sum(name == table for name, _ in touched) > MOST_TOUCHED
        }
        return packs_of(p for p in replica.absent if p.segment.table in crowded)

    def settles(self, entry: Entry, token: str) -> bool:
        """Whether ``entry`` is the commit that waited for its outcome."""
        return entry.token == token

    def _proved(self, task: Task, effect: e.Proved) -> None:
        replica = self._replica(task)
        if replica.position.number == effect.number and effect.date:
            replica.position = replace(replica.position, proved_at=effect.date)

    def _stage(self, task: Task, effect: e.Stage) -> e.Staged:
        if task.write is None:
            raise Violation(f"{task} has nothing to stage")
        replica = self._replica(task)
        if self.needed(task):
            raise Violation(f"{task} looks at rows that it lacks")
        changes, task.results = run_batch(task.write.batch, replica.state)
        return e.Staged(replica.position, changes, len(task.write.batch))

    def needed(self, task: Task) -> frozenset[str]:
        """The packs that the batch of ``task`` needs."""
        replica = task.host.replica
        if not replica.absent or task.write is None:
            return frozenset()
        seen = tables_of(task.write.batch, replica.state)
        parts = (part for part in replica.absent if part.segment.table in seen)
        return frozenset(part.pack.key for part in parts)

    def _keep_pending(self, task: Task, effect: e.KeepPending) -> None:
        if task.write is None:
            raise Violation(f"{task} has nothing to remember")
        replica = task.host.replica
        if effect.number > replica.position.number:
            replica.pending[effect.number, effect.token] = task.write

    def _start_over(self, task: Task, effect: e.StartOver) -> e.Begun:
        host, catalog = task.host, effect.catalog
        task.told = effect
        self.world.note(task, f"a new replica: {effect.reason}")
        if catalog is None:
            start = e.Position(effect.head.database)
            task.building = Replica(start, host.start)
            return e.Begun(start)
        # That of a new database, which has all tables here: nobody migrates.
        state = state_of(catalog) if catalog.schema else host.start
        task.building = Replica(catalog.position, state)
        in_use = host.replica
        if host.on_demand and not effect.whole and self.may_lack(in_use):
            task.building.absent = parts_of(catalog)
            return e.Begun(catalog.position)
        return e.Begun(catalog.position, catalog.packs)

    def may_lack(self, replica: Replica) -> bool:
        """Whether those who use ``replica`` look at what it lacks."""
        return bool(replica.absent) or not replica.position.database

    def _load(self, task: Task, effect: e.Load) -> None:
        replica = self._replica(task)
        if not replica.absent and replica is task.building:
            replica.state = load_pack(replica.state, effect.body)
            return
        parts = [part for part in replica.absent if part.pack.key == effect.pack.key]
        others = tuple(part for part in replica.absent if part not in parts)
        if parts and effect.first:
            first, *rest = split(parts[0], effect.body)
            others += (*rest, *parts[1:])
            parts = [first]
        replica.state = load_parts(replica.state, effect.body, parts, replica.touched)
        replica.absent = others
        left = {part.segment.table for part in replica.absent}
        replica.touched = frozenset(one for one in replica.touched if one[0] in left)
        task.host.changed()

    def _absent(self, task: Task, effect: e.Absent) -> e.Lacking:
        packs = [
            pack
            for pack in packs_of(self._replica(task).absent)
            if effect.keys is None or pack.key in effect.keys
        ]
        return e.Lacking(packs[: effect.limit], len(packs[effect.limit :]))

    def _repack(self, task: Task, effect: e.Repack) -> bool:
        replica, catalog = self._replica(task), effect.catalog
        if not replica.absent:
            return True
        if not self.may_repack(replica, catalog):
            return False
        replica.absent = cut(replica.absent, catalog)
        return True

    def may_repack(self, replica: Replica, catalog: Catalog) -> bool:
        """Whether what ``replica`` lacks may come from ``catalog``."""
        position = replica.position
        since = max(part.number for part in replica.absent)
        tokens = {entry.number: entry.token for entry in replica.recent}
        return (
            catalog.database == position.database
            and tokens.get(catalog.number, catalog.token) == catalog.token
            and since <= catalog.number <= position.number
        )

    def _loaded(self, task: Task, effect: e.Loaded) -> Position:
        return self._replica(task).position

    def _take_over(self, task: Task, effect: e.TakeOver) -> bool:
        built, task.building = task.building, None
        if built is None:
            raise Violation(f"{task} has no replica to put in place")
        host = task.host
        if not host.replica.position.is_at(effect.replaces):
            return False
        if built.absent and not self.may_lack(host.replica):
            raise Violation(f"{task} makes a whole replica lack packs")
        built.pending = {
            (number, token): write
            for (number, token), write in host.replica.pending.items()
            if number > built.position.number
        }
        if task.told is not None:
            self.oracle.check_take_over(host, task.told.diverged, task.told.head)
        if effect.replaces.database and not self.oracle.log.has(effect.replaces):
            host.seen = 0  # what it had seen is lost
        host.replica = host.checkpoint = built
        host.changed()
        return True

    # The host

    def _now(self, task: Task, effect: e.Now) -> float:
        return task.host.clock()

    def _sleep(self, task: Task, effect: e.Sleep) -> Any:
        self.world.after(effect.seconds, task.wake, None)
        return _WAITING

    def _token(self, task: Task, effect: e.Token) -> str:
        self._tokens += 1
        return f"t{self._tokens}"

    def _recall(self, task: Task, effect: e.Recall) -> e.HostState:
        return task.host.shared

    def _remember(self, task: Task, effect: e.Remember) -> None:
        host = task.host
        known = {
            name: value
            for name in SHARED
            if (value := getattr(effect, name)) is not None
        }
        host.shared = replace(host.shared, **known)

    def _hold_commit_lock(self, task: Task, effect: e.HoldCommitLock) -> Any:
        return self._hold(task, task.host.commit_lock, effect.deadline)

    def _hold_rebuild_lock(self, task: Task, effect: e.HoldRebuildLock) -> Any:
        return self._hold(task, task.host.rebuild_lock, effect.deadline)

    def _hold_outbox(self, task: Task, effect: o.HoldOutbox) -> Any:
        lock = outbox.outbox_of(task).lock
        return self._hold(task, lock, task.host.clock() + OUTBOX_PATIENCE)

    def _take_turn(self, task: Task, effect: e.TakeTurn) -> Any:
        return _WAITING if self.turns.take(task, effect.patience) else None

    def _hold(self, task: Task, lock: Lock, deadline: float) -> Any:
        if lock.holder is None:
            lock.holder = task
            return Held(lock, task)
        lock.waiting.append(task)

        def give_up() -> None:
            if task in lock.waiting:
                lock.waiting.remove(task)
                task.fail(OperationalError("the lock was not to be had in time"))

        self.world.after(deadline - task.host.clock(), give_up)
        return _WAITING

    # The keeper

    def _replace(self, task: Task, effect: k.Replace) -> Any:
        request = Request("REPLACE", effect.key, effect.body, effect.etag)
        return self._send(task, request)

    def _delete(self, task: Task, effect: k.Delete) -> Any:
        """Some at a time, in any order, and perhaps not all of them."""
        keys = list(effect.keys)
        self.world.random.shuffle(keys)
        waiting = [keys[start : start + 5] for start in range(0, len(keys), 5)]
        answers: list[Answer] = []

        def reply(answer: Answer) -> None:
            answers.append(answer)
            if len(answers) == len(waiting):
                failed = [one for one in answers if one.status != 200]
                task.wake((failed or answers)[0])

        for some in waiting:
            self._send(task, Request("DELETE", "", keys=some), reply)
        return _WAITING

    def _survey(self, task: Task, effect: k.Survey) -> k.Contents:
        replica = task.surveyed = replace(task.host.replica)
        return k.Contents(
            position=replica.position,
            etags=replica.etags,
            schema=schema_of(replica.state),
            sequences=replica.state.sequences,
            tables=list(replica.state.tables),
            touched=touched_by(replica.recent, effect.since, replica.position.number),
            versions={},
        )

    def _build(self, task: Task, effect: k.Build) -> k.Built:
        if task.surveyed is None:
            raise Violation(f"{task} has nothing to pack")
        return build_pack(task.surveyed.state, effect.segments, effect.limit)


def describe(thing: Any) -> str:
    """An effect or its result, in few words."""
    if isinstance(thing, Answer):
        words = [str(thing.status) if thing.status else "no answer"]
        if thing.keys:
            words.append(f"{thing.keys[0].key}..{thing.keys[-1].key}")
        if thing.more:
            words.append("and more")
        return " ".join(words)
    if isinstance(thing, e.Position):
        return f"at {thing.number} {thing.token or '-'} (proved {thing.proved_at:.0f})"
    if isinstance(thing, e.Create):
        return f"Create {thing.key}"
    if isinstance(thing, k.Replace):
        return f"Replace {thing.key} {thing.body.decode()}"
    if isinstance(thing, e.StartOver):
        number = thing.catalog.number if thing.catalog else 0
        return f"StartOver from {number}: {thing.reason}"
    if isinstance(thing, e.Apply):
        own = " (own)" if thing.own else ""
        return f"Apply {thing.entry.number} {thing.entry.token}{own}"
    if isinstance(thing, list):
        return "[" + ", ".join(describe(one) for one in thing) + "]"
    if isinstance(thing, e.Staged):
        return f"Staged({describe(thing.position)}, {list(thing.changes)})"
    if isinstance(thing, e.Remember):
        known = {
            name: round(value, 3)
            for name in SHARED
            if (value := getattr(thing, name)) is not None
        }
        return f"Remember({known})"
    if isinstance(thing, float):
        return f"{thing:.3f}"
    return repr(thing)
