"""Virtual time, randomness and the trace of one run."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any


class Violation(Exception):
    """An invariant does not hold."""


class World:
    """A queue of events in virtual time, and the run's only randomness.

    The same seed gives the same run, event by event, on every machine.
    """

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.tracing = tracing
        self.trace: list[str] = []
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Have ``call`` called at the moment ``when``."""
        self._serial += 1
        heapq.heappush(self._queue, (max(when, self.now), self._serial, call, args))

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        """Have ``call`` called in ``delay`` seconds."""
        self.at(self.now + delay, call, *args)

    def run(self, until: float = float("inf")) -> None:
        """Let everything happen that is due by ``until``."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _serial, call, args = heapq.heappop(queue)
            call(*args)
        if until != float("inf"):
            self.now = max(self.now, until)

    def note(self, who: object, text: str) -> None:
        """Add a line to the trace."""
        if self.tracing:
            self.trace.append(f"{clock(self.now):>15}  {who!s:<8} {text}")

    def chance(self, probability: float) -> bool:
        """True as often as ``probability`` says."""
        return probability > 0 and self.random.random() < probability


def clock(seconds: float) -> str:
    """Virtual time, for people: ``1d 02:03:04.567``."""
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    day = f"{int(days)}d " if days else ""
    return f"{day}{int(hours):02}:{int(minutes):02}:{rest:06.3f}"
