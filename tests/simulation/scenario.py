"""A run from its seed: what is done when, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

from django.db import OperationalError

from s3cache.exceptions import (
    CommitOutcomeUnknown,
    EntryFormatError,
    LogDiverged,
    StoreError,
    StoreUnavailable,
)
from s3cache.keeper import ending
from s3cache.keeper.beginning import begin_in_place_of_dropped
from s3cache.keeper.effects import Survey
from s3cache.keeper.rounds import KeeperOptions, Kept, keep
from s3cache.log import entry
from s3cache.log.catch_up import CHECK_EVERY, advance, catch_up, load
from s3cache.log.commit import CommitOptions, commit
from s3cache.log.drive import with_other_steps
from s3cache.log.effects import Effect, Get, Stage, Steps
from s3cache.log.head import Head, encode_head
from s3cache.log.keys import HEAD
from s3cache.log.outbox import Mark, OldCopy, Sent, Submit, send
from s3cache.records.check import verify_records
from s3cache.records.writing import Recorded, RecordOptions, write_records

from .bus import BusFaults
from .database import Statements, initial
from .host import NO_HAZARDS, Hazards, Host, Lock, Process, Run, Task
from .oracle import Log, Oracle
from .outbox import Content, Outbox, SendBatch, Waiting, outbox_of, with_outboxes
from .records import RecordOracle, is_record
from .store import DAY, NO_FAULTS, Faults, Network, Request, Store
from .workload import ACCOUNTS, BALANCE, COUNTERS, Increment, Write, some_batch
from .world import Violation, World

if TYPE_CHECKING:
    from s3cache.log.effects import Position

T = TypeVar("T")

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
    mostly quiet, and the keepers go on. ``naps`` is how often a host, and as
    often one of its processes, sleeps from within one phase to another.
    ``disaster`` is what befalls the bucket, and in which phase. With
    ``records`` keepers write them, too; every so often (``edits``, seconds)
    somebody else changes one. With a ``bus`` hosts write in turns, and are
    told of each other's entries, as well as that bus can. ``behind`` is the
    share of writes that are written behind, and with ``old_copies`` somebody
    puts back an outbox that he has copied before.
    """

    hosts: int = 3
    processes: int = 2
    threads: int = 1
    think: float = 0.3
    writes: float = 0.7
    phases: tuple[tuple[float, float], ...] = ((0.0, 6.0),)
    naps: float = 0.0
    faults: Faults = NO_FAULTS
    hazards: Hazards = NO_HAZARDS
    latency: tuple[float, float] = (0.005, 0.05)
    whole_seconds: bool = True
    page_size: int = 1000
    keepers: bool = True
    records: bool = False
    purges: bool = True
    edits: float = 0.0
    keep_every: float = 2.0
    pack_after: int = 1
    lease: float = 60.0
    grace: float = DAY
    target: int = 3
    timeout: float = 20.0
    blob_above: int = entry.BLOB_ABOVE
    disaster: str = ""
    signing_keys: tuple[bytes, ...] = ()
    on_demand: bool = False
    bus: BusFaults | None = None
    behind: float = 0.0
    old_copies: bool = False
    batch: Callable[[Random], Sequence[Statements]] = field(default=some_batch)


def scenario(seed: int) -> Scenario:
    """The scenario of a seed, from randomness of its own."""
    random = Random(f"scenario {seed}")
    return random.choices(list(KINDS), list(KINDS.values()))[0](random)


def of_kind(kind: Callable[[Random], Scenario], seed: int) -> Scenario:
    """The scenario of a seed among those of one kind."""
    return kind(Random(f"{kind.__name__} {seed}"))


def calm(random: Random) -> Scenario:
    """Nothing goes wrong, and much is going on."""
    return Scenario(
        hosts=random.choice([2, 3, 4]),
        processes=random.choice([1, 2, 3]),
        threads=random.choice([1, 2]),
        think=random.choice([0.1, 0.3, 0.6]),
        writes=random.choice([0.5, 0.7, 0.9]),
        phases=((0.0, random.uniform(1.0, 5.0)),),
        whole_seconds=random.random() < 0.7,
        page_size=random.choice([5, 1000]),
        keep_every=10.0,
        timeout=20.0,
        blob_above=random.choice([entry.BLOB_ABOVE, entry.BLOB_ABOVE, 220]),
        signing_keys=random.choice([(), (), (), (b"new", b"old")]),
    )


def rough(random: Random) -> Scenario:
    """The network is bad."""
    return replace(
        calm(random),
        faults=some_faults(random, random.choice([0.03, 0.1, 0.3])),
        hazards=Hazards(
            switch=random.choice([0.05, 0.3]),
            pause=random.choice([0.0, 0.002]),
            disk_full=random.choice([0.0, 0.0, 0.02]),
        ),
        timeout=random.choice([3.0, 10.0, 20.0]),
    )


def crashing(random: Random) -> Scenario:
    """Processes and hosts die all the time."""
    scale = random.choice([0.001, 0.003, 0.01])
    return replace(
        rough(random),
        faults=some_faults(random, random.choice([0.02, 0.1])),
        hazards=Hazards(
            switch=random.choice([0.05, 0.3]),
            kill=scale,
            kill_host=random.choice([0.0, scale / 3]),
            pause=random.choice([0.0, scale]),
        ),
    )


def sleepy(random: Random) -> Scenario:
    """Hosts sleep over trims, and network and keeper are mostly well."""
    faults = NO_FAULTS
    if random.random() < 0.5:
        faults = some_faults(random, random.choice([0.02, 0.1]))
    return replace(
        calm(random),
        hosts=random.choice([2, 2, 3]),
        processes=random.choice([1, 2]),
        threads=1,
        think=random.choice([0.2, 0.5]),
        phases=some_phases(random),
        naps=random.choice([0.2, 0.5]),
        faults=faults,
        hazards=Hazards(
            switch=random.choice([0.05, 0.3]),
            pause=random.choice([0.0, 0.005, 0.02]),
            pauses=random.choice([(0.05, 0.3, 1.0), (0.5, 2.0, 30.0, 600.0)]),
            long=random.choice([0.0, 0.002, 0.01]),
        ),
        keep_every=random.choice([0.3, 1.0, 3.0]),
        pack_after=random.choice([1, 1, 5, 20]),
        lease=random.choice([0.0, 0.5, 60.0]),
        timeout=random.choice([3.0, 20.0]),
    )


def dormant(random: Random) -> Scenario:
    """Most hosts sleep in the middle of a commit, and wake days later."""
    phases = [(0.0, random.uniform(0.3, 1.5))]
    for _ in range(random.randint(1, 3)):
        start, length = phases[-1]
        gap = random.choice([4000.0, DAY + 60.0, 1.2 * DAY, 2.5 * DAY])
        phases.append((start + gap, random.uniform(0.3, 1.5)))
    faults = NO_FAULTS
    if random.random() < 0.5:
        faults = replace(
            some_faults(random, random.choice([0.05, 0.2])),
            no_date=random.choice([0.0, 0.1, 1.0]),
        )
    return Scenario(
        hosts=3,
        processes=random.choice([1, 2, 3]),
        think=random.choice([0.02, 0.1]),
        writes=0.8,
        phases=tuple(phases),
        naps=random.choice([0.5, 0.8]),
        faults=faults,
        hazards=Hazards(
            switch=0.3, pause=random.choice([0.0, 0.02]), pauses=(0.1, 0.5)
        ),
        page_size=random.choice([3, 1000]),
        keep_every=random.choice([0.3, 1.0, 5.0]),
        pack_after=random.choice([1, 1, 5, 20]),
        lease=random.choice([0.0, 0.5, 60.0]),
        timeout=random.choice([3.0, 20.0]),
    )


def everything(random: Random) -> Scenario:
    """All of it at once."""
    bad = crashing(random)
    return replace(
        sleepy(random),
        faults=bad.faults,
        hazards=replace(
            bad.hazards, long=random.choice([0.0, 0.002, 0.005]), disk_full=0.002
        ),
    )


def lacking(random: Random) -> Scenario:
    """Hosts lose their replicas, and load packs when they need them."""
    chosen = random.choice([rough, sleepy, sleepy, dormant])(random)
    return replace(
        chosen,
        hazards=replace(
            chosen.hazards, kill_host=random.choice([0.003, 0.01]), lose_replica=0.9
        ),
        writes=random.choice([0.1, 0.3]),
        keep_every=random.choice([0.3, 1.0]),
        pack_after=random.choice([1, 1, 5]),
        grace=random.choice([0.0, 0.0, 1.0]),
        target=random.choice([1, 2, 3]),
        on_demand=True,
    )


def disastrous(random: Random) -> Scenario:
    """Somebody wipes the bucket, or restores it, while hosts run."""
    chosen = random.choice([calm, rough, sleepy])(random)
    start, length = chosen.phases[0]
    phases = [(start, length)]
    for _ in range(random.randint(1, 3)):
        start += random.choice([60.0, 700.0, 1000.0])
        phases.append((start, random.uniform(1.0, 3.0)))
    for later, length in chosen.phases[1:2]:
        phases.append((start + later, length))
    return replace(
        chosen,
        phases=tuple(phases),
        disaster=random.choice(["restored", "copied back", "wiped", "made anew"]),
    )


def dropped(random: Random) -> Scenario:
    """Somebody drops the database, of which others are not told."""
    chosen = random.choice([disastrous, disastrous, sleepy, dormant])(random)
    return replace(
        chosen, disaster="dropped", naps=max(chosen.naps, random.choice([0.3, 0.8]))
    )


def remade(random: Random) -> Scenario:
    """Then a new one is made there, of which others are not told either."""
    return replace(dropped(random), disaster="made in its place")


def recording(random: Random) -> Scenario:
    """Hosts write records all the time, at the same time, and others too."""
    chosen = random.choice([calm, rough, crashing, sleepy, everything])(random)
    return replace(
        chosen,
        records=True,
        purges=random.random() < 0.7,
        edits=random.choice([0.0, 0.0, 1.0, 10.0]),
        keep_every=random.choice([0.05, 0.2, 1.0]),
        lease=random.choice([0.5, 5.0, 60.0]),
    )


def told(random: Random) -> Scenario:
    """There is a bus between the hosts, which fails as everything does."""
    chosen = random.choice([calm, rough, crashing, sleepy, everything])(random)
    often = random.choice([0.0, 0.05, 0.3])
    return replace(
        chosen,
        bus=BusFaults(
            lost=often,
            late=random.choice([0.0, often]),
            wrong=random.choice([0.0, often]),
            down=random.choice([0.0, 0.0, 0.2]),
        ),
    )


def behindhand(random: Random) -> Scenario:
    """Hosts take commits, and send them when they can."""
    chosen = random.choice([calm, rough, crashing, crashing, sleepy, everything])
    return replace(
        chosen(random),
        behind=random.choice([0.3, 0.8]),
        old_copies=random.random() < 0.3,
    )


def some_faults(random: Random, rough: float) -> Faults:
    """Faults of which about ``rough`` of all requests have one."""
    weights = {kind: random.choice([0.0, 1.0, 1.0, 4.0]) for kind in FAULTS}
    total = sum(weights.values()) or 1.0
    return Faults(
        **{kind: rough * weight / total for kind, weight in weights.items()},
        no_date=random.choice([0.0, 0.0, 0.1, 1.0]),
        skew=random.choice([0.0, 0.0, 0.0, 2.0, 300.0]),
        timeout=random.choice([0.5, 2.0, 6.0]),
    )


def some_phases(random: Random) -> tuple[tuple[float, float], ...]:
    """Busy times with hours or days between them.

    Often a day, to the second: then the trim passes over what was written in
    one phase while the next one writes.
    """
    phases = [(0.0, random.uniform(0.5, 3.0))]
    for _ in range(random.randint(1, 4)):
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
        phases.append((start + gap, random.uniform(0.5, 3.0)))
    return tuple(phases)


#: The kinds of days, and how often each comes.
KINDS = {
    calm: 10,
    rough: 20,
    crashing: 15,
    sleepy: 20,
    dormant: 20,
    everything: 15,
    disastrous: 10,
    dropped: 5,
    remade: 5,
    behindhand: 10,
    lacking: 20,
}


class Simulation(Run):
    """One run: hosts, clients and keepers until nothing is left to happen."""

    def __init__(
        self, seed: int, plan: Scenario | None = None, *, tracing: bool = False
    ) -> None:
        world = World(seed, tracing=tracing)
        self.seed = seed
        self._outboxes = 0
        self.plan = plan = plan or scenario(seed)
        store = Store(world, whole_seconds=plan.whole_seconds, page_size=plan.page_size)
        start = initial(COUNTERS, ACCOUNTS, BALANCE)
        if plan.behind:
            start = with_outboxes(start, plan.hosts)
        self.start = start
        super().__init__(world, store, Oracle(world, store, DATABASE, start))
        honoured = {"conditional_delete": plan.purges} if plan.records else {}
        store.put(HEAD, encode_head(Head(DATABASE, probe=honoured)))
        self.records = RecordOracle(DATABASE)
        self.hosts = [
            Host(self, name, start, world.random.uniform(*plan.latency))
            for name in "ABCDEFGHIJ"[: plan.hosts]
        ]
        for index, host in enumerate(self.hosts, 1):
            host.on_demand = plan.on_demand
            if plan.behind:
                host.outbox = Outbox(host, index, Lock(), self._outbox_name)
                self.oracle.outboxes.append(host.outbox)
        self.network = Network(world, store, plan.faults)
        self.hazards = plan.hazards
        if plan.bus is not None:
            self.bus_faults = plan.bus
        if plan.records:
            store.on_changed = self.records.check_put
            self.network.on_landing = self._landing
        self.finishing = False
        #: Whether there is, or is to be, a database in the dropped place.
        self.making = False
        self._serial = 0
        self._process_serial = 0

    def _outbox_name(self) -> int:
        self._outboxes += 1
        return self._outboxes

    def play(self) -> None:
        """Run it all; raises ``Violation``."""
        with patch.object(entry, "BLOB_ABOVE", self.plan.blob_above):
            self._play()

    def _play(self) -> None:
        world, plan = self.world, self.plan
        if plan.disaster:
            self._plan_disaster()
        if plan.edits:
            self._edit_sometimes()
        for host in self.hosts:
            for _ in range(plan.processes):
                self._start_process(host)
            if plan.keepers:
                self._start_keeper(host)
            self._plan_naps(host)
            if plan.old_copies:
                self._plan_an_old_copy(host)
        last, length = plan.phases[-1]
        world.run(last + length)
        self._finish()
        self.oracle.check_end()
        if plan.records:
            self._check_records()

    # Naps and disasters

    def _plan_naps(self, host: Host) -> None:
        random = self.world.random
        for index, (start, length) in enumerate(self.plan.phases[:-1]):
            if not self.world.chance(self.plan.naps):
                continue
            when = start + random.random() * length
            wakes, length = random.choice(self.plan.phases[index + 1 :])
            wakes += random.uniform(-0.3, 0.7) * length
            alone = random.random() < 0.5
            self.world.at(when, self._nap, host, alone, wakes)

    def _nap(self, host: Host, alone: bool, wakes: float) -> None:
        processes = host.processes
        if alone and processes:
            processes = [self.world.random.choice(processes)]
        for process in processes:
            process.pause(max(0.0, wakes - self.world.now))

    def _plan_an_old_copy(self, host: Host) -> None:
        random = self.world.random
        start, length = self.plan.phases[0]
        when = sorted(start + length * random.random() for _ in range(2))
        self.world.at(when[0], self._copy_outbox, host, when[1])

    def _copy_outbox(self, host: Host, back_at: float) -> None:
        if host.outbox is not None:
            self.world.note(host, "its outbox is copied")
            self.world.at(back_at, self._put_back, host, host.outbox.content)

    def _put_back(self, host: Host, copy: Content) -> None:
        """With its processes ended: nobody puts a file under SQLite."""
        if host.outbox is not None:
            self.world.note(host, "an old copy of its outbox is put back")
            for process in list(host.processes):
                self.restart(process)
            host.outbox.put_back(copy)

    def _plan_disaster(self) -> None:
        random = self.world.random
        start, length = self.plan.phases[0]
        if self.plan.disaster in ("dropped", "made in its place"):
            start, length = random.choice(self.plan.phases)
        when = start + length * random.random()
        if self.plan.disaster in ("restored", "copied back"):
            self.world.at(start + (when - start) * random.random(), self._back_up)
        self.world.at(when, self._disaster)

    def _back_up(self) -> None:
        self.world.note("", "-- the bucket is backed up --")
        self._backup = self.store.snapshot(), self.oracle.newest

    def _disaster(self) -> None:
        self.world.note("", f"-- the bucket is {self.plan.disaster} --")
        if self.plan.disaster in ("dropped", "made in its place"):
            self.oracle.drop()
            self._start_dropper(self.world.random.choice(self.hosts))
            if self.plan.disaster == "made in its place" and self.world.chance(0.7):
                later = self.world.random.expovariate(1.0)
                other = self.world.random.choice(self.hosts)
                self.world.after(later, self._start_dropper, other)
            return
        log = Log(DATABASE, [self.start])
        copied = self.plan.disaster == "copied back"
        if self.plan.disaster in ("restored", "copied back"):
            objects, number = self._backup
            log = self.oracle.log.until(number)
        elif self.plan.disaster == "made anew":
            objects, log = {}, Log("another", [self.start])
        else:
            objects = {}
        self.oracle.disaster(log, copied=copied, wiped=self.plan.disaster == "wiped")
        self.store.restore(objects, copied=copied)
        if self.plan.disaster == "made anew":
            self.store.put(HEAD, encode_head(Head("another")))

    def _is_unaware(self, began_at: float) -> bool:
        """Whether who began then may not know of a disaster.

        Hosts compare every ``CHECK_EVERY`` seconds. But where some had not
        done so yet and have written into a restored log, it is broken for
        good: whoever meets the place is loud, and nothing more is promised.
        """
        oracle = self.oracle
        if oracle.disaster_at is None or oracle.dropped or oracle.remade:
            return False
        broken = bool(oracle.strays) and not oracle.wiped
        return broken or began_at <= oracle.disaster_at + CHECK_EVERY

    # Records

    def _landing(self, who: object, request: Request, how: str) -> None:
        if is_record(request.key) and request.kind != "GET":
            dead = isinstance(who, Task) and not who.process.alive
            if how or dead:
                self.records.haunted.add(request.key)

    def _edit_sometimes(self) -> None:
        """Somebody with an S3 browser changes a record."""
        if self.finishing:
            return
        keys = [key for key in self.store.objects if is_record(key)]
        if keys:
            key = self.world.random.choice(keys)
            body = b"edited"
            self.world.note("", f"-- somebody changes {key} --")
            self.records.edited[key] = body
            self.store.put(key, body)
        delay = self.world.random.expovariate(1 / self.plan.edits)
        self.world.after(delay, self._edit_sometimes)

    def recording(self, *, everything: bool = False) -> Steps[Recorded]:
        """One round of writing records."""
        return write_records(
            RecordOptions(
                signing_keys=self.plan.signing_keys,
                lease=self.plan.lease,
                at_once=4,
                claim_above=2,
                everything=everything,
            )
        )

    def _run_at_the_end(self, steps: Steps[Any]) -> Any:
        results: list[Any] = []

        def ended(result: Any, error: Exception | None) -> None:
            if error is not None:
                raise Violation(f"records at the end: {error!r}")
            results.append(result)

        task = Task(self.hosts[0].processes[0], "rec", steps, ended, lambda: None)
        task.begin()
        self.world.run()
        return results[0]

    def _check_records(self) -> None:
        """They are what the rows are, but for what nobody could know of."""
        oracle, state = self.records, self.oracle.log.states[-1]
        self.world.run(self.world.now + self.plan.lease + 1.0)
        recorded: Recorded = self._run_at_the_end(self.recording())
        if recorded.busy or recorded.number != self.oracle.newest:
            raise Violation(f"records are not written: {recorded}")
        wrong = oracle.wrong(self.store.objects, state)
        if unknown := wrong - oracle.edited.keys() - oracle.haunted:
            raise Violation(f"records are not what the rows are: {sorted(unknown)}")
        findings = self._run_at_the_end(verify_records(self.plan.signing_keys))
        if {one.key for one in findings} != wrong:
            raise Violation(f"records that are wrong, {wrong}, and found: {findings}")
        self._run_at_the_end(self.recording(everything=True))
        wrong = oracle.wrong(self.store.objects, state)
        if wrong - oracle.edited.keys():
            raise Violation(f"records that cannot be mended: {sorted(wrong)}")
        for key, body in oracle.edited.items():
            if self.store.objects[key].body != body:
                raise Violation(f"{key} of somebody else is gone")

    # Processes and what they do

    def _start_process(self, host: Host) -> None:
        self._process_serial += 1
        process = Process(host, str(self._process_serial))
        for thread in range(self.plan.threads):
            Client(self, process, thread).rest()
        if host.outbox is not None:
            Sender(self, process).rest()

    def _start_keeper(self, host: Host) -> None:
        Keeper(self, Process(host, "k")).rest()

    def _start_dropper(self, host: Host) -> None:
        if not self.making:
            Dropper(self, Process(host, "d")).act()

    def _start_maker(self, host: Host) -> None:
        """From now on nobody begins to drop what is there.

        Who has not looked yet what it is that he drops would drop the new one.
        """
        self.making = True
        for other in self.hosts:
            for process in list(other.processes):
                if process.name[-1] == "d" and not process.has_looked:
                    process.kill()
        Maker(self, Process(host, "m")).act()

    def made_place(self) -> None:
        """The database is dropped, and whoever dropped it knows that."""
        if self.plan.disaster == "made in its place" and not self.making:
            self.making = True
            random = self.world.random
            for _ in range(random.choice([1, 1, 2])):
                delay = random.choice([0.1, 1.0, 60.0, 4000.0]) * random.random()
                host = random.choice(self.hosts)
                self.world.after(delay, self._start_maker, host)

    def _starts(self, process: Process) -> Callable[[Host], None]:
        """What starts another process like this one."""
        special = {
            "k": self._start_keeper,
            "d": self._start_dropper,
            "m": self._start_maker,
        }
        return special.get(process.name[-1], self._start_process)

    def restart(self, process: Process) -> None:
        host, start = process.host, self._starts(process)
        process.kill()
        boots = host.boots
        delay = self.world.random.expovariate(0.5)

        def again() -> None:
            if host.boots == boots:
                start(host)

        self.world.after(delay, again)

    def reboot(self, host: Host) -> None:
        started = [self._starts(process) for process in host.processes]
        special = [start for start in started if start != self._start_process]
        count = self.plan.processes
        host.crash()

        def again() -> None:
            for _ in range(count):
                self._start_process(host)
            for start in special:
                start(host)

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
        began_at = self.world.now
        write = self._new_write(batch)

        def ended(position: Any, error: Exception | None) -> None:
            if error is None:
                self.oracle.check_acknowledged(
                    write, position, task.results, self._is_unaware(began_at)
                )
            elif isinstance(error, CommitOutcomeUnknown):
                write.status = "unknown"
            else:
                write.status = "failed"
            write.error = error
            self.check_error(task, error)
            if error is None:
                self._tell_others(process.host, position.number)
            then()

        def abandoned() -> None:
            write.status = "lost"

        steps = self._committing(process, lambda: self.needed(task))
        task = Task(process, name, steps, ended, abandoned, write)
        self.world.note(task, f"{write}")
        task.begin()
        return write

    def _new_write(self, batch: Sequence[Statements]) -> Write:
        self._serial += 1
        write = Write(self._serial, batch, began=self.oracle.newest)
        self.oracle.writes.append(write)
        return write

    def _committing(
        self, process: Process, needed: Callable[[], frozenset[str]]
    ) -> Steps[Position]:
        options = CommitOptions(
            host=process.host.name,
            timeout=60.0 if self.finishing else self.plan.timeout,
            signing_keys=self.plan.signing_keys,
            turns=self.plan.bus is not None,
        )
        return self._loading(process, commit(options), needed)

    def run_send(self, process: Process, then: Callable[[], None]) -> None:
        """Have ``process`` send what its host has written behind."""

        def ended(result: Any, error: Exception | None) -> None:
            self.check_error(task, error)
            then()

        def abandoned() -> None:
            if task.write is not None and task.write.status == "running":
                task.write.status = "lost"

        steps = self._sending(process, lambda: task)
        task = Task(process, "s", steps, ended, abandoned)
        task.begin()

    def _sending(self, process: Process, task: Callable[[], Task]) -> Steps[None]:
        """Send, and have what is to be submitted committed."""

        def submit(effect: Effect) -> Steps[Mark | OldCopy] | None:
            if isinstance(effect, Submit):
                return self._submitting(process, task(), effect.commits)
            return None

        return with_other_steps(send(Sent()), submit)

    def _submitting(
        self, process: Process, task: Task, commits: Sequence[Waiting]
    ) -> Steps[Mark | OldCopy]:
        outbox = outbox_of(task)
        began_at = self.world.now
        batch = [SendBatch(outbox.outset(), tuple(commits))]
        write = task.write = self._new_write(batch)
        self.world.note(task, f"{write}")
        try:
            position = yield from self._committing(process, lambda: self.needed(task))
        except Exception as error:
            unknown = isinstance(error, CommitOutcomeUnknown)
            write.status, write.error = "unknown" if unknown else "failed", error
            raise
        self.oracle.check_acknowledged(
            write, position, task.results, self._is_unaware(began_at)
        )
        [outcome] = task.results
        return outcome if isinstance(outcome, Mark) else OldCopy()

    def _tell_others(self, host: Host, number: int) -> None:
        """Have the bus tell the other hosts of an entry, if there is one."""
        if self.plan.bus is None or self.finishing:
            return
        for other in self.hosts:
            if other is not host and not self.world.chance(self.bus_faults.lost):
                said = self.turns.said(number)
                self.world.after(self.turns.delay(), self._tell, other, said)

    def _tell(self, host: Host, number: int) -> None:
        if not host.processes or self.finishing:
            return

        def ended(result: Any, error: Exception | None) -> None:
            self.check_error(task, error)

        steps = advance(number, self.plan.signing_keys)
        task = Task(host.processes[0], "f", steps, ended, lambda: None)
        task.begin()

    def run_read(self, process: Process, name: str, then: Callable[[], None]) -> None:
        """Have ``process`` read what is the newest now."""
        began, began_at = self.oracle.newest, self.world.now
        host, boots = process.host, process.host.boots

        def ended(position: Any, error: Exception | None) -> None:
            self.check_error(task, error)
            if error is None and not self._is_unaware(began_at):
                self.oracle.check_fresh(task, position.number, began)
                if host.boots == boots:
                    self.oracle.check_fresh(task, host.replica.position.number, began)
            then()

        task = Task(process, name, self._reading(process), ended, lambda: None)
        self.world.note(task, "catch up")
        task.begin()

    def _reading(self, process: Process) -> Steps[Position]:
        """Catch up, and then load what is read, if it needs a pack or two.

        Now and then it needs but a row of each.
        """
        keys = self.plan.signing_keys
        position = yield from catch_up(keys)
        if process.host.on_demand:
            absent = sorted({one.pack.key for one in process.host.replica.absent})
            count = self.world.random.randint(0, min(len(absent), 2))
            some = self.world.random.sample(absent, count)
            is_enough = position.number % 5 == 0
            yield from load(frozenset(some), keys, is_enough)
        return position

    def _loading(
        self, process: Process, steps: Steps[T], needed: Callable[[], frozenset[str]]
    ) -> Steps[T]:
        """Run ``steps``; before they look at rows, load those that they need.

        As whoever performs ``Stage`` and ``Survey`` does.
        """
        keys = self.plan.signing_keys
        try:
            effect = next(steps)
            while True:
                try:
                    if isinstance(effect, Stage):
                        while some := needed():
                            yield from load(some, keys)
                    elif isinstance(effect, Survey) and self.packs_whole(process.host):
                        yield from load(None, keys)
                    result = yield effect
                except Exception as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            found: T = stop.value
            return found

    def packs_whole(self, host: Host) -> bool:
        """Whether the replica of ``host`` is loaded before it is packed."""
        return bool(host.replica.absent)

    def keeping(self, process: Process) -> Steps[Kept]:
        """One round of a keeper."""
        options = KeeperOptions(
            signing_keys=self.plan.signing_keys,
            pack_after=self.plan.pack_after,
            lease=self.plan.lease,
            grace=self.plan.grace,
            target=self.plan.target,
        )
        return self._loading(process, keep(options), frozenset)

    def check_error(self, task: Task, error: Exception | None) -> None:
        plan = self.plan
        loud = isinstance(error, (LogDiverged, EntryFormatError))
        if loud and (not plan.disaster or self._is_whole_to(error)):
            raise Violation(f"{task} was told {error!r}, but the log is whole")
        if error is not None and not isinstance(error, OperationalError):
            raise Violation(f"{task} was told {error!r}")
        nothing = plan.faults is NO_FAULTS and plan.hazards is NO_HAZARDS
        calm = nothing and not plan.disaster
        crowded = isinstance(error, StoreUnavailable) and "were first" in str(error)
        if calm and isinstance(error, (StoreError, CommitOutcomeUnknown)) > crowded:
            raise Violation(f"{task} was told {error!r} on a calm day")

    def _is_whole_to(self, error: Exception | None) -> bool:
        """Whether there is no reason for ``LogDiverged`` after a disaster."""
        return (
            isinstance(error, LogDiverged)
            and self.oracle.is_whole
            and not self.oracle.remade  # he may have asked before
        )

    # The end

    def _finish(self) -> None:
        """Mend everything, wait for all that is under way, and compare."""
        world = self.world
        world.note("", "-- from here on nothing goes wrong --")
        self.finishing = True
        self.hazards = NO_HAZARDS
        self.network.faults = NO_FAULTS
        world.run()
        if self.oracle.dropped:  # again, for who dropped it may have died
            self._start_dropper(self.hosts[0])
            world.run()
        if self.oracle.disaster_at is not None:
            world.run(max(world.now, self.oracle.disaster_at + CHECK_EVERY) + 1.0)
        for host in self.hosts:
            if not host.processes:
                raise Violation(f"{host} never came back")
            if host.outbox is not None:
                self.run_send(host.processes[0], lambda: None)
                world.run()
            told = self._commit_at_the_end(host)
            self._check_the_end(host, "commit", told)
        for host in self.hosts:
            told = self._catch_up_at_the_end(host)
            self._check_the_end(host, "read", told)
            behind = host.replica.position.number != self.oracle.newest
            if behind and self.oracle.is_whole:
                raise Violation(f"{host} stays behind")
        if self.oracle.is_whole:
            self._start_cold()

    def _start_cold(self) -> None:
        """Packs and tail are the log: a new host ends where all others are."""
        host = Host(self, "N", self.start, 0.01)
        Process(host, "1")
        told = self._catch_up_at_the_end(host)
        if told is not None or host.replica.position.number != self.oracle.newest:
            raise Violation(f"a new host cannot start: {told!r}")

    def _check_the_end(self, host: Host, doing: str, told: Exception | None) -> None:
        """All is well again; or, after some disasters, loudly not."""
        if self.oracle.is_whole:
            if told is not None:
                raise Violation(f"{host} cannot {doing} any more: {told!r}")
        elif self.oracle.dropped:
            if not isinstance(
                told, (LogDiverged, EntryFormatError, CommitOutcomeUnknown)
            ):
                raise Violation(f"{host} does not notice the drop: {told!r}")
        elif self.oracle.wiped:
            if not isinstance(told, LogDiverged):
                raise Violation(f"{host} does not notice the wiped bucket: {told!r}")
        elif not isinstance(
            told, (LogDiverged, EntryFormatError, CommitOutcomeUnknown, NoneType)
        ):
            raise Violation(f"{host} was told {told!r} of a broken log")

    def _commit_at_the_end(self, host: Host) -> Exception | None:
        write = self.run_write(host.processes[0], "end", [Increment(1)], lambda: None)
        self.world.run()
        return write.error

    def _catch_up_at_the_end(self, host: Host) -> Exception | None:
        errors: list[Exception | None] = []
        task = Task(
            host.processes[0],
            "end",
            catch_up(self.plan.signing_keys),
            lambda position, error: errors.append(error),
            lambda: None,
        )
        task.begin()
        self.world.run()
        return errors[0]


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
        elif run.world.chance(run.plan.behind):
            outbox = process.host.outbox
            if outbox is not None:
                outbox.take(is_possible=not run.world.chance(0.2))
            self.rest()
        elif run.world.random.random() < run.plan.writes:
            batch = run.plan.batch(run.world.random)
            run.run_write(process, self.name, batch, self.rest)
        else:
            run.run_read(process, self.name, self.rest)


class Sender:
    """The thread of a process that sends what is written behind."""

    def __init__(self, run: Simulation, process: Process) -> None:
        self.run = run
        self.process = process

    def rest(self) -> None:
        run = self.run
        if not run.finishing:
            when = run.next_moment(run.world.random.expovariate(1.0))
            if when is not None:
                run.world.at(when, self.act)

    def act(self) -> None:
        if not self.process.alive or self.run.finishing:
            return
        if self.run.world.now < self.process.paused_until:
            self.run.world.at(self.process.paused_until, self.act)
        else:
            self.run.run_send(self.process, self.rest)


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
        every = run.plan.keep_every if busy else 6 * 3600.0
        delay = run.world.random.expovariate(1 / every)
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

        def ended(result: Any, error: Exception | None) -> None:
            run.check_error(task, error)
            self.rest()

        steps: Steps[Any]
        if run.plan.records and run.world.random.random() < 0.7:
            steps = run.recording()
        else:
            steps = run.keeping(self.process)
        task = Task(self.process, "k", steps, ended, lambda: None)
        task.begin()


class Dropper:
    """A process that drops the database, and begins again until it is done.

    But for where there is another one by now.
    """

    def __init__(self, run: Simulation, process: Process) -> None:
        self.run = run
        self.process = process

    def act(self) -> None:
        def ended(result: Any, error: Exception | None) -> None:
            if error is None:
                self.run.made_place()
            elif not self.run.making:
                self.run.world.after(1.0, self.act)

        if self.process.alive and not self.run.making:
            self.process.has_looked = False
            Task(self.process, "d", self.steps(), ended, lambda: None).begin()

    def steps(self) -> Steps[int]:
        ended = yield from with_other_steps(ending.begin_drop(), self._look)
        return (yield from ending.finish_drop(ended))

    def _look(self, effect: Effect) -> Steps[Any] | None:
        return self._noted(effect) if effect == Get(HEAD) else None

    def _noted(self, effect: Effect) -> Steps[Any]:
        answer: Any = yield effect
        self.process.has_looked = True
        return answer


class Maker:
    """A process that makes a database where one was, until it is there."""

    def __init__(self, run: Simulation, process: Process) -> None:
        self.run = run
        self.process = process

    def act(self) -> None:
        def ended(result: Any, error: Exception | None) -> None:
            if error is not None:
                self.run.world.after(1.0, self.act)
            elif not self.run.oracle.remade:
                raise Violation(f"{task} has made no database")

        if self.process.alive:
            steps = begin_in_place_of_dropped(self.run.plan.signing_keys)
            task = Task(self.process, "m", steps, ended, lambda: None)
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
