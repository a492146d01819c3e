"""A run from its seed: what is done when, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from django.db import OperationalError

from s3cache.exceptions import (
    CommitOutcomeUnknown,
    EntryFormatError,
    LogDiverged,
    StoreError,
    StoreUnavailable,
)
from s3cache.log import effects as e
from s3cache.log.catch_up import catch_up
from s3cache.log.commit import CommitOptions, commit
from s3cache.log.head import Head, encode_head
from s3cache.log.keys import HEAD

from . import keeper
from .database import Statements, initial
from .host import NO_HAZARDS, Hazards, Host, Process, Run, Task
from .oracle import Oracle
from .store import DAY, NO_FAULTS, Faults, Network, Store
from .workload import ACCOUNTS, BALANCE, COUNTERS, Increment, Write, some_batch
from .world import Violation, World

DATABASE = "db"

FAULTS = (
    "lost_request",
    "lost_answer",
    "late",
    "stale",
    "error_before",
    "error_after",
    "conflict",
    "duplicate",
    "refused",
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything about a run that its seed decides.

    ``phases`` are (start, seconds) of busy times; between them hosts are
    mostly quiet, and the keepers go on.
    """

    hosts: int = 3
    processes: int = 2
    threads: int = 1
    think: float = 0.3
    writes: float = 0.7
    phases: tuple[tuple[float, float], ...] = ((0.0, 6.0),)
    faults: Faults = NO_FAULTS
    hazards: Hazards = NO_HAZARDS
    latency: tuple[float, float] = (0.005, 0.05)
    whole_seconds: bool = True
    page_size: int = 1000
    keepers: bool = True
    timeout: float = 20.0
    batch: Callable[[Random], Sequence[Statements]] = field(default=some_batch)


def scenario(seed: int) -> Scenario:
    """The scenario of a seed. It has its own randomness: see ``simulate``."""
    random = Random(f"scenario {seed}")
    chosen = Scenario(
        hosts=random.choice([2, 2, 3, 3, 4]),
        processes=random.choice([1, 2, 2, 3]),
        threads=random.choice([1, 1, 2]),
        think=random.choice([0.1, 0.3, 0.6]),
        writes=random.choice([0.5, 0.7, 0.9]),
        whole_seconds=random.random() < 0.7,
        page_size=random.choice([3, 7, 1000]),
        timeout=random.choice([3.0, 10.0, 20.0]),
        keepers=random.random() < 0.9,
    )
    rough = random.choice([0.0, 0.0, 0.02, 0.1, 0.25])
    if rough:
        chosen = replace(chosen, faults=some_faults(random, rough))
    if random.random() < 0.7:
        scale = random.choice([0.0005, 0.002, 0.006])
        chosen = replace(
            chosen,
            hazards=Hazards(
                switch=random.choice([0.02, 0.1, 0.3]),
                kill=random.choice([0.0, scale]),
                kill_host=random.choice([0.0, 0.0, scale / 3]),
                pause=random.choice([0.0, scale]),
                long=random.choice([0.0, scale]),
            ),
        )
    if random.random() < 0.7:
        chosen = replace(chosen, phases=some_phases(random))
    return chosen


def some_faults(random: Random, rough: float) -> Faults:
    """Faults of which about ``rough`` of all requests have one."""
    weights = {kind: random.choice([0.0, 1.0, 1.0, 4.0]) for kind in FAULTS}
    weights["refused"] /= 4
    total = sum(weights.values()) or 1.0
    return Faults(
        **{kind: rough * weight / total for kind, weight in weights.items()},
        no_date=random.choice([0.0, 0.0, 0.1, 1.0]),
        timeout=random.choice([0.5, 2.0, 6.0]),
    )


def some_phases(random: Random) -> tuple[tuple[float, float], ...]:
    """Busy times with hours or days between them.

    Often a day, to the second: then the trim passes over what was written in
    one phase while the next one writes.
    """
    phases = [(0.0, random.uniform(1.0, 5.0))]
    for _ in range(random.randint(1, 3)):
        start, length = phases[-1]
        gap = random.choice(
            [
                1800.0,
                3600.0 + random.uniform(-20.0, 20.0),
                5 * 3600.0,
                DAY - random.uniform(0.0, length),
                DAY - random.uniform(0.0, length),
                DAY + random.uniform(0.0, 4000.0),
                2.5 * DAY,
            ]
        )
        phases.append((start + gap, random.uniform(1.0, 5.0)))
    return tuple(phases)


class Simulation(Run):
    """One run: hosts, clients and keepers until nothing is left to happen."""

    def __init__(
        self, seed: int, plan: Scenario | None = None, *, tracing: bool = False
    ) -> None:
        world = World(seed, tracing=tracing)
        self.seed = seed
        self.plan = plan = plan or scenario(seed)
        store = Store(world, whole_seconds=plan.whole_seconds, page_size=plan.page_size)
        start = initial(COUNTERS, ACCOUNTS, BALANCE)
        super().__init__(world, store, Oracle(world, store, DATABASE, start))
        store.put(HEAD, encode_head(Head(DATABASE)))
        self.hosts = [
            Host(self, name, start, world.random.uniform(*plan.latency))
            for name in "ABCD"[: plan.hosts]
        ]
        self.network = Network(world, store, plan.faults)
        self.hazards = plan.hazards
        self.finishing = False
        self._serial = 0
        self._process_serial = 0

    def play(self) -> None:
        """Run it all; raises ``Violation``."""
        world, plan = self.world, self.plan
        for host in self.hosts:
            for _ in range(plan.processes):
                self._start_process(host)
            if plan.keepers:
                self._start_keeper(host)
        last, length = plan.phases[-1]
        world.run(last + length)
        self._finish()
        self.oracle.check_end()

    # Processes and what they do

    def _start_process(self, host: Host) -> None:
        self._process_serial += 1
        process = Process(host, str(self._process_serial))
        for thread in range(self.plan.threads):
            Client(self, process, thread).rest()

    def _start_keeper(self, host: Host) -> None:
        Keeper(self, Process(host, "k")).rest()

    def restart(self, process: Process) -> None:
        host, is_keeper = process.host, process.name.endswith("k")
        process.kill()
        boots = host.boots
        delay = self.world.random.expovariate(0.5)
        start = self._start_keeper if is_keeper else self._start_process

        def again() -> None:
            if host.boots == boots:
                start(host)

        self.world.after(delay, again)

    def reboot(self, host: Host) -> None:
        had_keeper = any(p.name.endswith("k") for p in host.processes)
        count = self.plan.processes
        host.crash()

        def again() -> None:
            for _ in range(count):
                self._start_process(host)
            if had_keeper:
                self._start_keeper(host)

        self.world.after(self.world.random.expovariate(0.3), again)

    def long_pause(self) -> float:
        """Until some moment in a later phase, or a little before it."""
        random, now = self.world.random, self.world.now
        later = [phase for phase in self.plan.phases if phase[0] > now]
        if not later:
            return random.choice([60.0, 3600.0, 5000.0, DAY, 1.5 * DAY])
        start, length = random.choice(later)
        return start + random.uniform(-0.2, 1.0) * length - now

    def next_moment(self, delay: float) -> float | None:
        """When a client that rests goes on: mostly within a phase."""
        when = self.world.now + delay
        for start, length in self.plan.phases:
            if when < start:
                if self.world.chance(0.05):
                    return self.world.random.uniform(when, start)
                return start + delay
            if when < start + length:
                return when
        return None

    def run_write(
        self,
        process: Process,
        name: str,
        batch: Sequence[Statements],
        then: Callable[[], None],
    ) -> Write:
        """Have ``process`` commit ``batch``."""
        self._serial += 1
        write = Write(self._serial, batch, began=self.oracle.newest)
        self.oracle.writes.append(write)

        def ended(position: Any, error: Exception | None) -> None:
            if error is None:
                self.oracle.check_acknowledged(write, position, task.results)
            elif isinstance(error, CommitOutcomeUnknown):
                write.status = "unknown"
            else:
                write.status = "failed"
            write.told = repr(error)
            self._check_error(task, error)
            then()

        def abandoned() -> None:
            write.status = "lost"

        timeout = 60.0 if self.finishing else self.plan.timeout
        options = CommitOptions(host=process.host.name, timeout=timeout)
        task = Task(process, name, commit(options), ended, abandoned, write)
        self.world.note(task, f"{write}")
        task.begin()
        return write

    def run_read(self, process: Process, name: str, then: Callable[[], None]) -> None:
        """Have ``process`` read what is the newest now."""
        began = self.oracle.newest
        host, boots = process.host, process.host.boots

        def ended(position: Any, error: Exception | None) -> None:
            self._check_error(task, error)
            if error is None:
                self.oracle.check_fresh(task, position.number, began)
                if host.boots == boots:
                    self.oracle.check_fresh(task, host.replica.position.number, began)
            then()

        task = Task(process, name, catch_up(), ended, lambda: None)
        self.world.note(task, "catch up")
        task.begin()

    def _check_error(self, task: Task, error: Exception | None) -> None:
        if isinstance(error, (LogDiverged, EntryFormatError)):
            raise Violation(f"{task} was told {error!r}, but the log is whole")
        if error is not None and not isinstance(error, OperationalError):
            raise Violation(f"{task} was told {error!r}")
        calm = self.plan.faults is NO_FAULTS and self.plan.hazards is NO_HAZARDS
        crowded = isinstance(error, StoreUnavailable) and "were first" in str(error)
        if calm and isinstance(error, (StoreError, CommitOutcomeUnknown)) > crowded:
            raise Violation(f"{task} was told {error!r} on a calm day")

    # The end

    def _finish(self) -> None:
        """Mend everything, wait for all that is under way, and compare."""
        world = self.world
        world.note("", "-- from here on nothing goes wrong --")
        self.finishing = True
        self.hazards = NO_HAZARDS
        self.network.faults = NO_FAULTS
        world.run()
        for host in self.hosts:
            if not host.processes:
                raise Violation(f"{host} never came back")
            self._must_commit(host)
        for host in self.hosts:
            self._must_catch_up(host)
            if host.replica.position.number != self.oracle.newest:
                raise Violation(f"{host} stays behind")

    def _must_commit(self, host: Host) -> None:
        write = self.run_write(host.processes[0], "end", [Increment(1)], lambda: None)
        self.world.run()
        if write.status != "acknowledged":
            raise Violation(f"{host} cannot commit any more: {write.told}")

    def _must_catch_up(self, host: Host) -> None:
        errors: list[Exception | None] = []
        task = Task(
            host.processes[0],
            "end",
            catch_up(),
            lambda position, error: errors.append(error),
            lambda: None,
        )
        task.begin()
        self.world.run()
        if errors != [None]:
            raise Violation(f"{host} cannot read any more: {errors}")


class Client:
    """One thread that reads and writes, and rests in between."""

    def __init__(self, run: Simulation, process: Process, thread: int) -> None:
        self.run = run
        self.process = process
        self.name = "abc"[thread]

    def rest(self) -> None:
        run = self.run
        if run.finishing:
            return
        when = run.next_moment(run.world.random.expovariate(1 / run.plan.think))
        if when is not None:
            run.world.at(when, self.act)

    def act(self) -> None:
        run, process = self.run, self.process
        if not process.alive or run.finishing:
            return
        if run.world.now < process.paused_until:
            run.world.at(process.paused_until, self.act)
        elif run.world.random.random() < run.plan.writes:
            batch = run.plan.batch(run.world.random)
            run.run_write(process, self.name, batch, self.rest)
        else:
            run.run_read(process, self.name, self.rest)


class Keeper:
    """The process of a host that packs and trims."""

    def __init__(self, run: Simulation, process: Process) -> None:
        self.run = run
        self.process = process

    def rest(self) -> None:
        run = self.run
        if run.finishing:
            return
        busy = any(s - 5.0 <= run.world.now <= s + n for s, n in run.plan.phases)
        delay = run.world.random.expovariate(1 / (2.0 if busy else 6 * 3600.0))
        when = run.world.now + delay
        for start, _length in run.plan.phases:
            if run.world.now < start - 2.0 < when:
                when = start - 2.0 + 3.0 * run.world.random.random()
                break
        run.world.at(when, self.act)

    def act(self) -> None:
        run = self.run
        if not self.process.alive or run.finishing:
            return
        steps: e.Steps[None] = keeper.keep(run.world.random)
        task = Task(
            self.process, "k", steps, lambda result, error: self.rest(), lambda: None
        )
        task.begin()


def simulate(
    seed: int, plan: Scenario | None = None, *, tracing: bool = False
) -> Simulation:
    """Play the run of ``seed``; raises ``Violation``.

    The scenario and the run draw from separate generators, so that a pinned
    seed survives a change of how scenarios are chosen if its plan is given.
    """
    run = Simulation(seed, plan, tracing=tracing)
    run.play()
    return run


__all__ = ["Scenario", "Simulation", "scenario", "simulate"]
