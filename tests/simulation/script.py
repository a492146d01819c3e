"""Runs by hand, for what chance would need a million seeds to find.

A ``Script`` is a simulation in which nobody acts unless told to, and in which
a process can be made to sleep exactly before a certain effect.
"""

from __future__ import annotations

from typing import Any

from s3cache.log.catch_up import load
from s3cache.log.effects import Effect

from .host import _WAITING, Hazards, Host, Process, Task
from .scenario import Dropper, Maker, Scenario, Simulation
from .store import DAY
from .workload import Increment, Write


class Script(Simulation):
    """A world with hosts A, B, C and D, one process each."""

    def __init__(self, *, tracing: bool = False, **plan: Any) -> None:
        super().__init__(0, Scenario(hosts=4, **PLAN | plan), tracing=tracing)
        self._stops: list[tuple[Process, type, str, float]] = []
        self.process = {host.name: Process(host, "1") for host in self.hosts}

    def host(self, name: str) -> Host:
        return self.process[name].host

    def write(self, name: str, key: int = 1) -> Write:
        """Have a host begin an increment."""
        process = self.process[name]
        return self.run_write(process, "w", [Increment(key)], lambda: None)

    def read(self, name: str) -> None:
        """Have a host begin to catch up."""
        self.run_read(self.process[name], "r", lambda: None)

    def keep(self, name: str) -> None:
        """Have a host pack and trim, and wait until it has."""
        process = Process(self.host(name), "k")

        def ended(result: Any, error: Exception | None) -> None:
            self.check_error(task, error)

        task = Task(process, "k", self.keeping(process), ended, lambda: None)
        task.begin()
        self.wait(60.0)
        process.kill()

    def drop(self, name: str) -> None:
        """Have a host begin to drop the database."""
        self.oracle.drop()
        Dropper(self, self.process[name]).act()

    def make(self, name: str) -> None:
        """Have a host begin to make a database where one was dropped."""
        self.making = True
        Maker(self, self.process[name]).act()

    def load(self, name: str) -> None:
        """Have a host begin to load all that it lacks."""
        process = self.process[name]

        def ended(result: Any, error: Exception | None) -> None:
            self.check_error(task, error)

        task = Task(process, "l", load(None, ()), ended, lambda: None)
        task.begin()

    def wait(self, seconds: float = 5.0) -> None:
        """Let time pass."""
        self.world.run(self.world.now + seconds)

    def wait_a_day(self) -> None:
        self.wait(DAY + 60.0)

    def stop(self, name: str, effect: type, wakes: float, key: str = "") -> None:
        """Have a process sleep before its next such effect, until ``wakes``.

        ``key`` is how the effect's key begins, if it has one.
        """
        self._stops.append((self.process[name], effect, key, wakes))

    def perform(self, task: Task, effect: Effect) -> Any:
        for stop in self._stops:
            process, kind, key, wakes = stop
            if task.process is process and type(effect) is kind:
                keys = getattr(effect, "keys", [getattr(effect, "key", "")])
                if keys and keys[0].startswith(key):
                    self._stops.remove(stop)
                    process.pause(wakes - self.world.now)
                    self.world.at(process.paused_until, self._go_on, task, effect)
                    return _WAITING
        return super().perform(task, effect)

    def _go_on(self, task: Task, effect: Effect) -> None:
        result = super().perform(task, effect)
        if result is not _WAITING:
            task.wake(result)

    def end(self) -> None:
        """Check everything."""
        self._finish()
        self.oracle.check_end()


PLAN: dict[str, Any] = {
    "phases": (),
    "keepers": False,
    "latency": (0.01, 0.01),
    "hazards": Hazards(switch=0.0),
}
