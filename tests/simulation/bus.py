"""A Redis between the hosts: it gives turns, tells of entries, and fails.

Turns go by a queue. Their messages come late or never, a turn lapses, and what
it says of the log may be old or wrong; so may hints, which hosts get when
somebody has committed. Nothing that is promised may depend on any of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from s3cache.log import effects as e

from .world import World

if TYPE_CHECKING:
    from .host import Host, Task

#: Seconds from one side to the other.
LATENCY = 0.0002

#: Seconds after which a turn that is not passed on is over.
LEASE = 1.0


@dataclass(frozen=True, slots=True)
class BusFaults:
    """How often a message is lost, late, or wrong; how often all is down."""

    lost: float = 0.0
    late: float = 0.0
    wrong: float = 0.0
    down: float = 0.0


class GivenTurn(e.Turn):
    """The turn of a task, until it passes it on, or is too late for that."""

    def __init__(self, turns: Turns, task: Task, number: int) -> None:
        self._turns = turns
        self.task = task
        self.number = number

    def __repr__(self) -> str:
        return f"a turn, the log is at {self.number}"

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.task.process.alive:
            self._turns.pass_on(self, self.task.host.replica.position.number)


class Turns:
    """Who has the turn, and who waits for it."""

    def __init__(self, world: World, faults: Callable[[], BusFaults]) -> None:
        self.world = world
        self.faults = faults
        self.number = 0
        self.given = 0
        self._holder: GivenTurn | None = None
        self._waiting: deque[Task] = deque()

    def take(self, task: Task, patience: float) -> Any:
        """None if there is nobody to ask; else the task waits."""
        if self.world.chance(self.faults().down):
            return False
        self._waiting.append(task)
        for host in task.run.hosts:
            if host is not task.host and not self.world.chance(self.faults().lost):
                self.world.after(self.delay(), self._hear, host)

        def give_up() -> None:
            if task in self._waiting:
                self._waiting.remove(task)
                task.wake(None)

        self.world.after(patience, give_up)
        self.world.after(2 * LATENCY, self._give)
        return True

    def _hear(self, host: Host) -> None:
        """A host hears that another one wants to write."""
        host.shared = replace(host.shared, foreign_at=host.clock())

    def _give(self) -> None:
        while self._holder is None and self._waiting:
            task = self._waiting.popleft()
            if not task.process.alive:
                continue
            turn = self._holder = GivenTurn(self, task, self.said(self.number))
            self.given += 1
            self.world.after(LEASE, self._lapse, turn)
            if self.world.chance(self.faults().lost):
                self.world.after(LEASE, task.wake, None)
            else:
                self.world.after(self.delay(), task.wake, turn)

    def _lapse(self, turn: GivenTurn) -> None:
        if self._holder is turn:
            self._holder = None
            self._give()

    def pass_on(self, turn: GivenTurn, number: int) -> None:
        """Let the next one have its turn, if it is still this one's."""
        self.number = max(self.number, number)

        def arrive() -> None:
            self._lapse(turn)

        if not self.world.chance(self.faults().lost):
            self.world.after(self.delay(), arrive)

    def delay(self) -> float:
        """How long a message takes."""
        if self.world.chance(self.faults().late):
            return self.world.random.choice([0.1, 1.0, 30.0])
        return LATENCY

    def said(self, number: int) -> int:
        """A number as it is told: mostly what it was."""
        if not self.world.chance(self.faults().wrong):
            return number
        return max(0, number + self.world.random.choice([-3, -1, 1, 2, 10, 10**6]))
